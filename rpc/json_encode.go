// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// jsonMarshaler is the JSON of the REST API; docs/rest.md states its rules.
type jsonMarshaler struct{}

var _ runtime.Marshaler = jsonMarshaler{}

// ContentType implements runtime.Marshaler.
func (jsonMarshaler) ContentType(any) string { return "application/json" }

// Marshal implements runtime.Marshaler. The answer to a dropped collection is
// empty: its status is 204.
func (jsonMarshaler) Marshal(v any) ([]byte, error) {
	switch m := v.(type) {
	case *collectionv1.DeleteCollectionResponse:
		return nil, nil
	case proto.Message:
		return appendJSON(make([]byte, 0, 512), m.ProtoReflect()), nil
	}
	return nil, fmt.Errorf("rpc: marshal %T: not a message", v)
}

// Unmarshal implements runtime.Marshaler.
func (jsonMarshaler) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("rpc: unmarshal %T: not a message", v)
	}
	return decodeJSON(data, m)
}

// NewDecoder implements runtime.Marshaler. The gateway turns a decoder's error
// into text; a restBody keeps it whole for the error handler.
func (j jsonMarshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		body, ok := r.(*restBody)
		if !ok {
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			return j.Unmarshal(data, v)
		}
		data, err := body.readAll()
		if err == nil {
			err = j.Unmarshal(data, v)
			body.note(v)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			body.err = err
		}
		return err
	})
}

// NewEncoder implements runtime.Marshaler.
func (j jsonMarshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := j.Marshal(v)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
}

// appendJSON appends a message. Scalars and lists are always there; what has
// presence is left out when it is not set, but for external_id and document,
// which the single-node AkiDB sent as null.
func appendJSON(b []byte, m protoreflect.Message) []byte {
	switch v := m.Interface().(type) {
	case *collectionv1.Json:
		if len(v.Raw) == 0 {
			return append(b, "null"...)
		}
		return append(b, v.Raw...)
	case *collectionv1.Value:
		return appendValue(b, v)
	}
	fields := m.Descriptor().Fields()
	b = append(b, '{')
	empty := true
	for i := range fields.Len() {
		fd := fields.Get(i)
		null := false
		switch {
		case fd.IsList() && fd.Kind() == protoreflect.FloatKind:
			if !m.Has(fd) {
				continue
			}
		case fd.HasPresence() && !m.Has(fd):
			if null = fd.Name() == "external_id" || fd.Name() == "document"; !null {
				continue
			}
		}
		if !empty {
			b = append(b, ',')
		}
		empty = false
		b = append(b, '"')
		b = append(b, fd.Name()...)
		b = append(b, '"', ':')
		switch {
		case null:
			b = append(b, "null"...)
		case fd.IsList() && fd.Kind() == protoreflect.FloatKind:
			b = appendFloats(b, m, fd)
		case fd.IsList():
			b = appendList(b, m.Get(fd).List(), fd)
		default:
			b = appendField(b, m.Get(fd), fd)
		}
	}
	return append(b, '}')
}

func appendList(b []byte, l protoreflect.List, fd protoreflect.FieldDescriptor) []byte {
	b = append(b, '[')
	for i := range l.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendField(b, l.Get(i), fd)
	}
	return append(b, ']')
}

func appendFloats(b []byte, m protoreflect.Message, fd protoreflect.FieldDescriptor) []byte {
	p := floatField(m)
	if p == nil {
		return appendList(b, m.Get(fd).List(), fd)
	}
	b = append(b, '[')
	for i, f := range *p {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendFloat(b, float64(f), 32)
	}
	return append(b, ']')
}

func appendField(b []byte, v protoreflect.Value, fd protoreflect.FieldDescriptor) []byte {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return appendJSON(b, v.Message())
	case protoreflect.StringKind:
		return appendString(b, v.String())
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool())
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10)
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return strconv.AppendUint(b, v.Uint(), 10)
	case protoreflect.FloatKind:
		return appendFloat(b, v.Float(), 32)
	case protoreflect.DoubleKind:
		return appendFloat(b, v.Float(), 64)
	}
	panic("rpc: no JSON for fields of kind " + fd.Kind().String())
}

func appendValue(b []byte, v *collectionv1.Value) []byte {
	switch k := v.GetKind().(type) {
	case *collectionv1.Value_StringValue:
		return appendString(b, k.StringValue)
	case *collectionv1.Value_IntValue:
		return strconv.AppendInt(b, k.IntValue, 10)
	case *collectionv1.Value_DoubleValue:
		return appendDouble(b, k.DoubleValue)
	case *collectionv1.Value_BoolValue:
		return strconv.AppendBool(b, k.BoolValue)
	}
	return append(b, "null"...)
}

// appendDouble writes a double so that it is read back as one, not as an integer.
func appendDouble(b []byte, f float64) []byte {
	from := len(b)
	b = appendFloat(b, f, 64)
	for _, c := range b[from:] {
		if c == '.' || c == 'e' || c == 'n' {
			return b
		}
	}
	return append(b, ".0"...)
}

// appendFloat writes the shortest text that is read back as the same float. JSON
// has no word for what is not finite: null.
func appendFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

const hexDigits = "0123456789abcdef"

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[from:i]...), `\ufffd`...)
				i++
				from = i
				continue
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}
