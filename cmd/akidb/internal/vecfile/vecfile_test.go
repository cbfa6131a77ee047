// SPDX-License-Identifier: Apache-2.0

package vecfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sample is 5 rows of 3 small whole numbers, which every format can hold.
func sample(i, j int) float32 { return float32(i*3 + j) }

func fvecs() (b []byte) {
	for i := range 5 {
		b = binary.LittleEndian.AppendUint32(b, 3)
		for j := range 3 {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(sample(i, j)))
		}
	}
	return b
}

func bvecs() (b []byte) {
	for i := range 5 {
		b = binary.LittleEndian.AppendUint32(b, 3)
		for j := range 3 {
			b = append(b, byte(sample(i, j)))
		}
	}
	return b
}

func npyFile(descr string, value func(float32) []byte) []byte {
	head := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (5, 3), }", descr)
	head += strings.Repeat(" ", (64-(10+len(head)+1)%64)%64) + "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(head)), byte(len(head)>>8))
	b = append(b, head...)
	for i := range 15 {
		b = append(b, value(float32(i))...)
	}
	return b
}

func npy32() []byte {
	return npyFile("<f4", func(v float32) []byte { return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)) })
}

func npy64() []byte {
	return npyFile("<f8", func(v float32) []byte { return binary.LittleEndian.AppendUint64(nil, math.Float64bits(float64(v))) })
}

// npy16 packs numbers below 2048 by hand.
func npy16() []byte {
	return npyFile("<f2", func(v float32) []byte {
		if v == 0 {
			return []byte{0, 0}
		}
		bits := math.Float32bits(v)
		return binary.LittleEndian.AppendUint16(nil, uint16((bits>>23-112)<<10|bits>>13&1023))
	})
}

func jsonLines() (b []byte) {
	for i := range 5 {
		b = fmt.Appendf(b, `{"id":"d%d","vector":[%v,%v,%v],"row":%d}`+"\n", i, sample(i, 0), sample(i, 1), sample(i, 2), i)
	}
	return b
}

