// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/vecfile"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// load is the flags of a closed-loop benchmark.
type load struct {
	benchCluster
	clients          int
	dim              int
	warmup, duration time.Duration
}

func (l *load) addFlags(cmd *cobra.Command, clients int) {
	l.benchCluster.addFlags(cmd)
	f := cmd.Flags()
	f.IntVar(&l.clients, "clients", clients, "clients, each with one call under way")
	f.DurationVar(&l.warmup, "warmup", 2*time.Second, "not counted")
	f.DurationVar(&l.duration, "duration", 10*time.Second, "counted")
}

// report prints a result, unless the load was interrupted.
func (l *load) report(cmd *cobra.Command, r loadResult, what string) error {
	if err := cmd.Context().Err(); err != nil {
		return fmt.Errorf("interrupted, no figures: %w", err)
	}
	if l.asJSON {
		return writeJSON(cmd.OutOrStdout(), r)
	}
	return r.print(cmd.OutOrStdout(), what)
}

// scratch makes a collection for one run; drop removes it, since a cluster that
// is not ours must be left as it was.
func scratch(ctx context.Context, cl *client.Client, dim int, metric string) (id string, drop func(), err error) {
	out, err := cl.CreateCollection(ctx, &collectionv1.CreateCollectionRequest{Name: "bench-" + client.NewRequestID(), Dimension: uint32(dim), Metric: metric})
	if err != nil {
		return "", nil, err
	}
	return out.CollectionId, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = cl.DeleteCollection(ctx, &collectionv1.DeleteCollectionRequest{CollectionId: out.CollectionId}) // best effort: the result stands
	}, nil
}

// randomVectors are fixed, so that runs are alike.
func randomVectors(n, dim int) [][]float32 {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([][]float32, n)
	for i := range out {
		out[i] = make([]float32, dim)
		for j := range out[i] {
			out[i][j] = rng.Float32() - 0.5
		}
	}
	return out
}

