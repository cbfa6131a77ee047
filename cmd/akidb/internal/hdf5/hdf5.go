// SPDX-License-Identifier: Apache-2.0

// Package hdf5 reads numeric datasets of rank 1 and 2 from HDF5 files as the
// ann-benchmarks project writes them with h5py.
//
// It covers superblocks 0 to 3, object headers 1 and 2, groups with a symbol
// table or compact links, contiguous, compact and chunked layouts (B-tree
// version 1, or a single chunk), the filters deflate, shuffle and fletcher32,
// and integers and floats of 1 to 8 bytes in either byte order. Anything else
// is an error that says what was met. It never writes.
//
// Structure: "HDF5 File Format Specification", version 3.0, The HDF Group.
package hdf5

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Bounds against files that lie about themselves.
const (
	maxDepth      = 32
	maxMessages   = 4096
	maxBlockBytes = 64 << 20 // metadata
	maxChunkBytes = 2 << 30  // decoded data of one chunk
	maxChunks     = 1 << 22
	minNodeBytes  = 24 // so a file has no more nodes than size/24, unless a tree contains itself
)

// ErrFormat marks files that are damaged, cut off, or use what this package
// does not read.
var ErrFormat = errors.New("hdf5")

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// File is an open file.
type File struct {
	r      io.ReaderAt
	close  func() error
	size   int64
	offset int // bytes of an address
	length int // bytes of a length
	base   uint64
	root   *object
	nodes  int // visited in the tree being walked
}

// node reads the head of a tree's node and counts it.
func (f *File) node(addr uint64, depth int) ([]byte, error) {
	if f.nodes++; int64(f.nodes) > f.size/minNodeBytes || depth > maxDepth {
		return nil, formatError("tree without end")
	}
	return f.read(addr, 8)
}

// Open reads the root group of the file at path.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	out, err := New(f, info.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	out.close = f.Close
	return out, nil
}

// New reads a file of size bytes from r.
func New(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size, close: func() error { return nil }}
	addr, err := f.superblock()
	if err != nil {
		return nil, err
	}
	f.root, err = f.object(addr)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes what Open opened.
func (f *File) Close() error { return f.close() }

// superblock finds the address of the root group's object header.
func (f *File) superblock() (uint64, error) {
	head, err := f.read(0, min(128, int(f.size)))
	if err != nil {
		return 0, err
	}
	if len(head) < 48 || string(head[:8]) != "\x89HDF\r\n\x1a\n" {
		return 0, formatError("no HDF5 signature at the beginning of the file")
	}
	b := buffer{data: head[8:]}
	version := b.u8()
	switch version {
	case 0, 1:
		b.skip(4) // versions of parts, reserved
		f.offset, f.length = int(b.u8()), int(b.u8())
		b.skip(1 + 2 + 2 + 4)
		if version == 1 {
			b.skip(4)
		}
	case 2, 3:
		f.offset, f.length = int(b.u8()), int(b.u8())
		b.skip(1)
	default:
		return 0, formatError("superblock version %d", version)
	}
	if !width(f.offset) || !width(f.length) {
		return 0, formatError("addresses of %d and lengths of %d bytes", f.offset, f.length)
	}
	f.base = b.uint(f.offset)
	b.skip(f.offset) // free space, or superblock extension
	end := b.uint(f.offset)
	var root uint64
	if version <= 1 {
		b.skip(f.offset) // driver information
		b.skip(f.offset) // name of the root entry
	}
	root = b.uint(f.offset)
	if b.err != nil {
		return 0, b.err
	}
	if end > uint64(f.size) {
		return 0, formatError("file is cut off: %d bytes, its header says %d", f.size, end)
	}
	return root, nil
}

func width(n int) bool { return n == 2 || n == 4 || n == 8 }

// read returns n bytes at an address.
func (f *File) read(addr uint64, n int) ([]byte, error) {
	at := f.base + addr
	if n < 0 || at < f.base || at > uint64(f.size) || uint64(n) > uint64(f.size)-at {
		return nil, formatError("%d bytes at offset %d lie outside the file of %d", n, at, f.size)
	}
	out := make([]byte, n)
	if _, err := f.r.ReadAt(out, int64(at)); err != nil && err != io.EOF {
		return nil, fmt.Errorf("%w: read at offset %d: %w", ErrFormat, at, err)
	}
	return out, nil
}