func TestEveryFormatReadsTheSameRows(t *testing.T) {
	for name, data := range map[string][]byte{"a.fvecs": fvecs(), "a.bvecs": bvecs(), "a.npy": npy32(), "b.npy": npy64(), "c.npy": npy16(), "a.jsonl": jsonLines()} {
		path := write(t, name, data)
		for skip := range 6 {
			r, err := Open(path, Options{})
			if err != nil {
				t.Fatal(name, err)
			}
			if err := r.Skip(skip); err != nil {
				t.Fatal(name, err)
			}
			for i := skip; i < 5; i++ {
				var row Row
				if err := r.Next(&row); err != nil || len(row.Vector) != 3 {
					t.Fatal(name, row, err)
				}
				for j, v := range row.Vector {
					if v != sample(i, j) {
						t.Fatalf("%s: row %d, value %d: %v", name, i, j, v)
					}
				}
				if name == "a.jsonl" && (row.ID != fmt.Sprintf("d%d", i) || string(row.Payload) != fmt.Sprintf(`{"row":%d}`, i)) {
					t.Fatalf("%s: %q %s", name, row.ID, row.Payload)
				}
			}
			if err := r.Next(new(Row)); err != io.EOF {
				t.Fatal(name, err)
			}
			if r.Dim() != 3 && skip < 5 {
				t.Fatal(name, r.Dim())
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r, _ := Open(path, Options{})
		if err := r.Skip(6); !errors.Is(err, ErrBadFile) {
			t.Fatal(name, "skipped behind the end", err)
		}
		r.Close()
	}
}

// A file cut off anywhere gives its whole rows at most, then an error that says
// where; files of fixed rows are refused at once.
func TestCutFilesNameTheRow(t *testing.T) {
	for name, data := range map[string][]byte{"a.fvecs": fvecs(), "a.bvecs": bvecs(), "a.npy": npy32()} {
		row := 16
		begin := 0
		switch name {
		case "a.bvecs":
			row = 7
		case "a.npy":
			row, begin = 12, len(data)-60
		}
		for n := range len(data) {
			r, err := Open(write(t, name, data[:n]), Options{})
			if n > begin && (n-begin)%row == 0 && name != "a.npy" {
				if err != nil {
					t.Fatalf("%s cut at %d, between rows: %v", name, n, err)
				}
				r.Close()
				continue
			}
			if !errors.Is(err, ErrBadFile) {
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
			if n > begin+4 && !strings.Contains(err.Error(), fmt.Sprintf("row %d", (n-begin)/row)) {
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
		}
	}
	data := jsonLines()
	r, err := Open(write(t, "a.jsonl", data[:len(data)-9]), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Skip(4); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(new(Row)); !errors.Is(err, ErrBadFile) || !strings.Contains(err.Error(), "row 4, at byte") {
		t.Fatal(err)
	}
}

func TestBadRowsAreNamed(t *testing.T) {
	nan := fvecs()
	binary.LittleEndian.PutUint32(nan[2*16+8:], math.Float32bits(float32(math.NaN())))
	ragged := fvecs()
	binary.LittleEndian.PutUint32(ragged[3*16:], 2)
	// 100 rows of 64 values, but one of 63 in the middle or at the end.
	short := func(at int) string {
		var out []byte
		for i := range 100 {
			dim := 64
			if i == at {
				dim = 63
			}
			out = binary.LittleEndian.AppendUint32(out, uint32(dim))
			out = append(out, make([]byte, 4*dim)...)
		}
		return string(out)
	}
	for _, tc := range []struct {
		name string
		data string
		want string
	}{
		{"short.fvecs", short(50), "row 50, at byte 13000: dimension 63, want 64"},
		{"shortlast.fvecs", short(99), "row 99, at byte 25740: dimension 63, want 64"},
		{"nan.fvecs", string(nan), "row 2: value 1 is NaN"},
		{"ragged.fvecs", string(ragged), "row 3, at byte 48: dimension 2"},
		{"zero.fvecs", "\x00\x00\x00\x00", "dimension 0"},
		{"empty.fvecs", "", "empty"},
		{"x.npy", "hello world!", "signature"},
		{"a.jsonl", `{"id":1,"vector":[1,2]}` + "\n" + `{"id":2,"vector":[1]}`, "row 1: vector of dimension 1"},
		{"b.jsonl", `{"id":1.5,"vector":[1,2]}`, `field "id"`},
		{"c.jsonl", `{"id":1,"vec":[1,2]}`, `no field "vector"`},
		{"d.jsonl", `{"id":1,"vector":["x"]}`, `field "vector"`},
		{"e.jsonl", `{"id":1,"vector":[1,2]}` + "\n" + `{"id":2,"vector":[1,null]}`, `row 1: field "vector": value 1 is null`},
		{"f.jsonl", `{"id":1,"vector":[1],"a":1,"\u0061":2}`, `row 0, at byte 0: field "a" is there twice`},
		{"g.jsonl", `{"id":1,"vector":[1]} x`, "row 0, at byte 0: text after"},
		{"h.jsonl", `[1]`, "row 0, at byte 0: not a JSON object"},
		{"i.jsonl", `{"id":1,"vector":[1`, "row 0, at byte 0"},
		{"e.txt", "x", "unknown format"},
	} {
		err := func() error {
			r, err := Open(write(t, tc.name, []byte(tc.data)), Options{})
			if err != nil {
				return err
			}
			defer r.Close()
			for {
				if err := r.Next(new(Row)); err != nil {
					return err
				}
			}
		}()
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestPayloadsAreObjects(t *testing.T) {
	p, err := OpenPayloads(write(t, "p.jsonl", []byte("{\"a\":1}\n\n{\"a\":2}\n[3]\n")))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Skip(1); err != nil {
		t.Fatal(err)
	}
	if line, err := p.Next(); err != nil || string(line) != `{"a":2}` {
		t.Fatalf("%s, %v", line, err)
	}
	if _, err := p.Next(); !errors.Is(err, ErrBadFile) || !strings.Contains(err.Error(), "row 2, at byte 17") {
		t.Fatal(err)
	}
}

func TestNeighbors(t *testing.T) {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	b = append(b, 7, 0, 0, 0, 9, 0, 0, 0)
	got, err := Neighbors(write(t, "g.ivecs", b))
	if err != nil || len(got) != 1 || got[0][1] != 9 {
		t.Fatal(got, err)
	}
	if _, err := Neighbors(write(t, "g.ivecs", b[:9])); !errors.Is(err, ErrBadFile) {
		t.Fatal(err)
	}
}
