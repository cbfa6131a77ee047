// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// lenientCodec is gRPC's protobuf codec, but for requests that cannot be
// decoded. gRPC answers the error of a codec with INTERNAL, whatever it is, and
// before an interceptor runs. So the codec lets such a request pass with a mark
// that guard refuses. It does the same with one that is too large, since gRPC's own
// refusal is a bare code: no class, no reason, and of a stream no word on how far it
// came.
type lenientCodec struct{ encoding.CodecV2 }

func newCodec() lenientCodec { return lenientCodec{encoding.GetCodecV2(grpcproto.Name)} }

// These begin the unknown fields of a request that was not decoded; the reason
// follows. No message that was decoded has them there: a field number of 0 is
// refused.
const (
	undecodedTag = 0
	tooLargeTag  = 1
)

// freelyDecoded is how large a request may be whose messages are not counted
// before they are decoded.
const freelyDecoded = 256 << 10

// Unmarshal implements encoding.CodecV2.
func (c lenientCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if n := data.Len(); n > maxMessageBytes {
		proto.Reset(m)
		m.ProtoReflect().SetUnknown(fmt.Appendf([]byte{tooLargeTag}, "%d bytes, more than %d", n, maxMessageBytes))
		return nil
	}
	var err error
	if data.Len() > freelyDecoded {
		whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer whole.Free()
		data = mem.BufferSlice{whole}
		if left := maxObjects; !countObjects(whole.ReadOnlyData(), m.ProtoReflect().Descriptor(), 0, &left) {
			err = fmt.Errorf("it has more than %d messages within, or more than %d levels", maxObjects, maxJSONDepth)
		}
	}
	if err == nil {
		err = c.CodecV2.Unmarshal(data, v)
	}
	if err == nil {
		return nil
	}
	proto.Reset(m)
	m.ProtoReflect().SetUnknown(append([]byte{undecodedTag}, err.Error()...))
	return nil
}

// countObjects reports whether a message has at most left messages within, none of
// them deeper than JSON may be. What is not protobuf is left to who decodes it.
func countObjects(b []byte, d protoreflect.MessageDescriptor, depth int, left *int) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return true
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return true
		}
		fd := d.Fields().ByNumber(number)
		if fd != nil && fd.Message() != nil && kind == protowire.BytesType {
			if *left--; *left < 0 || depth == maxJSONDepth {
				return false
			}
			if inner, _ := protowire.ConsumeBytes(b); !countObjects(inner, fd.Message(), depth+1, left) {
				return false
			}
		}
		b = b[n:]
	}
	return true
}

// checkDecoded refuses a request that lenientCodec has marked.
func checkDecoded(req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	mark := m.ProtoReflect().GetUnknown()
	switch {
	case len(mark) == 0:
		return nil
	case mark[0] == undecodedTag:
		return invalidf("", "the request could not be decoded: %s", mark[1:])
	case mark[0] == tooLargeTag:
		return fmt.Errorf("%w: %s", ErrBodyTooLarge, mark[1:])
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
