// SPDX-License-Identifier: Apache-2.0

// Package annbench measures an index against a data set with known answers:
// recall, queries per second, latency, build rate and bytes per vector over a
// sweep of ef.
package annbench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/index/distance"
)

// Options of a run; the zero value measures the default quantization at K 10.
type Options struct {
	Quantizations  []index.Quantization
	Ef             []int // empty: a sweep from 0.6 to 40 times K
	K              int
	Threads        []int // empty: one
	M              int
	EfConstruction int
	Workers        int // of the build; 0: one per core
	Queries        int // at most so many; 0: all
	Repeats        int // passes of every row at least, of which the median counts; 0: 3
	NoRescore      bool
	// Progress, if set, is told what is going on.
	Progress func(string)
}

// Report is the outcome, in the form `akidb bench ann --json` prints.
type Report struct {
	Dataset        string  `json:"dataset"`
	N              int     `json:"n"`
	Dim            int     `json:"dim"`
	Metric         string  `json:"metric"`
	BuildPerS      float64 `json:"build_per_s"`      // of the first quantization
	BytesPerVector float64 `json:"bytes_per_vector"` // of the first quantization
	Builds         []Build `json:"builds"`
	Rows           []Row   `json:"rows"`
}

// Build is the cost of one index.
type Build struct {
	Quantization   string  `json:"quantization"`
	Workers        int     `json:"workers"`
	PerS           float64 `json:"build_per_s"`
	BytesPerVector float64 `json:"bytes_per_vector"`
	GraphHash      string  `json:"graph_hash"`
}

// Row is one point of the curve.
type Row struct {
	Quantization string  `json:"quantization"`
	Ef           int     `json:"ef"`
	Recall       float64 `json:"recall_at_10"` // at K, which is 10 unless asked otherwise
	QPS          float64 `json:"qps"`
	P50us        float64 `json:"p50_us"`
	P99us        float64 `json:"p99_us"`
	Threads      int     `json:"threads"`
	Visited      float64 `json:"visited"` // distances per query
}

