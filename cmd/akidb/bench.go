// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
)

func newBench() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "bench",
		Short: "Measure: index, writes, reads, searches, imports, failover",
		Long: `bench measures. ann measures the index in this process; the others measure a
cluster through its API: a local one of three processes with real fsync that is
made for the run, or the one that --endpoints names. The local one uses TLS
between its nodes and to clients as production does, unless --plaintext is given.
Compare runs only if they alternate on one idle machine.`,
	})
	cmd.AddCommand(newBenchANN(), newBenchWrite(), newBenchRead(), newBenchSearch(), newBenchImport(), newBenchFiltered(), newBenchFailover())
	return cmd
}

// benchCluster is the flags that choose what is measured.
type benchCluster struct {
	conn   connection
	nodes  int
	dir    string
	conns  int
	asJSON bool
}

func (b *benchCluster) addFlags(cmd *cobra.Command) {
	b.conn.addFlags(cmd)
	f := cmd.Flags()
	f.IntVar(&b.nodes, "nodes", 0, "nodes of the local cluster (default: as many as --dir holds, or 3)")
	f.StringVar(&b.dir, "dir", "", "directory of the local cluster: put it on the disk that is to be measured")
	f.IntVar(&b.conns, "conns", 0, "connections to each node (default 4)")
	f.BoolVar(&b.asJSON, "json", false, "print one JSON object")
}

// benchTarget is a cluster under measurement.
type benchTarget struct {
	cl        *client.Client
	endpoints []string
	local     *localcluster.Cluster // nil if it is somebody else's
}

// open connects to the cluster, or makes one; flags go to its nodes.
func (b *benchCluster) open(ctx context.Context, flags ...string) (t *benchTarget, cleanup func() error, err error) {
	if b.conn.given() {
		cfg, err := b.conn.config()
		if err != nil {
			return nil, nil, err
		}
		cfg.ConnsPerEndpoint = b.conns
		cl, err := client.Open(cfg)
		if err != nil {
			return nil, nil, err
		}
		return &benchTarget{cl: cl, endpoints: cfg.Endpoints}, cl.Close, nil
	}
	cluster, stop, err := startLocal(ctx, localcluster.Options{Dir: b.dir, Nodes: b.nodes, Flags: flags, Plaintext: b.conn.plaintext})
	if err != nil {
		return nil, nil, err
	}
	cfg, err := cluster.ClientConfig()
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	cfg.ConnsPerEndpoint, cfg.Consistency, cfg.Timeout = b.conns, b.conn.consistency, b.conn.timeout
	cl, err := client.Open(cfg)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	settle(ctx, cl)
	return &benchTarget{cl: cl, endpoints: cfg.Endpoints, local: cluster}, func() error { return errors.Join(cl.Close(), stop()) }, nil
}

// with runs fn on the cluster.
func (b *benchCluster) with(ctx context.Context, fn func(*benchTarget) error, flags ...string) (err error) {
	t, cleanup, err := b.open(ctx, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	return fn(t)
}

// loadResult is what a closed-loop load prints.
type loadResult struct {
	Clients   int     `json:"clients"`
	OpsPerS   float64 `json:"ops_per_s"`
	P50ms     float64 `json:"p50_ms"`
	P99ms     float64 `json:"p99_ms"`
	Errors    int     `json:"errors"`
	Ops       int     `json:"ops"`
	Seconds   float64 `json:"seconds"`
	RecallAtK float64 `json:"recall_at_10,omitempty"`
	// Snapshots were taken meanwhile on request, each in SnapshotMS at the median.
	Snapshots  int     `json:"snapshots,omitempty"`
	SnapshotMS float64 `json:"snapshot_ms,omitempty"`
	Example    string  `json:"first_error,omitempty"`
}

func (r loadResult) print(w io.Writer, what string) error {
	_, err := fmt.Fprintf(w, "%d clients: %.0f %s/s, p50 %.2f ms, p99 %.2f ms, %d errors\n", r.Clients, r.OpsPerS, what, r.P50ms, r.P99ms, r.Errors)
	if err == nil && r.RecallAtK > 0 {
		_, err = fmt.Fprintf(w, "recall@10 %.4f\n", r.RecallAtK)
	}
	if err == nil && r.Snapshots > 0 {
		_, err = fmt.Fprintf(w, "%d snapshots meanwhile, of %.0f ms\n", r.Snapshots, r.SnapshotMS)
	}
	if err == nil && r.Example != "" {
		_, err = fmt.Fprintf(w, "first error: %s\n", r.Example)
	}
	return err
}

// closedLoop lets n clients call op one call after the other, for a while that
// is not counted and a while that is.
func closedLoop(ctx context.Context, n int, warmup, measured time.Duration, op func(ctx context.Context, client, seq int) error) loadResult {
	type tally struct {
		took   []time.Duration
		errors int
		first  error
	}
	tallies := make([]tally, n)
	from := time.Now().Add(warmup)
	until := from.Add(measured)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			t := &tallies[i]
			for seq := 0; ctx.Err() == nil; seq++ {
				began := time.Now()
				if began.After(until) {
					return
				}
				err := op(ctx, i, seq)
				ended := time.Now()
				if began.Before(from) || ended.After(until) {
					continue
				}
				if err != nil {
					if t.errors++; t.first == nil {
						t.first = err
					}
					continue
				}
				t.took = append(t.took, ended.Sub(began))
			}
		})
	}
	wg.Wait()
	res := loadResult{Clients: n, Seconds: measured.Seconds()}
	var all []time.Duration
	for _, t := range tallies {
		all = append(all, t.took...)
		res.Errors += t.errors
		if t.first != nil && res.Example == "" {
			res.Example = t.first.Error()
		}
	}
	slices.Sort(all)
	res.Ops = len(all)
	res.OpsPerS = float64(len(all)) / measured.Seconds()
	res.P50ms, res.P99ms = percentileMS(all, 50), percentileMS(all, 99)
	return res
}

// percentileMS is the nearest-rank percentile of sorted durations.
func percentileMS(sorted []time.Duration, p int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min((len(sorted)*p+99)/100, len(sorted)) - 1
	return float64(sorted[max(i, 0)].Nanoseconds()) / 1e6
}

// median of numbers in any order.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}
