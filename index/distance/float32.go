// SPDX-License-Identifier: Apache-2.0

package distance

import "fmt"

// first is the id of a lone row: the single kernels are Rows kernels of one row.
var first = [1]uint32{0}

// L2Squared is
//
//	for i := range a { d := a[i] - b[i]; sum += d * d }
//
// in the order of lanes the package comment gives. The lengths must be equal.
func L2Squared(a, b []float32) float32 {
	checkLen(len(a), len(b))
	var out [1]float32
	l2SquaredRows(a, b, 0, first[:], out[:])
	return out[0]
}

// InnerProduct is
//
//	for i := range a { sum += a[i] * b[i] }
//
// in the order of lanes the package comment gives. The lengths must be equal.
func InnerProduct(a, b []float32) float32 {
	checkLen(len(a), len(b))
	var out [1]float32
	innerProductRows(a, b, 0, first[:], out[:])
	return out[0]
}

// L2SquaredRows is
//
//	for i, id := range ids { out[i] = L2Squared(query, base[id*stride:][:len(query)]) }
func L2SquaredRows(query, base []float32, stride int, ids []uint32, out []float32) {
	if checkRows(len(query), len(base), stride, ids, len(out)) {
		l2SquaredRows(query, base, stride, ids, out)
	}
}

// InnerProductRows is
//
//	for i, id := range ids { out[i] = InnerProduct(query, base[id*stride:][:len(query)]) }
func InnerProductRows(query, base []float32, stride int, ids []uint32, out []float32) {
	if checkRows(len(query), len(base), stride, ids, len(out)) {
		innerProductRows(query, base, stride, ids, out)
	}
}

func checkLen(a, b int) {
	if a != b {
		panic(fmt.Sprintf("distance: vectors of %d and %d elements", a, b))
	}
}

// checkRows panics unless every row lies inside base, since assembly would read
// past it. It returns whether there is anything to do.
func checkRows(query, base, stride int, ids []uint32, out int) bool {
	if query > stride {
		badRows(query, base, stride, 0, len(ids), out)
	}
	return checkOverlapping(query, base, stride, ids, out)
}

// checkOverlapping is checkRows where rows may be read beyond their end.
func checkOverlapping(query, base, stride int, ids []uint32, out int) bool {
	if len(ids) == 0 {
		return false
	}
	var top uint32
	for _, id := range ids {
		top = max(top, id)
	}
	if out < len(ids) || stride < 0 || stride > maxStride || uint64(top)*uint64(stride)+uint64(query) > uint64(base) {
		badRows(query, base, stride, top, len(ids), out)
	}
	return true
}

// maxStride keeps id*stride far from overflow.
const maxStride = 1 << 30

//go:noinline
func badRows(query, base, stride int, top uint32, ids, out int) {
	panic(fmt.Sprintf("distance: query of %d, stride %d, top id %d, base of %d; %d ids into %d results",
		query, stride, top, base, ids, out))
}
