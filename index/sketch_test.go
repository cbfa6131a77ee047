// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/index/distance"
)

// sketchKinds are data of which sketches may or may not tell something; vectors
// of class 1 and more lie apart from those of class 0.
var sketchKinds = []sketchKind{
	{"random", func(r *rand.Rand, n, dim int) ([][]float32, []int) {
		return clustered(r, n, dim, 1, 1), chances(r, n)
	}},
	{"clustered", func(r *rand.Rand, n, dim int) ([][]float32, []int) {
		return clustered(r, n, dim, 16, 0.4), chances(r, n)
	}},
	{"apart", func(r *rand.Rand, n, dim int) ([][]float32, []int) { return classed(r, n, dim, 3) }},
	{"equal", func(r *rand.Rand, n, dim int) ([][]float32, []int) {
		v := clustered(r, 1, dim, 1, 1)[0]
		return slices.Repeat([][]float32{v}, n), chances(r, n)
	}},
	{"duplicates", func(r *rand.Rand, n, dim int) ([][]float32, []int) {
		return slices.Repeat(clustered(r, n/50+1, dim, 20, 0.5), 50)[:n], chances(r, n)
	}},
	{"integers", func(r *rand.Rand, n, dim int) ([][]float32, []int) {
		out := clustered(r, n, dim, 40, 0.5)
		for _, v := range out {
			for i, x := range v {
				v[i] = float32(math.Round(float64(max(-4, min(4, x)) * 12)))
			}
		}
		return out, chances(r, n)
	}},
}

type sketchKind struct {
	name string
	make func(r *rand.Rand, n, dim int) (vectors [][]float32, classes []int)
}

// eachSketchKind runs a test by every metric on data of every kind.
func eachSketchKind(t *testing.T, test func(t *testing.T, metric distance.Metric, kind sketchKind)) {
	for _, metric := range metrics {
		for _, kind := range sketchKinds {
			t.Run(metricName(metric)+" "+kind.name, func(t *testing.T) {
				if testing.Short() && metric != distance.Dot {
					t.Skip("one metric, which has a coordinate more and signed keys, is enough")
				}
				test(t, metric, kind)
			})
		}
	}
}

func chances(r *rand.Rand, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = r.IntN(3)
	}
	return out
}

// classed makes classes that lie apart, each a cloud of few dimensions in many, as
// pictures and embeddings are.
func classed(r *rand.Rand, n, dim, classes int) (vectors [][]float32, of []int) {
	const inner = 12
	axes, centres := clustered(r, inner, dim, inner, 1), clustered(r, classes, inner, classes, 2)
	for range n {
		c := r.IntN(classes)
		v := make([]float32, dim)
		for d, axis := range axes {
			x := centres[c][d] + float32(r.NormFloat64())
			for i, a := range axis {
				v[i] += x*a + 0.05*float32(r.NormFloat64())
			}
		}
		vectors, of = append(vectors, v), append(of, c)
	}
	return vectors, of
}

func classFilter(not bool, classes ...int64) *Filter {
	c := Condition{Key: "class"}
	for _, n := range classes {
		c.Any = append(c.Any, Scalar{Kind: KindInt, Int: n})
	}
	if not {
		return &Filter{MustNot: []Condition{c}}
	}
	return &Filter{Must: []Condition{c}}
}

