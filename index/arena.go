// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is an append-only array of equal rows off the Go heap. Address space is
// reserved once and pages are committed as rows are added, so a row never moves:
// readers need no lock, and the garbage collector never looks inside. One
// goroutine grows it; what it has written is published by the owner's watermark.
//
// The alternative, a table of fixed chunks, was rejected: kernels that gather
// many rows by number want one base address.
type arena struct {
	base      unsafe.Pointer
	stride    uintptr
	reserved  uintptr // bytes of address space
	committed uintptr // bytes that may be touched
	mapping   []byte  // what munmap takes
	open      bool    // all of it may be touched from the beginning
	small     bool    // keep to small pages, since rows will be discarded
}

const (
	hugePage   = 2 << 20
	maxReserve = 1 << 40
)

// physicalMemory is the RAM of the machine, or of what the kernel admits to.
var physicalMemory = sync.OnceValue(machineMemory)

// unknownMemory is what is taken for it where the kernel does not say.
const unknownMemory = 64 << 30

// maxRows bounds the vertices of a collection that the machine's memory can hold,
// from the bytes a vertex takes at least: its links, slot and index of deletion,
// its vector or, with vectors on disk, its codes; and more.
func (cfg *Config) maxRows(more int) int {
	row := 4 * cfg.Dimension
	if cfg.onDisk() {
		row = cfg.Dimension
	}
	bytes := uintptr(row + 8*cfg.M + 12 + more)
	return int(min(physicalMemory()/bytes+1, maxVertices))
}

// onDisk reports whether vectors leave memory once the graph covers them.
func (cfg *Config) onDisk() bool { return cfg.VectorsOnDisk && cfg.Quantization != QuantizationNone }

// openShare of the memory is the most that is readable and writable from the
// beginning. The kernel makes one area of such neighbours, of which a process may have
// some 65,000.
const openShare = 32

// newArena reserves address space for so many rows of stride bytes, and less
// where the address space is short.
func newArena(stride, rows int) (*arena, error) {
	a := &arena{stride: uintptr(stride)}
	want := min(uintptr(stride)*uintptr(rows), maxReserve)
	little := rows <= 4*fewRows // which never gets huge pages
	round, align := uintptr(hugePage), uintptr(hugePage)
	if little {
		round, align = 64<<10, 1
	}
	want = (want + round - 1) / round * round
	var err error
	if little || want <= physicalMemory()/openShare {
		a.mapping, err = mmap(want+align-1, unix.PROT_READ|unix.PROT_WRITE)
		a.open = err == nil
	}
	for ; !a.open && want >= round; want /= 2 {
		// Where the kernel counts what may be written as taken, this is not counted.
		a.mapping, err = mmap(want+align-1, unix.PROT_NONE)
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("index: reserve address space: %w", err)
	}
	if little && a.open {
		a.committed = want
	}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(a.mapping)))
	a.base = unsafe.Pointer(unsafe.SliceData(a.mapping[(align-start%align)%align:]))
	a.reserved = want
	return a, nil
}

func mmap(size uintptr, protection int) ([]byte, error) {
	p, err := unix.MmapPtr(-1, 0, nil, size, protection, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), size), nil
}

// grow makes rows [0, n) usable. Out of memory is fatal, as it is for Go's heap.
func (a *arena) grow(n int) {
	need := uintptr(n) * a.stride
	if need <= a.committed {
		return
	}
	if need > a.reserved {
		panic(fmt.Sprintf("index: arena of %d bytes is full; the collection needs a larger machine", a.reserved))
	}
	step := max(64<<10, min(a.committed/4, 64<<20))
	if a.committed >= hugePage {
		step = (step + hugePage - 1) / hugePage * hugePage
	}
	to := min((max(need, a.committed+step)+0xffff)&^0xffff, a.reserved)
	if to > hugePage {
		to = min((to+hugePage-1)/hugePage*hugePage, a.reserved)
	}
	part := unsafe.Slice((*byte)(unsafe.Add(a.base, a.committed)), to-a.committed)
	if !a.open {
		if err := unix.Mprotect(part, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			panic(fmt.Sprintf("index: commit %d bytes: %v", len(part), err))
		}
	}
	if to >= hugePage && !a.small {
		// Small collections stay on small pages; advice may be refused.
		adviseHuge(part)
	}
	a.committed = to
}

// copyRows makes rows [from, to) those of other, which has them.
func (a *arena) copyRows(other *arena, from, to uint32) {
	if a == nil || from >= to {
		return
	}
	a.grow(int(to))
	n := int(to-from) * int(a.stride)
	copy(u8At(a.row(from), n), u8At(other.row(from), n))
}

// row is the address of row i, which must be below what grow was given.
func (a *arena) row(i uint32) unsafe.Pointer {
	return unsafe.Add(a.base, uintptr(i)*a.stride)
}

// discard gives the pages of rows below to back, those below from having been
// given back before. What they hold afterwards depends on the system.
func (a *arena) discard(from, to uint32) {
	page := uintptr(unix.Getpagesize())
	lo := (uintptr(from) * a.stride) &^ (page - 1)
	hi := (uintptr(to) * a.stride) &^ (page - 1)
	if lo < hi {
		_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(a.base, lo)), hi-lo), adviceDiscard)
	}
}

// free unmaps the arena. No reader may be left.
func (a *arena) free() {
	if a == nil || a.mapping == nil {
		return
	}
	_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(a.mapping)), uintptr(len(a.mapping)))
	a.mapping, a.base, a.committed = nil, nil, 0
}

func f32At(p unsafe.Pointer, n int) []float32 { return unsafe.Slice((*float32)(p), n) }
func u32At(p unsafe.Pointer, n int) []uint32  { return unsafe.Slice((*uint32)(p), n) }
func u8At(p unsafe.Pointer, n int) []byte     { return unsafe.Slice((*byte)(p), n) }
