// SPDX-License-Identifier: Apache-2.0

//go:build amd64 && !purego

package distance

import (
	"slices"

	"golang.org/x/sys/cpu"
)

// The sets of instructions in use; set once here, and by tests.
var (
	// useAVX512 asks for VNNI and VPOPCNTDQ too, that is Ice Lake or Zen 4 and
	// later: one kernel set, and none of the CPUs whose clock drops with wide
	// vectors.
	useAVX512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL &&
		cpu.X86.HasAVX512VNNI && cpu.X86.HasAVX512VPOPCNTDQ
	useAVX2 = cpu.X86.HasAVX2 && cpu.X86.HasPOPCNT
)

func variant() string {
	switch {
	case useAVX512:
		return "avx512"
	case useAVX2:
		return "avx2"
	default:
		return "generic"
	}
}

func l2SquaredRows(query, base []float32, stride int, ids []uint32, out []float32) {
	switch {
	case useAVX512:
		l2SquaredRowsAVX512(query, base, stride, ids, out)
	case useAVX2:
		l2SquaredRowsAVX2(query, base, stride, ids, out)
	default:
		l2SquaredRowsGeneric(query, base, stride, ids, out)
	}
}

func innerProductRows(query, base []float32, stride int, ids []uint32, out []float32) {
	switch {
	case useAVX512:
		innerProductRowsAVX512(query, base, stride, ids, out)
	case useAVX2:
		innerProductRowsAVX2(query, base, stride, ids, out)
	default:
		innerProductRowsGeneric(query, base, stride, ids, out)
	}
}

func l2U8Rows(query, base []byte, stride int, ids []uint32, out []int32) {
	switch {
	case useAVX512:
		l2U8RowsAVX512(query, base, stride, ids, out)
	case useAVX2:
		l2U8RowsAVX2(query, base, stride, ids, out)
	default:
		l2U8RowsGeneric(query, base, stride, ids, out)
	}
}

func dotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	switch {
	case useAVX512:
		dotU8S8RowsAVX512(query, base, stride, ids, out)
	case useAVX2:
		dotU8S8RowsAVX2(query, base, stride, ids, out)
	default:
		dotU8S8RowsGeneric(query, base, stride, ids, out)
	}
}

// haveSeveral reports whether there are kernels for a query and several rows at a time,
// and for the steps of an Expansion.
func haveSeveral() bool { return useAVX2 && cpu.X86.HasBMI2 }

// ProductsRather reports whether products of so many codes take so much less time than
// squares of their differences that they are faster with what it takes to go for rows'
// terms.
func ProductsRather(codes int) bool { return useAVX512 && codes > maxShort }

// maxWide bounds the codes of a query that is widened on the stack.
const maxWide = 4096

func l2U8TermSeveral(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32) {
	switch short := len(query) <= maxShort; {
	case short && useAVX512:
		l2U8TermRowsAVX512(withoutPadding(query), queryTerm, base, stride, termAt, ids, out)
	case short:
		l2U8TermRowsAVX2(withoutPadding(query), queryTerm, base, stride, termAt, ids, out)
	case useAVX512:
		l2U8TermWideRowsAVX512(query, queryTerm, base, stride, termAt, ids, out)
	case len(query) <= maxWide:
		l2U8TermWideRowsAVX2(query, queryTerm, base, stride, termAt, ids, out)
	default:
		l2U8TermSeparate(query, queryTerm, base, stride, termAt, ids, out)
	}
}

func dotU8S8Several(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	switch short := len(query) <= maxShort; {
	case short && useAVX512:
		dotU8S8ShortRowsAVX512(withoutPadding(query), base, stride, ids, out)
	case short:
		dotU8S8ShortRowsAVX2(withoutPadding(query), base, stride, ids, out)
	case !useAVX512 && len(query) <= maxWide:
		dotU8S8WideRowsAVX2(query, base, stride, ids, out)
	default:
		dotU8S8Rows(query, base, stride, ids, out)
	}
}

