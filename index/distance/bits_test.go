// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"math/rand/v2"
	"testing"
)

const wordGuard = 0xaaaa_5555_0f0f_3333

func fillWords(r *rand.Rand, v []uint64) {
	for i := range v {
		switch r.IntN(8) {
		case 0:
			v[i] = 0
		case 1:
			v[i] = ^uint64(0)
		default:
			v[i] = r.Uint64()
		}
	}
}

// Goal: the kernels on bits count what a loop over single bits counts, for rows
// of 0 to 40 words, any number of rows, repeated, with rows longer than the query.
func TestBitKernelsCountBits(t *testing.T) {
	bit := func(v []uint64, i int) int32 { return int32(v[i/64] >> (i % 64) & 1) }
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for at := range 42 {
			words, counts := at, 10
			if words == 41 {
				words, counts = maxWords, 2 // the most, once
			}
			for count := range counts {
				rows, stride := 1+r.IntN(20), words+r.IntN(3)
				base, checkBase := guarded[uint64]((rows-1)*stride+words, r.IntN(4), wordGuard)
				query, _ := guarded[uint64](planes*words, r.IntN(4), wordGuard)
				fillWords(r, base)
				fillWords(r, query)
				ids := make([]uint32, count)
				for i := range ids {
					ids[i] = uint32(r.IntN(rows))
				}
				hamming, checkHamming := guarded[int32](count, r.IntN(4), -7)
				dot, checkDot := guarded[int32](count, r.IntN(4), -7)
				HammingRows(query[:words], base, stride, ids, hamming)
				DotBits4Rows(query, base, stride, ids, dot)
				for i, id := range ids {
					row := base[int(id)*stride:][:words]
					var wantHamming, wantDot int32
					for at := range 64 * words {
						wantHamming += bit(query, at) ^ bit(row, at)
						for p := range planes {
							wantDot += bit(query[p*words:], at) & bit(row, at) << p
						}
					}
					if hamming[i] != wantHamming || Hamming(query[:words], row) != wantHamming {
						t.Fatalf("Hamming of %d words: %d, want %d", words, hamming[i], wantHamming)
					}
					if dot[i] != wantDot {
						t.Fatalf("DotBits4 of %d words: %d, want %d", words, dot[i], wantDot)
					}
				}
				for _, check := range []func() error{checkBase, checkHamming, checkDot} {
					if err := check(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}
