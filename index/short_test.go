// SPDX-License-Identifier: Apache-2.0

package index

import (
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: an ef below K shortens a walk, down to half of K, and returns K results all
// the same; it is only a query's own, a collection's is K at least. Method: by
// what is visited, on graphs of every kind.
func TestEfBelowK(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 141)
				vectors := clustered(r, 3000, 24, 30, 0.5)
				x := open(t, Config{Dimension: 24, Metric: metric, Quantization: quantization, EfSearch: 5}, stored(vectors))
				waitIdle(t, x)
				queries := clustered(r, 40, 24, 30, 0.5)
				visited := func(ef int) (sum int) {
					for _, q := range queries {
						found, st := search(t, x, Query{Vector: q, K: 20, Ef: ef}, all)
						if len(found) != 20 || st.Plan != "graph" {
							t.Fatalf("%d results by plan %q at ef %d", len(found), st.Plan, ef)
						}
						sum += st.Visited
					}
					return sum
				}
				atK, below, least, default_ := visited(20), visited(15), visited(10), visited(0)
				if default_ != atK {
					t.Errorf("%d visited at the collection's ef of 5, %d at 20", default_, atK)
				}
				if one := visited(1); one != least {
					t.Errorf("%d visited at ef 1, %d at 10", one, least)
				}
				if quantization == QuantizationRaBitQ {
					// What was not expanded has no distance there.
					if least != atK {
						t.Errorf("%d visited at ef 10, %d at 20", least, atK)
					}
				} else if least >= below || below >= atK {
					t.Errorf("%d, %d and %d visited at ef 10, 15 and 20", least, below, atK)
				}
			})
		}
	}
}

// Goal: rounding to codes costs short lists no recall, since what it put behind the
// K-th is compared in full too. Method: beside a graph without codes.
func TestCodesCostShortListsNothing(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 142)
			vectors := clustered(r, 4600, 16, 40, 0.25)
			if metric == distance.Dot {
				for _, v := range vectors {
					for d, scale := 0, 0.3+r.Float32(); d < len(v); d++ {
						v[d] *= scale
					}
				}
			}
			vectors, queries := vectors[:4000], vectors[4000:]
			at := func(quantization Quantization) float64 {
				x := open(t, Config{Dimension: 16, Metric: metric, Quantization: quantization}, stored(slices.Clone(vectors)))
				waitIdle(t, x)
				if coded := x.current.Load().coded(); coded != (quantization != QuantizationNone) {
					t.Fatalf("%s: codes %v", quantization, coded)
				}
				return recall(t, x, queries, Query{K: 10, Ef: 10}, all)
			}
			if codes, full := at(QuantizationSQ8), at(QuantizationNone); codes < full-0.01 {
				t.Errorf("recall %.4f by codes, %.4f without", codes, full)
			} else {
				t.Logf("recall %.4f by codes, %.4f without", codes, full)
			}
		})
	}
}
