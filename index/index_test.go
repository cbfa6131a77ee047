// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

var metrics = []distance.Metric{distance.Cosine, distance.Dot, distance.L2}

// Goal: the graph finds what an exact scan finds, under each metric and kind of
// codes.
func TestGraphRecall(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 7)
				vectors := clustered(r, 3300, 48, 20, 0.6)
				x := open(t, Config{Dimension: 48, Metric: metric, Quantization: quantization}, &memory{})
				for i, v := range vectors[:3200] {
					x.Append(Slot(i), v, nil)
				}
				waitIdle(t, x)
				if st := x.Status(); st.Graphed < 3000 {
					t.Fatalf("graph covers %d", st.Graphed)
				}
				_, st := search(t, x, Query{Vector: vectors[3200], K: 10, Ef: 100}, all)
				if st.Plan != "graph" {
					t.Fatalf("plan %q", st.Plan)
				}
				if got := recall(t, x, vectors[3200:], Query{K: 10, Ef: 100}, all); got < 0.99 {
					t.Errorf("recall %.4f", got)
				}
			})
		}
	}
}

// Goal: exact search agrees with float64 arithmetic on the vectors given.
func TestExactAgainstFloat64(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 3)
			vectors := clustered(r, 300, 33, 5, 1)
			x := open(t, Config{Dimension: 33, Metric: metric}, &memory{})
			for i, v := range vectors {
				x.Append(Slot(i), v, nil)
			}
			for _, q := range vectors[:20] {
				got, _ := search(t, x, Query{Vector: q, K: 300, Exact: true}, all)
				if len(got) != 300 {
					t.Fatalf("%d results", len(got))
				}
				for i, res := range got {
					want := naiveDistance(metric, q, vectors[res.Slot])
					if math.Abs(float64(res.Distance)-want) > 1e-4*(1+math.Abs(want)) {
						t.Fatalf("slot %d: distance %g, want %g", res.Slot, res.Distance, want)
					}
					if i > 0 && compareResults(got[i-1], res) >= 0 {
						t.Fatalf("results %v and %v out of order", got[i-1], res)
					}
				}
			}
		})
	}
}

func compareResults(a, b Result) int {
	if a.Distance != b.Distance {
		if a.Distance < b.Distance {
			return -1
		}
		return 1
	}
	return int(a.Slot) - int(b.Slot)
}

func naiveDistance(metric distance.Metric, a, b []float32) float64 {
	var l2, dot, na, nb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		l2 += (x - y) * (x - y)
		dot += x * y
		na += x * x
		nb += y * y
	}
	switch metric {
	case distance.Cosine:
		return 1 - dot/math.Sqrt(na*nb)
	case distance.Dot:
		return -dot
	default:
		return l2
	}
}

// Goal: the same vectors give the same graph and the same results whatever the
// number of workers and the moments at which vectors came.
func TestSameGraphForAnyTiming(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) {
			r := seeded(t, 11)
			vectors := clustered(r, 3000, 24, 10, 0.5)
			slow := &memory{}
			a := open(t, Config{Dimension: 24, Metric: distance.L2, Workers: 1, Quantization: quantization}, slow)
			for i, v := range vectors {
				a.Append(Slot(i), v, nil)
				slow.add(Entry{Slot: Slot(i), Vector: v})
				if i%700 == 0 {
					waitIdle(t, a)
				}
			}
			b := open(t, Config{Dimension: 24, Metric: distance.L2, Workers: 5, Quantization: quantization}, slow)
			waitIdle(t, a)
			waitIdle(t, b)
			if x, y := a.Status(), b.Status(); x.GraphHash != y.GraphHash || x.Graphed != y.Graphed {
				t.Fatalf("graphs differ: %+v and %+v", x, y)
			}
			for _, q := range vectors[:50] {
				x, _ := search(t, a, Query{Vector: q, K: 20}, all)
				y, _ := search(t, b, Query{Vector: q, K: 20}, all)
				if !slices.Equal(x, y) {
					t.Fatalf("results differ: %v and %v", x, y)
				}
			}
		})
	}
}

// Goal: a query sees exactly its view, whatever was appended and deleted since.
func TestViews(t *testing.T) {
	r := seeded(t, 5)
	vectors := clustered(r, 2500, 16, 8, 0.5)
	x := open(t, Config{Dimension: 16, Metric: distance.L2}, &memory{})
	for i, v := range vectors {
		x.Append(Slot(i), v, nil)
	}
	waitIdle(t, x)
	for i := range 500 {
		x.Delete(Slot(i*3), uint64(5000+i))
	}
	for _, v := range []View{{Slots: 0, Applied: 1}, {Slots: 1, Applied: 1}, {Slots: 1000, Applied: 4999}, {Slots: 1000, Applied: 5100}, {Slots: 2500, Applied: 5000}, {Slots: 2500, Applied: 9000}} {
		want := 0
		for s := range int(v.Slots) {
			dead := s%3 == 0 && s/3 < 500 && uint64(5000+s/3) <= v.Applied
			if !dead {
				want++
			}
		}
		if n, err := x.Count(context.Background(), nil, v); err != nil || n != want {
			t.Errorf("%+v: count %d, %v; want %d", v, n, err, want)
		}
		for _, q := range vectors[:30] {
			for _, exact := range []bool{false, true} {
				got, st := search(t, x, Query{Vector: q, K: 10, Exact: exact}, v)
				if len(got) != min(10, want) {
					t.Fatalf("%+v: %d results by %q", v, len(got), st.Plan)
				}
				for _, res := range got {
					if res.Slot >= v.Slots || res.Slot%3 == 0 && res.Slot/3 < 500 && uint64(5000+res.Slot/3) <= v.Applied {
						t.Fatalf("%+v: result %v is not in the view", v, res)
					}
				}
			}
		}
		if got := recall(t, x, vectors[:60], Query{K: 10}, v); got < 0.98 {
			t.Errorf("%+v: recall %.4f", v, got)
		}
	}
}

