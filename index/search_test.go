// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: matches that lie apart from the query are found, too many to be scanned
// without a look.
func TestMatchesApartFromQuery(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) {
			r := seeded(t, 92)
			const n = 20000
			x := open(t, Config{Dimension: 12, Metric: distance.L2, Quantization: quantization}, &memory{})
			var queries [][]float32
			for i := range n {
				v := make([]float32, 12)
				for d := range v {
					v[d] = float32(r.NormFloat64())
				}
				side := v[0] + v[1]
				x.Append(Slot(i), v, fmt.Appendf(nil, `{"far":%t}`, side < -0.3))
				if side > 3 && len(queries) < 40 {
					queries = append(queries, v)
				}
			}
			waitIdle(t, x)
			f := &Filter{Must: []Condition{{Key: "far", Any: []Scalar{{Kind: KindBool, Bool: true}}}}}
			if got := recall(t, x, queries, Query{K: 10, Ef: 60, Filter: f}, all); got < 0.95 {
				t.Errorf("recall %.4f", got)
			}
		})
	}
}

// Goal: a filter never makes a search twice as dear as one without a filter that
// finds as much, unless comparing all matches is cheaper still. Where the matches
// lie apart from the query, a walk may be wasted first. Method: counts of
// comparisons, which are the same on every machine, at every selectivity.
func TestFilterCostsAtMostTwice(t *testing.T) {
	r := seeded(t, 77)
	const n, dim = 40000, 16
	x := open(t, Config{Dimension: dim, Metric: distance.L2}, &memory{})
	for i, v := range clustered(r, n, dim, 400, 0.6) {
		x.Append(Slot(i), v, fmt.Appendf(nil, `{"chance":%d,"near":%g}`, mix(uint64(i))%10000, v[0]))
	}
	waitIdle(t, x)
	queries := clustered(r, 60, dim, 400, 0.6)
	cost := func(q Query) (c, found float64) {
		for _, v := range queries {
			q.Vector = v
			_, st := search(t, x, q, all)
			c += float64(st.Scanned) + walkDearer*float64(st.Visited)
		}
		return c / float64(len(queries)), recall(t, x, queries, q, all)
	}
	type point struct{ ef, cost, recall float64 }
	var curve []point
	for _, ef := range []int{10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512} {
		c, found := cost(Query{K: 10, Ef: ef})
		curve = append(curve, point{float64(ef), c, found})
	}
	number := func(f float64) *Scalar { return &Scalar{Kind: KindFloat, Float: f} }
	for _, ef := range []int{0, 32} {
		for _, below := range []float64{1, 10, 30, 100, 300, 1000, 2000, 3000, 5000, 8000, 9900, 10000} {
			for name, f := range map[string]Condition{
				"by chance": {Key: "chance", Range: &Range{Lt: number(below)}},
				"by place":  {Key: "near", Range: &Range{Lt: number(6 * (below/10000 - 0.5))}},
			} {
				q := Query{K: 10, Ef: ef, Filter: &Filter{Must: []Condition{f}}}
				matches, err := x.Count(t.Context(), q.Filter, all)
				if err != nil || matches == 0 {
					continue
				}
				c, found := cost(q)
				plain := curve[len(curve)-1]
				for i := range curve {
					if curve[i].recall >= found {
						plain = curve[i]
						break
					}
				}
				t.Logf("ef %d %s %6.2f%%: cost %.0f recall %.4f; without %.0f (ef %.0f), %.2f times", ef, name, 100*float64(matches)/n, c, found, plain.cost, plain.ef, c/plain.cost)
				wasted := 0.0
				if name == "by place" {
					wasted = plain.cost
				}
				if c > 2*plain.cost && c > 1.1*float64(matches)+wasted {
					t.Errorf("ef %d, %.2f%% %s: %.0f comparisons, %.0f without a filter", ef, 100*float64(matches)/n, name, c, plain.cost)
				}
				if found < 0.95 {
					t.Errorf("ef %d, %.2f%% %s: recall %.4f", ef, 100*float64(matches)/n, name, found)
				}
			}
		}
	}
}

// Goal: a scan by codes keeps all that may be among the best K by their vectors,
// and little else. Method: against all keys, sorted, and the vectors themselves,
// for every metric, by rounded codes and lossless ones.
func TestScanByCodesKeepsTheBest(t *testing.T) {
	eachSketchKind(t, func(t *testing.T, metric distance.Metric, kind sketchKind) {
		r := seeded(t, 83)
		const n, dim, queries, limit = 3000, 40, 30, 300
		vectors, classes := kind.make(r, n+queries, dim)
		x := openKind(t, metric, vectors[:n], classes)
		kept, want, most := 0, 0, 0
		for _, q := range vectors[n:] {
			req := scanned(t, x, q, classFilter(true, 1))
			s := req.s
			byCodes := allKeys(req)
			if err := req.scan(0, req.graphed, limit); err != nil {
				t.Fatal(err)
			}
			got := slices.Clone(s.results)
			if !slices.Equal(got[:req.q.K], byCodes[:req.q.K]) {
				t.Fatal("not the best by codes")
			}
			most = max(most, len(got))
			req.g.exactMeasure(&s.measure, s.query)
			for _, c := range allKeys(req)[:req.q.K] {
				among := func(c uint64) func(uint64) bool {
					return func(o uint64) bool { return candidateVertex(o) == candidateVertex(c) }
				}
				if slices.ContainsFunc(byCodes[:limit], among(c)) {
					want++
					if slices.ContainsFunc(got, among(c)) {
						kept++
					}
				}
			}
		}
		t.Logf("%d of %d kept, among %d at most", kept, want, most)
		if kept*1000 < want*999 || want == 0 {
			t.Errorf("%d of %d kept", kept, want)
		}
		if kind.name == "clustered" && most > limit/2 {
			t.Errorf("%d kept, of which 10 were wanted", most)
		}
	})
}

// Goal: whatever is not finite is found, wherever it stands, and nothing else is.
func TestNotFinite(t *testing.T) {
	for n := range 10 {
		v := make([]float32, n)
		for i := range v {
			for _, f := range []float32{0, math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32} {
				v[i] = f
				if got := NotFinite(v); got != -1 {
					t.Fatalf("%v: %d", v, got)
				}
			}
		}
		for i := range v {
			for _, f := range []float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())} {
				was := v[i]
				v[i] = f
				if got := NotFinite(v); got != i {
					t.Fatalf("%v: %d, want %d", v, got, i)
				}
				v[i] = was
			}
		}
	}
}
