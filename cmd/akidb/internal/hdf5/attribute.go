// SPDX-License-Identifier: Apache-2.0

package hdf5

import "strings"

// Attribute returns a text attribute of the root group, "" if there is none of
// that name or it is no text.
func (f *File) Attribute(name string) string {
	for _, m := range f.root.messages {
		if m.kind != msgAttribute {
			continue
		}
		if n, value := f.attribute(m.data); n == name {
			return value
		}
	}
	return ""
}

func (f *File) attribute(data []byte) (name, value string) {
	b := buffer{data: data}
	version := b.u8()
	b.skip(1)
	nameLen, typeLen, spaceLen := int(b.uint(2)), int(b.uint(2)), int(b.uint(2))
	pad := func(n int) int { return n }
	switch version {
	case 1:
		pad = func(n int) int { return (n + 7) &^ 7 }
	case 3:
		b.skip(1) // character set
	}
	name = strings.TrimRight(string(b.take(pad(nameLen))), "\x00")
	kind := b.take(pad(typeLen))
	b.skip(pad(spaceLen))
	if b.err != nil || len(kind) < 8 {
		return name, ""
	}
	switch kind[0] & 15 {
	case 3: // text of fixed length
		t := buffer{data: kind[4:]}
		return name, strings.TrimRight(string(b.take(int(t.uint(4)))), "\x00 ")
	case 9: // variable length: it lies in a global heap
		if kind[1]&15 != 1 {
			return name, ""
		}
		size, addr, index := b.uint(4), b.uint(f.offset), b.uint(4)
		if b.err != nil {
			return name, ""
		}
		return name, strings.TrimRight(string(f.globalHeap(addr, index, size)), "\x00")
	}
	return name, ""
}

// globalHeap returns an object of a heap collection, nil if it is not there.
func (f *File) globalHeap(addr, index, size uint64) []byte {
	head, err := f.read(addr, 8+f.length)
	if err != nil || string(head[:4]) != "GCOL" {
		return nil
	}
	h := buffer{data: head[8:]}
	block, err := f.block(addr, h.uint(f.length))
	if err != nil || len(block) < len(head) {
		return nil
	}
	b := buffer{data: block[len(head):]}
	for b.left() >= 8+f.length {
		id := b.uint(2)
		b.skip(6)
		n := b.uint(f.length)
		if id == 0 || n > uint64(b.left()) {
			return nil
		}
		object := b.take(int(n))
		b.skip(min(int(-n&7), b.left()))
		if id == index {
			return object[:min(size, n)]
		}
	}
	return nil
}
