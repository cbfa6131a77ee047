// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"fmt"
	"math"
	"testing"
)

// Goal: every kernel of Estimate is the loop of its comment, to the bit, also
// where estimates leave the range of keys or are no numbers.
func TestEstimateIsItsLoop(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, dims := range []int{1, 16, 64, 100, 128, 256, 384, 1024, 1040, 2048, 5000} {
			for round := range 20 {
				n := FastScanBytes(dims)
				lut, checkLUT := guarded[byte](n, 0, 0x5a)
				block, checkBlock := guarded[byte](EstimateBytes(dims), 4*r.IntN(4), 0xa5)
				for i := range lut {
					lut[i] = byte(r.Uint32())
				}
				for i := range block[:n] {
					block[i] = byte(r.Uint32())
				}
				e := Estimator{Scale: r.Float32(), Shift: r.Float32() * -100, Base: 1e5 * r.Float32(), Limit: 1e5}
				if round%2 == 0 {
					e.Low, e.Flip = -MaxEstimate, 1<<31
				}
				add, times := EstimateFactors(dims, block)
				for j := range add {
					add[j], times[j] = float32(r.NormFloat64()*1e4), float32(r.NormFloat64())
					switch r.IntN(16) {
					case 0:
						add[j] = 3e38
					case 1:
						times[j] = float32(math.Inf(1))
					case 2:
						add[j] = float32(math.NaN())
					case 3:
						add[j] = -1e30
					}
				}
				var keys [FastScanLanes]uint32
				mask := Estimate(lut, block, &e, &keys)
				sums := make([]uint32, FastScanLanes)
				FastScan(lut, block[:n], sums)
				for j, sum := range sums {
					inner := float32(float32(sum)*e.Scale) + e.Shift
					x := float32(add[j]+float32(times[j]*inner)) + e.Base
					if below := x < e.Limit; below != (mask>>j&1 == 1) {
						t.Fatalf("%d dimensions, lane %d: estimate %g, limit %g, mask %032b", dims, j, x, e.Limit, mask)
					}
					if !(x > e.Low) {
						x = e.Low
					}
					if want := uint32(int32(min(x, MaxEstimate))) ^ e.Flip; keys[j] != want {
						t.Fatalf("%d dimensions, lane %d: estimate %g: key %d, want %d", dims, j, x, keys[j], want)
					}
				}
				for _, check := range []func() error{checkLUT, checkBlock} {
					if err := check(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

func TestEstimateRefusesShortBlocks(t *testing.T) {
	for _, lengths := range [][2]int{{0, 512}, {60, 512}, {64, 64 + factorBytes - 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("table of %d bytes and block of %d were taken", lengths[0], lengths[1])
				}
			}()
			Estimate(make([]byte, lengths[0]), make([]byte, lengths[1]), &Estimator{}, new([FastScanLanes]uint32))
		}()
	}
}

func BenchmarkEstimate(b *testing.B) {
	base := benchArena[byte](b, benchArenaBytes)
	for i := range base {
		base[i] = byte(i * 7)
	}
	benchVariants(b, func(b *testing.B) {
		for _, bits := range []int{256, 384, 768} {
			b.Run(fmt.Sprint(bits), func(b *testing.B) {
				var keys [FastScanLanes]uint32
				n := EstimateBytes(bits)
				lut := base[:FastScanBytes(bits)]
				benchRows(b, n, func(ids []uint32) {
					Estimate(lut, base[int(ids[0])*n:][:n], &Estimator{Limit: 1}, &keys)
				})
			})
		}
	})
}