// defined is false for the address that stands for none.
func (f *File) defined(addr uint64) bool { return addr != ^uint64(0)>>(64-8*f.offset) }

// message is one message of an object header.
type message struct {
	kind uint16
	data []byte
}

// object is a group or a dataset.
type object struct {
	f        *File
	messages []message
	seen     int // messages read, continuations too: those may form a circle
}

func (o *object) find(kind uint16) []byte {
	for _, m := range o.messages {
		if m.kind == kind {
			return m.data
		}
	}
	return nil
}

// Kinds of messages.
const (
	msgDataspace    = 0x01
	msgLinkInfo     = 0x02
	msgDatatype     = 0x03
	msgLink         = 0x06
	msgLayout       = 0x08
	msgFilters      = 0x0b
	msgAttribute    = 0x0c
	msgContinuation = 0x10
	msgSymbolTable  = 0x11
)

func (f *File) object(addr uint64) (*object, error) {
	head, err := f.read(addr, 16)
	if err != nil {
		return nil, err
	}
	o := &object{f: f}
	if string(head[:4]) == "OHDR" {
		return o, o.headerV2(addr)
	}
	if head[0] != 1 {
		return nil, formatError("no object header at offset %d", f.base+addr)
	}
	size := binary.LittleEndian.Uint32(head[8:])
	block, err := f.block(addr+16, uint64(size))
	if err != nil {
		return nil, err
	}
	return o, o.blockV1(block, 0)
}

// block reads metadata of a size that the file tells.
func (f *File) block(addr, size uint64) ([]byte, error) {
	if size > maxBlockBytes {
		return nil, formatError("metadata of %d bytes at offset %d", size, f.base+addr)
	}
	return f.read(addr, int(size))
}

func (o *object) blockV1(block []byte, depth int) error {
	b := buffer{data: block}
	for b.left() >= 8 {
		kind, size := uint16(b.uint(2)), int(b.uint(2))
		b.skip(4)
		if err := o.message(kind, b.take(size), depth, o.blockV1); err != nil {
			return err
		}
		if b.err != nil {
			return b.err
		}
	}
	return nil
}

// message keeps a message, or follows it to the block in which the header goes on.
func (o *object) message(kind uint16, data []byte, depth int, next func([]byte, int) error) error {
	if o.seen++; o.seen > maxMessages || depth > maxDepth {
		return formatError("object header without end")
	}
	if kind != msgContinuation {
		o.messages = append(o.messages, message{kind, data})
		return nil
	}
	c := buffer{data: data}
	addr, size := c.uint(o.f.offset), c.uint(o.f.length)
	if c.err != nil {
		return c.err
	}
	block, err := o.f.block(addr, size)
	if err != nil {
		return err
	}
	return next(block, depth+1)
}

func (o *object) headerV2(addr uint64) error {
	head, err := o.f.read(addr, min(64, int(uint64(o.f.size)-o.f.base-addr)))
	if err != nil {
		return err
	}
	b := buffer{data: head[5:]} // signature, version
	flags := b.u8()
	if flags&0x20 != 0 {
		b.skip(16) // times
	}
	if flags&0x10 != 0 {
		b.skip(4) // attribute phase change
	}
	size := b.uint(1 << (flags & 3))
	if b.err != nil {
		return b.err
	}
	block, err := o.f.block(addr+uint64(len(head)-b.left()), size)
	if err != nil {
		return err
	}
	return o.blockV2(block, flags&4 != 0, 0)
}

