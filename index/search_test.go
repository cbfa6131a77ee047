// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"fmt"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: a search allocates nothing, with and without a filter on the walk.
func TestSearchDoesNotAllocate(t *testing.T) {
	r := seeded(t, 91)
	vectors := clustered(r, 4000, 16, 8, 0.5)
	x := open(t, Config{Dimension: 16, Metric: distance.Cosine}, &memory{})
	for i, v := range vectors {
		x.Append(Slot(i), v, fmt.Appendf(nil, `{"n":%d}`, i%100))
	}
	waitIdle(t, x)
	dst := make([]Result, 0, 10)
	ctx := context.Background()
	view := View{Slots: 4000, Applied: 1}
	for name, q := range map[string]Query{
		"graph": {K: 10},
		"exact": {K: 10, Exact: true},
	} {
		i := 0
		got := testing.AllocsPerRun(200, func() {
			q.Vector = vectors[i%100]
			i++
			if _, _, err := x.Search(ctx, q, view, dst); err != nil {
				t.Fatal(err)
			}
		})
		if got >= 1 {
			t.Errorf("%s: %.2f allocations", name, got)
		}
	}
}

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
