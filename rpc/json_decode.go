// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// jsonDecoder reads one JSON request into a message of the API. It differs from
// protojson where the API does: names are the snake_case names of the protos
// only, Json and Value stand for themselves, an unknown or repeated name is
// refused with its path, and arrays of floats take a path without reflection,
// since they are nearly all the bytes of a request.
//
// Strings of the message are copied out of buf; Json.raw aliases it.
type jsonDecoder struct {
	buf   []byte
	pos   int
	depth int
	base  int // depth at which the limit that counts begins
	// objects counts the messages that were begun.
	objects int
	path    []pathElem
	// unique refuses names that an object has twice; where it is not set, skip
	// leaves that to who reads the object.
	unique bool
}

// pathElem is a name, or an index if name is empty.
type pathElem struct {
	name  string
	index int
}

// decodeJSON fills m from body. An empty body is io.EOF, as the gateway expects
// of a decoder.
func decodeJSON(body []byte, m proto.Message) error {
	d := &jsonDecoder{buf: body}
	d.space()
	if d.pos == len(d.buf) {
		return io.EOF
	}
	if err := d.message(m.ProtoReflect()); err != nil {
		return err
	}
	d.space()
	if d.pos != len(d.buf) {
		return d.malformed("unexpected text after the JSON value")
	}
	return nil
}

func (d *jsonDecoder) malformed(what string) error {
	return &invalidError{
		reason:     reasonMalformedJSON,
		violations: []violation{{field: d.pathString(), description: fmt.Sprintf("malformed JSON at offset %d: %s", d.pos, what)}},
		offset:     d.pos, hasOffset: true,
	}
}

func (d *jsonDecoder) refuse(what string) error {
	return invalid(d.pathString(), what)
}

func (d *jsonDecoder) pathString() string {
	var b []byte
	for _, e := range d.path {
		if e.name == "" {
			b = append(b, '[')
			b = strconv.AppendInt(b, int64(e.index), 10)
			b = append(b, ']')
			continue
		}
		if len(b) > 0 {
			b = append(b, '.')
		}
		b = append(b, e.name...)
	}
	return string(b)
}

func (d *jsonDecoder) push(name string)     { d.path = append(d.path, pathElem{name: name}) }
func (d *jsonDecoder) pushIndex(index int)  { d.path = append(d.path, pathElem{index: index}) }
func (d *jsonDecoder) pop()                 { d.path = d.path[:len(d.path)-1] }
func (d *jsonDecoder) rest(from int) string { return unsafeString(d.buf[from:d.pos]) }

