// SPDX-License-Identifier: Apache-2.0

package hdf5

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dataFile finds a file of the optional data sets.
func dataFile(t *testing.T, parts ...string) string {
	t.Helper()
	dir := os.Getenv("AKIDB_DATA")
	if dir == "" {
		t.Skip("AKIDB_DATA is not set: no data sets to read")
	}
	path := filepath.Join(append([]string{dir}, parts...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	return path
}

// The file holds the first 20,000 rows of base.bvecs: the plain format is the
// dumb reader that this one is tested against.
func TestFashionMNISTEqualsBvecs(t *testing.T) {
	f, err := Open(dataFile(t, "fashion-mnist-784-l2", "fashion-mnist-20k-784-euclidean.hdf5"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Attribute("distance"); got != "euclidean" {
		t.Fatalf("distance %q", got)
	}
	for name, shape := range map[string][2]int{"train": {20000, 784}, "test": {1000, 784}, "neighbors": {1000, 100}, "distances": {1000, 100}} {
		d, err := f.Dataset(name)
		if err != nil || d.Rows != shape[0] || d.Dim != shape[1] {
			t.Fatalf("%s: %+v, %v", name, d, err)
		}
	}
	d, err := f.Dataset("train")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(dataFile(t, "fashion-mnist-784-l2", "base.bvecs"))
	if err != nil {
		t.Fatal(err)
	}
	row := make([]float32, d.Dim)
	for i := range d.Rows {
		if err := d.Row(i, row); err != nil {
			t.Fatal(err)
		}
		want := raw[i*(4+d.Dim)+4:][:d.Dim]
		for j, v := range row {
			if v != float32(want[j]) {
				t.Fatalf("row %d, column %d: %v, want %d", i, j, v, want[j])
			}
		}
	}
	if _, err := f.Dataset("nope"); err == nil || !strings.Contains(err.Error(), "train") {
		t.Fatalf("unknown dataset: %v", err)
	}
}

// tiny builds a file as h5py does by default: superblock 0, a symbol table, one
// dataset "train" of float32, contiguous or in chunks.
func tiny(rows, cols, chunkRows, chunkCols int, values []float32) []byte {
	le := binary.LittleEndian
	var b []byte
	u16 := func(v int) { b = le.AppendUint16(b, uint16(v)) }
	u32 := func(v int) { b = le.AppendUint32(b, uint32(v)) }
	u64 := func(v uint64) { b = le.AppendUint64(b, v) }
	const none = ^uint64(0)
	const root, tree, heap, heapData, snod, header, chunkTree, data = 96, 200, 400, 440, 500, 600, 1000, 3000
	at := func(n int) {
		for len(b) < n {
			b = append(b, 0)
		}
	}
	b = append(b, "\x89HDF\r\n\x1a\n\x00\x00\x00\x00\x00\x08\x08\x00"...)
	u16(4)
	u16(16)
	u32(0)
	u64(0)
	u64(none)
	endAt := len(b)
	u64(0)
	u64(none)
	u64(0)
	u64(root)
	u32(0)
	u32(0)
	at(root) // object header of the root group: one symbol table message
	b = append(b, 1, 0)
	u16(1)
	u32(1)
	u32(24)
	u32(0)
	u16(msgSymbolTable)
	u16(16)
	u32(0)
	u64(tree)
	u64(heap)
	at(tree)
	b = append(b, "TREE\x00\x00"...)
	u16(1)
	u64(none)
	u64(none)
	u64(0)
	u64(snod)
	u64(8)
	at(heap)
	b = append(b, "HEAP\x00\x00\x00\x00"...)
	u64(32)
	u64(none)
	u64(heapData)
	at(heapData)
	b = append(b, "\x00\x00\x00\x00\x00\x00\x00\x00train\x00"...)
	at(snod)
	b = append(b, "SNOD\x01\x00"...)
	u16(1)
	u64(8)
	u64(header)
	at(header)
	var messages []byte
	message := func(kind int, data []byte) {
		messages = le.AppendUint16(messages, uint16(kind))
		messages = le.AppendUint16(messages, uint16(len(data)))
		messages = append(messages, 0, 0, 0, 0)
		messages = append(messages, data...)
	}
	space := []byte{1, 2, 0, 0, 0, 0, 0, 0}
	space = le.AppendUint64(space, uint64(rows))
	space = le.AppendUint64(space, uint64(cols))
	message(msgDataspace, space)
	message(msgDatatype, []byte{0x11, 0x20, 0x1f, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0})
	if chunkRows == 0 {
		layout := le.AppendUint64([]byte{3, layoutContiguous}, data)
		message(msgLayout, le.AppendUint64(layout, uint64(4*rows*cols)))
	} else {
		layout := le.AppendUint64([]byte{3, layoutChunked, 3}, chunkTree)
		layout = le.AppendUint32(layout, uint32(chunkRows))
		layout = le.AppendUint32(layout, uint32(chunkCols))
		message(msgLayout, le.AppendUint32(layout, 4))
		message(msgFilters, []byte{2, 1, filterShuffle, 0, 0, 0, 1, 0, 4, 0, 0, 0})
	}
	b = append(b, 1, 0)
	u16(4)
	u32(1)
	u32(len(messages))
	u32(0)
	b = append(b, messages...)
	var blob []byte
	if chunkRows > 0 {
		at(chunkTree)
		b = append(b, "TREE\x01\x00"...)
		countAt := len(b)
		u16(0)
		u64(none)
		u64(none)
		count := 0
		for r := 0; r < rows; r += chunkRows {
			for c := 0; c < cols; c += chunkCols {
				raw := make([]byte, 4*chunkRows*chunkCols)
				for i := range chunkRows {
					for j := range chunkCols {
						if r+i < rows && c+j < cols {
							var v [4]byte
							binary.Encode(v[:], le, values[(r+i)*cols+c+j])
							for k := range 4 { // shuffled
								raw[k*chunkRows*chunkCols+i*chunkCols+j] = v[k]
							}
						}
					}
				}
				u32(len(raw))
				u32(0)
				u64(uint64(r))
				u64(uint64(c))
				u64(0)
				u64(uint64(data + len(blob)))
				blob = append(blob, raw...)
				count++
			}
		}
		le.PutUint16(b[countAt:], uint16(count))
	} else {
		blob, _ = binary.Append(nil, le, values)
	}
	at(data)
	b = append(b, blob...)
	le.PutUint64(b[endAt:], uint64(len(b)))
	return b
}

func values(n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(i) * 1.25
	}
	return out
}

func readAll(file []byte) ([]float32, error) {
	f, err := New(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	f.Attribute("distance")
	d, err := f.Dataset("train")
	if err != nil {
		return nil, err
	}
	if d.Rows*d.Dim > 1<<20 {
		return nil, errors.New("too large for a test")
	}
	out := make([]float32, d.Rows*d.Dim)
	for i := range d.Rows {
		if err := d.Row(i, out[i*d.Dim:][:d.Dim]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func TestLayouts(t *testing.T) {
	for _, chunk := range [][2]int{{0, 0}, {1, 1}, {2, 3}, {5, 7}, {4, 2}, {16, 16}} {
		want := values(5 * 7)
		got, err := readAll(tiny(5, 7, chunk[0], chunk[1], want))
		if err != nil {
			t.Fatalf("chunks %v: %v", chunk, err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("chunks %v: value %d is %v, want %v", chunk, i, got[i], want[i])
			}
		}
	}
}

// A file cut off anywhere is an error, never a short or a wrong answer.
func TestCutFilesAreRefused(t *testing.T) {
	for _, file := range [][]byte{tiny(5, 7, 0, 0, values(35)), tiny(5, 7, 2, 3, values(35))} {
		for n := range len(file) {
			if _, err := readAll(file[:n]); !errors.Is(err, ErrFormat) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
	}
}

// Property: any bytes give an answer or an error that wraps ErrFormat, without
// panic or endless work.
func FuzzOpen(f *testing.F) {
	f.Add(tiny(5, 7, 0, 0, values(35)))
	f.Add(tiny(5, 7, 2, 3, values(35)))
	f.Fuzz(func(t *testing.T, file []byte) {
		if _, err := readAll(file); err != nil && !errors.Is(err, ErrFormat) && err.Error() != "too large for a test" {
			t.Fatal(err)
		}
	})
}
