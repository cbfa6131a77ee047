// SPDX-License-Identifier: Apache-2.0

//go:build purego || !(amd64 || arm64)

package distance

func variant() string { return "generic" }

func l2SquaredRows(query, base []float32, stride int, ids []uint32, out []float32) {
	l2SquaredRowsGeneric(query, base, stride, ids, out)
}

func innerProductRows(query, base []float32, stride int, ids []uint32, out []float32) {
	innerProductRowsGeneric(query, base, stride, ids, out)
}

func l2U8Rows(query, base []byte, stride int, ids []uint32, out []int32) {
	l2U8RowsGeneric(query, base, stride, ids, out)
}

func dotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	dotU8S8RowsGeneric(query, base, stride, ids, out)
}

// haveSeveral: there are no kernels for several rows at a time here.
func haveSeveral() bool { return false }

// ProductsRather reports whether products of so many codes take so much less time than
// squares of their differences that they are faster with what it takes to go for rows'
// terms.
func ProductsRather(int) bool { return false }

func l2U8TermSeveral([]int8, int32, []byte, int, int, []uint32, []int32) { panic("not here") }

func dotU8S8Several([]int8, []byte, int, []uint32, []int32) { panic("not here") }

func l2U8Several(_, _ []byte, _ int, _ []uint32, _ []int32) { panic("not here") }

func expand(*Expansion, []uint32, uint64) (seen, found int) { panic("not here") }

func (e *Expansion) widen() {}

func hammingRows(query, base []uint64, stride int, ids []uint32, out []int32) {
	hammingRowsGeneric(query, base, stride, ids, out)
}

func dotBits4Rows(query, base []uint64, stride int, ids []uint32, out []int32) {
	dotBits4RowsGeneric(query, base, stride, ids, out)
}

func fastScan(lut, block []byte, sums *[FastScanLanes]uint32) {
	fastScanGeneric(lut, block, sums)
}

func prefetch([]byte) {}

func hadamard(v []float32) { hadamardGeneric(v) }

func unmarked(ids []uint32, marks []uint64, shift, limit uint32, out []uint32) int {
	return unmarkedGeneric(ids, marks, shift, limit, out)
}

func prefetchRows([]byte, int, int, []uint32) {}

func members(words []uint64, first uint32, out []uint32) (n, done int) {
	return membersGeneric(words, first, out)
}

func insertSorted(items []uint64, x uint64) int { return insertSortedGeneric(items, x) }

func insertAll(room []uint64, n, limit int, xs []uint64) (length, first int) {
	return insertOneByOne(room, n, limit, xs)
}

func encode8(dst []byte, x, offset []float32, inverse float32) (same, far bool) {
	return encode8Generic(dst, x, offset, inverse)
}

func estimate(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32 {
	return estimateGeneric(lut, block, e, keys)
}
