// SPDX-License-Identifier: Apache-2.0

package distance

import "fmt"

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
	if checkRows(len(query), len(base), stride, ids, len(out)) {
		l2U8Rows(query, base, stride, ids, out)
	}
}

// DotU8S8Rows is
//
//	for i, id := range ids { out[i] = DotU8S8(base[id*stride:][:len(query)], query) }
//
// with the lengths and the padding of L2U8Rows (zeros on either side do).
//
// Other distances on codes come from it by terms that do not depend on the pair.
// Signed codes c stored as u = c+128: the dot of signed codes is
// DotU8S8(u, q) - 128*sum(q). Unsigned query codes q passed as int8(q-128): the
// dot of unsigned codes is DotU8S8(u, q-128) + 128*sum(u), and the squared L2 is
// sum(q*q) + (sum(u*u) - 256*sum(u)) - 2*DotU8S8(u, q-128), where the bracket is
// one number per row; that is half the work of L2U8Rows when codes are in cache.
func DotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	checkCodeRow(len(query))
	if checkRows(len(query), len(base), stride, ids, len(out)) {
		dotU8S8Rows(query, base, stride, ids, out)
	}
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
