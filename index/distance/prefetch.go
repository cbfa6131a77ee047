// SPDX-License-Identifier: Apache-2.0

package distance

import "unsafe"

// Prefetch asks for the cache lines of a row that will be read soon, such as the
// neighbours of the vertex a search is likely to expand next. It changes nothing
// but time; where there are no kernels in assembly it does nothing.
func Prefetch[T any](row []T) {
	if len(row) == 0 {
		return
	}
	prefetch(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(row))), uintptr(len(row))*unsafe.Sizeof(row[0])))
}