// unsafeString views b as a string; b must not change while it is used.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (d *jsonDecoder) space() {
	for d.pos < len(d.buf) {
		switch d.buf[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek skips space and returns the next byte, 0 at the end.
func (d *jsonDecoder) peek() byte {
	d.space()
	if d.pos == len(d.buf) {
		return 0
	}
	return d.buf[d.pos]
}

func (d *jsonDecoder) expect(c byte) error {
	if d.peek() != c {
		return d.malformed("expected '" + string(c) + "'" + d.found())
	}
	d.pos++
	return nil
}

func (d *jsonDecoder) found() string {
	if d.pos >= len(d.buf) {
		return ", found the end of the text"
	}
	r, _ := utf8.DecodeRune(d.buf[d.pos:])
	return fmt.Sprintf(", found %q", r)
}

// literal consumes word if it stands next.
func (d *jsonDecoder) literal(word string) bool {
	end := d.pos + len(word)
	if end > len(d.buf) || string(d.buf[d.pos:end]) != word {
		return false
	}
	d.pos = end
	return true
}

func (d *jsonDecoder) enter() error {
	if d.depth++; d.depth > maxJSONDepth {
		return d.refuse(fmt.Sprintf("nested deeper than %d levels", maxJSONDepth-d.base))
	}
	return nil
}

// asPayload makes the bound of payloads count from here on.
func (d *jsonDecoder) asPayload() {
	d.base = maxJSONDepth - maxPayloadDepth
	d.depth = d.base
}

func (d *jsonDecoder) message(m protoreflect.Message) error {
	if d.objects++; d.objects > maxObjects {
		return d.refuse(fmt.Sprintf("the request has more than %d objects and values", maxObjects))
	}
	var needed uint64 // fields that have no default, by position
	switch v := m.Interface().(type) {
	case *collectionv1.GeoRadius:
		needed = 1<<m.Descriptor().Fields().Len() - 1
	case *collectionv1.Json:
		d.space()
		from, depth := d.pos, d.depth
		d.asPayload()
		if err := d.skip(); err != nil {
			return err
		}
		d.depth, d.base = depth, 0
		v.Raw = d.buf[from:d.pos:d.pos]
		return nil
	case *collectionv1.Value:
		return d.scalarValue(v)
	}
	if c := d.peek(); c != '{' {
		return d.wrongType("an object")
	}
	if err := d.enter(); err != nil {
		return err
	}
	d.pos++
	fields := m.Descriptor().Fields()
	var seen uint64 // by position of the field; no message has more than 64
	for first := true; ; first = false {
		c := d.peek()
		if c == '}' {
			if needed != 0 {
				d.push(string(fields.Get(bits.TrailingZeros64(needed)).Name()))
				return d.refuse("must be given")
			}
			d.pos++
			d.depth--
			return nil
		}
		if !first {
			if err := d.expect(','); err != nil {
				return err
			}
			c = d.peek()
		}
		if c != '"' {
			return d.malformed("expected a name in double quotes" + d.found())
		}
		name, err := d.stringToken()
		if err != nil {
			return err
		}
		fd := fields.ByName(protoreflect.Name(name))
		if fd == nil {
			d.push(string([]byte(name)))
			return d.refuse("unknown field")
		}
		d.push(string(fd.Name()))
		if seen&(1<<fd.Index()) != 0 {
			return d.refuse("given twice")
		}
		seen |= 1 << fd.Index()
		if err := d.expect(':'); err != nil {
			return err
		}
		if d.peek() != 'n' { // null is as if it were not given
			needed &^= 1 << fd.Index()
		}
		if err := d.field(m, fd); err != nil {
			return err
		}
		d.pop()
	}
}

func (d *jsonDecoder) field(m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
	if d.peek() == 'n' && d.literal("null") {
		return nil // as if it were not given
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		if other := m.WhichOneof(o); other != nil {
			return d.refuse("not together with " + string(other.Name()))
		}
	}
	switch {
	case fd.IsList() && fd.Kind() == protoreflect.FloatKind:
		v, err := d.floats()
		if err != nil {
			return err
		}
		setFloats(m, fd, v)
		return nil
	case fd.IsList():
		return d.list(m.Mutable(fd).List(), fd)
	case fd.Kind() == protoreflect.MessageKind:
		return d.message(m.Mutable(fd).Message())
	}
	v, err := d.scalar(fd.Kind())
	if err != nil {
		return err
	}
	m.Set(fd, v)
	return nil
}

func (d *jsonDecoder) list(l protoreflect.List, fd protoreflect.FieldDescriptor) error {
	if d.peek() != '[' {
		return d.wrongType("an array")
	}
	if err := d.enter(); err != nil {
		return err
	}
	d.pos++
	for i := 0; ; i++ {
		if d.peek() == ']' {
			d.pos++
			d.depth--
			return nil
		}
		if i > 0 {
			if err := d.expect(','); err != nil {
				return err
			}
			d.space()
		}
		d.pushIndex(i)
		if fd.Kind() == protoreflect.MessageKind {
			if err := d.message(l.AppendMutable().Message()); err != nil {
				return err
			}
		} else {
			v, err := d.scalar(fd.Kind())
			if err != nil {
				return err
			}
			l.Append(v)
		}
		d.pop()
	}
}

// wrongType says that what stands next is not what is wanted there, or that it
// is not JSON at all.
func (d *jsonDecoder) wrongType(want string) error {
	if err := d.skip(); err != nil {
		return err
	}
	return d.refuse("must be " + want)
}

func (d *jsonDecoder) scalar(k protoreflect.Kind) (protoreflect.Value, error) {
	c := d.peek()
	switch k {
	case protoreflect.StringKind:
		if c != '"' {
			return protoreflect.Value{}, d.wrongType("a string")
		}
		s, err := d.stringToken()
		return protoreflect.ValueOfString(string([]byte(s))), err
	case protoreflect.BoolKind:
		switch {
		case d.literal("true"):
			return protoreflect.ValueOfBool(true), nil
		case d.literal("false"):
			return protoreflect.ValueOfBool(false), nil
		}
		return protoreflect.Value{}, d.wrongType("true or false")
	case protoreflect.Int32Kind:
		n, err := d.integer(math.MinInt32, math.MaxInt32)
		return protoreflect.ValueOfInt32(int32(n)), err
	case protoreflect.Uint32Kind:
		n, err := d.integer(0, math.MaxUint32)
		return protoreflect.ValueOfUint32(uint32(n)), err
	case protoreflect.Int64Kind:
		n, err := d.integer(math.MinInt64, math.MaxInt64)
		return protoreflect.ValueOfInt64(n), err
	case protoreflect.Uint64Kind:
		n, err := d.unsigned()
		return protoreflect.ValueOfUint64(n), err
	case protoreflect.FloatKind:
		f, err := d.float32Value()
		return protoreflect.ValueOfFloat32(f), err
	case protoreflect.DoubleKind:
		f, err := d.float64Value()
		return protoreflect.ValueOfFloat64(f), err
	}
	return protoreflect.Value{}, d.refuse("cannot be given in JSON")
}

// scalarValue reads a plain scalar. A number without fraction and exponent that
// fits is an integer.
func (d *jsonDecoder) scalarValue(v *collectionv1.Value) error {
	switch c := d.peek(); {
	case c == '"':
		s, err := d.stringToken()
		v.Kind = &collectionv1.Value_StringValue{StringValue: string([]byte(s))}
		return err
	case c == 't' && d.literal("true"):
		v.Kind = &collectionv1.Value_BoolValue{BoolValue: true}
		return nil
	case c == 'f' && d.literal("false"):
		v.Kind = &collectionv1.Value_BoolValue{BoolValue: false}
		return nil
	case c == '-' || '0' <= c && c <= '9':
		text, isInt, err := d.numberToken()
		if err != nil {
			return err
		}
		if isInt {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				v.Kind = &collectionv1.Value_IntValue{IntValue: n}
				return nil
			}
		}
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return d.refuse("number out of range")
		}
		v.Kind = &collectionv1.Value_DoubleValue{DoubleValue: f}
		return nil
	}
	return d.wrongType("a string, a number, true or false")
}