func l2U8Several(query, base []byte, stride int, ids []uint32, out []int32) {
	switch {
	case useAVX512 || len(query) > maxWide:
		l2U8Rows(query, base, stride, ids, out)
	case len(query) <= maxShort:
		l2U8ShortRowsAVX2(query, base, stride, ids, out)
	default:
		l2U8WideRowsAVX2(query, base, stride, ids, out)
	}
}

// expand is Neighbours and Rows by one kernel.
func expand(e *Expansion, links []uint32, bound uint64) (seen, found int) {
	switch {
	case useAVX512:
	case e.codes == nil && e.termAt < 0:
		bound ^= 1 << 63
	default:
		bound = min(bound, 1<<63-1)
	}
	switch {
	case e.short && useAVX512:
		switch {
		case e.codes != nil:
			return expandSquaresAVX512(e, links, bound)
		case e.termAt >= 0:
			return expandL2AVX512(e, links, bound)
		}
		return expandDotAVX512(e, links, bound)
	case e.short:
		switch {
		case e.codes != nil:
			return expandSquaresAVX2(e, links, bound)
		case e.termAt >= 0:
			return expandL2AVX2(e, links, bound)
		}
		return expandDotAVX2(e, links, bound)
	case useAVX512:
		switch {
		case e.codes != nil:
			return expandWideSquaresAVX512(e, links, bound)
		case e.apart != nil:
			return expandWideApartAVX512(e, links, bound)
		case e.termAt >= 0:
			return expandWideL2AVX512(e, links, bound)
		}
		return expandWideDotAVX512(e, links, bound)
	default:
		switch {
		case e.codes != nil:
			return expandWideSquaresAVX2(e, links, bound)
		case e.termAt >= 0:
			return expandWideL2AVX2(e, links, bound)
		}
		return expandWideDotAVX2(e, links, bound)
	}
}

// widen writes the query as the kernels of AVX2 for long rows want it.
func (e *Expansion) widen() {
	if useAVX512 {
		return
	}
	n := max(len(e.query), len(e.codes))
	e.wide = slices.Grow(e.wide[:0], n)[:n]
	if e.codes != nil {
		widenAVX2(e.wide, e.codes)
	} else {
		widenSignedAVX2(e.wide, e.query)
	}
}

//go:noescape
func expandSquaresAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandL2AVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandDotAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandSquaresAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandL2AVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandDotAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func widenSignedAVX2(dst []int16, src []int8)

//go:noescape
func widenAVX2(dst []int16, src []byte)

//go:noescape
func expandWideSquaresAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandWideApartAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandWideL2AVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandWideDotAVX512(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandWideSquaresAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandWideL2AVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)

//go:noescape
func expandWideDotAVX2(e *Expansion, links []uint32, bound uint64) (seen, found int)

func hammingRows(query, base []uint64, stride int, ids []uint32, out []int32) {
	switch {
	case useAVX512:
		hammingRowsAVX512(query, base, stride, ids, out)
	case useAVX2:
		hammingRowsAVX2(query, base, stride, ids, out)
	default:
		hammingRowsGeneric(query, base, stride, ids, out)
	}
}

// dotBits4Rows has no AVX2 version: rows are a few dozen words, for which the
// POPCNT that the compiler makes of bits.OnesCount64 is nearly as fast as counting
// by shuffles.
func dotBits4Rows(query, base []uint64, stride int, ids []uint32, out []int32) {
	switch {
	case useAVX512:
		dotBits4RowsAVX512(query, base, stride, ids, out)
	default:
		dotBits4RowsGeneric(query, base, stride, ids, out)
	}
}

func fastScan(lut, block []byte, sums *[FastScanLanes]uint32) {
	switch {
	case useAVX512:
		fastScanAVX512(lut, block, sums)
	case useAVX2:
		fastScanAVX2(lut, block, sums)
	default:
		fastScanGeneric(lut, block, sums)
	}
}