func newBenchWrite() *cobra.Command {
	var l load
	var every time.Duration
	cmd := &cobra.Command{
		Use: "write", Short: "Durable writes of single documents, acknowledged by a majority", Args: cobra.NoArgs,
		Long: `write measures durable writes of single documents. With --snapshot-every each node
is made to take a snapshot so often meanwhile: alternate runs with it and without
to see whether writes notice.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return l.with(cmd.Context(), func(t *benchTarget) error {
				coll, drop, err := scratch(cmd.Context(), t.cl, l.dim, "l2")
				if err != nil {
					return err
				}
				defer drop()
				vectors := randomVectors(1024, l.dim)
				stop := t.snapshots(cmd.Context(), every)
				res := closedLoop(cmd.Context(), l.clients, l.warmup, l.duration, func(ctx context.Context, c, seq int) error {
					_, err := t.cl.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: coll, DocId: fmt.Sprintf("%d-%d", c, seq), Vector: vectors[(c*31+seq)%len(vectors)]})
					return err
				})
				if res.Snapshots, res.SnapshotMS, err = stop(); err != nil {
					return err
				}
				return l.report(cmd, res, "writes")
			})
		},
	}
	l.addFlags(cmd, 64)
	cmd.Flags().IntVar(&l.dim, "dim", 768, "numbers in a vector")
	cmd.Flags().DurationVar(&every, "snapshot-every", 0, "make every node take a snapshot so often; 0: when it wants to")
	return cmd
}

// snapshots makes every node take one again and again until stop, which tells how
// many were taken and how long one took in the middle.
func (t *benchTarget) snapshots(ctx context.Context, every time.Duration) (stop func() (n int, medianMS float64, err error)) {
	if every <= 0 {
		return func() (int, float64, error) { return 0, 0, nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	took, errs := make([][]float64, len(t.endpoints)), make([]error, len(t.endpoints))
	var wg sync.WaitGroup
	for i, e := range t.endpoints {
		wg.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				began := time.Now()
				if _, err := t.cl.Snapshot(ctx, e); err == nil {
					took[i] = append(took[i], float64(time.Since(began).Microseconds())/1000)
				} else if ctx.Err() == nil {
					errs[i] = fmt.Errorf("snapshot on %s: %w", e, err)
					return
				}
			}
		})
	}
	return func() (int, float64, error) {
		cancel()
		wg.Wait()
		all := slices.Concat(took...)
		return len(all), median(all), errors.Join(errs...)
	}
}

// readDocs is how many documents reads are spread over.
const readDocs = 1000

func newBenchRead() *cobra.Command {
	var l load
	var target string
	cmd := &cobra.Command{
		Use: "read", Short: "Reads of single documents by id, linearizable unless --consistency says otherwise", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return l.with(cmd.Context(), func(t *benchTarget) error {
				coll, drop, err := scratch(cmd.Context(), t.cl, l.dim, "l2")
				if err != nil {
					return err
				}
				defer drop()
				in := t.cl.Ingest(cmd.Context(), coll, client.IngestOptions{})
				for i, v := range randomVectors(readDocs, l.dim) {
					if err := in.Add(&collectionv1.UpsertRequest{DocId: fmt.Sprint(i), Vector: v}); err != nil {
						break // Close says it
					}
				}
				if _, err := in.Close(); err != nil {
					return err
				}
				cl, done, err := t.choose(cmd.Context(), target, l.conns)
				if err != nil {
					return err
				}
				defer done()
				res := closedLoop(cmd.Context(), l.clients, l.warmup, l.duration, func(ctx context.Context, c, seq int) error {
					out, err := cl.Get(ctx, &collectionv1.GetRequest{CollectionId: coll, DocId: fmt.Sprint((c*97 + seq) % readDocs)})
					if err == nil && out.Document == nil {
						err = fmt.Errorf("document %d is not there", (c*97+seq)%readDocs)
					}
					return err
				})
				return l.report(cmd, res, "reads")
			})
		},
	}
	l.addFlags(cmd, 64)
	cmd.Flags().IntVar(&l.dim, "dim", 768, "numbers in a vector")
	cmd.Flags().StringVar(&target, "replica", "any", "of a local cluster: any, leader or follower")
	return cmd
}

// choose returns the client on all nodes, or one that is pinned to the leader or
// to a follower.
func (t *benchTarget) choose(ctx context.Context, which string, conns int) (*client.Client, func(), error) {
	if which == "any" {
		return t.cl, func() {}, nil
	}
	if t.local == nil || which != "leader" && which != "follower" {
		return nil, nil, fmt.Errorf("--replica %q: want any, leader or follower, the latter two of a local cluster", which)
	}
	leader, err := t.local.Leader(ctx, t.cl)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range t.local.Nodes {
		if (n == leader) != (which == "leader") {
			continue
		}
		cfg, err := t.local.ClientConfig()
		if err != nil {
			return nil, nil, err
		}
		cfg.Endpoints, cfg.Pin, cfg.ConnsPerEndpoint = []string{n.GRPC}, true, conns
		cl, err := client.Open(cfg)
		return cl, func() { _ = cl.Close() }, err
	}
	return nil, nil, fmt.Errorf("--replica %s: there is none", which)
}

func newBenchSearch() *cobra.Command {
	var l load
	var job importJob
	var q collectionv1.QueryRequest
	cmd := &cobra.Command{
		Use: "search DIR", Short: "Searches of a benchmark data set through the API, with their recall", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return l.with(cmd.Context(), func(t *benchTarget) error {
				folder, err := vecfile.OpenFolder(args[0])
				if err != nil {
					return err
				}
				job.path = args[0]
				drop, _, err := fillScratch(cmd.Context(), t, &job)
				if err != nil {
					return err
				}
				defer drop()
				q.CollectionId = job.collectionID
				return searchLoad(cmd, &l, t, folder, &q)
			})
		},
	}
	l.addFlags(cmd, 8)
	job.index.add(cmd)
	f := cmd.Flags()
	f.Int32Var(&q.TopK, "top-k", 10, "results of a search")
	f.Uint32Var(&q.Ef, "ef", 0, "candidates (default: the collection's)")
	f.StringVar(&q.RecallTarget, "recall-target", "", "0.95, 0.99 or exact")
	f.IntVar(&job.limit, "limit", 0, "import so many rows only; recall is then not measured")
	return cmd
}

// fillScratch imports a data set into a collection of its own and waits for the
// graphs of all replicas.
func fillScratch(ctx context.Context, t *benchTarget, job *importJob) (drop func(), took time.Duration, err error) {
	state, err := os.MkdirTemp("", "akidb-bench-")
	if err != nil {
		return nil, 0, err
	}
	defer os.RemoveAll(state)
	job.collection, job.stateDir, job.batch, job.inFlight = "bench-"+client.NewRequestID(), state, 500, 4
	remove := func() {
		if job.collectionID == "" {
			return // it was not made
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = t.cl.DeleteCollection(ctx, &collectionv1.DeleteCollectionRequest{CollectionId: job.collectionID}) // best effort: the result stands
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	began := time.Now()
	if _, err := job.run(ctx, t.cl, nil); err != nil {
		return nil, 0, err
	}
	if _, err := converge(ctx, t.cl, t.endpoints, 10*time.Minute, nil); err != nil {
		return nil, 0, err
	}
	return remove, time.Since(began), nil
}

func searchLoad(cmd *cobra.Command, l *load, t *benchTarget, folder *vecfile.Folder, q *collectionv1.QueryRequest) error {
	queries, err := vecfile.All(folder.Query, vecfile.Options{})
	if err != nil {
		return err
	}
	var truth [][]int32
	if folder.Neighbors != "" && !cmd.Flags().Changed("limit") {
		if truth, err = vecfile.Neighbors(folder.Neighbors); err != nil {
			return err
		}
	}
	var hits, wanted atomic.Int64
	res := closedLoop(cmd.Context(), l.clients, l.warmup, l.duration, func(ctx context.Context, c, seq int) error {
		i := (c*7919 + seq) % len(queries)
		out, err := t.cl.Query(ctx, &collectionv1.QueryRequest{CollectionId: q.CollectionId, QueryVector: queries[i], TopK: q.TopK, Ef: q.Ef, RecallTarget: q.RecallTarget})
		if err != nil || truth == nil {
			return err
		}
		hits.Add(int64(overlap(out.Matches, truth[i], int(q.TopK))))
		wanted.Add(int64(q.TopK))
		return nil
	})
	if wanted.Load() > 0 {
		res.RecallAtK = float64(hits.Load()) / float64(wanted.Load())
	}
	return l.report(cmd, res, "searches")
}

// overlap counts the matches among the first k true neighbours. Ties count
// against the result here, so that the recall is a lower bound.
func overlap(matches []*collectionv1.VectorMatch, truth []int32, k int) int {
	n := 0
	for _, m := range matches {
		id, err := strconv.ParseInt(m.DocId, 10, 32)
		if err == nil && slices.Contains(truth[:min(k, len(truth))], int32(id)) {
			n++
		}
	}
	return n
}

// importBench is what `akidb bench import` prints.
type importBench struct {
	Rows    int     `json:"rows"`
	Dim     int     `json:"dim"`
	Seconds float64 `json:"seconds"`
	OpsPerS float64 `json:"ops_per_s"`
}

func newBenchImport() *cobra.Command {
	var b benchCluster
	var job importJob
	cmd := &cobra.Command{
		Use: "import DIR", Short: "Import of a benchmark data set until every replica has indexed it", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.with(cmd.Context(), func(t *benchTarget) error {
				job.path = args[0]
				drop, took, err := fillScratch(cmd.Context(), t, &job)
				if err != nil {
					return err
				}
				defer drop()
				d, err := t.cl.Describe(cmd.Context(), &collectionv1.DescribeRequest{CollectionId: job.collectionID})
				if err != nil {
					return err
				}
				r := importBench{Rows: int(d.DocumentCount), Dim: int(d.Dimension), Seconds: took.Seconds(), OpsPerS: float64(d.DocumentCount) / took.Seconds()}
				if b.asJSON {
					return writeJSON(cmd.OutOrStdout(), r)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s rows of %d dimensions imported and indexed on every replica in %.1f s: %.0f rows/s\n", thousands(r.Rows), r.Dim, r.Seconds, r.OpsPerS)
				return err
			})
		},
	}
	b.addFlags(cmd)
	job.index.add(cmd)
	cmd.Flags().IntVar(&job.limit, "limit", 0, "so many rows only")
	return cmd
}
