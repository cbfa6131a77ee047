// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/index/distance"
)

// gaussian makes vectors without structure, the worst case of 1-bit codes.
func gaussian(r *rand.Rand, n, dim int) [][]float32 {
	return repeat(n, func(int) []float32 {
		v := make([]float32, dim)
		for d := range v {
			v[d] = float32(r.NormFloat64())
		}
		return v
	})
}

// Goal: estimates are unbiased and as good as the analysis of RaBitQ says
// (arXiv 2405.12497, theorem 3.2). Method: with r the way from vertex to
// neighbour and w that from vertex to query, the estimate of <r, w> errs by |r||w|
// times a number of mean zero and spread sqrt(D/(B a²) - 1)/sqrt(D), where B of D
// elements are coded and a is the mean cosine of a Gaussian and its code: 0.798
// for one bit, 0.939 for two. Distances of codes are summed here one by one.
func TestEstimatesAreUnbiased(t *testing.T) {
	for _, metric := range metrics {
		for _, dim := range []int{8, 100, 127, 200, 384, 500} {
			t.Run(fmt.Sprintf("%s/%d", metricName(metric), dim), func(t *testing.T) {
				r := seeded(t, 201)
				vectors := gaussian(r, 2048, dim)
				x := open(t, Config{Dimension: dim, Metric: metric, Quantization: QuantizationRaBitQ}, &memory{})
				for i, v := range vectors {
					x.Append(Slot(i), v, nil)
				}
				waitIdle(t, x)
				codes := x.current.Load().codes.Load()
				b := codes.blocks
				var m measure
				var e estimator
				var sum, squares float64
				n := 0
				for _, q := range gaussian(r, 40, dim) {
					if metric == distance.Cosine {
						distance.Normalize(q, q)
					}
					codes.queryMeasure(&m, metric, q)
					b.prepare(&e, &m)
					to := make([]float64, codes.dim) // the query, as codes
					for i := range to {
						if b.inner {
							to[i] = float64(m.signed[i])
						} else {
							to[i] = float64(m.codes[i])
						}
					}
					for range 20 {
						v := uint32(r.IntN(2048))
						base := dumbKey(b.inner, to, codes.row(v))
						e.Base, e.Limit = float32(base), distance.MaxEstimate
						block := b.block(v, 0)
						distance.Estimate(e.table, block, &e.Estimator, &e.keys)
						for lane, u := range b.numbers(block) {
							if u == none {
								continue
							}
							exact := dumbKey(b.inner, to, codes.row(u))
							got := float64(estimateKey(b.inner, e.keys[lane]))
							var rr, ww float64
							for i, c := range codes.row(v)[:codes.dim] {
								d := float64(codes.row(u)[i]) - float64(c)
								rr += d * d
								if b.inner {
									d = to[i]
								} else {
									d = to[i] - float64(c)
								}
								ww += d * d
							}
							err := (got - exact) / math.Sqrt(rr*ww)
							if !b.inner {
								err /= 2
							}
							sum += err
							squares += err * err
							n++
						}
					}
				}
				a := 0.798
				if b.planes == 2 {
					a = 0.939
				}
				D := float64(b.turned)
				want := math.Sqrt(D/(float64(b.width)*a*a)-1) / math.Sqrt(D)
				mean, spread := sum/float64(n), math.Sqrt(squares/float64(n))
				t.Logf("%d estimates: mean error %.5f, spread %.4f, analysis %.4f", n, mean, spread, want)
				if spread > 1.15*want {
					t.Errorf("spread %.4f, the analysis says %.4f", spread, want)
				}
				// Errors of one query, and of one lane, hang together.
				if math.Abs(mean) > 0.1*want {
					t.Errorf("mean error %.5f with a spread of %.4f", mean, spread)
				}
			})
		}
	}
}

