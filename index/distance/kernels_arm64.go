// SPDX-License-Identifier: Apache-2.0

//go:build arm64 && !purego

package distance

import "golang.org/x/sys/cpu"

// The sets of instructions in use; set once here, and by tests.
var (
	useNEON = true // every arm64 CPU that Go runs on has it
	// useDotprod: SDOT and UDOT, optional before ARMv8.4. Where the system does
	// not tell (macOS, Windows), x/sys/cpu says no and multiplies widen instead.
	useDotprod = cpu.ARM64.HasASIMDDP
)

func variant() string {
	switch {
	case useNEON && useDotprod:
		return "neon+dotprod"
	case useNEON:
		return "neon"
	default:
		return "generic"
	}
}

func l2SquaredRows(query, base []float32, stride int, ids []uint32, out []float32) {
	switch {
	case useNEON:
		l2SquaredRowsNEON(query, base, stride, ids, out)
	default:
		l2SquaredRowsGeneric(query, base, stride, ids, out)
	}
}

func innerProductRows(query, base []float32, stride int, ids []uint32, out []float32) {
	switch {
	case useNEON:
		innerProductRowsNEON(query, base, stride, ids, out)
	default:
		innerProductRowsGeneric(query, base, stride, ids, out)
	}
}

func l2U8Rows(query, base []byte, stride int, ids []uint32, out []int32) {
	switch {
	case useNEON && useDotprod:
		l2U8RowsDotprod(query, base, stride, ids, out)
	case useNEON:
		l2U8RowsNEON(query, base, stride, ids, out)
	default:
		l2U8RowsGeneric(query, base, stride, ids, out)
	}
}

func dotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	switch {
	case useNEON && useDotprod:
		dotU8S8RowsDotprod(query, base, stride, ids, out)
	case useNEON:
		dotU8S8RowsNEON(query, base, stride, ids, out)
	default:
		dotU8S8RowsGeneric(query, base, stride, ids, out)
	}
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
	switch {
	case useNEON:
		hammingRowsNEON(query, base, stride, ids, out)
	default:
		hammingRowsGeneric(query, base, stride, ids, out)
	}
}

func dotBits4Rows(query, base []uint64, stride int, ids []uint32, out []int32) {
	switch {
	case useNEON:
		dotBits4RowsNEON(query, base, stride, ids, out)
	default:
		dotBits4RowsGeneric(query, base, stride, ids, out)
	}
}

func fastScan(lut, block []byte, sums *[FastScanLanes]uint32) {
	switch {
	case useNEON:
		fastScanNEON(lut, block, sums)
	default:
		fastScanGeneric(lut, block, sums)
	}
}

func hadamard(v []float32) {
	switch {
	case useNEON:
		hadamardNEON(v)
	default:
		hadamardGeneric(v)
	}
}

func prefetch(row []byte) { prefetchLines(row) }

//go:noescape
func prefetchLines(row []byte)

// The kernels below are the Generic ones of the same name; len(ids) > 0, and
// the callers have checked that every row lies inside base.

//go:noescape
func l2SquaredRowsNEON(query, base []float32, stride int, ids []uint32, out []float32)

//go:noescape
func innerProductRowsNEON(query, base []float32, stride int, ids []uint32, out []float32)

//go:noescape
func l2U8RowsNEON(query, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8RowsDotprod(query, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func dotU8S8RowsNEON(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func dotU8S8RowsDotprod(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func hammingRowsNEON(query, base []uint64, stride int, ids []uint32, out []int32)

//go:noescape
func dotBits4RowsNEON(query, base []uint64, stride int, ids []uint32, out []int32)

//go:noescape
func fastScanNEON(lut, block []byte, sums *[FastScanLanes]uint32)

// len(v) is a power of two, 16 or more.
//
//go:noescape
func hadamardNEON(v []float32)

func unmarked(ids []uint32, marks []uint64, shift, limit uint32, out []uint32) int {
	return unmarkedGeneric(ids, marks, shift, limit, out)
}

func prefetchRows(base []byte, stride, length int, ids []uint32) {
	for _, id := range ids {
		if at := int(id) * stride; at+length <= len(base) {
			prefetch(base[at : at+length])
		}
	}
}

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
