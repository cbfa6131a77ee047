// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// drifting makes vectors whose range grows as they come, so that codes are
// trained again and the longest vector is surpassed, with crowds of equal ones.
func drifting(r *rand.Rand, n, dim int) [][]float32 {
	out := clustered(r, n, dim, 8, 0.3)
	for i := range out {
		if i > 0 && i%5 == 0 {
			copy(out[i], out[i-i%200])
			continue
		}
		for d := range out[i] {
			out[i][d] *= 1 + 3*float32(i)/float32(n)
		}
		out[i][0] += 12 * float32(i) / float32(n) // for directions to drift, too
	}
	return out
}

// Goal: what the builder remembers of rows changes nothing but time. Method: a
// builder that is made to forget it before every batch, as one that has just
// been restarted, or at chance moments, builds the same graph.
func TestClosedLinksChangeNothing(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			closedLinksChangeNothing(t, metric, quantization, "drifting", drifting)
			closedLinksChangeNothing(t, metric, quantization, "small numbers", smallNumbers)
		}
	}
}

// smallNumbers makes vectors among which few distances are different.
func smallNumbers(r *rand.Rand, n, dim int) [][]float32 {
	return repeat(n, func(int) []float32 {
		v := make([]float32, dim)
		for d := range v {
			v[d] = float32(r.IntN(2))
		}
		v[0] = 1 // no zero vectors
		return v
	})
}

func closedLinksChangeNothing(t *testing.T, metric distance.Metric, quantization Quantization, name string, data func(r *rand.Rand, n, dim int) [][]float32) {
	t.Run(metricName(metric)+"/"+string(quantization)+"/"+name, func(t *testing.T) {
		r := seeded(t, 75)
		vectors := data(r, 5000, 12)
		grow := func(forget func() bool) (digest, int) {
			cfg, err := Config{Dimension: 12, Metric: metric, Quantization: quantization, Workers: 2, M: 8, EfConstruction: 60}.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			g, err := newGeneration(&cfg, nil, 1, 0, cfg.maxRows(0))
			if err != nil {
				t.Fatal(err)
			}
			defer g.release()
			for i, v := range vectors {
				g.append(Slot(i), v, 0)
			}
			b := newBuilder(g, cfg.Workers)
			trainings, codes := 0, g.codes.Load()
			for b.step() {
				if now := g.codes.Load(); now != codes {
					trainings, codes = trainings+1, now
				}
				if forget() {
					g.graph.openRows(g.graphed.Load())
				}
			}
			if int(g.graphed.Load()) != len(vectors)&^63 {
				t.Fatalf("the graph covers %d of %d", g.graphed.Load(), len(vectors))
			}
			return *g.graphHash.Load(), trainings
		}
		want, trainings := grow(func() bool { return true })
		if quantization == QuantizationSQ8 && name == "drifting" && trainings < 2 {
			t.Errorf("codes were trained %d times, which tests little", trainings)
		}
		if got, _ := grow(func() bool { return false }); got != want {
			t.Errorf("graph %x, without what is remembered %x", got, want)
		}
		if got, _ := grow(func() bool { return r.IntN(9) == 0 }); got != want {
			t.Errorf("graph %x, forgetting now and then %x", got, want)
		}
	})
}