// scanned is the request of a query that scans the matches by codes, as it is
// before the scan.
func scanned(t *testing.T, x *Index, vector []float32, f *Filter) *request {
	g := x.acquire()
	t.Cleanup(g.release)
	s := &scratch{query: slices.Clone(vector)}
	if x.cfg.Metric == distance.Cosine {
		distance.Normalize(s.query, s.query)
	}
	r := &request{x: x, ctx: t.Context(), q: &Query{Vector: vector, K: 10}, g: g, s: s}
	r.graphed = g.graphed.Load()
	r.see = sight{g: g, bound: g.total.Load(), applied: 1, anyDead: g.garbage.Load() > 0}
	r.ef = x.chooseEf(r.q)
	sel, err := x.selectBy(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.evaluate(sel); err != nil {
		t.Fatal(err)
	}
	r.codes = g.acquireCodes()
	if r.codes == nil {
		t.Fatal("no codes")
	}
	t.Cleanup(r.codes.release)
	r.lossless, _ = r.codes.queryMeasure(&s.measure, x.cfg.Metric, s.query)
	return r
}

// allKeys is all matches as candidates, the nearest first.
func allKeys(r *request) (out []uint64) {
	key := make([]uint32, 1)
	for v := range r.graphed {
		if r.see.match(v) {
			r.s.measure.keys([]uint32{v}, key)
			out = append(out, candidate(key[0], v))
		}
	}
	slices.Sort(out)
	return out
}

func openKind(t *testing.T, metric distance.Metric, vectors [][]float32, classes []int) *Index {
	x := open(t, Config{Dimension: len(vectors[0]), Metric: metric, M: 4, EfConstruction: 10}, &memory{})
	for i, v := range vectors {
		x.Append(Slot(i), v, fmt.Appendf(nil, `{"class":%d}`, classes[i]))
	}
	waitIdle(t, x)
	return x
}

// Goal: a scan by sketches finds what is nearest, and compares less where sketches
// can tell. Method: beside all keys, sorted, for matches of a filter by chance and of
// a class that lies apart, on data of all kinds; some of it deleted.
func TestSketchScanAgainstFullScan(t *testing.T) {
	eachSketchKind(t, func(t *testing.T, metric distance.Metric, kind sketchKind) {
		r := seeded(t, 61)
		const n, dim, queries = 4096, 140, 30
		vectors, classes := kind.make(r, n+queries, dim)
		x := openKind(t, metric, vectors[:n], classes)
		for range n / 20 {
			x.Delete(Slot(r.IntN(n)), 1)
		}
		hit, want, looked, compared := 0, 0, 0, 0
		for i, q := range vectors[n:] {
			f := classFilter(i%2 == 0, 0)
			req := scanned(t, x, q, f)
			k := req.sketches()
			if k == nil {
				t.Fatalf("no sketches for %d matches", req.matching)
			}
			full := allKeys(req)
			if err := req.scanSketches(k, req.graphed, 100); err != nil {
				t.Fatal(err)
			}
			got := req.s.results
			looked += req.stats.Sketched
			compared += req.stats.Scanned
			if len(got) < 10 {
				t.Fatalf("%d results", len(got))
			}
			for _, c := range got {
				if _, found := slices.BinarySearch(full, c); !found {
					t.Fatalf("vertex %d at key %d is no match", candidateVertex(c), candidateKey(c))
				}
			}
			want += 10
			for j, c := range got[:10] {
				if candidateKey(c) <= candidateKey(full[9]) && req.see.match(candidateVertex(c)) {
					hit++
				}
				if j > 0 && got[j-1] >= c {
					t.Fatal("out of order")
				}
			}
		}
		t.Logf("%d of %d found, %d sketches looked at, %d vectors compared", hit, want, looked, compared)
		if hit*200 < want*199 {
			t.Errorf("%d of %d found", hit, want)
		}
		if kind.name != "random" && kind.name != "equal" && compared*4 > looked*3 {
			t.Errorf("%d vectors compared after %d looks", compared, looked)
		}
	})
}

// Goal: a sketch is what its description says, and rules out what it says.
// Method: everything again by the definition: the rotation as a sum over signs of
// a Hadamard matrix, bits one by one, bounds with math.Cos.
func TestSketchAgainstLoop(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 62)
			const n, dim = 1100, 150
			x := openKind(t, metric, clustered(r, n, dim, 20, 0.5), chances(r, n))
			req := scanned(t, x, clustered(r, 1, dim, 1, 1)[0], &Filter{})
			k := req.codes.sketches
			k.prepare(&req.s.sketcher, &req.s.measure)
			centred := func(v uint32) []float64 {
				out := make([]float64, k.turned)
				for i, m := range k.centre {
					out[i] = float64(req.codes.row(v)[i]) - float64(m)
				}
				return out
			}
			rotate := func(v []float64) []float64 {
				for _, flips := range k.flips {
					out := make([]float64, len(v))
					for i := range out {
						for j, x := range v {
							if flips[j/2]>>(31+32*(j%2))&1 == 1 {
								x = -x
							}
							if bits.OnesCount(uint(i&j))%2 == 1 {
								x = -x
							}
							out[i] += x
						}
					}
					v = out
				}
				return v
			}
			length := func(v []float64) float64 {
				var sum float64
				for _, x := range v {
					sum += x * x
				}
				return math.Sqrt(sum)
			}
			q := make([]float64, k.turned)
			var base float64
			for i, m := range k.centre {
				if metric == distance.Dot {
					q[i] = float64(req.s.measure.signed[i])
					base -= q[i] * float64(m)
				} else {
					q[i] = float64(req.s.measure.codes[i]) - float64(m)
				}
			}
			queryLength := length(q)
			if metric != distance.Dot {
				base = queryLength * queryLength
			}
			turnedQuery := rotate(q)
			out := make([]uint32, 1)
			for v := uint32(0); v < req.graphed; v += 17 {
				u := centred(v)
				norm := length(u)
				differ := 0
				for i, x := range rotate(u)[:64*k.words] {
					if x < 0 != (turnedQuery[i] < 0) {
						differ++
					}
				}
				p := float64(differ) / float64(64*k.words)
				one := 1 / float64(64*k.words)
				p = max(0, p-luck*math.Sqrt((p+one)*(1-p+one)*one))
				least := base - queryLength*norm*math.Cos(math.Pi*p)
				if metric != distance.Dot {
					least = base + norm*norm - 2*queryLength*norm*math.Cos(math.Pi*p)
				}
				margin := 1e-4 * (math.Abs(base) + norm*norm)
				if got := k.sieve(&req.s.sketcher, []uint32{v}, out, float32(least+margin)); len(got) != 1 {
					t.Errorf("vertex %d: ruled out above its least distance %g", v, least)
				}
				if got := k.sieve(&req.s.sketcher, []uint32{v}, out, float32(least-margin)); len(got) != 0 {
					t.Errorf("vertex %d: not ruled out below its least distance %g", v, least)
				}
			}
		})
	}
}

