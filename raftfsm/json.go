// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"errors"
	"fmt"
	"sort"
	"unicode/utf16"
	"unicode/utf8"
)

// The JSON that Apply looks at is parsed here and not by encoding/json, so that
// a new version of Go can never change what a committed command does.

// jsonScanner checks RFC 8259 JSON from the position on.
type jsonScanner struct {
	b   []byte
	pos int
}

var errJSONEnd = errors.New("JSON ends too early")

func (s *jsonScanner) fail(what string) error {
	return fmt.Errorf("JSON: %s at byte %d", what, s.pos)
}

func (s *jsonScanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *jsonScanner) peek() (byte, error) {
	s.space()
	if s.pos >= len(s.b) {
		return 0, errJSONEnd
	}
	return s.b[s.pos], nil
}

func (s *jsonScanner) value(depth int) error {
	if depth > MaxMetadataDepth {
		return s.fail(fmt.Sprintf("nested deeper than %d", MaxMetadataDepth))
	}
	c, err := s.peek()
	if err != nil {
		return err
	}
	switch {
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth)
	case c == '"':
		return s.str()
	case c == '-' || c >= '0' && c <= '9':
		return s.num()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(s.b)-s.pos >= len(word) && string(s.b[s.pos:s.pos+len(word)]) == word {
			s.pos += len(word)
			return nil
		}
	}
	return s.fail("no value")
}

// object checks an object and calls member with the quoted key and the value of
// each member.
func (s *jsonScanner) object(depth int, member func(key, value []byte)) error {
	s.pos++ // {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c == '}' {
		s.pos++
		return nil
	}
	for {
		if c, err = s.peek(); err != nil {
			return err
		}
		if c != '"' {
			return s.fail("no member name")
		}
		from := s.pos
		if err := s.str(); err != nil {
			return err
		}
		key := s.b[from:s.pos]
		if c, err = s.peek(); err != nil {
			return err
		}
		if c != ':' {
			return s.fail("no colon")
		}
		s.pos++
		s.space()
		from = s.pos
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if member != nil {
			member(key, s.b[from:s.pos])
		}
		more, err := s.next('}')
		if err != nil || !more {
			return err
		}
	}
}

func (s *jsonScanner) array(depth int) error {
	s.pos++ // [
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c == ']' {
		s.pos++
		return nil
	}
	for {
		if err := s.value(depth + 1); err != nil {
			return err
		}
		more, err := s.next(']')
		if err != nil || !more {
			return err
		}
	}
}

// next takes a comma, and reports true, or the closing character.
func (s *jsonScanner) next(closing byte) (bool, error) {
	c, err := s.peek()
	if err != nil {
		return false, err
	}
	if c != ',' && c != closing {
		return false, s.fail("no comma")
	}
	s.pos++
	return c == ',', nil
}

func (s *jsonScanner) str() error {
	s.pos++ // "
	for s.pos < len(s.b) {
		c := s.b[s.pos]
		switch {
		case c == '"':
			s.pos++
			return nil
		case c < 0x20:
			return s.fail("control character in a string")
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, n := utf8.DecodeRune(s.b[s.pos:])
			if r == utf8.RuneError && n == 1 {
				return s.fail("invalid UTF-8")
			}
			s.pos += n
		}
	}
	return errJSONEnd
}

func (s *jsonScanner) escape() error {
	s.pos++ // backslash
	if s.pos >= len(s.b) {
		return errJSONEnd
	}
	switch s.b[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		if s.pos+5 > len(s.b) {
			return errJSONEnd
		}
		for _, c := range s.b[s.pos+1 : s.pos+5] {
			if hexDigit(c) < 0 {
				return s.fail("bad \\u escape")
			}
		}
		s.pos += 5
		return nil
	}
	return s.fail("bad escape")
}

func (s *jsonScanner) num() error {
	if s.b[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.b) && s.b[s.pos] == '0' {
		s.pos++
	} else if !s.digits() {
		return s.fail("bad number")
	}
	if s.pos < len(s.b) && s.b[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	if s.pos < len(s.b) && s.b[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.b) && (s.b[s.pos] == '+' || s.b[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	return nil
}

func (s *jsonScanner) digits() bool {
	from := s.pos
	for s.pos < len(s.b) && s.b[s.pos] >= '0' && s.b[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > from
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// checkObject checks that b is one JSON object and nothing else.
func checkObject(b []byte) error { return scanObject(b, nil) }

func scanObject(b []byte, member func(key, value []byte)) error {
	s := jsonScanner{b: b}
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return errors.New("not a JSON object")
	}
	if err := s.object(1, member); err != nil {
		return err
	}
	if s.space(); s.pos != len(b) {
		return s.fail("something after the object")
	}
	return nil
}

// unquote returns the text of a checked, quoted JSON string.
func unquote(q []byte) string {
	q = q[1 : len(q)-1]
	out := make([]byte, 0, len(q))
	for i := 0; i < len(q); {
		if q[i] != '\\' {
			out = append(out, q[i])
			i++
			continue
		}
		i += 2
		switch c := q[i-1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(q[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if len(q)-i >= 6 && q[i] == '\\' && q[i+1] == 'u' {
					low = hex4(q[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func hex4(q []byte) rune {
	r := rune(0)
	for _, c := range q[:4] {
		r = r<<4 | rune(hexDigit(c))
	}
	return r
}

func appendQuoted(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// mergePatch merges the members of patch into those of base (RFC 7396, top level
// only): null removes a member, anything else replaces it. Values keep their
// bytes, so numbers keep their digits; members are sorted by name. base may be
// empty.
func mergePatch(base, patch []byte) ([]byte, error) {
	members := make(map[string][]byte)
	put := func(key, value []byte) { members[unquote(key)] = value }
	if len(base) > 0 {
		if err := scanObject(base, put); err != nil {
			return nil, err
		}
	}
	err := scanObject(patch, func(key, value []byte) {
		if string(value) == "null" {
			delete(members, unquote(key))
			return
		}
		put(key, value)
	})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	sort.Strings(names)
	out := append(make([]byte, 0, len(base)+len(patch)), '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendQuoted(out, name), ':')
		out = append(out, members[name]...)
	}
	return append(out, '}'), nil
}
