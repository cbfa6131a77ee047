// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
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

// Goal: where a few vectors are near to all others, as those next to the origin are, links
// still lead to what lies behind them. Method: a curve through many dimensions that begins
// at the origin, and vectors of lengths that are spread widely.
func TestNearToAllOthers(t *testing.T) {
	const n, queries = 3500, 60
	for name, data := range map[string]func(r *rand.Rand) [][]float32{
		"curve": func(r *rand.Rand) [][]float32 {
			return repeat(n+queries, func(int) []float32 {
				v := normal(r, 200, 0.01)
				at := 100 * r.Float64()
				for d := range v {
					v[d] += float32(math.Sin(at * (1 + float64(d)/10)))
				}
				return v
			})
		},
		"lengths": func(r *rand.Rand) [][]float32 {
			return repeat(n+queries, func(int) []float32 { return normal(r, 24, math.Exp(1.5*r.NormFloat64())) })
		},
	} {
		for _, quantization := range quantizations {
			vectors := data(seeded(t, 62))
			x := open(t, Config{Dimension: len(vectors[0]), Metric: distance.L2, Quantization: quantization}, stored(vectors[:n]))
			waitIdle(t, x)
			if got := recall(t, x, vectors[n:], Query{K: 10}, all); got < 0.95 {
				t.Errorf("%s, %s: recall %.4f", name, quantization, got)
			}
		}
	}
}

// Goal: in many dimensions, where all distances within a cluster are much alike,
// links still lead from one cluster to another.
func TestClustersOfManyDimensions(t *testing.T) {
	const dim, clusters = 512, 50
	n := lessIfShort(2500)
	for name, data := range map[string]func(r *rand.Rand) [][]float32{
		"mixed":              func(r *rand.Rand) [][]float32 { return clustered(r, n, dim, clusters, 0.3) },
		"wide":               func(r *rand.Rand) [][]float32 { return clustered(r, n, dim, clusters, 1) },
		"cluster by cluster": func(r *rand.Rand) [][]float32 { return clusterByCluster(r, n, dim, clusters, 1) },
	} {
		for _, quantization := range quantizations {
			t.Run(name+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 64)
				vectors := data(r)
				queries := vectors[n-n/clusters/2:]
				for range 40 {
					queries = append(queries, vectors[r.IntN(n)])
				}
				x := fill(t, Config{Dimension: dim, Metric: distance.L2, Quantization: quantization}, vectors)
				if got := recall(t, x, queries, Query{K: 10}, all); got < 0.95 {
					t.Errorf("recall %.4f", got)
				}
			})
		}
	}
}

// Goal: no crowd of equal vectors is shut off, be it as far from all others as
// they are. Method: categories as one-hot vectors, and crowds at random places.
func TestCrowds(t *testing.T) {
	const dim = 100
	n := lessIfShort(4000)
	for name, data := range map[string]func(r *rand.Rand) [][]float32{
		"one-hot": func(r *rand.Rand) [][]float32 {
			return repeat(dim, func(i int) []float32 {
				v := make([]float32, dim)
				v[i] = 1
				return v
			})
		},
		"anywhere": func(r *rand.Rand) [][]float32 { return clustered(r, 100, dim, 100, 0) },
	} {
		for _, order := range []string{"mixed", "in order"} {
			for _, quantization := range quantizations {
				t.Run(name+"/"+order+"/"+string(quantization), func(t *testing.T) {
					r := seeded(t, 65)
					values := data(r)
					x := fill(t, Config{Dimension: dim, Metric: distance.L2, Quantization: quantization}, repeat(n, func(i int) []float32 {
						if order == "mixed" {
							return values[r.IntN(len(values))]
						}
						return values[i*len(values)/n]
					}))
					if got := recall(t, x, values, Query{K: 10}, all); got < 0.95 {
						t.Errorf("recall %.4f", got)
					}
				})
			}
		}
	}
}

// Goal: inner products of vectors whose lengths are orders of magnitude apart,
// where few vectors are near to most queries and far from all vertices.
func TestLengthsFarApart(t *testing.T) {
	const dim = 32
	n := lessIfShort(4000)
	for name, length := range map[string]func(r *rand.Rand) float64{
		"log-normal": func(r *rand.Rand) float64 { return math.Exp(2 * r.NormFloat64()) },
		"rare": func(r *rand.Rand) float64 {
			if r.IntN(500) == 0 {
				return 1e5
			}
			return 1
		},
	} {
		for _, quantization := range quantizations {
			t.Run(name+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 66)
				vectors := repeat(n, func(int) []float32 {
					l := length(r)
					return normal(r, dim, l)
				})
				x := fill(t, Config{Dimension: dim, Metric: distance.Dot, Quantization: quantization}, vectors)
				queries := repeat(60, func(int) []float32 { return normal(r, dim, 1) })
				if got := recall(t, x, queries, Query{K: 10}, all); got < 0.95 {
					t.Errorf("recall %.4f", got)
				}
			})
		}
	}
}

// Goal: with a list long enough nothing stays below recall 0.999: neither codes
// that put the true neighbours far back, nor queries from where no vectors are.
func TestRecallHasNoCeiling(t *testing.T) {
	const dim = 32
	n := lessIfShort(4000)
	for name, c := range map[string]struct {
		metric      distance.Metric
		base, query float64 // standard deviations
	}{
		"l2":              {distance.L2, 1, 1},
		"l2/from afar":    {distance.L2, 1, 20},
		"dot":             {distance.Dot, 1, 1},
		"cosine":          {distance.Cosine, 1, 1},
		"dot/heavy tails": {distance.Dot, 0, 1},
	} {
		for _, quantization := range quantizations {
			t.Run(name+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 67)
				x := fill(t, Config{Dimension: dim, Metric: c.metric, Quantization: quantization}, repeat(n, func(int) []float32 {
					if c.base > 0 {
						return normal(r, dim, c.base)
					}
					return normal(r, dim, math.Exp(r.NormFloat64()/2))
				}))
				queries := repeat(60, func(int) []float32 { return normal(r, dim, c.query) })
				if got := recall(t, x, queries, Query{K: 10, Ef: 2000}, all); got < 0.999 {
					t.Errorf("recall %.4f", got)
				}
			})
		}
	}
}

func normal(r *rand.Rand, dim int, deviation float64) []float32 {
	v := make([]float32, dim)
	for d := range v {
		v[d] = float32(r.NormFloat64() * deviation)
	}
	return v
}

// lessIfShort keeps the race detector, which takes twenty times as long, from
// taking minutes.
func lessIfShort(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

// fill is an index of the vectors, its graph complete.
func fill(t testing.TB, cfg Config, vectors [][]float32) *Index {
	t.Helper()
	x := open(t, cfg, &memory{})
	for i, v := range vectors {
		x.Append(Slot(i), v, nil)
	}
	waitIdle(t, x)
	return x
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
