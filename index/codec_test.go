// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"math"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: wherever the terms of rows are, keys on codes are squared distances of
// codes. Method: widths with room for them, without, and too wide to do without;
// queries and vertices against a loop.
func TestKeysOnCodesAreSquaredDistances(t *testing.T) {
	for _, short := range []bool{false, true} {
		t.Run(fmt.Sprintf("short=%v", short), func(t *testing.T) {
			forms := map[rowForm]int{}
			for _, rather := range []bool{false, true} {
				testKeysOnCodes(t, short, rather, forms)
			}
			if len(forms) != 3 {
				t.Errorf("forms of rows met: %v, want all three", forms)
			}
		})
	}
}

func testKeysOnCodes(t *testing.T, short, rather bool, forms map[rowForm]int) {
	for _, dim := range []int{1, 8, 9, 24, 25, 56, 57, 60, 64, 100, 384, 385, 440, 446, 448} {
		r := seeded(t, uint64(dim))
		cfg, err := Config{Dimension: dim, Metric: distance.L2}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		cfg.VectorsOnDisk, cfg.rather = short, &rather
		g, err := newGeneration(&cfg, nil, 1, 0, cfg.maxRows(0))
		if err != nil {
			t.Fatal(err)
		}
		defer g.release()
		const n = 100
		for i, v := range clustered(r, n, dim, 3, 0.5) {
			g.append(Slot(i), v, 0)
		}
		codes, err := newCodeset(trainCodec(g, n), &cfg, g.rows)
		if err != nil {
			t.Fatal(err)
		}
		defer codes.release()
		forms[codes.form]++
		if short && codes.form == termsInRow && codes.stride > dim+termBytes+1 {
			t.Errorf("dimension %d: rows of %d bytes", dim, codes.stride)
		}
		codes.grow(n)
		ids, keys := make([]uint32, n), make([]uint32, n)
		for v := range ids {
			ids[v] = uint32(v)
			codes.add(g, uint32(v))
		}
		var m measure
		check := func(what string, of []byte) {
			t.Helper()
			m.keys(ids, keys)
			for u, key := range keys {
				var want uint32
				for d, c := range codes.row(uint32(u))[:dim] {
					diff := int32(c) - int32(of[d])
					want += uint32(diff * diff)
				}
				if key != want {
					t.Fatalf("dimension %d: %s to row %d: %d, want %d", dim, what, u, key, want)
				}
			}
		}
		for v := range uint32(n) {
			// In turn, since the second must not write to what the first read.
			codes.rowMeasure(&m, v)
			check("vertex", codes.row(v))
			codes.queryMeasure(&m, distance.L2, g.vector((v+1)%n))
			check("query", codes.row((v+1)%n))
		}
	}
}

// Goal: by inner product the codes of every vector are right but for rounding, whenever
// the longest come and whether or not a sample has them, since those are what queries
// look for. One that is longer by far is not paid for by all.
func TestLongVectorsAreNotCutOff(t *testing.T) {
	const n, dim = 7040, 16
	scaleOf := func(t *testing.T, freak int) float32 {
		r := seeded(t, 101)
		vectors := repeat(n, func(int) []float32 { return normal(r, dim, 1) })
		long := map[int]float64{1001: 1.5, 2049: 2, 3333: 2.5, 4997: 3, 6501: 3.5, 6502: 3.2}
		if freak > 0 {
			long[freak] = 300
		}
		for i, times := range long {
			for d := range vectors[i] {
				vectors[i][d] *= float32(times)
			}
		}
		x := fill(t, Config{Dimension: dim, Metric: distance.Dot}, vectors)
		g := x.acquire()
		defer g.release()
		codes := g.codes.Load()
		if got := g.graphed.Load(); got != n || codes == nil {
			t.Fatalf("%d of %d vertices have codes", got, n)
		}
		for v := range uint32(n) {
			if freak > 0 && v == uint32(freak) {
				continue
			}
			for d, c := range codes.row(v)[:dim] {
				want := g.vector(v)[d]
				if got := codes.offset[d] + codes.scale*float32(c); math.Abs(float64(got-want)) > 0.52*float64(codes.scale) {
					t.Fatalf("vertex %d, element %d: %g by its code, is %g, a step is %g", v, d, got, want, codes.scale)
				}
			}
		}
		if freak > 0 {
			disk := open(t, Config{Dimension: dim, Metric: distance.Dot, VectorsOnDisk: true}, stored(vectors))
			waitIdle(t, disk)
			found := 0
			for range 20 {
				q := Query{Vector: normal(r, dim, 1), K: 10, Ef: 10}
				want, _ := search(t, x, Query{Vector: q.Vector, K: 10, Exact: true}, all)
				if want[0].Slot != Slot(freak) {
					continue
				}
				found++
				for _, x := range []*Index{x, disk} {
					if got, _ := search(t, x, q, all); got[0] != want[0] {
						t.Errorf("the nearest is %+v, want %+v", got[0], want[0])
					}
				}
			}
			if found < 5 || found == 20 {
				t.Errorf("the freak is nearest to %d of 20, which tests little", found)
			}
		}
		// One that training knows of lifts all others alike, which makes another graph.
		if freak == 0 || freak > 5056 {
			queries := repeat(100, func(int) []float32 { return normal(r, dim, 1) })
			if got := recall(t, x, queries, Query{K: 10}, all); got < 0.99 {
				t.Errorf("recall %.4f", got)
			}
		}
		return codes.scale
	}
	without := scaleOf(t, 0)
	for _, freak := range []int{4501, 5555} {
		if with := scaleOf(t, freak); with > 1.6*without {
			t.Errorf("a step is %g with one that is 300 times as long, %g without", with, without)
		}
	}
}

// Goal: a longer list finds everything, also among vectors that are nearer to each other
// than rounding to codes can tell. Method: lengths spread so widely that one scale is
// coarse for the short ones, which are what is asked for.
func TestLongListsHaveNoCeiling(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 103)
			const n, dim, hidden = 6016, 96, 6
			axes := repeat(hidden, func(int) []float32 { return normal(r, dim, 1) })
			vector := func(length float64) []float32 {
				v := make([]float32, dim)
				for _, axis := range axes {
					along := float32(r.NormFloat64() * length)
					for d, x := range axis {
						v[d] += along * x
					}
				}
				return v
			}
			x := fill(t, Config{Dimension: dim, Metric: metric},
				repeat(n, func(int) []float32 { return vector(math.Exp(r.NormFloat64())) }))
			if x.current.Load().codes.Load() == nil {
				t.Fatal("no codes to be compared by")
			}
			queries := repeat(150, func(int) []float32 { return vector(0.1 + 0.4*r.Float64()) })
			if got := recall(t, x, queries, Query{K: 10, Ef: 2000}, all); got < 0.999 {
				t.Errorf("recall %.4f of a third of all", got)
			}
		})
	}
}
