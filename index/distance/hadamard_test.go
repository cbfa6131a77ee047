// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"testing"
)

// Goal: every variant gives the bits of the generic transform on any values.
func TestHadamardGivesTheBitsOfGeneric(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, f := range fillings {
			for n := 1; n <= 8192; n *= 2 {
				for offset := range 4 {
					v, check := guarded(n, offset, poison)
					f.fill(r, v)
					want := slices.Clone(v)
					hadamardGeneric(want)
					Hadamard(v)
					for i := range v {
						if !sameBits(v[i], want[i]) {
							t.Fatalf("%d %s elements: element %d is %v, want %v", n, f.name, i, v[i], want[i])
						}
					}
					if err := check(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// Goal: the generic transform is the matrix of signs (-1)^OnesCount(i&j), here
// on small integers, which float32 adds exactly.
func TestHadamardIsTheSignMatrix(t *testing.T) {
	r := random(t)
	for n := 1; n <= 1024; n *= 2 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.IntN(201) - 100)
		}
		got := slices.Clone(v)
		Hadamard(got)
		for i := range n {
			var want float64
			for j, x := range v {
				want += float64(x) * math.Pow(-1, float64(bits.OnesCount(uint(i&j))))
			}
			if float64(got[i]) != want {
				t.Fatalf("%d elements: element %d is %v, want %v", n, i, got[i], want)
			}
		}
	}
}

func BenchmarkHadamard(b *testing.B) {
	benchVariants(b, func(b *testing.B) {
		for _, n := range []int{128, 1024} {
			b.Run(fmt.Sprint(n), func(b *testing.B) {
				v := make([]float32, n)
				for b.Loop() {
					Hadamard(v)
				}
			})
		}
	})
}

func BenchmarkPerQuery(b *testing.B) {
	v, lut := make([]float32, 768), make([]byte, FastScanBytes(768))
	v[3] = 1
	b.Run("Normalize768", func(b *testing.B) {
		for b.Loop() {
			Normalize(v, v)
		}
	})
	b.Run("SignTable768", func(b *testing.B) {
		for b.Loop() {
			SignTable(lut, v, 31)
		}
	})
}
