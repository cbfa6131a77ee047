// SPDX-License-Identifier: Apache-2.0

// Package distance computes distances between vectors, the same bits on every
// CPU; it knows nothing of graphs, slots or metrics' post-processing.
//
// # Kernels
//
// float32 vectors:
//
//	L2Squared(a, b []float32) float32
//	InnerProduct(a, b []float32) float32
//	L2SquaredRows(query, base []float32, stride int, ids []uint32, out []float32)
//	InnerProductRows(query, base []float32, stride int, ids []uint32, out []float32)
//	Normalize(dst, src []float32) bool
//
// 8-bit codes, exact integers:
//
//	L2U8(a, b []byte) int32
//	DotU8S8(a []byte, b []int8) int32
//	L2U8Rows(query, base []byte, stride int, ids []uint32, out []int32)
//	DotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32)
//	L2U8TermRows(query []int8, queryTerm int32, base []byte, stride, termAt int, ids []uint32, out []int32)
//	Encode8(dst []byte, x, offset []float32, inverse float32) (same, far bool)
//
// A graph walked on 8-bit codes is served best by L2U8TermRows, or by
// DotU8S8Rows with the terms its comment gives: one instruction per 64 codes.
//
// 1-bit codes, exact integers:
//
//	Hamming(a, b []uint64) int32
//	HammingRows(query, base []uint64, stride int, ids []uint32, out []int32)
//	DotBits4Rows(query, base []uint64, stride int, ids []uint32, out []int32)
//	FastScan(lut, blocks []byte, out []uint32), with FastScanPut and SignTable
//
// and Hadamard(v []float32) for the rotation such codes are taken after.
//
// What else a search does often enough to be worth a kernel:
//
//	Unmarked(ids []uint32, marks []uint64, limit uint32, out []uint32) int
//	Expansion, which is that, the comparison on 8-bit codes and that with a bound
//	InsertSorted(items []uint64, x uint64) int
//	InsertAll(room []uint64, n, limit int, xs []uint64) (length, first int)
//	Prefetch[T any](row []T)
//	PrefetchRows(base []byte, stride, length int, ids []uint32)
//
// The Rows kernels take one query to the rows base[id*stride:] of a row-major
// arena, write out[i] for ids[i] and prefetch the rows that come next in ids.
// They are what a graph search should call: once per vertex with all the
// neighbours not yet visited. They allocate nothing and retain nothing. A wrong
// length or an id outside base panics.
//
// # Why the bits agree
//
// A float32 kernel keeps 64 lanes: element i is added to lane i mod 64, product
// and sum rounded separately (no fused multiply-add), and the lanes are summed
// by one fixed tree. That is four AVX-512, eight AVX2 or sixteen NEON registers
// and a plain array in Go. The kernels on codes are exact, so that order does
// not matter there.
package distance

import "math"

// Metric says what distance means. Smaller is nearer under each.
type Metric uint8

// The metrics. Cosine works on vectors normalised by Normalize, for which it is
// 1 minus the inner product; Dot is the negated inner product; L2 is squared.
const (
	Cosine Metric = iota + 1
	Dot
	L2
)

// Normalize writes src scaled to length 1 to dst (which may be src) and returns
// true. It returns false and leaves dst alone if src is zero or not finite.
//
// The squares are exact in float64 (24 bits times 24 bits), so a compiler that
// fuses multiply and add changes nothing; overflow and underflow cannot happen.
func Normalize(dst, src []float32) bool {
	checkLen(len(dst), len(src))
	var s0, s1, s2, s3 float64 // four, for speed; element i goes to sum i mod 4
	n := len(src) &^ 3
	if n > 0 {
		s0, s1, s2, s3 = squares(src[:n])
	}
	for i, x := range src[n:] { // at most three
		switch square := float64(x) * float64(x); i {
		case 0:
			s0 += square
		case 1:
			s1 += square
		default:
			s2 += square
		}
	}
	total := (s0 + s1) + (s2 + s3)
	if total == 0 || math.IsInf(total, 0) || math.IsNaN(total) {
		return false
	}
	inverse := 1 / math.Sqrt(total)
	n = len(src) &^ 7
	if n > 0 {
		scale(dst[:n], src[:n], inverse)
	}
	scaleGeneric(dst[n:], src[n:], inverse)
	return true
}

// squaresGeneric is the sums of squares in Normalize, of a multiple of four elements.
func squaresGeneric(src []float32) (s0, s1, s2, s3 float64) {
	for ; len(src) >= 4; src = src[4:] {
		x0, x1, x2, x3 := float64(src[0]), float64(src[1]), float64(src[2]), float64(src[3])
		s0 += x0 * x0
		s1 += x1 * x1
		s2 += x2 * x2
		s3 += x3 * x3
	}
	return s0, s1, s2, s3
}

func scaleGeneric(dst, src []float32, factor float64) {
	for i, x := range src {
		dst[i] = float32(float64(x) * factor)
	}
}

// Variant names the kernels this process runs: "avx512", "avx2", "neon+dotprod",
// "neon" or "generic".
func Variant() string { return variant() }