// dumbKey is the squared distance of codes, or the negated inner product with a
// signed query.
func dumbKey(inner bool, q []float64, codes []byte) (sum float64) {
	for i, x := range q {
		if inner {
			sum -= x * float64(codes[i])
		} else {
			sum += (x - float64(codes[i])) * (x - float64(codes[i]))
		}
	}
	return sum
}

// laneHash covers codes, factors and numbers of all lanes, in whatever order.
func laneHash(g *generation) digest {
	var d digest
	b := g.codes.Load().blocks
	for v := range g.graphed.Load() {
		for group := range b.groups {
			block := b.block(v, group)
			add, times := distance.EstimateFactors(b.bits, block)
			for lane, u := range b.numbers(block) {
				if u == none {
					continue
				}
				var buf []byte
				buf = binary.LittleEndian.AppendUint32(buf, v)
				buf = binary.LittleEndian.AppendUint32(buf, u)
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(add[lane]))
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(times[lane]))
				for s := range b.bits / 4 {
					buf = append(buf, block[16*s+lane%16]>>(lane/16*4)&15)
				}
				h := xxh3.Hash128(buf)
				d.add(digest{h.Hi, h.Lo})
			}
		}
	}
	return d
}

// checkLanes wants each link to have its lane, and no other lanes.
func checkLanes(t *testing.T, g *generation) {
	t.Helper()
	b := g.codes.Load().blocks
	for v := range g.graphed.Load() {
		row := g.graph.row(v, 0)
		links := map[uint32]bool{}
		for _, u := range row[:rowLen(row)] {
			links[u] = true
		}
		for group := range b.groups {
			for _, u := range b.numbers(b.block(v, group)) {
				if u != none && !links[u] {
					t.Fatalf("vertex %d has a lane for %d but no link", v, u)
				}
				delete(links, u)
			}
		}
		if len(links) > 0 {
			t.Fatalf("vertex %d has no lanes for %v", v, links)
		}
	}
}

// Goal: blocks are the same on every CPU, however they came about: vector by
// vector, at once, on several goroutines, or after a restart. Method: a hash
// written down once; see TestGoldenGraphs for other CPUs.
func TestGoldenBlocks(t *testing.T) {
	golden := map[string]string{
		"l2/300":    "fbd926de965f0bfc03d616d52057a30e",
		"l2/20":     "38c3c8f0ea137ff75cb53b8759890460",
		"dot/300":   "cd06885ed8f2604a02414f7ea0d738ae",
		"dot/20":    "1b23b51ba018943a0f7dc6d20adffd7e",
		"cosine/20": "f2e03fd9ff21d38a74b1154fd9e65d7a",
	}
	for _, metric := range []distance.Metric{distance.L2, distance.Dot} {
		for _, dim := range []int{20, 300} {
			if metric == distance.Dot && dim > 20 {
				continue // emulators are slow
			}
			name := fmt.Sprintf("%s/%d", metricName(metric), dim)
			t.Run(name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(72, 1))
				src := &memory{}
				for i := range 1200 {
					v := make([]float32, dim)
					for d := range v {
						v[d] = r.Float32() - 0.25 + float32(i%7)/8
					}
					src.add(Entry{Slot: Slot(i), Vector: v})
				}
				dir := t.TempDir()
				cfg := Config{Dimension: dim, Metric: metric, Quantization: QuantizationRaBitQ, Workers: 1}
				slow := open(t, cfg, &memory{})
				for i, e := range src.entries {
					slow.Append(e.Slot, e.Vector, nil)
					if i%64 == 63 {
						waitIdle(t, slow)
					}
				}
				waitIdle(t, slow)
				checkLanes(t, slow.current.Load())
				got := laneHash(slow.current.Load())
				cfg.Workers, cfg.Dir = 3, dir
				for _, how := range []string{"at once", "restarted"} {
					x := open(t, cfg, src)
					waitIdle(t, x)
					if d := laneHash(x.current.Load()); d != got {
						t.Errorf("%s: %x, vector by vector %x", how, d, got)
					}
					if err := x.Checkpoint(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				if s := fmt.Sprintf("%016x%016x", got.hi, got.lo); s != golden[name] {
					t.Errorf("%q: %q, want %q", name, s, golden[name])
				}
			})
		}
	}
}

