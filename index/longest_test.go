// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// lengthsApart makes vectors whose lengths are spread widely, none of them rare.
func lengthsApart(r *rand.Rand, n, dim int) [][]float32 {
	return repeat(n, func(int) []float32 { return normal(r, dim, math.Exp(0.7*r.NormFloat64())) })
}

// Goal: the copies of the longest vectors' rows are those of the longest, and of the
// codes in use, however they were built. Method: beside a plain sort of all.
func TestLongestRows(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) {
			r := seeded(t, 98)
			const n, dim = 12_000, 12
			vectors := lengthsApart(r, n, dim)
			// The longest come early, so that their list is full before it pays.
			slices.SortFunc(vectors[:n/2], func(a, b []float32) int {
				return cmp.Compare(distance.InnerProduct(b, b), distance.InnerProduct(a, a))
			})
			x := fill(t, Config{Dimension: dim, Metric: distance.Dot, Quantization: quantization, M: 6, EfConstruction: 30}, vectors)
			g := x.acquire()
			defer g.release()
			l := g.longest.Load()
			want := make([]uint32, g.graphed.Load())
			for i := range want {
				want[i] = uint32(i)
			}
			slices.SortStableFunc(want, func(a, b uint32) int { return cmp.Compare(g.norm(b), g.norm(a)) })
			if len(l.ids) < 256 || !slices.Equal(l.ids, want[:len(l.ids)]) {
				t.Fatalf("%d rows, not of the longest", len(l.ids))
			}
			codes := g.codes.Load()
			if l.codes != codes || (codes == nil) != (quantization == QuantizationNone) {
				t.Fatal("rows of other codes")
			}
			for i, v := range l.ids {
				if codes == nil && !slices.Equal(l.rows32[i*g.stride32():][:dim], g.vector(v)) ||
					codes != nil && !bytes.Equal(l.rows8[i*64:][:dim], codes.row(v)[:dim]) {
					t.Fatalf("row %d is not that of vertex %d", i, v)
				}
			}
			if got := recall(t, x, repeat(60, func(int) []float32 { return normal(r, dim, 1) }), Query{K: 10, Ef: 12}, all); got < 0.9 {
				t.Errorf("recall %.4f with a short list", got)
			}
		})
	}
}

// Goal: where all vectors are about as long as the others, walks do not begin at
// more of them than they did.
func TestEqualLengthsAreNotRanked(t *testing.T) {
	r := seeded(t, 99)
	vectors := repeat(4000, func(int) []float32 { return normal(r, 12, 1) })
	for _, v := range vectors {
		distance.Normalize(v, v)
	}
	x := fill(t, Config{Dimension: 12, Metric: distance.Dot, M: 6, EfConstruction: 30}, vectors)
	g := x.acquire()
	defer g.release()
	if n := len(g.longest.Load().ids); n != fewLongest {
		t.Fatalf("%d", n)
	}
}

// Goal: with vectors on disk, those that the codes cut off leave the rest of a search
// as it is. Method: one that the graph covers and one that it does not, which has no
// code then.
func TestVectorsCutOffOnDisk(t *testing.T) {
	r := seeded(t, 104)
	const n, dim = firstTraining + 64 + 2, 8
	vectors := repeat(n, func(int) []float32 { return normal(r, dim, 1) })
	for _, i := range []int{firstTraining + 10, n - 1} {
		vectors[i] = normal(r, dim, 100)
	}
	x := open(t, Config{Dimension: dim, Metric: distance.Dot, VectorsOnDisk: true}, stored(vectors))
	waitIdle(t, x)
	if l := x.current.Load().longest.Load(); len(l.cut) != 1 {
		t.Fatalf("%d vectors are cut off, which tests nothing", len(l.cut))
	}
	for _, v := range vectors {
		want, _ := search(t, x, Query{Vector: v, K: 3, Exact: true}, all)
		if got, _ := search(t, x, Query{Vector: v, K: 3}, all); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}

// Goal: one vector whose squared length is beyond float32 spoils no search for others.
func TestOneVectorBeyondFloat32(t *testing.T) {
	for _, quantization := range quantizations {
		for _, at := range []int{10, 1500} {
			t.Run(fmt.Sprint(quantization, at), func(t *testing.T) {
				r := seeded(t, 105)
				const dim = 16
				vectors := clustered(r, 4000, dim, 20, 0.3)
				for d := range vectors[at] {
					vectors[at][d] *= 1e20
				}
				x := fill(t, Config{Dimension: dim, Metric: distance.Dot, Quantization: quantization}, vectors)
				if got := recall(t, x, clustered(r, 50, dim, 20, 0.3), Query{K: 10}, all); got < 0.98 {
					t.Errorf("recall %.3f", got)
				}
			})
		}
	}
}

// Goal: a few vectors that are much longer than all others do not take the codes'
// resolution from these, wherever they come, also among the first that codes are trained
// on. Method: recall beside a scan, of queries some of which the long ones answer.
func TestLongVectorsAmongThoseTrainedOn(t *testing.T) {
	for _, onDisk := range []bool{false, true} {
		for _, long := range []int{1, 8} {
			for _, times := range []float32{30, 1e4} {
				r := seeded(t, 95)
				vectors := clustered(r, 3000, 16, 20, 0.3)
				for i := range long {
					w := slices.Clone(vectors[10+100*i])
					for d := range w {
						w[d] *= times * float32(1+i)
					}
					vectors[10+100*i] = w
				}
				x := open(t, Config{Dimension: 16, Metric: distance.Dot, VectorsOnDisk: onDisk}, stored(vectors))
				waitIdle(t, x)
				if got := recall(t, x, clustered(r, 50, 16, 20, 0.3), Query{K: 10}, all); got < 0.97 {
					t.Errorf("on disk %v, %d vectors %g times as long: recall %.3f", onDisk, long, times, got)
				}
			}
		}
	}
}
