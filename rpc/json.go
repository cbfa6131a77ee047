// SPDX-License-Identifier: Apache-2.0

package rpc

import "google.golang.org/protobuf/proto"

// DecodeJSON fills m from JSON in the form of the REST API; for tools that take
// filters and print replies as curl would.
func DecodeJSON(text []byte, m proto.Message) error { return decodeJSON(text, m) }

// EncodeJSON is m in the form of the REST API.
func EncodeJSON(m proto.Message) []byte { return appendJSON(nil, m.ProtoReflect()) }
