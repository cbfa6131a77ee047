// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"fmt"
	"testing"
)

// Goal: FastScan is the loop of its comment, read here from the codes and the
// table themselves, up to more segments than 16-bit sums hold.
func TestFastScanSumsTheTable(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, dims := range []int{1, 4, 16, 17, 64, 100, 128, 384, 768, 784, 1024, 1028, 1040, 2048, 4096, 4112, 5000} {
			for _, biggest := range []bool{false, true} {
				n, blocks := FastScanBytes(dims), r.IntN(4)
				lut, checkLUT := guarded[byte](n, r.IntN(4), 0x5a)
				codes, checkCodes := guarded[byte](n*blocks, r.IntN(4), 0xa5)
				out, checkOut := guarded[uint32](FastScanLanes*blocks, r.IntN(4), 77)
				for i := range lut {
					lut[i] = byte(r.Uint32())
					if biggest {
						lut[i] = 255
					}
				}
				for i := range codes {
					codes[i] = byte(r.Uint32())
				}
				FastScan(lut, codes, out)
				for i, got := range out {
					block, lane := codes[i/32*n:][:n], i%32
					var want uint32
					for s := range n / 16 {
						want += uint32(lut[16*s+int(block[16*s+lane%16]>>(lane/16*4)&15)])
					}
					if got != want {
						t.Fatalf("%d dimensions, block %d, lane %d: %d, want %d", dims, i/32, lane, got, want)
					}
				}
				for _, check := range []func() error{checkLUT, checkCodes, checkOut} {
					if err := check(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// Goal: table, layout and scan together are the inner product of a query with
// 1-bit codes, lanes being independent and rewritable.
func TestFastScanIsTheInnerProductWithBits(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, dims := range []int{16, 64, 80, 128, 784, 1536} {
			query := make([]float32, dims)
			for i := range query {
				query[i] = float32(r.IntN(63) - 31)
			}
			lut, block := make([]byte, FastScanBytes(dims)), make([]byte, FastScanBytes(dims))
			SignTable(lut, query, 1)
			codes := make([][]uint64, FastScanLanes)
			for range 2 {
				for _, lane := range r.Perm(FastScanLanes) {
					codes[lane] = make([]uint64, (dims+63)/64)
					fillWords(r, codes[lane])
					FastScanPut(block, lane, codes[lane])
				}
			}
			out := make([]uint32, FastScanLanes)
			FastScan(lut, block, out)
			for lane, got := range out {
				want := dims / 4 * SignMiddle
				for i, q := range query {
					want += int(q) * int(codes[lane][i/64]>>(i%64)&1)
				}
				if int(got) != want {
					t.Fatalf("%d dimensions, lane %d: %d, want %d", dims, lane, got, want)
				}
			}
		}
	})
}

func BenchmarkFastScan(b *testing.B) {
	base := benchArena[byte](b, benchArenaBytes)
	for i := range base {
		base[i] = byte(i * 7)
	}
	benchVariants(b, func(b *testing.B) {
		for _, dim := range benchDims {
			b.Run(fmt.Sprint(dim), func(b *testing.B) {
				var out [FastScanLanes]uint32
				n := FastScanBytes(dim)
				lut := base[:n]
				benchRows(b, n, func(ids []uint32) {
					FastScan(lut, base[int(ids[0])*n:][:n], out[:])
				})
			})
		}
	})
}

func BenchmarkBits(b *testing.B) {
	base := benchArena[uint64](b, benchArenaBytes/8)
	for i := range base {
		base[i] = uint64(i) * 0x9e3779b97f4a7c15
	}
	for _, k := range []struct {
		name   string
		rows   func(query, base []uint64, stride int, ids []uint32, out []int32)
		planes int
	}{{"Hamming", HammingRows, 1}, {"DotBits4", DotBits4Rows, planes}} {
		b.Run(k.name, func(b *testing.B) {
			benchVariants(b, func(b *testing.B) {
				for _, dim := range benchDims {
					b.Run(fmt.Sprint(dim), func(b *testing.B) {
						var out [benchBatch]int32
						words := (dim + 63) / 64
						query := base[:k.planes*words]
						benchRows(b, 8*words, func(ids []uint32) { k.rows(query, base, words, ids, out[:]) })
					})
				}
			})
		})
	}
}
