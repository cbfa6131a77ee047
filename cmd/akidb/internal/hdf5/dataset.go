// SPDX-License-Identifier: Apache-2.0

package hdf5

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// Dataset is an array of numbers of rank 1 or 2.
type Dataset struct {
	f    *File
	Name string
	Rows int
	Dim  int // 1 if the rank is 1
	rank int
	elem element

	layout  byte // layoutCompact, layoutContiguous, layoutChunked
	compact []byte
	addr    uint64
	filters []filter

	chunkRows, chunkCols int
	chunks               []chunk // sorted by row, then column
	band                 []float32
	bandFrom, bandTo     int // rows that band holds
}

const (
	layoutCompact    = 0
	layoutContiguous = 1
	layoutChunked    = 2
)

// element is the type of a number.
type element struct {
	float  bool
	signed bool
	size   int
	order  binary.ByteOrder
}

// filter is one step of the pipeline that chunks went through.
type filter struct {
	id     uint16
	values []uint32
}

const (
	filterDeflate  = 1
	filterShuffle  = 2
	filterFletcher = 3
)

type chunk struct {
	row, col int
	addr     uint64
	size     uint32
	mask     uint32
}

// Dataset opens the dataset of that name in the root group.
func (f *File) Dataset(name string) (*Dataset, error) {
	var addr uint64
	found := false
	err := f.links(func(n string, a uint64) error {
		if n == name {
			addr, found = a, true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		names, _ := f.Names()
		return nil, formatError("no dataset %q; the file has %q", name, names)
	}
	o, err := f.object(addr)
	if err != nil {
		return nil, fmt.Errorf("dataset %q: %w", name, err)
	}
	d := &Dataset{f: f, Name: name}
	for _, step := range []func(*object) error{d.space, d.datatype, d.pipeline, d.place} {
		if err := step(o); err != nil {
			return nil, fmt.Errorf("dataset %q: %w", name, err)
		}
	}
	return d, nil
}

func (d *Dataset) space(o *object) error {
	b := buffer{data: o.find(msgDataspace)}
	version, rank := b.u8(), int(b.u8())
	switch version {
	case 1:
		b.skip(6)
	case 2:
		b.skip(2)
	default:
		return formatError("dataspace version %d", version)
	}
	if rank < 1 || rank > 2 {
		return formatError("rank %d, want 1 or 2", rank)
	}
	rows, dim := b.uint(d.f.length), uint64(1)
	if rank == 2 {
		dim = b.uint(d.f.length)
	}
	if b.err != nil {
		return b.err
	}
	if rows > math.MaxInt32 || dim > math.MaxInt32 || rows*dim > math.MaxInt64/8 {
		return formatError("shape %d × %d", rows, dim)
	}
	d.rank, d.Rows, d.Dim = rank, int(rows), int(dim)
	return nil
}

func (d *Dataset) datatype(o *object) error {
	e, err := readElement(o.find(msgDatatype))
	d.elem = e
	return err
}

func readElement(data []byte) (element, error) {
	b := buffer{data: data}
	class := b.u8() & 15
	bits := b.uint(3)
	e := element{size: int(b.uint(4)), order: binary.LittleEndian}
	if b.err != nil {
		return e, b.err
	}
	if bits&1 != 0 {
		e.order = binary.BigEndian
	}
	switch {
	case class == 0 && slices.Contains([]int{1, 2, 4, 8}, e.size):
		e.signed = bits&8 != 0
	case class == 1 && (e.size == 4 || e.size == 8):
		e.float = true
	default:
		return e, formatError("elements of class %d and %d bytes, want integers or floats", class, e.size)
	}
	return e, nil
}

func (d *Dataset) pipeline(o *object) error {
	data := o.find(msgFilters)
	if data == nil {
		return nil
	}
	b := buffer{data: data}
	version, n := b.u8(), int(b.u8())
	if version == 1 {
		b.skip(6)
	}
	for range n {
		f := filter{id: uint16(b.uint(2))}
		nameLen := 0
		if version == 1 || f.id >= 256 {
			nameLen = int(b.uint(2))
		}
		b.skip(2)
		values := int(b.uint(2))
		b.skip(nameLen)
		for range values {
			f.values = append(f.values, uint32(b.uint(4)))
			if b.err != nil {
				return b.err
			}
		}
		if version == 1 && values%2 == 1 {
			b.skip(4)
		}
		if f.id < filterDeflate || f.id > filterFletcher {
			return formatError("filter %d, want deflate, shuffle or fletcher32; rewrite the file with h5repack", f.id)
		}
		d.filters = append(d.filters, f)
	}
	return b.err
}

func (d *Dataset) bytes() int { return d.Rows * d.Dim * d.elem.size }

func (d *Dataset) place(o *object) error {
	b := buffer{data: o.find(msgLayout)}
	version := b.u8()
	if version != 3 && version != 4 {
		return formatError("layout version %d", version)
	}
	d.layout = b.u8()
	switch d.layout {
	case layoutCompact:
		d.compact = b.take(int(b.uint(2)))
		if b.err == nil && len(d.compact) < d.bytes() {
			return formatError("compact data of %d bytes, want %d", len(d.compact), d.bytes())
		}
		return b.err
	case layoutContiguous:
		d.addr = b.uint(d.f.offset)
		if b.err != nil || d.Rows == 0 || !d.f.defined(d.addr) {
			return b.err
		}
		if at, want := d.f.base+d.addr, uint64(d.bytes()); at > uint64(d.f.size) || uint64(d.f.size)-at < want {
			have := uint64(max(0, d.f.size-int64(at)))
			row := have / uint64(d.Dim*d.elem.size)
			return formatError("file is cut off in row %d of %d: %d bytes of data at offset %d, want %d", row, d.Rows, have, at, want)
		}
		return nil
	case layoutChunked:
		if version == 4 {
			return d.chunkedV4(&b)
		}
		return d.chunkedV3(&b)
	}
	return formatError("layout class %d", d.layout)
}

func (d *Dataset) chunkedV3(b *buffer) error {
	dims := int(b.u8())
	tree := b.uint(d.f.offset)
	if err := d.chunkShape(dims, func() uint64 { return b.uint(4) }, b); err != nil {
		return err
	}
	if !d.f.defined(tree) {
		return nil // never written: all zeros
	}
	d.f.nodes = 0
	if err := d.chunkTree(tree, 0); err != nil {
		return err
	}
	slices.SortFunc(d.chunks, func(x, y chunk) int {
		if x.row != y.row {
			return x.row - y.row
		}
		return x.col - y.col
	})
	return nil
}

func (d *Dataset) chunkedV4(b *buffer) error {
	flags := b.u8()
	dims, width := int(b.u8()), int(b.u8())
	if width < 1 || width > 8 {
		return formatError("chunk dimensions of %d bytes", width)
	}
	if err := d.chunkShape(dims, func() uint64 { return b.uint(width) }, b); err != nil {
		return err
	}
	if kind := b.u8(); kind != 1 {
		return formatError("chunk index of kind %d; rewrite the file with h5repack --low=0 --high=0", kind)
	}
	c := chunk{size: uint32(d.chunkRows * d.chunkCols * d.elem.size)}
	if flags&2 != 0 {
		c.size, c.mask = uint32(b.uint(d.f.length)), uint32(b.uint(4))
	}
	c.addr = b.uint(d.f.offset)
	if b.err == nil && d.f.defined(c.addr) {
		d.chunks = []chunk{c}
	}
	return b.err
}

// chunkShape reads the shape of a chunk; the last dimension is the element's size.
func (d *Dataset) chunkShape(dims int, next func() uint64, b *buffer) error {
	if dims != d.rank+1 {
		return formatError("chunks of rank %d in data of rank %d", dims-1, d.rank)
	}
	rows, cols := next(), uint64(1)
	if d.rank == 2 {
		cols = next()
	}
	size := next()
	if b.err != nil {
		return b.err
	}
	if rows == 0 || cols == 0 || size != uint64(d.elem.size) || rows > math.MaxInt32 || cols > math.MaxInt32 || rows*cols*size > maxChunkBytes {
		return formatError("chunks of %d × %d × %d bytes", rows, cols, size)
	}
	d.chunkRows, d.chunkCols = int(rows), int(cols)
	return nil
}

// chunkTree walks the B-tree of chunks.
func (d *Dataset) chunkTree(addr uint64, depth int) error {
	f := d.f
	head, err := f.node(addr, depth)
	if err != nil {
		return err
	}
	if string(head[:4]) != "TREE" || head[4] != 1 {
		return formatError("no chunk tree at offset %d", f.base+addr)
	}
	level, count := head[5], int(binary.LittleEndian.Uint16(head[6:]))
	key := 8 + 8*(d.rank+1)
	block, err := f.read(addr+8+2*uint64(f.offset), count*(key+f.offset))
	if err != nil {
		return err
	}
	b := buffer{data: block}
	for range count {
		c := chunk{size: uint32(b.uint(4)), mask: uint32(b.uint(4))}
		row, col := b.uint(8), uint64(0)
		if d.rank == 2 {
			col = b.uint(8)
		}
		b.skip(8)
		c.addr = b.uint(f.offset)
		if level > 0 {
			if err := d.chunkTree(c.addr, depth+1); err != nil {
				return err
			}
			continue
		}
		if row%uint64(d.chunkRows) != 0 || col%uint64(d.chunkCols) != 0 || row >= uint64(d.Rows) || col >= uint64(d.Dim) || len(d.chunks) >= maxChunks {
			return formatError("a chunk at row %d, column %d", row, col)
		}
		c.row, c.col = int(row), int(col)
		d.chunks = append(d.chunks, c)
	}
	return b.err
}

// Row reads row i into dst, which must hold Dim values.
func (d *Dataset) Row(i int, dst []float32) error {
	if i < 0 || i >= d.Rows || len(dst) != d.Dim {
		return formatError("row %d of %d into %d values of %d", i, d.Rows, len(dst), d.Dim)
	}
	width := d.Dim * d.elem.size
	switch d.layout {
	case layoutCompact:
		d.elem.decode(dst, d.compact[i*width:])
		return nil
	case layoutContiguous:
		if !d.f.defined(d.addr) {
			clear(dst)
			return nil
		}
		raw, err := d.f.read(d.addr+uint64(i)*uint64(width), width)
		if err != nil {
			return fmt.Errorf("dataset %q, row %d: %w", d.Name, i, err)
		}
		d.elem.decode(dst, raw)
		return nil
	}
	if i < d.bandFrom || i >= d.bandTo {
		if err := d.loadBand(i / d.chunkRows * d.chunkRows); err != nil {
			return fmt.Errorf("dataset %q, row %d: %w", d.Name, i, err)
		}
	}
	copy(dst, d.band[(i-d.bandFrom)*d.Dim:])
	return nil
}

// loadBand decodes all chunks that begin at row from.
func (d *Dataset) loadBand(from int) error {
	to := min(from+d.chunkRows, d.Rows)
	need := (to - from) * d.Dim
	if need*d.elem.size > maxChunkBytes {
		return formatError("a row of chunks of %d bytes", need*d.elem.size)
	}
	d.bandFrom, d.bandTo = 0, 0
	if cap(d.band) < need {
		d.band = make([]float32, need)
	}
	d.band = d.band[:need]
	clear(d.band)
	first, _ := slices.BinarySearchFunc(d.chunks, from, func(c chunk, row int) int { return c.row - row })
	for _, c := range d.chunks[first:] {
		if c.row != from {
			break
		}
		raw, err := d.decodeChunk(c)
		if err != nil {
			return fmt.Errorf("chunk at offset %d: %w", d.f.base+c.addr, err)
		}
		cols := min(d.chunkCols, d.Dim-c.col)
		for r := range to - from {
			d.elem.decode(d.band[r*d.Dim+c.col:][:cols], raw[r*d.chunkCols*d.elem.size:])
		}
	}
	d.bandFrom, d.bandTo = from, to
	return nil
}

// decodeChunk undoes the filters, last first.
func (d *Dataset) decodeChunk(c chunk) ([]byte, error) {
	want := d.chunkRows * d.chunkCols * d.elem.size
	raw, err := d.f.read(c.addr, int(c.size))
	if err != nil {
		return nil, err
	}
	for i := len(d.filters) - 1; i >= 0; i-- {
		if c.mask>>i&1 != 0 {
			continue
		}
		switch d.filters[i].id {
		case filterFletcher:
			if len(raw) < 4 {
				return nil, formatError("no room for a checksum")
			}
			data, sum := raw[:len(raw)-4], binary.LittleEndian.Uint32(raw[len(raw)-4:])
			if got := fletcher32(data); got != sum {
				return nil, formatError("checksum %08x, want %08x", got, sum)
			}
			raw = data
		case filterDeflate:
			if raw, err = inflate(raw, want+4); err != nil {
				return nil, err
			}
		case filterShuffle:
			raw = unshuffle(raw, d.elem.size)
		}
	}
	if len(raw) < want {
		return nil, formatError("%d bytes decoded, want %d", len(raw), want)
	}
	return raw, nil
}

func inflate(raw []byte, limit int) ([]byte, error) {
	z, err := zlib.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, formatError("deflate: %v", err)
	}
	defer z.Close()
	out, err := io.ReadAll(io.LimitReader(z, int64(limit)))
	if err != nil {
		return nil, formatError("deflate: %v", err)
	}
	return out, nil
}

// unshuffle brings the bytes of an element together again: the filter had put
// all first bytes first, then all second ones.
func unshuffle(raw []byte, size int) []byte {
	n := len(raw) / size
	if size == 1 || n == 0 {
		return raw
	}
	out := make([]byte, len(raw))
	for b := range size {
		for i, v := range raw[b*n : (b+1)*n] {
			out[i*size+b] = v
		}
	}
	copy(out[n*size:], raw[n*size:])
	return out
}

// fletcher32 is the checksum over big-endian 16-bit words.
func fletcher32(data []byte) uint32 {
	var a, b uint32
	for i := 0; i < len(data); i += 2 {
		w := uint32(data[i]) << 8
		if i+1 < len(data) {
			w |= uint32(data[i+1])
		}
		a = (a + w) % 65535
		b = (b + a) % 65535
	}
	return b<<16 | a
}

// decode turns raw into dst.
func (e element) decode(dst []float32, raw []byte) {
	for i := range dst {
		p := raw[i*e.size:]
		switch {
		case e.float && e.size == 4:
			dst[i] = math.Float32frombits(e.order.Uint32(p))
		case e.float:
			dst[i] = float32(math.Float64frombits(e.order.Uint64(p)))
		case e.size == 1 && e.signed:
			dst[i] = float32(int8(p[0]))
		case e.size == 1:
			dst[i] = float32(p[0])
		case e.size == 2 && e.signed:
			dst[i] = float32(int16(e.order.Uint16(p)))
		case e.size == 2:
			dst[i] = float32(e.order.Uint16(p))
		case e.size == 4 && e.signed:
			dst[i] = float32(int32(e.order.Uint32(p)))
		case e.size == 4:
			dst[i] = float32(e.order.Uint32(p))
		case e.signed:
			dst[i] = float32(int64(e.order.Uint64(p)))
		default:
			dst[i] = float32(e.order.Uint64(p))
		}
	}
}
