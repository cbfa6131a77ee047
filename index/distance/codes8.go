// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// maxCodes bounds the 8-bit codes of a vector so that sums stay in int32:
// 255*255*maxCodes < 1<<31.
const maxCodes = 1 << 15

// codeBlock is the width the Rows kernels on 8-bit codes work in.
const codeBlock = 64

// L2U8 is
//
//	for i := range a { d := int32(a[i]) - int32(b[i]); sum += d * d }
//
// for equal lengths of at most 32768.
func L2U8(a, b []byte) int32 {
	checkLen(len(a), len(b))
	checkCodes(len(a))
	var out [1]int32
	n := len(a) &^ (codeBlock - 1)
	if n > 0 {
		l2U8Rows(a[:n], b[:n], 0, first[:], out[:])
	}
	return out[0] + l2U8Generic(a[n:], b[n:])
}

// DotU8S8 is
//
//	for i := range a { sum += int32(a[i]) * int32(b[i]) }
//
// for equal lengths of at most 32768.
func DotU8S8(a []byte, b []int8) int32 {
	checkLen(len(a), len(b))
	checkCodes(len(a))
	var out [1]int32
	n := len(a) &^ (codeBlock - 1)
	if n > 0 {
		dotU8S8Rows(b[:n], a[:n], 0, first[:], out[:])
	}
	return out[0] + dotU8S8Generic(a[n:], b[n:])
}

// L2U8Rows is
//
//	for i, id := range ids { out[i] = L2U8(query, base[id*stride:][:len(query)]) }
//
// len(query) must be a multiple of 64: query and rows are padded with equal
// bytes (zeros). A row may be longer than the query and carry other things
// behind the codes. A stride that is a multiple of 64 in an arena so aligned
// keeps a load within one cache line, which is faster but not needed.
func L2U8Rows(query, base []byte, stride int, ids []uint32, out []int32) {
	checkCodeRow(len(query))
	switch {
	case !checkRows(len(query), len(base), stride, ids, len(out)):
	case several(ids):
		l2U8Several(query, base, stride, ids, out)
	default:
		l2U8Rows(query, base, stride, ids, out)
	}
}

// DotU8S8Rows is
//
//	for i, id := range ids { out[i] = DotU8S8(base[id*stride:][:len(query)], query) }
//
// with the lengths of L2U8Rows. The query must be padded with zeros; what a row
// has there does not matter, and be it the next row: a stride may be below
// len(query), but len(query) bytes from where a row begins must be in base.
//
// Other distances on codes come from it by terms that do not depend on the pair.
// Signed codes c stored as u = c+128: the dot of signed codes is
// DotU8S8(u, q) - 128*sum(q). Unsigned query codes q passed as int8(q-128): the
// dot of unsigned codes is DotU8S8(u, q-128) + 128*sum(u), and squared L2 is what
// L2U8TermRows makes of it.
func DotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	checkCodeRow(len(query))
	switch {
	case !checkOverlapping(len(query), len(base), stride, ids, len(out)):
	case several(ids):
		dotU8S8Several(query, base, stride, ids, out)
	default:
		dotU8S8Rows(query, base, stride, ids, out)
	}
}

// L2U8TermRows gives the results of L2U8Rows at the cost of DotU8S8Rows, which
// is half of it for rows in cache and three quarters for rows in memory, for
// rows that carry L2Term of their codes as four little-endian bytes at
// base[id*stride+termAt:]. query and queryTerm are what L2Query made of the
// query's codes.
//
// The term may lie in the padding, codes <= termAt <= stride-4, since the query
// is zero there; it costs no cache line of its own then.
func L2U8TermRows(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32) {
	if uint(termAt) > uint(stride-4) {
		panic(fmt.Sprintf("distance: term at %d of a row of %d bytes", termAt, stride))
	}
	checkCodeRow(len(query))
	switch {
	case !checkOverlapping(len(query), len(base), stride, ids, len(out)):
	case several(ids):
		l2U8TermSeveral(query, queryTerm, base, stride, termAt, ids, out)
	default:
		l2U8TermSeparate(query, queryTerm, base, stride, termAt, ids, out)
	}
}

// l2U8TermSeparate adds the terms to inner products.
func l2U8TermSeparate(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32) {
	dotU8S8Rows(query, base, stride, ids, out)
	for i, id := range ids {
		term := binary.LittleEndian.Uint32(base[int(id)*stride+termAt:])
		out[i] = queryTerm + int32(term) - 2*out[i]
	}
}

// A query of up to maxShort codes stays in registers, where there are kernels for
// that. Those for several rows take leastRows or more.
const (
	maxShort  = 128
	leastRows = 4
)

func several(ids []uint32) bool { return len(ids) >= leastRows && haveSeveral() }

// withoutPadding leaves out zeros at the end, 32 at a time but not all.
func withoutPadding(query []int8) []int8 {
	for n := len(query); n > 32 && [32]int8(query[n-32:]) == [32]int8{}; n -= 32 {
		query = query[:n-32]
	}
	return query
}

// L2Term is sum(u*u) - 256*sum(u) over the codes of a row.
func L2Term(codes []byte) int32 {
	checkCodes(len(codes))
	var sum int32
	for _, u := range codes {
		sum += int32(u) * (int32(u) - 256)
	}
	return sum
}

// L2Query writes q-128 for each code q to dst, zeros behind them, and returns
// sum(q*q).
func L2Query(dst []int8, codes []byte) int32 {
	checkCodes(len(codes))
	clear(dst[len(codes):])
	signed := dst[:len(codes)]
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(signed))), len(signed))
	var pairs uint64 // sums of codes, in two halves
	n := 0
	for ; n+8 <= len(codes); n += 8 {
		const bytes, halves = 0x00ff00ff00ff00ff, 0x0000ffff0000ffff
		w := binary.LittleEndian.Uint64(codes[n:])
		binary.LittleEndian.PutUint64(raw[n:], w^0x8080808080808080)
		w = w&bytes + w>>8&bytes
		pairs += w&halves + w>>16&halves
	}
	sum := int32(pairs) + int32(pairs>>32)
	for ; n < len(codes); n++ {
		raw[n] = codes[n] ^ 0x80
		sum += int32(codes[n])
	}
	// q*q = q*(q-128) + 128*q
	return DotU8S8(codes, signed) + 128*sum
}

func checkCodes(n int) {
	if n > maxCodes {
		panic(fmt.Sprintf("distance: %d codes, at most %d", n, maxCodes))
	}
}

func checkCodeRow(n int) {
	if n%codeBlock != 0 || n > maxCodes || n == 0 {
		panic(fmt.Sprintf("distance: query of %d codes must be padded to a multiple of %d and at most %d", n, codeBlock, maxCodes))
	}
}
