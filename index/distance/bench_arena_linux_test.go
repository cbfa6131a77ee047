// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// benchArena is memory on huge pages outside the Go heap, as the index has it.
func benchArena[T any](b *testing.B, n int) []T {
	var zero T
	size := n * int(unsafe.Sizeof(zero))
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		b.Fatal(err)
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // small pages measure too
	b.Cleanup(func() { _ = unix.Munmap(mem) })
	return unsafe.Slice((*T)(unsafe.Pointer(&mem[0])), n)
}