// Goal: searches on blocks that are being rewritten give right distances of
// vectors that are in their view, each once.
func TestBlocksUnderWrites(t *testing.T) {
	r := seeded(t, 202)
	const n, dim = 6000, 24
	vectors := clustered(r, n, dim, 20, 0.5)
	x := open(t, Config{Dimension: dim, Metric: distance.L2, Quantization: QuantizationRaBitQ, Workers: 2}, &memory{})
	var appended atomic.Int64
	put := func(to int) {
		for i := int(appended.Load()); i < to; i++ {
			x.Append(Slot(i), vectors[i], nil)
			appended.Store(int64(i + 1))
		}
	}
	put(1024)
	waitIdle(t, x)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var onBlocks atomic.Int64
	for w := range 3 {
		wg.Go(func() {
			for i := w; ; i += 3 {
				select {
				case <-stop:
					return
				default:
				}
				bound := int(appended.Load())
				view := View{Slots: Slot(bound), Applied: uint64(bound)}
				q := vectors[i%n]
				rs, _, err := x.Search(context.Background(), Query{Vector: q, K: 10, Ef: 60}, view, nil)
				if err != nil || len(rs) != 10 {
					t.Errorf("%d results, %v", len(rs), err)
					return
				}
				for j, res := range rs {
					if int(res.Slot) >= bound {
						t.Errorf("slot %d in a view of %d", res.Slot, bound)
						return
					}
					if d := distance.L2Squared(q, vectors[res.Slot]); d != res.Distance {
						t.Errorf("slot %d at %g, it is at %g", res.Slot, res.Distance, d)
					}
					for _, other := range rs[:j] {
						if other.Slot == res.Slot {
							t.Errorf("slot %d twice", res.Slot)
						}
					}
				}
				g := x.acquire()
				if codes := g.codes.Load(); codes != nil && codes.blocks.covered.Load() == g.graphed.Load() && !codes.blocks.poor.Load() {
					onBlocks.Add(1)
				}
				g.release()
			}
		})
	}
	for to := 1024; to < n; to += 64 {
		put(to)
		// Two batches at once now and then, so that blocks fall behind.
		if to%320 != 0 {
			waitIdle(t, x)
		}
	}
	waitIdle(t, x)
	close(stop)
	wg.Wait()
	if onBlocks.Load() == 0 {
		t.Error("no search met blocks that were up to date")
	}
	checkLanes(t, x.current.Load())
	var queries [][]float32
	for range 100 {
		queries = append(queries, vectors[r.IntN(n)])
	}
	if got := recall(t, x, queries, Query{K: 10, Ef: 100}, View{Slots: n, Applied: n}); got < 0.99 {
		t.Errorf("recall %.4f", got)
	}
}

// Goal: a walk on blocks is what answers, it visits far fewer vertices than one on
// 8-bit codes, and its recall has no ceiling. Blocks are accounted for.
func TestWalkOnBlocks(t *testing.T) {
	for _, metric := range metrics {
		for _, m := range []int{8, 16, 20} {
			if m != 16 && metric != distance.L2 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", metricName(metric), m), func(t *testing.T) {
				r := seeded(t, 203)
				const n, dim = 6000, 40
				vectors := clustered(r, n, dim, 30, 0.7)
				var visited [2]int
				var bytes [2]int64
				for i, q := range []Quantization{QuantizationSQ8, QuantizationRaBitQ} {
					x := open(t, Config{Dimension: dim, Metric: metric, M: m, Quantization: q}, &memory{})
					for i, v := range vectors {
						x.Append(Slot(i), v, nil)
					}
					waitIdle(t, x)
					for _, v := range vectors[:100] {
						_, st := search(t, x, Query{Vector: v, K: 10, Ef: 64}, all)
						visited[i] += st.Visited
					}
					bytes[i] = x.Status().Memory.Codes
					if got := recall(t, x, vectors[:100], Query{K: 10, Ef: 500}, all); got < 0.999 {
						t.Errorf("%s: recall at ef 500 %.4f", q, got)
					}
				}
				if visited[1]*3 > visited[0]*2 {
					t.Errorf("%d distances on blocks, %d on 8-bit codes", visited[1], visited[0])
				}
				groups := (2*m + 31) / 32
				if more, want := bytes[1]-bytes[0], int64(n/64*64*groups*(256*4+384)); more != want {
					t.Errorf("blocks take %d bytes, want %d", more, want)
				}
			})
		}
	}
}

