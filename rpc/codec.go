// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// lenientCodec is gRPC's protobuf codec, but for requests that cannot be
// decoded. gRPC answers the error of a codec with INTERNAL, whatever it is, and
// before an interceptor runs. So the codec lets such a request pass with a mark
// that guard refuses.
type lenientCodec struct{ encoding.CodecV2 }

func newCodec() lenientCodec { return lenientCodec{encoding.GetCodecV2(grpcproto.Name)} }

// undecodedTag begins the unknown fields of a request that was not decoded; the
// reason follows. No message that was decoded has it there: a field number of 0
// is refused.
const undecodedTag = 0

// Unmarshal implements encoding.CodecV2.
func (c lenientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	proto.Reset(m)
	m.ProtoReflect().SetUnknown(append([]byte{undecodedTag}, err.Error()...))
	return nil
}

// checkDecoded refuses a request that lenientCodec has marked.
func checkDecoded(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	if mark := m.ProtoReflect().GetUnknown(); len(mark) > 0 && mark[0] == undecodedTag {
		return invalidf("", "the request could not be decoded: %s", mark[1:])
	}
	return nil
}

// decodedStream is a stream whose messages are checked as they come.
type decodedStream struct{ grpc.ServerStream }

// RecvMsg implements grpc.ServerStream.
func (s decodedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return checkDecoded(m)
}
