// SPDX-License-Identifier: Apache-2.0

package index

import (
	"crypto/sha256"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// leafKind says what a leaf holds. The order is that of columns.
type leafKind uint8

const (
	leafPresent leafKind = iota // the field is there: not null, not an empty array
	leafOther                   // an element that is no scalar
	leafFalse
	leafTrue
	leafNumber
	leafString
	leafTime
	leafGeo
)

// leaf is one fact about one field of one document.
type leaf struct {
	path uint32
	off  uint16 // slot, from the beginning of the run
	kind leafKind
	num  number // leafNumber; leafTime as seconds and nanoseconds
	a, b float64
	str  []byte // leafString, in the memtable's text
}

// number is an exact value: the nearest float64 and what is missing from it.
// Rounding is monotone, so the order of (f, r) is the order of the values, and
// integers of 64 bits and floats compare by value. Integers above 2^84 count as
// their nearest float64.
type number struct {
	f float64
	r int32
}

func (n number) compare(o number) int {
	switch {
	case n.f < o.f:
		return -1
	case n.f > o.f:
		return 1
	case n.r < o.r:
		return -1
	case n.r > o.r:
		return 1
	}
	return 0
}

func intNumber(i int64) number {
	f := float64(i)
	if f >= 1<<63 {
		return number{f, int32(i - math.MaxInt64 - 1)}
	}
	return number{f, int32(i - int64(f))}
}

func floatNumber(f float64) number {
	if f == 0 {
		f = 0 // not -0
	}
	return number{f, 0}
}

// parseNumber reads a JSON number.
func parseNumber(s string) (number, bool) {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return intNumber(i), true
		}
		if n, ok := new(big.Int).SetString(s, 10); ok && len(s) < 400 {
			f, _ := new(big.Float).SetInt(n).Float64()
			if math.IsInf(f, 0) {
				return number{f: f}, true
			}
			rest, _ := new(big.Float).SetFloat64(f).Int(nil)
			rest.Sub(n, rest)
			if rest.IsInt64() && rest.Int64() == int64(int32(rest.Int64())) {
				return number{f, int32(rest.Int64())}, true
			}
			return number{f: f}, true
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return number{}, false
	}
	return floatNumber(f), true
}

// Strings longer than longString are kept as their beginning and a hash of the
// whole behind a byte that no UTF-8 text has.
const (
	longString = 256
	longMark   = 0xff
)

// appendKey appends what the dictionary holds for a string.
func appendKey(dst []byte, s []byte) []byte {
	if len(s) <= longString {
		return append(dst, s...)
	}
	sum := sha256.Sum256(s)
	dst = append(append(dst, s[:longString]...), longMark)
	return append(dst, sum[:]...)
}

