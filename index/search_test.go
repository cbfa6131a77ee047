// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
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