// Goal: asked to be exact, a search compares all that match.
func TestExactLooksAtNoSketches(t *testing.T) {
	r := seeded(t, 63)
	const n, dim = 2048, 140
	x := openKind(t, distance.L2, clustered(r, n, dim, 20, 0.5), chances(r, n))
	f := classFilter(true, 9)
	_, st := search(t, x, Query{Vector: make([]float32, dim), K: 10, Ef: 500, Filter: f}, all)
	if st.Plan != "exact" || st.Sketched != n || st.Scanned > n/2 {
		t.Errorf("%+v", st)
	}
	_, st = search(t, x, Query{Vector: make([]float32, dim), K: 10, Filter: f, RecallTarget: 1}, all)
	if st.Sketched != 0 || st.Scanned != n {
		t.Errorf("exact: %+v", st)
	}
}

// Goal: a filter that selects classes costs at most twice what the same search
// costs without it, on average over queries of all classes, though most of them lie
// apart from the matches. Method: counts, a look at a sketch being a third of a
// comparison.
func TestClassFilterCostsAtMostTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a graph of 16,000 vectors")
	}
	r := seeded(t, 64)
	const n, dim, queries, look = 16000, 160, 80, 0.33
	vectors, classes := classed(r, n+queries, dim, 8)
	x := open(t, Config{Dimension: dim, Metric: distance.L2}, &memory{})
	for i, v := range vectors[:n] {
		x.Append(Slot(i), v, fmt.Appendf(nil, `{"class":%d}`, classes[i]))
	}
	waitIdle(t, x)
	cost := func(q Query) (c, found float64) {
		for _, v := range vectors[n:] {
			q.Vector = v
			_, st := search(t, x, q, all)
			c += float64(st.Scanned) + look*float64(st.Sketched) + walkDearer*float64(st.Visited)
		}
		return c / queries, recall(t, x, vectors[n:], q, all)
	}
	plain, _ := cost(Query{K: 10})
	for _, filter := range []struct {
		name string
		f    *Filter
	}{
		{"one class", classFilter(false, 3)},
		{"two classes", classFilter(false, 3, 5)},
		{"four classes", classFilter(false, 0, 2, 4, 6)},
		{"all but one", classFilter(true, 1)},
	} {
		c, found := cost(Query{K: 10, Filter: filter.f})
		t.Logf("%s: cost %.0f recall %.4f; without %.0f, %.2f times", filter.name, c, found, plain, c/plain)
		if c > 2*plain || found < 0.99 {
			t.Errorf("%s: %.0f comparisons, recall %.4f; %.0f without a filter", filter.name, c, found, plain)
		}
	}
}