// parseTime reads an RFC 3339 date and time.
func parseTime(s []byte) (number, bool) {
	// Shape first: most strings are something else.
	if len(s) < len("2006-01-02T15:04:05Z") || len(s) > 40 || s[4] != '-' || s[7] != '-' || s[13] != ':' || s[16] != ':' {
		return number{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(s))
	if err != nil {
		return number{}, false
	}
	return number{float64(t.Unix()), int32(t.Nanosecond())}, true
}

// maxDepth bounds the nesting of a payload; what is deeper is not indexed.
const maxDepth = 64

// flattener turns payloads into leaves. Paths are joined with dots; elements of
// arrays belong to the path of the array.
type flattener struct {
	src    []byte
	at     int
	path   []byte
	leaves []leaf
	fields []field // of the objects that are being read, outermost first
	text   []byte  // backs leaf.str; replaced, not grown, when it is full
	intern func(path []byte) uint32
	off    uint16
	buf    []byte
}

// field is a field of an object, and where its leaves are.
type field struct {
	path     uint32
	from, to int
}

// document adds the leaves of one payload and reports whether it was sound; a
// payload that is not a JSON object adds nothing.
func (f *flattener) document(raw []byte, off uint16) bool {
	f.src, f.at, f.path, f.fields, f.off = raw, 0, f.path[:0], f.fields[:0], off
	mark := len(f.leaves)
	f.space()
	if f.at < len(raw) && raw[f.at] == '{' && f.object(0) {
		return true
	}
	f.leaves = f.leaves[:mark]
	return len(raw) == 0
}

func (f *flattener) space() {
	for f.at < len(f.src) {
		switch f.src[f.at] {
		case ' ', '\t', '\n', '\r':
			f.at++
		default:
			return
		}
	}
}

// next skips space and takes c if it is there.
func (f *flattener) next(c byte) bool {
	f.space()
	if f.at < len(f.src) && f.src[f.at] == c {
		f.at++
		return true
	}
	return false
}

func (f *flattener) object(depth int) bool {
	if depth > maxDepth || !f.next('{') {
		return false
	}
	if f.next('}') {
		return true
	}
	begin, base := len(f.fields), len(f.path)
	for {
		f.space()
		key, ok := f.string()
		if !ok || !f.next(':') {
			return false
		}
		if base > 0 {
			f.path = append(f.path, '.')
		}
		f.path = append(f.path, key...)
		id := f.intern(f.path)
		f.dropRepeated(begin, id)
		from := len(f.leaves)
		state, ok := f.value(id, depth+1, false)
		if !ok {
			return false
		}
		if state {
			f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafPresent})
		}
		f.fields = append(f.fields, field{id, from, len(f.leaves)})
		f.path = f.path[:base]
		if f.next('}') {
			f.fields = f.fields[:begin]
			return true
		}
		if !f.next(',') {
			return false
		}
	}
}

// dropRepeated forgets an earlier field of the same name in the same object, whose
// fields begin there: the last one counts. One whose name has dots may have the path of
// another one's field; both count.
func (f *flattener) dropRepeated(begin int, id uint32) {
	i := slices.IndexFunc(f.fields[begin:], func(d field) bool { return d.path == id })
	if i < 0 {
		return
	}
	i += begin
	gone := f.fields[i]
	f.leaves = slices.Delete(f.leaves, gone.from, gone.to)
	f.fields = slices.Delete(f.fields, i, i+1)
	for j := range f.fields[i:] {
		f.fields[i+j].from -= gone.to - gone.from
		f.fields[i+j].to -= gone.to - gone.from
	}
}

// value adds the leaves of a value at the current path; present says whether it
// counts as there.
func (f *flattener) value(id uint32, depth int, inArray bool) (present, ok bool) {
	f.space()
	if f.at >= len(f.src) || depth > maxDepth {
		return false, false
	}
	switch c := f.src[f.at]; c {
	case '{':
		return f.objectValue(id, depth)
	case '[':
		return f.array(id, depth, inArray)
	case '"':
		s, ok := f.string()
		if ok {
			f.addString(id, s)
		}
		return true, ok
	case 't':
		f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafTrue})
		return true, f.word("true")
	case 'f':
		f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafFalse})
		return true, f.word("false")
	case 'n':
		return false, f.word("null")
	default:
		from := f.at
		for f.at < len(f.src) && strings.IndexByte("+-.0123456789eE", f.src[f.at]) >= 0 {
			f.at++
		}
		n, ok := parseNumber(string(f.src[from:f.at]))
		f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafNumber, num: n})
		return true, ok
	}
}

func (f *flattener) word(w string) bool {
	if !strings.HasPrefix(string(f.src[f.at:min(len(f.src), f.at+len(w))]), w) {
		return false
	}
	f.at += len(w)
	return true
}

func (f *flattener) array(id uint32, depth int, inArray bool) (present, ok bool) {
	f.at++
	if f.next(']') {
		return inArray, true
	}
	for {
		if _, ok := f.value(id, depth+1, true); !ok {
			return false, false
		}
		if f.next(']') {
			return true, true
		}
		if !f.next(',') {
			return false, false
		}
	}
}

