// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/akidb/akidb/index/distance"
)

// Goal: vertices that the graph does not cover yet are compared by codes and found
// all the same, in RAM and on disk; batches that come later find the codes as they
// would have made them. Method: beside exact searches, and beside an index that
// never rested.
func TestCodesAheadOfTheGraph(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 117)
			const n, dim = 2560, 40
			vectors := make([][]float32, n) // without outliers
			for i := range vectors {
				vectors[i] = make([]float32, dim)
				for d := range dim {
					vectors[i][d] = 2 + float32(i%12*d%5) + r.Float32()
				}
			}
			cfg := Config{Dimension: dim, Metric: metric}
			x, once := open(t, cfg, &memory{}), open(t, cfg, &memory{})
			cfg.VectorsOnDisk = true
			src := &memory{}
			disk := open(t, cfg, src)
			add := func(x *Index, from, to int) {
				for i, v := range vectors[from:to] {
					x.Append(Slot(from+i), v, nil)
				}
			}
			add(once, 0, n)
			// The last vectors of each step are in the graph only after the next one.
			from := 0
			for _, to := range []int{2000, 2030, 2047, 2100, 2290, 2303, n - 1} {
				add(x, from, to)
				for i := len(src.entries); i < to&^63; i++ { // what the graph will not cover is not on disk
					src.add(Entry{Slot: Slot(i), Vector: vectors[i]})
				}
				add(disk, from, to)
				for _, x := range []*Index{x, disk} {
					if graphed := waitAhead(t, x, to); graphed != to&^63 {
						t.Fatalf("%d of %d in the graph", graphed, to)
					}
					last := max(from, to-40)
					for i := last; i < to; i += 3 {
						q := Query{Vector: vectors[i], K: 10, Ef: 64}
						got, st := search(t, x, q, all)
						if metric != distance.Dot && (got[0].Slot != Slot(i) || st.Plan != "graph") {
							t.Fatalf("%d of %d not found: %v (%s)", i, to, got, st.Plan)
						}
						// Nothing of a view that ends before it.
						if rs, _ := search(t, x, q, View{Slots: Slot(i), Applied: 1}); slices.ContainsFunc(rs, func(r Result) bool { return r.Slot >= Slot(i) }) {
							t.Fatalf("%v in the view of %d", rs, i)
						}
					}
					if got := recall(t, x, vectors[last:to], Query{K: 10, Ef: 64}, all); got < 0.98 {
						t.Errorf("of %d: recall %.4f", to, got)
					}
				}
				from = to
			}
			add(x, n-1, n)
			waitIdle(t, x)
			waitIdle(t, once)
			if a, b := x.Status().GraphHash, once.Status().GraphHash; a != b {
				t.Errorf("graph %s, at once %s", a, b)
			}
		})
	}
}

// waitAhead waits until so many vertices have codes and no more, and returns how many
// the graph covers.
func waitAhead(t *testing.T, x *Index, n int) (graphed int) {
	t.Helper()
	waitIdle(t, x)
	g := x.acquire()
	defer g.release()
	for end := time.Now().Add(time.Minute); ; runtime.Gosched() {
		graphed = int(g.graphed.Load())
		codes := g.acquireCodes()
		ahead := max(graphed, int(codes.ahead.Load()))
		codes.release()
		if ahead == n {
			return graphed
		}
		if ahead > n || time.Now().After(end) {
			t.Fatalf("%d vertices have codes, %d are in the graph; want codes of %d", ahead, graphed, n)
		}
	}
}

// Goal: a vector far outside what the codes are made for has no codes ahead of the
// graph, which would say little of it, nor has what comes behind it.
func TestNoCodesAheadForWhatIsFarOut(t *testing.T) {
	r := seeded(t, 118)
	const n, dim = 2000, 16
	x := open(t, Config{Dimension: dim, Metric: distance.L2}, &memory{})
	vectors := clustered(r, n, dim, 12, 0.5)
	for d := range dim {
		vectors[n-8][d] += 1000
	}
	for i, v := range vectors {
		x.Append(Slot(i), v, nil)
	}
	waitAhead(t, x, n-8)
	for i := n - 12; i < n; i++ {
		if got, _ := search(t, x, Query{Vector: vectors[i], K: 1}, all); got[0].Slot != Slot(i) || got[0].Distance != 0 {
			t.Errorf("%d: %v", i, got)
		}
	}
}

// asked is a context that does something when it is asked for the first time.
type asked struct {
	context.Context
	first func()
}

func (a asked) Err() error {
	a.first()
	return nil
}

// Goal: a vector that is encoded while a search is under way, and is the first of which
// codes lose something, gets its true distance. Method: the builder is held by a
// checkpoint until the search has its codes.
func TestCodesThatBeginToLoseDuringASearch(t *testing.T) {
	r := seeded(t, 118)
	const n, dim = 320, 4
	x := open(t, Config{Dimension: dim, Metric: distance.L2, Dir: t.TempDir()}, &memory{})
	for i := range n {
		v := make([]float32, dim)
		for d := range v {
			v[d] = float32(r.IntN(256))
		}
		x.Append(Slot(i), v, nil)
	}
	waitIdle(t, x)
	held, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error)
	hold := sync.OnceFunc(func() {
		close(held)
		<-goOn
	})
	go func() { done <- x.Checkpoint(asked{t.Context(), hold}) }()
	<-held
	x.Append(n, []float32{10.4, 10.4, 10.4, 10.4}, nil)
	encode := sync.OnceFunc(func() {
		close(goOn)
		for x.current.Load().codes.Load().ahead.Load() != n+1 {
			runtime.Gosched()
		}
	})
	q := Query{Vector: []float32{10, 10, 10, 10}, K: 10}
	got, _, err := x.Search(asked{t.Context(), encode}, q, all, nil)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	q.Exact = true
	if want, _ := search(t, x, q, all); !slices.Equal(got, want) {
		t.Errorf("results %v, exact %v", got, want)
	}
}