func (o *Options) defaults() {
	if o.K == 0 {
		o.K = 10
	}
	if len(o.Quantizations) == 0 {
		o.Quantizations = []index.Quantization{index.DefaultQuantization}
	}
	if len(o.Ef) == 0 {
		for _, tenth := range []int{6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 200, 400} {
			o.Ef = append(o.Ef, max(1, tenth*o.K/10))
		}
		o.Ef = slices.Compact(o.Ef)
	}
	if len(o.Threads) == 0 {
		if o.Threads = []int{1}; runtime.GOMAXPROCS(0) > 1 {
			o.Threads = append(o.Threads, runtime.GOMAXPROCS(0))
		}
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Repeats == 0 {
		o.Repeats = 3
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
}

// check says which option, or what of the data set, nothing can be measured with.
func (o *Options) check(ds *Dataset) error {
	if o.K < 1 {
		return fmt.Errorf("annbench: top-k %d: want at least 1", o.K)
	}
	for _, n := range o.Threads {
		if n < 1 {
			return fmt.Errorf("annbench: %d threads: want at least 1", n)
		}
	}
	for _, ef := range o.Ef {
		if ef < 1 {
			return fmt.Errorf("annbench: ef %d: want at least 1", ef)
		}
	}
	for i, row := range ds.Truth {
		for _, j := range row {
			if j < 0 || int(j) >= ds.Len() {
				return fmt.Errorf("annbench: true neighbour %d of query %d is none of the %d vectors", j, i, ds.Len())
			}
		}
	}
	return nil
}

// Run builds an index for each quantization and measures every ef on it.
func Run(ctx context.Context, ds *Dataset, o Options) (*Report, error) {
	o.defaults()
	if err := o.check(ds); err != nil {
		return nil, err
	}
	rep := &Report{Dataset: ds.Name, N: ds.Len(), Dim: ds.Dim, Metric: ds.MetricName()}
	limits := ds.limits(o.K, o.Queries)
	for _, quantization := range o.Quantizations {
		o.Progress(fmt.Sprintf("%s: building %d x %d, %s", ds.Name, ds.Len(), ds.Dim, quantization))
		x, build, err := BuildIndex(ctx, ds, index.Config{
			Dimension: ds.Dim, Metric: ds.Metric, M: o.M, EfConstruction: o.EfConstruction,
			Quantization: quantization, Workers: o.Workers,
		})
		if err != nil {
			return nil, err
		}
		rep.Builds = append(rep.Builds, build)
		for _, threads := range o.Threads {
			for _, ef := range o.Ef {
				row, err := measure(ctx, x, ds, o, ef, threads, limits)
				if err != nil {
					return nil, fmt.Errorf("annbench: %s ef %d: %w (%v)", quantization, ef, err, x.Close())
				}
				row.Quantization = string(quantization)
				rep.Rows = append(rep.Rows, row)
				o.Progress(fmt.Sprintf("%s %s ef %d: recall %.4f, %.0f q/s", ds.Name, quantization, ef, row.Recall, row.QPS))
			}
		}
		if err := x.Close(); err != nil {
			return nil, err
		}
	}
	rep.BuildPerS, rep.BytesPerVector = rep.Builds[0].PerS, rep.Builds[0].BytesPerVector
	return rep, nil
}

// BuildIndex puts the base vectors into a new index and waits for its graph.
func BuildIndex(ctx context.Context, ds *Dataset, cfg index.Config) (*index.Index, Build, error) {
	x, err := index.Open(ctx, cfg, 1, nothing{})
	if err != nil {
		return nil, Build{}, err
	}
	start := time.Now()
	for i := range ds.Len() {
		x.Append(index.Slot(i), ds.Base(i), nil)
	}
	if err := x.WaitIdle(ctx); err != nil {
		return nil, Build{}, fmt.Errorf("%w (%v)", err, x.Close())
	}
	took := time.Since(start)
	st := x.Status()
	m := st.Memory
	n := float64(ds.Len())
	return x, Build{
		Quantization: string(cfg.Quantization), Workers: cfg.Workers, PerS: n / took.Seconds(),
		BytesPerVector: float64(m.Vectors+m.Codes+m.Graph+m.Slots+m.Payload) / n, GraphHash: st.GraphHash,
	}, nil
}

// nothing is the empty state an index is opened on.
type nothing struct{}

func (nothing) Scan(index.Slot, func(index.Entry) error) error { return nil }
func (nothing) Vector(index.Slot, []float32) error             { return fmt.Errorf("annbench: no vectors on disk") }

// A pass over few queries takes milliseconds, in which the machine may do
// something else: passes are repeated for minMeasured, maxPasses at most.
const (
	minMeasured = 300 * time.Millisecond
	maxPasses   = 101
)

func measure(ctx context.Context, x *index.Index, ds *Dataset, o Options, ef, threads int, limits []float32) (Row, error) {
	n := len(limits)
	var hits, wanted, visited atomic.Int64
	latencies := make([]time.Duration, n)
	rates := make([]float64, 0, o.Repeats)
	for began := time.Now(); len(rates) < o.Repeats || time.Since(began) < minMeasured && len(rates) < maxPasses; {
		hits.Store(0)
		wanted.Store(0)
		visited.Store(0)
		var next atomic.Int64
		var failed atomic.Pointer[error]
		var wg sync.WaitGroup
		start := time.Now()
		for range threads {
			wg.Go(func() {
				var dst []index.Result
				for {
					i := int(next.Add(1)) - 1
					if i >= n || failed.Load() != nil {
						return
					}
					began := time.Now()
					rs, st, err := x.Search(ctx, index.Query{Vector: ds.Query(i), K: o.K, Ef: ef, NoRescore: o.NoRescore},
						index.View{Slots: index.Slot(ds.Len()), Applied: 1}, dst[:0])
					latencies[i] = time.Since(began)
					if err != nil {
						failed.Store(&err)
						return
					}
					dst = rs
					visited.Add(int64(st.Visited + st.Scanned))
					wanted.Add(int64(min(o.K, ds.Len())))
					for _, r := range rs {
						if r.Distance <= limits[i] {
							hits.Add(1)
						}
					}
				}
			})
		}
		wg.Wait()
		rates = append(rates, float64(n)/time.Since(start).Seconds())
		if err := failed.Load(); err != nil {
			return Row{}, *err
		}
	}
	slices.Sort(rates)
	slices.Sort(latencies)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	return Row{
		Ef: ef, Threads: threads, QPS: rates[len(rates)/2],
		Recall: float64(hits.Load()) / float64(max(1, wanted.Load())),
		P50us:  us(latencies[n/2]), P99us: us(latencies[n*99/100]),
		Visited: float64(visited.Load()) / float64(n),
	}, nil
}

// Dataset is base vectors, queries and, if known, the true neighbours.
type Dataset struct {
	Name   string
	Dim    int
	Metric distance.Metric
	// Rows one after the other.
	Vectors, Queries []float32
	// Truth holds the nearest rows of each query, nearest first; nil computes it.
	Truth [][]int32
}

// Len is the number of base vectors.
func (d *Dataset) Len() int { return len(d.Vectors) / d.Dim }

// Base is base vector i.
func (d *Dataset) Base(i int) []float32 { return d.Vectors[i*d.Dim : (i+1)*d.Dim] }

// Query is query i.
func (d *Dataset) Query(i int) []float32 { return d.Queries[i*d.Dim : (i+1)*d.Dim] }

// MetricName is the metric in words.
func (d *Dataset) MetricName() string {
	switch d.Metric {
	case distance.Cosine:
		return "cosine"
	case distance.Dot:
		return "dot"
	default:
		return "l2"
	}
}

// limits is the distance of the k-th true neighbour of each query: a result as
// near as that is right, whichever of several equal ones it is.
func (d *Dataset) limits(k, queries int) []float32 {
	n := len(d.Queries) / d.Dim
	if queries > 0 {
		n = min(n, queries)
	}
	out := make([]float32, n)
	var all []float32
	q, b := make([]float32, d.Dim), make([]float32, d.Dim)
	at := func(i, j int) float32 {
		copy(q, d.Query(i))
		copy(b, d.Base(j))
		switch d.Metric {
		case distance.Cosine:
			distance.Normalize(q, q)
			distance.Normalize(b, b)
			return 1 - distance.InnerProduct(q, b)
		case distance.Dot:
			return -distance.InnerProduct(q, b)
		default:
			return distance.L2Squared(q, b)
		}
	}
	for i := range out {
		if i < len(d.Truth) && len(d.Truth[i]) >= k {
			for _, j := range d.Truth[i][:k] {
				dist := at(i, int(j))
				if j == d.Truth[i][0] || dist > out[i] {
					out[i] = dist
				}
			}
			continue
		}
		all = all[:0]
		for j := range d.Len() {
			all = append(all, at(i, j))
		}
		slices.Sort(all)
		if len(all) > 0 {
			out[i] = all[min(k, len(all))-1]
		}
	}
	return out
}