// objectValue adds a nested object, and a place if it is one.
func (f *flattener) objectValue(id uint32, depth int) (present, ok bool) {
	begin := len(f.leaves)
	if !f.object(depth) {
		return false, false
	}
	base := len(f.path)
	latID := f.intern(append(f.path, ".lat"...))
	f.path = f.path[:base]
	lonID := f.intern(append(f.path, ".lon"...))
	f.path = f.path[:base]
	var lat, lon float64
	var hasLat, hasLon bool
	for _, l := range f.leaves[begin:] {
		if l.kind == leafNumber && l.path == latID {
			lat, hasLat = l.num.f, true
		}
		if l.kind == leafNumber && l.path == lonID {
			lon, hasLon = l.num.f, true
		}
	}
	if hasLat && hasLon {
		f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafGeo, a: lat, b: lon})
	}
	f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafOther})
	return true, true
}

func (f *flattener) addString(id uint32, s []byte) {
	if t, ok := parseTime(s); ok {
		f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafTime, num: t})
	}
	need := min(len(s), longString+1+sha256.Size)
	if cap(f.text)-len(f.text) < need {
		f.text = make([]byte, 0, max(16<<10, need))
	}
	from := len(f.text)
	f.text = appendKey(f.text, s)
	f.leaves = append(f.leaves, leaf{path: id, off: f.off, kind: leafString, str: f.text[from:len(f.text):len(f.text)]})
}

// string reads a JSON string; the result is valid until the next one.
func (f *flattener) string() ([]byte, bool) {
	if f.at >= len(f.src) || f.src[f.at] != '"' {
		return nil, false
	}
	f.at++
	from := f.at
	for f.at < len(f.src) {
		switch c := f.src[f.at]; {
		case c == '"':
			f.at++
			return f.src[from : f.at-1], true
		case c == '\\' || c >= utf8.RuneSelf:
			return f.unquote(from)
		case c < ' ':
			return nil, false
		}
		f.at++
	}
	return nil, false
}

// unquote is string from the first byte on that needs care.
func (f *flattener) unquote(from int) ([]byte, bool) {
	f.buf = append(f.buf[:0], f.src[from:f.at]...)
	for f.at < len(f.src) {
		c := f.src[f.at]
		switch {
		case c == '"':
			f.at++
			return f.buf, true
		case c < ' ':
			return nil, false
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(f.src[f.at:])
			f.buf = utf8.AppendRune(f.buf, r) // what is not UTF-8 becomes U+FFFD
			f.at += n
		case c != '\\':
			f.buf = append(f.buf, c)
			f.at++
		default:
			if !f.escape() {
				return nil, false
			}
		}
	}
	return nil, false
}

func (f *flattener) escape() bool {
	if f.at+1 >= len(f.src) {
		return false
	}
	c := f.src[f.at+1]
	f.at += 2
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 {
		f.buf = append(f.buf, "\"\\/\b\f\n\r\t"[i])
		return true
	}
	if c != 'u' {
		return false
	}
	r, ok := f.hex4()
	if !ok {
		return false
	}
	if utf16.IsSurrogate(r) {
		if f.at+1 < len(f.src) && f.src[f.at] == '\\' && f.src[f.at+1] == 'u' {
			mark := f.at
			f.at += 2
			low, ok := f.hex4()
			if !ok {
				return false
			}
			if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
				f.buf = utf8.AppendRune(f.buf, both)
				return true
			}
			f.at = mark
		}
		r = utf8.RuneError
	}
	f.buf = utf8.AppendRune(f.buf, r)
	return true
}

func (f *flattener) hex4() (rune, bool) {
	if f.at+4 > len(f.src) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(f.src[f.at:f.at+4]), 16, 32)
	f.at += 4
	return rune(n), err == nil
}