// stringToken reads a string; the result may alias buf.
func (d *jsonDecoder) stringToken() (string, error) {
	d.pos++ // the quote
	from := d.pos
	for d.pos < len(d.buf) {
		switch c := d.buf[d.pos]; {
		case c == '"':
			if s := d.buf[from:d.pos]; utf8.Valid(s) {
				d.pos++
				return unsafeString(s), nil
			}
			return "", d.malformed("string is not UTF-8")
		case c == '\\':
			return d.escapedString(from)
		case c < ' ':
			return "", d.malformed("control character in a string")
		default:
			d.pos++
		}
	}
	return "", d.malformed("string without end")
}

func (d *jsonDecoder) escapedString(from int) (string, error) {
	out := append([]byte(nil), d.buf[from:d.pos]...)
	for d.pos < len(d.buf) {
		c := d.buf[d.pos]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", d.malformed("string is not UTF-8")
			}
			d.pos++
			return unsafeString(out), nil
		case c < ' ':
			return "", d.malformed("control character in a string")
		case c != '\\':
			out = append(out, c)
			d.pos++
		default:
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		}
	}
	return "", d.malformed("string without end")
}

// escape reads one escape sequence, or two that make a surrogate pair.
func (d *jsonDecoder) escape() (rune, error) {
	if d.pos+1 >= len(d.buf) {
		d.pos = len(d.buf)
		return 0, d.malformed("string without end")
	}
	c := d.buf[d.pos+1]
	if i := indexByte(`"\/bfnrt`, c); i >= 0 {
		d.pos += 2
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	if c != 'u' {
		return 0, d.malformed("unknown escape in a string")
	}
	r, ok := d.hex4()
	if !ok {
		return 0, d.malformed("\\u needs four hexadecimal digits")
	}
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	if d.pos+1 < len(d.buf) && d.buf[d.pos] == '\\' && d.buf[d.pos+1] == 'u' {
		low, ok := d.hex4()
		if full := utf16.DecodeRune(r, low); ok && full != utf8.RuneError {
			return full, nil
		}
	}
	return 0, d.malformed("half of a surrogate pair in a string")
}

// hex4 reads \uXXXX at pos.
func (d *jsonDecoder) hex4() (rune, bool) {
	if d.pos+6 > len(d.buf) {
		return 0, false
	}
	var r rune
	for _, c := range d.buf[d.pos+2 : d.pos+6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	d.pos += 6
	return r, true
}

func indexByte(s string, c byte) int {
	for i := range len(s) {
		if s[i] == c {
			return i
		}
	}
	return -1
}

// skip passes over any JSON value and checks its syntax.
func (d *jsonDecoder) skip() error {
	switch c := d.peek(); {
	case c == '{' || c == '[':
		return d.skipComposite(c)
	case c == '"':
		_, err := d.stringToken()
		return err
	case c == '-' || '0' <= c && c <= '9':
		_, _, err := d.numberToken()
		return err
	case d.literal("true") || d.literal("false") || d.literal("null"):
		return nil
	}
	return d.malformed("expected a value" + d.found())
}

func (d *jsonDecoder) skipComposite(open byte) error {
	if err := d.enter(); err != nil {
		return err
	}
	d.pos++
	var names nameSet
	end := open + 2 // ']' and '}' stand two after '[' and '{'
	for first := true; ; first = false {
		if d.peek() == end {
			d.pos++
			d.depth--
			return nil
		}
		if !first {
			if err := d.expect(','); err != nil {
				return err
			}
		}
		if open == '{' {
			if d.peek() != '"' {
				return d.malformed("expected a name in double quotes" + d.found())
			}
			name, err := d.stringToken()
			if err != nil {
				return err
			}
			if d.unique && !names.add(name) {
				return d.refuse(fmt.Sprintf("name %q is given twice", name))
			}
			if err := d.expect(':'); err != nil {
				return err
			}
		} else if !first && d.peek() == end {
			return d.malformed("expected a value" + d.found())
		}
		if err := d.skip(); err != nil {
			return err
		}
	}
}

// nameSet finds a name that comes twice. Most objects have few names, for which
// looking at all of them is faster than a map.
type nameSet struct {
	few  [12]string
	n    int
	many map[string]struct{}
}

// add returns false if the name is there already.
func (s *nameSet) add(name string) bool {
	if s.many != nil {
		before := len(s.many)
		s.many[name] = struct{}{}
		return len(s.many) > before
	}
	for _, other := range s.few[:s.n] {
		if other == name {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	s.many = make(map[string]struct{}, 4*len(s.few))
	for _, other := range s.few {
		s.many[other] = struct{}{}
	}
	s.many[name] = struct{}{}
	return true
}