// Goal: scans by sketches beside a builder that adds sketches and trains codecs
// anew find every vector that was appended.
func TestSketchesUnderWrites(t *testing.T) {
	r := seeded(t, 65)
	const n, dim = 5000, 132
	vectors := clustered(r, n, dim, 20, 0.3)
	x := open(t, Config{Dimension: dim, Metric: distance.L2, M: 4, EfConstruction: 10, Workers: 2}, &memory{})
	var wg sync.WaitGroup
	appended := make(chan int)
	var sketched atomic.Int64
	for range 2 {
		wg.Go(func() {
			f := classFilter(false, 0, 1)
			for i := range appended {
				// What comes later is of another range, which trains codecs anew.
				rs, st, err := x.Search(context.Background(), Query{Vector: vectors[i], K: 1, Ef: 500, Filter: f}, View{Slots: Slot(i + 1), Applied: 1}, nil)
				if err != nil || len(rs) != 1 || rs[0].Distance != 0 {
					t.Errorf("vector %d: %v, %v", i, rs, err)
				}
				sketched.Add(int64(st.Sketched))
			}
		})
	}
	for i, v := range vectors {
		for d := range v {
			v[d] *= float32(1 + i/1500)
		}
		x.Append(Slot(i), v, fmt.Appendf(nil, `{"class":%d}`, i%2))
		if i == 2000 {
			waitIdle(t, x)
		}
		if i > 2000 && i%8 == 0 {
			appended <- i
		}
	}
	close(appended)
	wg.Wait()
	if sketched.Load() == 0 {
		t.Error("no search looked at a sketch")
	}
}

// Goal: sketches, and what they rule out, are the same on every CPU. Method: as
// TestGoldenGraphs.
func TestGoldenSketches(t *testing.T) {
	golden := map[distance.Metric]string{
		distance.Cosine: "877694d936e38896",
		distance.Dot:    "febec4beb6c22292",
		distance.L2:     "8411b5dee9162c56",
	}
	for _, metric := range metrics {
		r := rand.New(rand.NewPCG(66, 1))
		const n, dim = 1088, 300
		vectors := make([][]float32, n)
		for i := range vectors {
			vectors[i] = make([]float32, dim)
			for d := range vectors[i] {
				vectors[i][d] = r.Float32() - 0.25 + float32(i%7)/8
			}
		}
		x := openKind(t, metric, vectors, chances(r, n))
		req := scanned(t, x, vectors[5], &Filter{})
		k := req.codes.sketches
		k.prepare(&req.s.sketcher, &req.s.measure)
		h := xxh3.New()
		for _, c := range k.cosines {
			_ = binary.Write(h, binary.LittleEndian, c)
		}
		ids, out := make([]uint32, n), make([]uint32, n)
		for v := range uint32(n) {
			ids[v] = v
			_ = binary.Write(h, binary.LittleEndian, k.row(v))
		}
		_ = binary.Write(h, binary.LittleEndian, req.sample(n))
		_ = binary.Write(h, binary.LittleEndian, k.sieve(&req.s.sketcher, ids, out, req.sample(n)))
		if got := fmt.Sprintf("%016x", h.Sum64()); got != golden[metric] {
			t.Errorf("%s: %s, want %s", metricName(metric), got, golden[metric])
		}
	}
}
