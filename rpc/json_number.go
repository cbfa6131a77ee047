// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// numberToken reads a JSON number; isInt is true if it has neither fraction nor
// exponent. The text aliases buf.
func (d *jsonDecoder) numberToken() (text string, isInt bool, err error) {
	from := d.pos
	if d.pos < len(d.buf) && d.buf[d.pos] == '-' {
		d.pos++
	}
	lead := d.pos
	if !d.digits() {
		return "", false, d.malformed("expected a digit" + d.found())
	}
	if d.buf[lead] == '0' && d.pos > lead+1 {
		d.pos = lead
		return "", false, d.malformed("number with a leading zero")
	}
	isInt = true
	if d.pos < len(d.buf) && d.buf[d.pos] == '.' {
		isInt = false
		d.pos++
		if !d.digits() {
			return "", false, d.malformed("expected a digit" + d.found())
		}
	}
	if d.pos < len(d.buf) && d.buf[d.pos]|0x20 == 'e' {
		isInt = false
		d.pos++
		if d.pos < len(d.buf) && (d.buf[d.pos] == '+' || d.buf[d.pos] == '-') {
			d.pos++
		}
		if !d.digits() {
			return "", false, d.malformed("expected a digit" + d.found())
		}
	}
	return d.rest(from), isInt, nil
}

func (d *jsonDecoder) digits() bool {
	from := d.pos
	for d.pos < len(d.buf) && d.buf[d.pos]-'0' <= 9 {
		d.pos++
	}
	return d.pos > from
}

// integer reads a number, or a string that holds one, without fraction: 5, 5.0,
// 5e0 and "5" are the same.
func (d *jsonDecoder) integer(lo, hi int64) (int64, error) {
	text, isInt, err := d.numberOrString()
	if err != nil {
		return 0, err
	}
	n, ok := int64(0), false
	if isInt {
		n, err = strconv.ParseInt(text, 10, 64)
		ok = err == nil
	} else if f, err := strconv.ParseFloat(text, 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		n, ok = int64(f), true
	}
	if !ok || n < lo || n > hi {
		return 0, d.refuse(fmt.Sprintf("must be an integer from %d to %d", lo, hi))
	}
	return n, nil
}

func (d *jsonDecoder) unsigned() (uint64, error) {
	text, isInt, err := d.numberOrString()
	if err != nil {
		return 0, err
	}
	if isInt {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return n, nil
		}
	} else if f, err := strconv.ParseFloat(text, 64); err == nil && f == math.Trunc(f) && f >= 0 && f < 1<<53 {
		return uint64(f), nil
	}
	return 0, d.refuse("must be an integer from 0 to 18446744073709551615")
}

func (d *jsonDecoder) numberOrString() (text string, isInt bool, err error) {
	switch c := d.peek(); {
	case c == '"':
		s, err := d.stringToken()
		if err != nil {
			return "", false, err
		}
		inner := jsonDecoder{buf: []byte(s)}
		text, isInt, err := inner.numberToken()
		if err != nil || inner.pos != len(inner.buf) {
			return "", false, d.refuse("must be an integer")
		}
		return text, isInt, nil
	case c == '-' || '0' <= c && c <= '9':
		return d.numberToken()
	}
	return "", false, d.wrongType("an integer")
}

func (d *jsonDecoder) float64Value() (float64, error) {
	if err := d.atNumber(); err != nil {
		return 0, err
	}
	text, _, err := d.numberToken()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, d.refuse("number out of the range of float64")
	}
	return f, nil
}

func (d *jsonDecoder) float32Value() (float32, error) {
	if err := d.atNumber(); err != nil {
		return 0, err
	}
	return d.float32Token()
}

// atNumber refuses what is not a number, with a word of its own for the NaN and
// Infinity that some JSON writers emit.
func (d *jsonDecoder) atNumber() error {
	c := d.peek()
	if '0' <= c && c <= '9' || c == '-' && d.pos+1 < len(d.buf) && d.buf[d.pos+1]-'0' <= 9 {
		return nil
	}
	for _, w := range []string{"NaN", "-NaN", "Infinity", "-Infinity", "Inf", "-Inf",
		`"NaN"`, `"Infinity"`, `"-Infinity"`, `"Inf"`, `"-Inf"`} {
		if d.literal(w) {
			return d.refuse("must be a finite number, not " + w)
		}
	}
	if c == '-' {
		return nil
	}
	return d.wrongType("a number")
}