func TestBadQueries(t *testing.T) {
	x := open(t, Config{Dimension: 3, Metric: distance.Cosine}, &memory{})
	nan := float32(math.NaN())
	for name, q := range map[string]Query{
		"dimension": {Vector: []float32{1, 2}, K: 1},
		"nan":       {Vector: []float32{1, 2, nan}, K: 1},
		"zero":      {Vector: []float32{0, 0, 0}, K: 1},
		"k":         {Vector: []float32{1, 2, 3}, K: 0},
		"large k":   {Vector: []float32{1, 2, 3}, K: 10001},
		"ef":        {Vector: []float32{1, 2, 3}, K: 1, Ef: -1},
		"recall":    {Vector: []float32{1, 2, 3}, K: 1, RecallTarget: 1.5},
	} {
		if _, _, err := x.Search(context.Background(), q, all, nil); !errors.Is(err, ErrBadQuery) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, _ := search(t, x, Query{Vector: []float32{1, 2, 3}, K: 5}, all); len(got) != 0 {
		t.Errorf("an empty index answered %v", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	x.Append(0, []float32{1, 2, 3}, nil)
	cancel()
	if _, _, err := x.Search(ctx, Query{Vector: []float32{1, 2, 3}, K: 5}, all, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled search: %v", err)
	}
}

// Goal: after Seal the graph is that of an index built of the live slots alone,
// and what was appended and deleted meanwhile is in it.
func TestSealEquivalence(t *testing.T) {
	r := seeded(t, 13)
	vectors := clustered(r, 3000, 20, 10, 0.5)
	x := open(t, Config{Dimension: 20, Metric: distance.L2}, &memory{})
	for i, v := range vectors[:2000] {
		x.Append(Slot(i), v, nil)
	}
	for i := range 1200 {
		x.Delete(Slot(i), uint64(3000+i))
	}
	x.Seal(2, 3500) // slots 0..500 are gone, 501..1199 dead but in
	for i, v := range vectors[2000:] {
		x.Append(Slot(2000+i), v, nil)
		if i < 100 {
			x.Delete(Slot(1200+i), uint64(6000+i))
		}
	}
	waitIdle(t, x)
	src := &memory{}
	for i, v := range vectors {
		if i <= 500 {
			continue
		}
		e := Entry{Slot: Slot(i), Vector: v}
		if i < 1200 {
			e.DeadAt = uint64(3000 + i)
		} else if i < 1300 {
			e.DeadAt = uint64(6000 + i - 1200)
		}
		src.add(e)
	}
	y, err := Open(context.Background(), x.cfg, 2, src)
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	waitIdle(t, y)
	a, b := x.Status(), y.Status()
	if a.GraphHash != b.GraphHash || a.Total != b.Total || a.Garbage != b.Garbage || a.Generation != 2 {
		t.Fatalf("%+v and %+v", a, b)
	}
	for _, q := range vectors[:50] {
		p, _ := search(t, x, Query{Vector: q, K: 10}, all)
		q, _ := search(t, y, Query{Vector: q, K: 10}, all)
		if !slices.Equal(p, q) {
			t.Fatalf("results differ: %v and %v", p, q)
		}
	}
	if got := recall(t, x, vectors[:60], Query{K: 10}, all); got < 0.98 {
		t.Errorf("recall %.4f", got)
	}
}

// Goal: payloads of slots that a seal dropped are forgotten, others are not.
func TestSealPurgesPayloads(t *testing.T) {
	r := seeded(t, 14)
	vectors := clustered(r, 1500, 8, 4, 0.5)
	x := open(t, Config{Dimension: 8, Metric: distance.L2}, &memory{})
	for i, v := range vectors {
		x.Append(Slot(i), v, fmt.Appendf(nil, `{"text":"number %d","even":%t}`, i, i%2 == 0))
	}
	for i := range 1000 {
		x.Delete(Slot(i), uint64(i+1))
	}
	waitIdle(t, x)
	before := x.Status().Memory.Payload
	x.Seal(2, 2000)
	waitIdle(t, x)
	for x.purge.Load() != 0 || x.Status().Memory.Payload > before/2 {
		if t.Context().Err() != nil {
			t.Fatal("payloads were not purged")
		}
		runtime.Gosched()
	}
	f := &Filter{Must: []Condition{{Key: "even", Any: []Scalar{{Kind: KindBool, Bool: true}}}}}
	if n, err := x.Count(t.Context(), f, all); err != nil || n != 250 {
		t.Errorf("%d match, %v; want 250", n, err)
	}
}