func (o *object) blockV2(block []byte, ordered bool, depth int) error {
	b := buffer{data: block}
	for b.left() >= 4 {
		kind, size := uint16(b.u8()), int(b.uint(2))
		b.skip(1)
		if ordered {
			b.skip(2)
		}
		data := b.take(size)
		if b.err != nil {
			return nil // a gap shorter than a message ends a block
		}
		err := o.message(kind, data, depth, func(block []byte, depth int) error {
			if len(block) < 8 || string(block[:4]) != "OCHK" {
				return formatError("object header goes on at a place without OCHK")
			}
			return o.blockV2(block[4:len(block)-4], ordered, depth)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Names lists the members of the root group.
func (f *File) Names() ([]string, error) {
	var out []string
	err := f.links(func(name string, _ uint64) error {
		out = append(out, name)
		return nil
	})
	return out, err
}

// links calls fn for each member of the root group.
func (f *File) links(fn func(name string, addr uint64) error) error {
	if st := f.root.find(msgSymbolTable); st != nil {
		b := buffer{data: st}
		tree, heap := b.uint(f.offset), b.uint(f.offset)
		if b.err != nil {
			return b.err
		}
		names, err := f.localHeap(heap)
		if err != nil {
			return err
		}
		f.nodes = 0
		return f.symbols(tree, names, 0, fn)
	}
	if info := f.root.find(msgLinkInfo); len(info) > 2 {
		b := buffer{data: info[1:]}
		if b.u8()&1 != 0 {
			b.skip(8)
		}
		if heap := b.uint(f.offset); b.err == nil && f.defined(heap) {
			return formatError("root group with dense links; rewrite the file with h5repack")
		}
	}
	for _, m := range f.root.messages {
		if m.kind != msgLink {
			continue
		}
		name, addr, ok, err := f.link(m.data)
		if err != nil {
			return err
		}
		if ok {
			if err := fn(name, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// link reads a hard link; ok is false for other kinds.
func (f *File) link(data []byte) (name string, addr uint64, ok bool, err error) {
	b := buffer{data: data}
	b.skip(1)
	flags := b.u8()
	kind := byte(0)
	if flags&8 != 0 {
		kind = b.u8()
	}
	if flags&4 != 0 {
		b.skip(8)
	}
	if flags&16 != 0 {
		b.skip(1)
	}
	name = string(b.take(int(b.uint(1 << (flags & 3)))))
	if kind == 0 {
		addr = b.uint(f.offset)
	}
	return name, addr, kind == 0, b.err
}

func (f *File) localHeap(addr uint64) ([]byte, error) {
	head, err := f.read(addr, 8+2*f.length+f.offset)
	if err != nil {
		return nil, err
	}
	if string(head[:4]) != "HEAP" {
		return nil, formatError("no local heap at offset %d", f.base+addr)
	}
	b := buffer{data: head[8:]}
	size := b.uint(f.length)
	b.skip(f.length)
	data := b.uint(f.offset)
	return f.block(data, size)
}

// symbols walks the B-tree of a group.
func (f *File) symbols(addr uint64, names []byte, depth int, fn func(string, uint64) error) error {
	head, err := f.node(addr, depth)
	if err != nil {
		return err
	}
	count := int(binary.LittleEndian.Uint16(head[6:]))
	if string(head[:4]) == "SNOD" {
		entry := 2*f.offset + 24
		block, err := f.read(addr+8, count*entry)
		if err != nil {
			return err
		}
		for i := range count {
			b := buffer{data: block[i*entry:]}
			name, err := cString(names, b.uint(f.offset))
			if err != nil {
				return err
			}
			if err := fn(name, b.uint(f.offset)); err != nil {
				return err
			}
		}
		return nil
	}
	if string(head[:4]) != "TREE" || head[4] != 0 {
		return formatError("no group tree at offset %d", f.base+addr)
	}
	block, err := f.read(addr+8+2*uint64(f.offset), count*(f.length+f.offset))
	if err != nil {
		return err
	}
	b := buffer{data: block}
	for range count {
		b.skip(f.length)
		if err := f.symbols(b.uint(f.offset), names, depth+1, fn); err != nil {
			return err
		}
	}
	return b.err
}

func cString(data []byte, at uint64) (string, error) {
	for i := at; i < uint64(len(data)); i++ {
		if data[i] == 0 {
			return string(data[at:i]), nil
		}
	}
	return "", formatError("a name outside its heap")
}

// buffer reads little-endian numbers; the first error stays.
type buffer struct {
	data []byte
	err  error
}

func (b *buffer) left() int { return len(b.data) }

func (b *buffer) take(n int) []byte {
	if n < 0 || n > len(b.data) {
		if b.err == nil {
			b.err = formatError("a structure is cut off")
		}
		b.data = nil
		return nil
	}
	out := b.data[:n]
	b.data = b.data[n:]
	return out
}

func (b *buffer) skip(n int) { b.take(n) }

func (b *buffer) u8() byte { return byte(b.uint(1)) }

func (b *buffer) uint(n int) uint64 {
	var v uint64
	for i, x := range b.take(n) {
		v |= uint64(x) << (8 * i)
	}
	return v
}
