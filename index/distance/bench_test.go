// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// The benchmarks measure ns per distance of one query against batches of 32
// rows, the neighbours of a vertex: "hot" from 32 rows over and over, "random"
// from rows drawn from an arena far larger than the caches, which is what a
// graph search meets.
const (
	benchBatch      = 32
	benchArenaBytes = 512 << 20
)

var benchDims = []int{25, 64, 100, 128, 384, 768, 784}

// benchRows runs scan on batches of ids of rows that take rowBytes each.
func benchRows(b *testing.B, rowBytes int, scan func(ids []uint32)) {
	for _, mode := range []struct {
		name      string
		rows, ids int
	}{{"hot", benchBatch, 1 << 10}, {"random", benchArenaBytes / rowBytes, 1 << 20}} {
		b.Run(mode.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, uint64(rowBytes)))
			ids := make([]uint32, mode.ids)
			for i := range ids {
				ids[i] = uint32(r.IntN(mode.rows))
			}
			at := 0
			for b.Loop() {
				scan(ids[at : at+benchBatch])
				at = (at + benchBatch) & (len(ids) - 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchBatch, "ns/distance")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchVariants(b *testing.B, body func(b *testing.B)) {
	for _, v := range variants() {
		if v.usable {
			b.Run(v.name, func(b *testing.B) {
				v.use()
				defer v.restore()
				body(b)
			})
		}
	}
}

func BenchmarkFloat32(b *testing.B) {
	base := benchArena[float32](b, benchArenaBytes/4)
	for i := range base {
		base[i] = float32(i & 255)
	}
	for _, k := range floatKernels {
		b.Run(k.name, func(b *testing.B) {
			benchVariants(b, func(b *testing.B) {
				for _, dim := range benchDims {
					b.Run(fmt.Sprint(dim), func(b *testing.B) {
						var out [benchBatch]float32
						query := base[:dim]
						benchRows(b, 4*dim, func(ids []uint32) { k.rows(query, base, dim, ids, out[:]) })
					})
				}
			})
		})
	}
}

func BenchmarkCodes8(b *testing.B) {
	base := benchArena[byte](b, benchArenaBytes)
	for i := range base {
		base[i] = byte(i)
	}
	kernels := map[string]func(query, base []byte, stride int, ids []uint32, out []int32){
		"L2U8Term": func(query, base []byte, stride int, ids []uint32, out []int32) {
			L2U8TermRows(asInt8(query), 0, base, stride, stride-4, ids, out)
		},
	}
	for _, k := range codeKernels {
		kernels[k.name] = k.rows
	}
	for _, name := range slices.Sorted(maps.Keys(kernels)) {
		b.Run(name, func(b *testing.B) {
			benchVariants(b, func(b *testing.B) {
				for _, dim := range benchDims {
					b.Run(fmt.Sprint(dim), func(b *testing.B) {
						var out [benchBatch]int32
						padded := (dim + 63) &^ 63
						query := base[:padded]
						benchRows(b, padded, func(ids []uint32) { kernels[name](query, base, padded, ids, out[:]) })
					})
				}
			})
		})
	}
}

// BenchmarkInsertSorted is one insertion at a place that cannot be foreseen into a
// full list, as a search makes them.
func BenchmarkInsertSorted(b *testing.B) {
	for _, n := range []int{10, 50, 100, 150, 400, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchVariants(b, func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, uint64(n)))
				sorted, news := make([]uint64, n), make([]uint64, 1<<16)
				for i := range sorted {
					sorted[i] = r.Uint64()
				}
				slices.Sort(sorted)
				for i := range news {
					news[i] = r.Uint64()
				}
				items := slices.Clone(sorted)
				at := 0
				for b.Loop() {
					if at&63 == 0 {
						copy(items, sorted)
					}
					InsertSorted(items, news[at])
					at = (at + 1) & (len(news) - 1)
				}
			})
		})
	}
}

func BenchmarkEncode8(b *testing.B) {
	for _, dim := range benchDims {
		b.Run(fmt.Sprint(dim), func(b *testing.B) {
			benchVariants(b, func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, uint64(dim)))
				x, offset, dst := make([]float32, dim), make([]float32, dim), make([]byte, dim)
				for i := range x {
					x[i] = r.Float32() * 200
				}
				for b.Loop() {
					Encode8(dst, x, offset, 1.1)
				}
			})
		})
	}
}
