// SPDX-License-Identifier: Apache-2.0

package vecfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
)

// npy reads arrays of rank 2 as numpy.save writes them.
type npy struct {
	path   string
	f      *os.File
	r      *bufio.Reader
	data   int64 // where the values begin
	rows   int
	dim    int
	next   int
	raw    []byte
	decode func(dst []float32, raw []byte)
}

func openNpy(path string) (Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	n := &npy{path: path, f: f, r: bufio.NewReaderSize(f, 1<<20)}
	if err := n.header(); err != nil {
		f.Close()
		return nil, err
	}
	return n, nil
}

// header reads "\x93NUMPY", the version, and the text of a Python dict.
func (n *npy) header() error {
	var pre [12]byte
	if _, err := io.ReadFull(n.r, pre[:10]); err != nil || string(pre[:6]) != "\x93NUMPY" {
		return badFile(n.path, "no npy signature")
	}
	size, at := int64(binary.LittleEndian.Uint16(pre[8:])), int64(10)
	if pre[6] >= 2 {
		if _, err := io.ReadFull(n.r, pre[10:]); err != nil {
			return badFile(n.path, "header is cut off")
		}
		size, at = int64(binary.LittleEndian.Uint32(pre[8:])), 12
	}
	if pre[6] < 1 || pre[6] > 3 || size > 1<<20 {
		return badFile(n.path, "npy version %d with a header of %d bytes", pre[6], size)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(n.r, text); err != nil {
		return badFile(n.path, "header is cut off")
	}
	n.data = at + size
	width, err := n.parse(string(text))
	if err != nil {
		return err
	}
	n.raw = make([]byte, n.dim*width)
	info, err := n.f.Stat()
	if err != nil {
		return err
	}
	have, want := info.Size()-n.data, int64(n.rows)*int64(len(n.raw))
	if have < want {
		row := have / int64(len(n.raw))
		return badFile(n.path, "cut off in row %d of %d: it begins at byte %d and has %d of %d bytes",
			row, n.rows, n.data+row*int64(len(n.raw)), have%int64(len(n.raw)), len(n.raw))
	}
	return nil
}

// parse reads descr, fortran_order and shape, and chooses the decoder.
func (n *npy) parse(text string) (width int, err error) {
	descr := regexp.MustCompile(`'descr':\s*'([^']*)'`).FindStringSubmatch(text)
	order := regexp.MustCompile(`'fortran_order':\s*(\w+)`).FindStringSubmatch(text)
	shape := regexp.MustCompile(`'shape':\s*\((\d+),\s*(\d+),?\s*\)`).FindStringSubmatch(text)
	if descr == nil || order == nil {
		return 0, badFile(n.path, "header %q", text)
	}
	if shape == nil {
		return 0, badFile(n.path, "want an array of rank 2, header says %q", text)
	}
	if order[1] != "False" {
		return 0, badFile(n.path, "array in Fortran order; save numpy.ascontiguousarray of it")
	}
	rows, err1 := strconv.ParseInt(shape[1], 10, 32)
	dim, err2 := strconv.ParseInt(shape[2], 10, 32)
	if err1 != nil || err2 != nil || dim < 1 || dim > maxDim {
		return 0, badFile(n.path, "shape %s × %s", shape[1], shape[2])
	}
	n.rows, n.dim = int(rows), int(dim)
	switch descr[1] {
	case "<f4":
		n.decode, width = floats32, 4
	case "<f8":
		n.decode, width = floats64, 8
	case "<f2":
		n.decode, width = floats16, 2
	case "|u1":
		n.decode, width = bytes8, 1
	case "|i1":
		n.decode, width = ints8, 1
	case "<i4":
		n.decode, width = ints32, 4
	default:
		return 0, badFile(n.path, "values of type %q, want <f4, <f8, <f2, |u1, |i1 or <i4", descr[1])
	}
	return width, nil
}

func (n *npy) Next(row *Row) error {
	if n.next >= n.rows {
		return io.EOF
	}
	if _, err := io.ReadFull(n.r, n.raw); err != nil {
		return badFile(n.path, "row %d: %v", n.next, err)
	}
	*row = Row{Vector: make([]float32, n.dim)}
	n.decode(row.Vector, n.raw)
	n.next++
	return finite(n.path, n.next-1, row.Vector)
}

func (n *npy) Skip(k int) error {
	if n.next+k > n.rows {
		return badFile(n.path, "it has %d rows, cannot go on after row %d", n.rows, n.next+k)
	}
	n.next += k
	if _, err := n.f.Seek(n.data+int64(n.next)*int64(len(n.raw)), io.SeekStart); err != nil {
		return fmt.Errorf("%s: %w", n.path, err)
	}
	n.r.Reset(n.f)
	return nil
}

func (n *npy) Rows() int      { return n.rows }
func (n *npy) Dim() int       { return n.dim }
func (n *npy) Metric() string { return "" }
func (n *npy) Close() error   { return n.f.Close() }

func floats64(dst []float32, raw []byte) {
	for i := range dst {
		dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])))
	}
}

func ints8(dst []float32, raw []byte) {
	for i := range dst {
		dst[i] = float32(int8(raw[i]))
	}
}

// floats16 reads IEEE 754 half precision.
func floats16(dst []float32, raw []byte) {
	for i := range dst {
		h := uint32(binary.LittleEndian.Uint16(raw[2*i:]))
		sign, exp, frac := h>>15<<31, h>>10&31, h&1023
		switch exp {
		case 0: // zero and subnormal: frac × 2^-24
			dst[i] = float32(frac) / (1 << 24)
			if sign != 0 {
				dst[i] = -dst[i]
			}
		case 31:
			dst[i] = math.Float32frombits(sign | 255<<23 | frac<<13)
		default:
			dst[i] = math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
		}
	}
}
