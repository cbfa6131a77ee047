// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"bytes"
	"encoding/json"
	"testing"
)

// dumbMerge is mergePatch by encoding/json.
func dumbMerge(base, patch []byte) []byte {
	all := map[string]json.RawMessage{}
	if len(base) > 0 {
		if err := json.Unmarshal(base, &all); err != nil {
			panic(err)
		}
	}
	var p map[string]json.RawMessage
	if err := json.Unmarshal(patch, &p); err != nil {
		panic(err)
	}
	for k, v := range p {
		if string(v) == "null" {
			delete(all, k)
		} else {
			all[k] = v
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return b
}

func TestMergePatch(t *testing.T) {
	for _, c := range []struct{ base, patch, want string }{
		{``, `{}`, `{}`},
		{``, `{"a":1}`, `{"a":1}`},
		{`{"a":1}`, `{"a":null}`, `{}`},
		{`{"b":1,"a":{"x":1}}`, `{"a":{"y":2}}`, `{"a":{"y":2},"b":1}`},
		{`{"n":12345678901234567890.10e+5}`, `{"z":null}`, `{"n":12345678901234567890.10e+5}`},
		{` { "b" : [1, 2] } `, ` { "a" : "x" } `, `{"a":"x","b":[1, 2]}`},
		{`{"\u0061":1}`, `{"a":2}`, `{"a":2}`},
		{`{"\ud83d\ude00":1}`, `{"😀":2}`, `{"😀":2}`},
		{`{"\ud83d":1}`, `{"\n\"\\/":2}`, `{"\u000a\"\\/":2,"�":1}`},
		{`{"a":1,"a":2}`, `{}`, `{"a":2}`},
	} {
		got, err := mergePatch([]byte(c.base), []byte(c.patch))
		if err != nil || string(got) != c.want {
			t.Errorf("%s + %s = %s %v, want %s", c.base, c.patch, got, err, c.want)
		}
	}
}

// FuzzMergePatch compares the scanner and the merge with encoding/json, which is
// laxer about UTF-8 only.
func FuzzMergePatch(f *testing.F) {
	f.Add([]byte(`{"a":[1,-0.5e-3,true,false,null,"\u00e9\\"]}`), []byte(`{"a":null,"b":{}}`))
	f.Add([]byte(`{"\ud800\u0041":1}`), []byte(` {} `))
	f.Add([]byte(`{"a":01}`), []byte(`{"a":1.}`))
	f.Fuzz(func(t *testing.T, base, patch []byte) {
		for _, b := range [][]byte{base, patch} {
			var v map[string]json.RawMessage
			theirs := json.Unmarshal(b, &v) == nil && v != nil
			ours := checkObject(b) == nil
			if ours && !theirs {
				t.Fatalf("accepted %q", b)
			}
			if theirs && !ours && !bytes.ContainsRune(b, '[') && !bytes.ContainsRune(b, '{') && json.Valid(b) {
				t.Fatalf("refused %q: %v", b, checkObject(b))
			}
			if !ours {
				return
			}
		}
		got, err := mergePatch(base, patch)
		if err != nil {
			t.Fatal(err)
		}
		var a, b map[string]json.RawMessage
		if err := json.Unmarshal(got, &a); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if err := json.Unmarshal(dumbMerge(base, patch), &b); err != nil {
			t.Fatal(err)
		}
		if len(a) != len(b) {
			t.Fatalf("%q, want %q", got, dumbMerge(base, patch))
		}
		for k, v := range b {
			var x, y bytes.Buffer
			if json.Compact(&x, v) != nil || json.Compact(&y, a[k]) != nil {
				t.Fatalf("member %q of %q", k, got)
			}
			if x.String() != y.String() && bytes.Equal(x.Bytes(), bytes.ToValidUTF8(x.Bytes(), nil)) {
				// encoding/json escapes <, > and & of what it copies.
				var p, q any
				if json.Unmarshal(v, &p) != nil || json.Unmarshal(a[k], &q) != nil {
					t.Fatalf("member %q: %q, want %q", k, a[k], v)
				}
			}
		}
	})
}
