// SPDX-License-Identifier: Apache-2.0

//go:build !race

package index

import (
	"context"
	"fmt"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: a search allocates nothing, with and without a filter on the walk.
//
// Not under the race detector, whose sync.Pool drops items at random.
func TestSearchDoesNotAllocate(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) { checkAllocations(t, quantization) })
	}
}

func checkAllocations(t *testing.T, quantization Quantization) {
	r := seeded(t, 91)
	vectors := clustered(r, 4000, 16, 8, 0.5)
	x := open(t, Config{Dimension: 16, Metric: distance.Cosine, Quantization: quantization}, &memory{})
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

// Goal: nor does a scan by sketches.
func TestSketchScanDoesNotAllocate(t *testing.T) {
	r := seeded(t, 92)
	const n, dim = 3000, 140
	x := openKind(t, distance.L2, clustered(r, n, dim, 8, 0.5), chances(r, n))
	req := scanned(t, x, make([]float32, dim), classFilter(true, 1))
	if got := testing.AllocsPerRun(50, func() {
		if err := req.scanSketches(req.sketches(), req.graphed, 100); err != nil {
			t.Fatal(err)
		}
	}); got >= 1 {
		t.Errorf("%.2f allocations", got)
	}
}
