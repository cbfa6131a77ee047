// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"math"
	"slices"
	"testing"
)

// Goal: every kernel of SignTable is the loop of its comment, up to the ends of
// what it takes, and touches nothing else.
func TestSignTableIsItsLoop(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for n := 0; n <= 1040; n += 16 {
			for offset := range 4 {
				v, checkV := guarded(n, offset, poison)
				lut, checkLUT := guarded[byte](4*n, 3*offset, 0x5a)
				top := float32(math.Exp(r.NormFloat64() * 10))
				for i := range v {
					switch v[i] = top * (2*r.Float32() - 1); r.IntN(8) {
					case 0:
						v[i] = top
					case 1:
						v[i] = -top
					}
				}
				inverse := 1 / (top / 31)
				sum := SignTable(lut, v, inverse)
				wantSum := 0
				elements := make([]int, n)
				for i, x := range v {
					elements[i] = int(float32(x*inverse)+31.5) - 31
					wantSum += elements[i]
				}
				if sum != wantSum {
					t.Fatalf("%d elements: sum %d, want %d", n, sum, wantSum)
				}
				for i, got := range lut {
					want := SignMiddle
					for bit := range 4 {
						want += elements[i/16*4+bit] * (i >> bit & 1)
					}
					if int(got) != want {
						t.Fatalf("%d elements: entry %d is %d, want %d", n, i, got, want)
					}
				}
				for _, check := range []func() error{checkV, checkLUT} {
					if err := check(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// Goal: Largest, Centre, FlipSigns and the scaling of Normalize are their loops for
// every length and alignment, and touch nothing else.
func TestKernelsOfAQueryAreTheirLoops(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for n := 0; n <= 130; n += 2 {
			for offset := range 4 {
				v, checkV := guarded(n, offset, poison)
				dst, checkDst := guarded(n, 3-offset, poison)
				centre, checkCentre := guarded(n, offset, poison)
				codes, checkCodes := guarded[byte](n, offset, 0xa5)
				flips, checkFlips := guarded[uint64](n/2, offset, 0x5a)
				var largest float32
				var squares uint32
				for i := range v {
					v[i] = float32(r.NormFloat64() * math.Exp(20*r.NormFloat64()))
					largest = max(largest, float32(math.Abs(float64(v[i]))))
					codes[i], centre[i] = byte(r.Uint32()), float32(r.IntN(256))
					d := int(codes[i]) - int(centre[i])
					squares += uint32(d * d)
				}
				if got := Largest(v); got != largest {
					t.Fatalf("%d elements: largest %g, want %g", n, got, largest)
				}
				if got := Centre(dst, codes, centre); got != squares {
					t.Fatalf("%d elements: squares %d, want %d", n, got, squares)
				}
				for i, got := range dst {
					if want := float32(codes[i]) - centre[i]; got != want {
						t.Fatalf("%d elements: element %d is %g, want %g", n, i, got, want)
					}
				}
				if n > 0 && Normalize(dst, v) {
					var total [4]float64
					for i, x := range v {
						total[i%4] += float64(x) * float64(x)
					}
					inverse := 1 / math.Sqrt(total[0]+total[1]+(total[2]+total[3]))
					for i, got := range dst {
						if want := float32(float64(v[i]) * inverse); !sameBits(got, want) {
							t.Fatalf("%d elements: element %d normalised is %g, want %g", n, i, got, want)
						}
					}
				}
				for i := range flips {
					flips[i] = r.Uint64() & (1<<63 | 1<<31)
				}
				before := slices.Clone(v)
				FlipSigns(v, flips)
				for i, got := range v {
					want := before[i]
					if flips[i/2]>>(32*(i%2)+31)&1 == 1 {
						want = -want
					}
					if !sameBits(got, want) {
						t.Fatalf("%d elements: element %d is %g, want %g", n, i, got, want)
					}
				}
				for _, check := range []func() error{checkV, checkDst, checkCentre, checkCodes, checkFlips} {
					if err := check(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

func BenchmarkSigns(b *testing.B) {
	v, lut, codes, flips := make([]float32, 512), make([]byte, 2048), make([]byte, 512), make([]uint64, 256)
	v[3] = 1
	benchVariants(b, func(b *testing.B) {
		for name, run := range map[string]func(){
			"SignTable": func() { SignTable(lut, v, 31) },
			"Largest":   func() { Largest(v) },
			"Centre":    func() { Centre(v, codes, v) },
			"FlipSigns": func() { FlipSigns(v, flips) },
			"Normalize": func() { v[3] = 1; Normalize(v, v) },
		} {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					run()
				}
			})
		}
	})
}
