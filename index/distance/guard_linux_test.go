// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fenced returns n elements that end (or begin, if atStart) where memory that
// may not be touched begins (or ends): a kernel that reads one byte too many
// crashes the test.
func fenced[T any](t *testing.T, n int, atStart bool) []T {
	var zero T
	const pages = 16
	page := unix.Getpagesize()
	mem, err := unix.Mmap(-1, 0, (pages+2)*page, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	inside := mem[page : (pages+1)*page]
	if err := unix.Mprotect(inside, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	size := n * int(unsafe.Sizeof(zero))
	if !atStart {
		inside = inside[len(inside)-size:]
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(inside))), n)
}

// edge returns the n elements of v at its fence.
func edge[T any](v []T, n int, atStart bool) []T {
	if atStart {
		return v[:n]
	}
	return v[len(v)-n:]
}

// Goal: no kernel reads or writes one byte outside its arguments, in front or
// behind. Every length ends, and begins, at a page that may not be touched.
func TestKernelsStayInsideTheirArguments(t *testing.T) {
	ids := []uint32{2, 0, 1}
	const most = 784
	eachVariant(t, func(t *testing.T) {
		for _, start := range []bool{false, true} {
			floats, floatRows, out := fenced[float32](t, most, start), fenced[float32](t, 3*most, start), fenced[float32](t, 3, start)
			codes, codeRows, ints := fenced[byte](t, most, start), fenced[byte](t, 3*most, start), fenced[int32](t, 3, start)
			words, wordRows := fenced[uint64](t, most, start), fenced[uint64](t, 3*most, start)
			for _, n := range lengths() {
				if n > most {
					continue
				}
				L2SquaredRows(edge(floats, n, start), edge(floatRows, 3*n, start), n, ids, out)
				InnerProductRows(edge(floats, n, start), edge(floatRows, 3*n, start), n, ids, out)
				L2U8(edge(codes, n, start), edge(codeRows, n, start))
				DotU8S8(edge(codes, n, start), asInt8(edge(codeRows, n, start)))
				if n > 0 && n%64 == 0 {
					L2U8Rows(edge(codes, n, start), edge(codeRows, 3*n, start), n, ids, ints)
					DotU8S8Rows(asInt8(edge(codes, n, start)), edge(codeRows, 3*n, start), n, ids, ints)
					FastScan(edge(codes, n, start), edge(codeRows, 3*n, start), make([]uint32, 3*FastScanLanes))
				}
				HammingRows(edge(words, n, start), edge(wordRows, 3*n, start), n, ids, ints)
				if n%planes == 0 {
					DotBits4Rows(edge(words, n, start), edge(wordRows, 3*n/planes, start), n/planes, ids, ints)
				}
				Prefetch(edge(words, n, start))
			}
		}
	})
}
