// SPDX-License-Identifier: Apache-2.0

package index

import (
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: a collection of some hundred vectors has a graph, walked where that is
// less work than to compare all; it finds them, and it is the same however they
// come, also when codes are made anew of more. Method: beside exact searches, and
// beside an index that rests after each few vectors.
func TestFewVectors(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 131)
				vectors := clustered(r, 1400, 32, 12, 0.7)
				cfg := Config{Dimension: 32, Metric: metric, Quantization: quantization}
				slow := open(t, cfg, &memory{})
				n := 0
				for _, to := range []int{100, 255, 256, 300, 600, 1000, 1100, 1250, 1400} {
					for ; n < to; n++ {
						slow.Append(Slot(n), vectors[n], nil)
						if n%50 == 0 {
							waitIdle(t, slow)
						}
					}
					waitIdle(t, slow)
					once := open(t, cfg, stored(vectors[:n]))
					waitIdle(t, once)
					a, b := slow.Status(), once.Status()
					if a.GraphHash != b.GraphHash || a.Graphed != b.Graphed {
						t.Fatalf("of %d: graph %s of %d, at once %s of %d", n, a.GraphHash, a.Graphed, b.GraphHash, b.Graphed)
					}
					want := n &^ 63
					if quantization != QuantizationNone && n < firstTraining {
						want = 0
					}
					if a.Graphed != want {
						t.Fatalf("%d of %d in the graph, want %d", a.Graphed, n, want)
					}
					if _, st := search(t, slow, Query{Vector: vectors[0], K: 10, Ef: 20}, all); n >= 600 && st.Plan != "graph" {
						t.Errorf("of %d: plan %q", n, st.Plan)
					}
					for _, ef := range []int{40, 0} {
						if got := recall(t, slow, vectors[n-100:n], Query{K: 10, Ef: ef}, all); got < 0.98 {
							t.Errorf("of %d at ef %d: recall %.4f", n, ef, got)
						}
					}
				}
				if codes := slow.current.Load().codes.Load(); codes != nil && codes.trained < fullTraining {
					t.Errorf("codes are still those of %d", codes.trained)
				}
			})
		}
	}
}

// Goal: first vectors that codes tell badly apart, though all together they do
// not, are waited with, also across a restart; the graph is on codes in the end.
// Method: a quarter of the first vectors in a cluster that is narrower than a code.
func TestFirstVectorsThatCodesBlur(t *testing.T) {
	r := seeded(t, 132)
	vectors := clustered(r, 1500, 16, 12, 1)
	for i := range firstTraining {
		if i%8 < 2 {
			for d := range vectors[i] {
				vectors[i][d] = 10 + r.Float32()/1000
			}
		}
	}
	cfg := Config{Dimension: 16, Metric: distance.L2}
	want := open(t, cfg, stored(vectors))
	waitIdle(t, want)
	if p := want.Progress(1); p.Plain || p.Graphed != 1500&^63 {
		t.Fatalf("%+v, want a graph on codes", p)
	}
	cfg.Dir = t.TempDir()
	for _, n := range []int{700, 1023, 1100, 1500} {
		x := open(t, cfg, stored(vectors[:n]))
		waitIdle(t, x)
		graphed := n &^ 63
		if n < fullTraining {
			graphed = 0
		}
		if p := x.Progress(1); p.Plain || p.Graphed != graphed || !p.Idle {
			t.Fatalf("of %d: %+v, want %d in the graph", n, p, graphed)
		}
		if got := recall(t, x, vectors[:n], Query{K: 10}, all); got < 0.98 {
			t.Errorf("of %d: recall %.4f", n, got)
		}
		if err := x.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n == len(vectors) && x.Status().GraphHash != want.Status().GraphHash {
			t.Errorf("graph %s, at once %s", x.Status().GraphHash, want.Status().GraphHash)
		}
	}
}

// Goal: the highest of some numbers are those that sorting puts last.
func TestHighest(t *testing.T) {
	r := seeded(t, 133)
	for range 200 {
		numbers := make([]float32, 1+r.IntN(300))
		for i := range numbers {
			numbers[i] = float32(r.IntN(50)) - 20
		}
		n := 1 + r.IntN(len(numbers))
		var h highest
		h.reset(n)
		for _, x := range numbers {
			h.add(x)
		}
		slices.Sort(numbers)
		slices.Reverse(numbers)
		var list []float32
		for _, c := range h.items {
			list = append(list, fromOrderedBits(^candidateKey(c)))
		}
		if !slices.Equal(list, numbers[:n]) || h.least() != numbers[n-1] {
			t.Fatalf("%v, want %v", list, numbers[:n])
		}
	}
}
