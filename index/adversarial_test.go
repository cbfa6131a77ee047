// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: data that breaks graphs does not break this one: recall 0.95 by distance,
// no hang, no panic.
func TestAdversarialData(t *testing.T) {
	const n, dim = 3000, 16
	for name, data := range map[string]func(r *rand.Rand) [][]float32{
		"all equal": func(r *rand.Rand) [][]float32 {
			return repeat(n, func(int) []float32 { return slices.Repeat([]float32{0.5}, dim) })
		},
		"duplicates": func(r *rand.Rand) [][]float32 {
			few := clustered(r, 50, dim, 10, 1)
			return repeat(n, func(int) []float32 { return few[r.IntN(len(few))] })
		},
		"on a line": func(r *rand.Rand) [][]float32 {
			return repeat(n, func(i int) []float32 {
				v := make([]float32, dim)
				v[0] = float32(r.IntN(20))*100 + r.Float32()
				return v
			})
		},
		"line in order": func(r *rand.Rand) [][]float32 {
			return repeat(n, func(i int) []float32 {
				v := make([]float32, dim)
				v[0] = float32(i)
				return v
			})
		},
		"cluster by cluster": func(r *rand.Rand) [][]float32 {
			return clusterByCluster(r, n, dim, 25, 100)
		},
		"far clusters": func(r *rand.Rand) [][]float32 {
			return clusterByCluster(r, n, dim, 100, 1e4)
		},
		"outliers": func(r *rand.Rand) [][]float32 {
			vs := clustered(r, n, dim, 10, 0.5)
			for range 20 {
				vs[r.IntN(n)][r.IntN(dim)] = 1e6
			}
			return vs
		},
	} {
		for _, metric := range []distance.Metric{distance.L2, distance.Cosine} {
			for _, quantization := range quantizations {
				t.Run(name+"/"+metricName(metric)+"/"+string(quantization), func(t *testing.T) {
					r := seeded(t, 61)
					vectors := data(r)
					if metric == distance.Cosine {
						for _, v := range vectors {
							v[dim-1] += 0.25 // no zero vectors
						}
					}
					x := open(t, Config{Dimension: dim, Metric: metric, Quantization: quantization}, &memory{})
					for i, v := range vectors {
						x.Append(Slot(i), v, nil)
					}
					waitIdle(t, x)
					var queries [][]float32
					for range 60 {
						queries = append(queries, vectors[r.IntN(n)])
					}
					if got := recall(t, x, queries, Query{K: 10}, all); got < 0.95 {
						t.Errorf("recall %.4f", got)
					}
					for i := range n {
						if i%100 != 7 {
							x.Delete(Slot(i), uint64(i+1))
						}
					}
					if got := recall(t, x, queries, Query{K: 10}, all); got < 0.95 {
						t.Errorf("recall with 99%% deleted %.4f", got)
					}
					if got, _ := search(t, x, Query{Vector: queries[0], K: 100}, all); len(got) != n/100 {
						t.Errorf("%d results of n/100 live", len(got))
					}
				})
			}
		}
	}
}

func repeat(n int, fn func(i int) []float32) [][]float32 {
	out := make([][]float32, n)
	for i := range out {
		out[i] = fn(i)
	}
	return out
}

// clusterByCluster is clusters apart from each other, one after the other.
func clusterByCluster(r *rand.Rand, n, dim, clusters int, apart float64) [][]float32 {
	var centre []float32
	return repeat(n, func(i int) []float32 {
		if i%(n/clusters) == 0 {
			centre = make([]float32, dim)
			for d := range centre {
				centre[d] = float32(r.NormFloat64() * apart)
			}
		}
		v := make([]float32, dim)
		for d := range v {
			v[d] = centre[d] + float32(r.NormFloat64())
		}
		return v
	})
}

// Goal: recall holds where the deleted lie together, just where the query is.
func TestDeletedNeighbourhood(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) {
			r := seeded(t, 62)
			const n, dim = 6000, 16
			vectors := clustered(r, n, dim, 6, 0.6)
			x := open(t, Config{Dimension: dim, Metric: distance.L2, Quantization: quantization}, &memory{})
			for i, v := range vectors {
				x.Append(Slot(i), v, nil)
			}
			waitIdle(t, x)
			q := vectors[0]
			near, _ := search(t, x, Query{Vector: q, K: 900, Exact: true}, all)
			for i, res := range near {
				x.Delete(res.Slot, uint64(i+1))
			}
			if got := recall(t, x, [][]float32{q, vectors[near[10].Slot], vectors[near[500].Slot]}, Query{K: 10}, all); got < 0.95 {
				t.Errorf("recall %.4f", got)
			}
		})
	}
}
