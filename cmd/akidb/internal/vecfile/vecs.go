// SPDX-License-Identifier: Apache-2.0

package vecfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
)

// vecs reads fvecs, bvecs and ivecs: a row is its dimension as int32, then that
// many float32, bytes or int32, all little-endian.
type vecs struct {
	path   string
	f      *os.File
	r      *bufio.Reader
	width  int // bytes of a value
	decode func(dst []float32, raw []byte)
	dim    int
	rows   int
	next   int
	raw    []byte
}

func openVecs(path, format string) (Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	v := &vecs{path: path, f: f, r: bufio.NewReaderSize(f, 1<<20), width: 4, decode: floats32}
	switch format {
	case "bvecs":
		v.width, v.decode = 1, bytes8
	case "ivecs":
		v.decode = ints32
	}
	if err := v.measure(); err != nil {
		f.Close()
		return nil, err
	}
	return v, nil
}

// measure finds dimension and number of rows, and refuses a file that is cut
// off before anything of it is used.
func (v *vecs) measure() error {
	info, err := v.f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size == 0 {
		return badFile(v.path, "it is empty")
	}
	var head [4]byte
	if _, err := v.f.ReadAt(head[:], 0); err != nil {
		return badFile(v.path, "cut off in row 0, at byte %d: no dimension", size)
	}
	v.dim = int(int32(binary.LittleEndian.Uint32(head[:])))
	if v.dim < 1 || v.dim > maxDim {
		return badFile(v.path, "row 0: dimension %d, want 1 to %d", v.dim, maxDim)
	}
	v.raw = make([]byte, 4+v.dim*v.width)
	v.rows = int(size / int64(len(v.raw)))
	rest := size % int64(len(v.raw))
	if rest == 0 {
		return nil
	}
	// A row of another dimension has the same effect on the size as an end that is
	// missing. Only a walk tells them apart, and this file is refused anyway.
	for row := range v.rows {
		if _, err := v.f.ReadAt(head[:], int64(row)*int64(len(v.raw))); err != nil {
			return fmt.Errorf("%s: %w", v.path, err)
		}
		if dim := int32(binary.LittleEndian.Uint32(head[:])); int(dim) != v.dim {
			return v.otherDim(row, dim)
		}
	}
	if rest >= int64(len(head)) {
		if _, err := v.f.ReadAt(head[:], size-rest); err != nil {
			return fmt.Errorf("%s: %w", v.path, err)
		}
		if dim := int32(binary.LittleEndian.Uint32(head[:])); int(dim) != v.dim {
			return v.otherDim(v.rows, dim)
		}
	}
	return badFile(v.path, "cut off in row %d: it begins at byte %d and has %d of %d bytes",
		v.rows, size-rest, rest, len(v.raw))
}

func (v *vecs) otherDim(row int, dim int32) error {
	return badFile(v.path, "row %d, at byte %d: dimension %d, want %d as in the rows before", row, int64(row)*int64(len(v.raw)), dim, v.dim)
}

func (v *vecs) Next(row *Row) error {
	if v.next >= v.rows {
		return io.EOF
	}
	if _, err := io.ReadFull(v.r, v.raw); err != nil {
		return badFile(v.path, "row %d, at byte %d: %v", v.next, int64(v.next)*int64(len(v.raw)), err)
	}
	if dim := int32(binary.LittleEndian.Uint32(v.raw)); int(dim) != v.dim {
		return v.otherDim(v.next, dim)
	}
	*row = Row{Vector: make([]float32, v.dim)}
	v.decode(row.Vector, v.raw[4:])
	v.next++
	return finite(v.path, v.next-1, row.Vector)
}

func (v *vecs) Skip(n int) error {
	if v.next+n > v.rows {
		return badFile(v.path, "it has %d rows, cannot go on after row %d", v.rows, v.next+n)
	}
	v.next += n
	if _, err := v.f.Seek(int64(v.next)*int64(len(v.raw)), io.SeekStart); err != nil {
		return fmt.Errorf("%s: %w", v.path, err)
	}
	v.r.Reset(v.f)
	return nil
}

func (v *vecs) Rows() int      { return v.rows }
func (v *vecs) Dim() int       { return v.dim }
func (v *vecs) Metric() string { return "" }
func (v *vecs) Close() error   { return v.f.Close() }

func floats32(dst []float32, raw []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
}

func bytes8(dst []float32, raw []byte) {
	for i := range dst {
		dst[i] = float32(raw[i])
	}
}

func ints32(dst []float32, raw []byte) {
	for i := range dst {
		dst[i] = float32(int32(binary.LittleEndian.Uint32(raw[4*i:])))
	}
}

// Neighbors reads an ivecs file of row numbers.
func Neighbors(path string) ([][]int32, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out [][]int32
	for at := 0; at < len(raw); {
		if len(raw)-at < 4 {
			return nil, badFile(path, "cut off in row %d, at byte %d", len(out), at)
		}
		n := int(int32(binary.LittleEndian.Uint32(raw[at:])))
		if at += 4; n < 0 || n > (len(raw)-at)/4 {
			return nil, badFile(path, "cut off in row %d, at byte %d", len(out), at)
		}
		row := make([]int32, n)
		for i := range row {
			row[i] = int32(binary.LittleEndian.Uint32(raw[at+4*i:]))
		}
		out, at = append(out, row), at+4*n
	}
	return out, nil
}