func estimate(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32 {
	switch {
	case useAVX512:
		return estimateAVX512(lut, block, e, keys)
	case useAVX2:
		return estimateAVX2(lut, block, e, keys)
	default:
		return estimateGeneric(lut, block, e, keys)
	}
}

// The rest is called with as many elements as its registers hold, or a multiple.

func signTable(lut []byte, v []float32, inverse float32) (sum uint32) {
	if useAVX2 {
		return signTableAVX2(lut, v, inverse)
	}
	return signTableGeneric(lut, v, inverse)
}

func largest(v []float32) uint32 {
	if useAVX2 {
		return largestAVX2(v)
	}
	return largestGeneric(v)
}

func centred(dst []float32, codes []byte, centre []float32) (squares uint32) {
	if useAVX2 {
		return centredAVX2(dst, codes, centre)
	}
	return centredGeneric(dst, codes, centre)
}

func flipSigns(v []float32, flips []uint64) {
	if useAVX2 {
		flipSignsAVX2(v, flips)
		return
	}
	flipSignsGeneric(v, flips)
}

func squares(src []float32) (s0, s1, s2, s3 float64) {
	if useAVX2 {
		return squaresAVX2(src)
	}
	return squaresGeneric(src)
}

func scale(dst, src []float32, factor float64) {
	if useAVX2 {
		scaleAVX2(dst, src, factor)
		return
	}
	scaleGeneric(dst, src, factor)
}

func hadamard(v []float32) {
	switch {
	case useAVX512:
		hadamardAVX512(v)
	case useAVX2:
		hadamardAVX2(v)
	default:
		hadamardGeneric(v)
	}
}

// unmarked needs nothing that an amd64 CPU may lack; the flag is for tests.
func unmarked(ids []uint32, marks []uint64, shift, limit uint32, out []uint32) int {
	if useAVX2 {
		return unmarkedAsm(ids, marks, shift, limit, out)
	}
	return unmarkedGeneric(ids, marks, shift, limit, out)
}

//go:noescape
func unmarkedAsm(ids []uint32, marks []uint64, shift, limit uint32, out []uint32) int

func encode8(dst []byte, x, offset []float32, inverse float32) (same, far bool) {
	if useAVX512 {
		l, f := encode8AVX512(dst, x, offset, inverse)
		return l == 0, f != 0
	}
	n := len(x) &^ 7
	if !useAVX2 || n == 0 {
		return encode8Generic(dst, x, offset, inverse)
	}
	l, f := encode8AVX2(dst, x[:n], offset, inverse)
	same, far = encode8Generic(dst[n:], x[n:], offset[n:], inverse)
	return same && l == 0, far || f != 0
}

//go:noescape
func encode8AVX2(dst []byte, x, offset []float32, inverse float32) (lossy, far uint32)

//go:noescape
func encode8AVX512(dst []byte, x, offset []float32, inverse float32) (lossy, far uint32)

func insertSorted(items []uint64, x uint64) int {
	switch {
	case useAVX512:
		return insertSortedAVX512(items, x)
	case useAVX2 && len(items) <= 1024: // a binary search and a copy take less time beyond
		return insertSortedAVX2(items, x)
	default:
		return insertSortedGeneric(items, x)
	}
}

//go:noescape
func insertSortedAVX512(items []uint64, x uint64) int

//go:noescape
func insertSortedAVX2(items []uint64, x uint64) int

func insertAll(room []uint64, n, limit int, xs []uint64) (length, first int) {
	switch {
	case useAVX512 && limit <= 16 && len(room) >= Margin+16:
		return insertAll16AVX512(room, n, limit, xs)
	case useAVX512 && limit <= 32 && len(room) >= Margin+32:
		return insertAll32AVX512(room, n, limit, xs)
	case useAVX512 && limit <= 64 && len(room) >= Margin+64:
		return insertAll64AVX512(room, n, limit, xs)
	case useAVX512 && limit <= 1024:
		return insertAllAVX512(room, n, limit, xs)
	case useAVX2 && limit <= 16 && len(room) >= Margin+16:
		return insertAll16AVX2(room, n, limit, xs)
	case useAVX2 && limit <= 32 && len(room) >= Margin+32:
		return insertAll32AVX2(room, n, limit, xs)
	case useAVX2 && limit <= 1024:
		return insertAllAVX2(room, n, limit, xs)
	default:
		return insertOneByOne(room, n, limit, xs)
	}
}

// The whole of such a list is in registers, and the room of as many written.
//
//go:noescape
func insertAll16AVX2(room []uint64, n, limit int, xs []uint64) (length, first int)

//go:noescape
func insertAll32AVX2(room []uint64, n, limit int, xs []uint64) (length, first int)

//go:noescape
func insertAll16AVX512(room []uint64, n, limit int, xs []uint64) (length, first int)

//go:noescape
func insertAll32AVX512(room []uint64, n, limit int, xs []uint64) (length, first int)

//go:noescape
func insertAll64AVX512(room []uint64, n, limit int, xs []uint64) (length, first int)

//go:noescape
func insertAllAVX512(room []uint64, n, limit int, xs []uint64) (length, first int)

//go:noescape
func insertAllAVX2(room []uint64, n, limit int, xs []uint64) (length, first int)

func members(words []uint64, first uint32, out []uint32) (n, done int) {
	if useAVX512 {
		return membersAVX512(words, first, out)
	}
	return membersGeneric(words, first, out)
}

//go:noescape
func membersAVX512(words []uint64, first uint32, out []uint32) (n, done int)

func prefetch(row []byte) { prefetchLines(row) }

//go:noescape
func prefetchRows(base []byte, stride, length int, ids []uint32)

//go:noescape
func prefetchLines(row []byte)

// The kernels below are the Generic ones of the same name; len(ids) > 0, and
// the callers have checked that every row lies inside base.

//go:noescape
func l2SquaredRowsAVX512(query, base []float32, stride int, ids []uint32, out []float32)

//go:noescape
func innerProductRowsAVX512(query, base []float32, stride int, ids []uint32, out []float32)

//go:noescape
func l2SquaredRowsAVX2(query, base []float32, stride int, ids []uint32, out []float32)

//go:noescape
func innerProductRowsAVX2(query, base []float32, stride int, ids []uint32, out []float32)

//go:noescape
func l2U8RowsAVX512(query, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func dotU8S8RowsAVX512(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8RowsAVX2(query, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func dotU8S8RowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8ShortRowsAVX2(query, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8WideRowsAVX2(query, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func dotU8S8WideRowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8TermWideRowsAVX2(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)

//go:noescape
func l2U8TermWideRowsAVX512(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)

//go:noescape
func dotU8S8ShortRowsAVX512(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8TermRowsAVX512(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)

//go:noescape
func dotU8S8ShortRowsAVX2(query []int8, base []byte, stride int, ids []uint32, out []int32)

//go:noescape
func l2U8TermRowsAVX2(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)

//go:noescape
func hammingRowsAVX512(query, base []uint64, stride int, ids []uint32, out []int32)

//go:noescape
func hammingRowsAVX2(query, base []uint64, stride int, ids []uint32, out []int32)

//go:noescape
func dotBits4RowsAVX512(query, base []uint64, stride int, ids []uint32, out []int32)

//go:noescape
func fastScanAVX512(lut, block []byte, sums *[FastScanLanes]uint32)

//go:noescape
func fastScanAVX2(lut, block []byte, sums *[FastScanLanes]uint32)

//go:noescape
func estimateAVX512(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32

//go:noescape
func estimateAVX2(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32

// len(v) is a power of two, 16 or more.

//go:noescape
func hadamardAVX512(v []float32)

//go:noescape
func hadamardAVX2(v []float32)

//go:noescape
func signTableAVX2(lut []byte, v []float32, inverse float32) (sum uint32)

//go:noescape
func largestAVX2(v []float32) uint32

//go:noescape
func centredAVX2(dst []float32, codes []byte, centre []float32) (squares uint32)

//go:noescape
func flipSignsAVX2(v []float32, flips []uint64)

//go:noescape
func squaresAVX2(src []float32) (s0, s1, s2, s3 float64)

//go:noescape
func scaleAVX2(dst, src []float32, factor float64)
