// SPDX-License-Identifier: Apache-2.0

package distance

import "fmt"

// maxWords bounds a row of bits: NEON counts pairs of words in 16 bits.
const maxWords = 1 << 12

// Hamming is
//
//	for i := range a { sum += bits.OnesCount64(a[i] ^ b[i]) }
//
// for equal lengths of at most 4096 words.
func Hamming(a, b []uint64) int32 {
	checkLen(len(a), len(b))
	checkWords(len(a))
	var out [1]int32
	hammingRows(a, b, 0, first[:], out[:])
	return out[0]
}

// HammingRows is
//
//	for i, id := range ids { out[i] = Hamming(query, base[id*stride:][:len(query)]) }
//
// Lengths and stride count words of 64 bits.
func HammingRows(query, base []uint64, stride int, ids []uint32, out []int32) {
	checkWords(len(query))
	if checkRows(len(query), len(base), stride, ids, len(out)) {
		hammingRows(query, base, stride, ids, out)
	}
}

// planes is the number of bits of a query element in DotBits4Rows.
const planes = 4

// DotBits4Rows is the inner product of a query of 4-bit elements with rows of
// 1-bit elements, as RaBitQ estimates distances with. The query lies in four
// planes of n = len(query)/4 words, plane p holding bit p of every element:
//
//	for i, id := range ids {
//		for p := range 4 { for w := range n {
//			out[i] += bits.OnesCount64(query[p*n+w] & base[id*stride+w]) << p
//		} }
//	}
func DotBits4Rows(query, base []uint64, stride int, ids []uint32, out []int32) {
	if len(query)%planes != 0 {
		panic(fmt.Sprintf("distance: query of %d words is not %d planes", len(query), planes))
	}
	checkWords(len(query) / planes)
	if checkRows(len(query)/planes, len(base), stride, ids, len(out)) {
		dotBits4Rows(query, base, stride, ids, out)
	}
}

func checkWords(n int) {
	if n > maxWords {
		panic(fmt.Sprintf("distance: %d words of bits, at most %d", n, maxWords))
	}
}