// floats reads an array of numbers.
func (d *jsonDecoder) floats() ([]float32, error) {
	if d.peek() != '[' {
		return nil, d.wrongType("an array of numbers")
	}
	d.pos++
	if d.peek() == ']' {
		d.pos++
		return nil, nil
	}
	out := make([]float32, 0, 128)
	for {
		f, err := d.float32Value()
		if err != nil {
			// Say which element; nothing was pushed on the path for speed.
			return nil, atIndex(err, d, len(out))
		}
		out = append(out, f)
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return out, nil
		default:
			return nil, d.malformed("expected ',' or ']'" + d.found())
		}
	}
}

// atIndex puts an element's index behind the field of the error, which is the
// array's.
func atIndex(err error, d *jsonDecoder, i int) error {
	iv, ok := err.(*invalidError)
	if !ok || iv.hasOffset {
		return err
	}
	d.pushIndex(i)
	iv.violations[0].field = d.pathString()
	d.pop()
	return iv
}

// float32Token reads a number as the float32 nearest to it.
//
// The usual number has at most 19 digits and a small exponent. Its value is then
// mantissa × 10^exp in float64 with two roundings, an error of at most two units
// in the last of 53 bits. Rounding that on to 24 bits gives the right answer
// unless the 29 bits dropped lie within that error of the half-way point, where,
// as for all unusual numbers, strconv decides.
func (d *jsonDecoder) float32Token() (float32, error) {
	from, i, buf := d.pos, d.pos, d.buf
	neg := i < len(buf) && buf[i] == '-'
	if neg {
		i++
	}
	lead := i
	var mantissa uint64
	for i < len(buf) && buf[i]-'0' <= 9 {
		mantissa = mantissa*10 + uint64(buf[i]-'0')
		i++
	}
	digits, exp := i-lead, 0
	if digits == 0 || digits > 1 && buf[lead] == '0' {
		return d.slowFloat32(from)
	}
	if i < len(buf) && buf[i] == '.' {
		i++
		fraction := i
		for i < len(buf) && buf[i]-'0' <= 9 {
			mantissa = mantissa*10 + uint64(buf[i]-'0')
			i++
		}
		exp = fraction - i
		if exp == 0 {
			return d.slowFloat32(from)
		}
		digits -= exp
	}
	if digits > 19 || i < len(buf) && buf[i]|0x20 == 'e' || exp < -22 {
		return d.slowFloat32(from)
	}
	f := float64(mantissa)
	if exp < 0 {
		f /= pow10[-exp]
	}
	if mantissa != 0 {
		dropped := math.Float64bits(f) & (1<<29 - 1)
		if f < smallestNormal32 || dropped-(1<<28-8) <= 16 {
			return d.slowFloat32(from)
		}
	}
	d.pos = i
	if neg {
		f = -f
	}
	return float32(f), nil
}

// smallestNormal32 is the smallest float32 with 24 bits of precision.
const smallestNormal32 = 0x1p-126

// pow10 holds the powers of ten that float64 holds exactly.
var pow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

func (d *jsonDecoder) slowFloat32(from int) (float32, error) {
	d.pos = from
	text, _, err := d.numberToken()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(text, 32)
	if err != nil {
		return 0, d.refuse("number out of the range of float32")
	}
	return float32(f), nil
}

// setFloats sets a repeated float field. The messages with vectors are named
// here because appending by reflection costs more than parsing; a test walks the
// API to see that none is missing.
func setFloats(m protoreflect.Message, fd protoreflect.FieldDescriptor, v []float32) {
	if p := floatField(m); p != nil {
		*p = v
		return
	}
	l := m.Mutable(fd).List()
	for _, f := range v {
		l.Append(protoreflect.ValueOfFloat32(f))
	}
}

// floatField is the one repeated float field of a message; nil if it is unknown.
func floatField(m protoreflect.Message) *[]float32 {
	switch m := m.Interface().(type) {
	case *collectionv1.QueryRequest:
		return &m.QueryVector
	case *collectionv1.InsertRequest:
		return &m.Vector
	case *collectionv1.UpsertRequest:
		return &m.Vector
	case *collectionv1.VectorMatch:
		return &m.Vector
	case *collectionv1.VectorDocument:
		return &m.Vector
	}
	return nil
}