// Goal: mend is choose. Method: rows that get links in random portions, by the
// one with its closed links and by the other on everything.
func TestMendIsChoose(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 76)
				const n = 3000
				x := open(t, Config{Dimension: 10, Metric: metric, Quantization: quantization}, &memory{})
				for i, v := range drifting(r, n, 10) {
					x.Append(Slot(i), v, nil)
				}
				waitIdle(t, x)
				g := x.current.Load()
				covered := int(g.graphed.Load())
				w, dumb := &buildWorker{}, &buildWorker{}
				dropped := 0
				for range 300 {
					of := uint32(r.IntN(covered))
					limit := 4 + r.IntN(40)
					var row []uint32
					closed := 0
					for range 20 {
						links := slices.Clone(row)
						for range 1 + r.IntN(12) {
							// From the neighbourhood, where links compete.
							u := uint32(r.IntN(covered))
							if r.IntN(3) > 0 {
								u = uint32((int(of) + r.IntN(200)) % covered)
							}
							if u != of && !slices.Contains(links, u) {
								links = append(links, u)
							}
						}
						if len(links) <= limit && r.IntN(4) > 0 {
							row = links // as link does while there is room
							continue
						}
						g.buildMeasure(&w.measure, of)
						keys := make([]uint32, len(links))
						w.measure.keys(links, keys)
						var marked, plain []uint64
						for i, u := range links {
							c := candidate(keys[i], u)
							plain = append(plain, c)
							if i < closed {
								c |= closedLink
							}
							marked = append(marked, c)
						}
						slices.Sort(plain)
						slices.Sort(marked)
						apart := w.mend(g, of, marked, limit)
						if want := dumb.choose(g, of, plain, limit); apart != want || !slices.Equal(w.chosen, dumb.chosen) {
							t.Fatalf("vertex %d, limit %d: %d links of which %d closed: mend picks %v, choose %v",
								of, limit, len(links), closed, w.chosen, dumb.chosen)
						}
						dropped += len(links) - len(w.chosen)
						row, closed = slices.Clone(w.chosen), apart
					}
				}
				if dropped < 1000 {
					t.Errorf("only %d links were dropped, which tests little", dropped)
				}
			})
		}
	}
}

// Goal: choose takes what the rule says, and nearest finds them. Method:
// the rule, candidate by candidate, on chance vertices of every kind of measure,
// with candidates and rows of any length; all keys sorted.
func TestChooseIsTheRule(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 77)
				x := open(t, Config{Dimension: 10, Metric: metric, Quantization: quantization}, stored(drifting(r, 3000, 10)))
				waitIdle(t, x)
				g := x.current.Load()
				covered := g.graphed.Load()
				w, dumb := &buildWorker{}, &buildWorker{}
				full, filled := 0, 0
				pick := func(candidates []uint64, limit int) (chosen []uint32) {
					for _, c := range candidates {
						if len(chosen) == limit {
							full++
							break
						}
						g.buildMeasure(&dumb.measure, candidateVertex(c))
						key := make([]uint32, 1)
						if !slices.ContainsFunc(chosen, func(u uint32) bool {
							dumb.measure.keys([]uint32{u}, key)
							return !dumb.measure.apart(key[0], candidateKey(c), strictAt(len(chosen), limit))
						}) {
							chosen = append(chosen, candidateVertex(c))
						}
					}
					return chosen
				}
				for range 300 {
					of := uint32(r.IntN(int(covered)))
					g.buildMeasure(&w.measure, of)
					ids := make([]uint32, 1+r.IntN(int(covered)))
					for i := range ids {
						ids[i] = uint32(i)
					}
					keys := make([]uint32, len(ids))
					w.measure.keys(ids, keys)
					var want []uint64
					for i, u := range ids {
						want = append(want, candidate(keys[i], u))
					}
					slices.Sort(want)
					n := min(len(want), 1+r.IntN(300))
					want = want[:n]
					if !slices.Equal(w.nearest(uint32(len(ids)), 1, n), want) {
						t.Fatalf("of %d of %d vertices the nearest to %d are not those of all sorted", n, len(ids), of)
					}

					limit := 1 + r.IntN(40)
					apart := w.choose(g, of, slices.Clone(want), limit)
					want = dumb.fewEquals(g, of, want, limit)
					chosen := pick(want, limit)
					first := len(chosen)
					for least := min(limit/4, len(want)); len(chosen) < least; filled++ {
						want = slices.DeleteFunc(want, func(c uint64) bool { return slices.Contains(chosen, candidateVertex(c)) })
						chosen = append(chosen, pick(want, least-len(chosen))...)
					}
					if apart != first || !slices.Equal(w.chosen, chosen) {
						t.Fatalf("of %d candidates and %d links of %d: %d, %d by the rule; want %d, %d", n, limit, of, w.chosen, apart, chosen, first)
					}
				}
				if full < 20 {
					t.Errorf("%d rows were full before the candidates ended, which tests little", full)
				}
				if filled < 20 {
					t.Errorf("rows were filled %d times, which tests little", filled)
				}
			})
		}
	}
}