// Goal: where estimates tell nothing apart, the walk is on 8-bit codes. Method:
// pairs of vertices much nearer to each other than a query's codes are fine.
func TestPoorBlocksAreNotWalked(t *testing.T) {
	r := seeded(t, 204)
	const n, dim = 3000, 512
	centres := gaussian(r, n/60, dim)
	vectors := repeat(n, func(i int) []float32 {
		v := make([]float32, dim)
		for d := range v {
			v[d] = float32(math.Round(float64(centres[i/60][d]) * 40))
		}
		v[r.IntN(dim)]++
		v[r.IntN(dim)]--
		return v
	})
	var results [2][]Result
	for i, q := range []Quantization{QuantizationSQ8, QuantizationRaBitQ} {
		x := open(t, Config{Dimension: dim, Metric: distance.L2, Quantization: q}, &memory{})
		for i, v := range vectors {
			x.Append(Slot(i), v, nil)
		}
		waitIdle(t, x)
		s := x.current.Load().codes.Load()
		if s == nil {
			t.Fatal("8-bit codes were given up")
		}
		if q == QuantizationRaBitQ && !s.blocks.poor.Load() {
			t.Error("the blocks are walked")
		}
		for _, v := range vectors[:60] {
			rs, _ := search(t, x, Query{Vector: v, K: 10}, all)
			results[i] = append(results[i], rs...)
		}
	}
	if !slices.Equal(results[0], results[1]) {
		t.Error("results differ from those of a walk on 8-bit codes")
	}
}

// Goal: blocks need no float32 vectors in RAM: with those on disk they are walked
// all the same, and results have the distances of the vectors.
func TestBlocksWithVectorsOnDisk(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 205)
			const n, dim = 3000, 32
			vectors := clustered(r, n, dim, 20, 0.6)
			src := &memory{}
			for i, v := range vectors {
				src.add(Entry{Slot: Slot(i), Vector: v})
			}
			x := open(t, Config{Dimension: dim, Metric: metric, Quantization: QuantizationRaBitQ, VectorsOnDisk: true}, src)
			waitIdle(t, x)
			if b := x.current.Load().codes.Load().blocks; b.covered.Load() == 0 || b.poor.Load() {
				t.Error("the blocks are not walked")
			}
			if got := recall(t, x, vectors[:60], Query{K: 10, Ef: 100}, all); got < 0.99 {
				t.Errorf("recall %.4f", got)
			}
		})
	}
}

// Goal: of what a walk on blocks has compared, the nearest are its results, also where
// estimates say so little that many too low ones crowd the list meanwhile. Method: data
// whose distances are all much alike, which make the walk look at nearly everything.
func TestEstimatesDoNotCrowdOutTheNearest(t *testing.T) {
	const n, queries = 2000, 30
	r := seeded(t, 96)
	vectors := repeat(n+queries, func(int) []float32 { return normal(r, 200, 1) })
	x := open(t, Config{Dimension: 200, Metric: distance.Cosine, Quantization: QuantizationRaBitQ}, stored(vectors[:n]))
	waitIdle(t, x)
	if got := recall(t, x, vectors[n:], Query{K: 50, Ef: 60}, all); got < 0.9 {
		t.Errorf("recall %.3f", got)
	}
}
