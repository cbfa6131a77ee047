// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// What the demo does, in numbers.
const (
	demoNodes      = 3
	demoWriters    = 8
	demoK          = 10
	recallQueries  = 200
	beforeKill     = 400 // acknowledged writes before the leader is killed
	afterFailover  = 400 // and after the next leader is there
	demoStepLimit  = 5 * time.Minute
	failoverLimit  = time.Minute
	convergeLimit  = 2 * time.Minute
	demoCollection = "demo"
	demoLedger     = "ledger"
)

func newDemo() *cobra.Command {
	var data, dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three nodes, real data, searches, a killed leader, and the ledger",
		Long: `demo starts three processes, imports the doc comments of Go's standard library,
searches them, measures recall, kills the leader with SIGKILL while eight clients
write, restarts it, and reads everything back from every replica. It fails if an
acknowledged write is lost or doubled or the replicas differ.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, progressTo := cmd.OutOrStdout(), io.Writer(cmd.OutOrStdout())
			if asJSON { // one object on standard output, the story on standard error
				progressTo = cmd.ErrOrStderr()
			}
			d := &demo{say: newStory(progressTo), data: data, dir: dir}
			err := d.run(cmd.Context())
			if asJSON && d.cluster != nil {
				err = errors.Join(err, writeJSON(out, d.result))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "folder of a benchmark data set instead (base.fvecs or .bvecs, query, payload.jsonl, meta.json)")
	cmd.Flags().StringVar(&dir, "dir", "", "keep the cluster's directory here")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON object")
	return cmd
}

// demoResult is what `akidb demo --json` prints. The hashes stand in the order
// of the nodes.
type demoResult struct {
	Nodes        int      `json:"nodes"`
	Documents    int      `json:"documents"`
	Dimension    int      `json:"dimension"`
	RecallAt10   float64  `json:"recall_at_10"`
	FailoverMS   float64  `json:"failover_ms"`
	Acknowledged int      `json:"acknowledged"`
	Lost         int      `json:"lost"`
	Duplicated   int      `json:"duplicated"`
	StateHashes  []string `json:"state_hashes"`
	GraphHashes  []string `json:"graph_hashes"`
}

// demo carries the run through its steps.
type demo struct {
	say       *story
	data, dir string

	set     demoSet
	cluster *localcluster.Cluster
	cl      *client.Client            // on all nodes
	pinned  map[string]*client.Client // by node, on that node alone
	ledger  *ledger
	writers *writers
	killed  *localcluster.Node
	result  demoResult
}

func (d *demo) run(ctx context.Context) (err error) {
	d.say.title("AkiDB demo")
	if err := d.step(ctx, "Data", d.load); err != nil {
		return err
	}
	cleanup := func() error { return nil }
	defer func() {
		d.closeClients()
		err = errors.Join(err, cleanup())
	}()
	err = d.step(ctx, "Cluster", func(ctx context.Context) (text string, err error) {
		d.cluster, cleanup, err = startLocal(ctx, localcluster.Options{Dir: d.dir, Nodes: demoNodes})
		if err != nil {
			cleanup = func() error { return nil }
			return "", err
		}
		return d.connect(ctx)
	})
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{{"Import", d.index}, {"Search", d.search}, {"Recall", d.recall}, {"Failover", d.failover},
		{"Restart", d.restart}, {"Ledger", d.readBack}, {"Hashes", d.hashes}} {
		if err != nil {
			return err
		}
		err = d.step(ctx, s.name, s.do)
	}
	if err == nil {
		err = d.verdict()
	}
	return err
}

// step runs one step and tells it.
func (d *demo) step(ctx context.Context, name string, do func(context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoStepLimit)
	defer cancel()
	began := time.Now()
	d.say.begin(name)
	text, err := do(ctx)
	if err != nil {
		d.say.failed(name, err)
		return fmt.Errorf("demo: %s: %w", name, err)
	}
	d.say.done(name, text, time.Since(began))
	return nil
}

// connect opens the clients and names the leader.
func (d *demo) connect(ctx context.Context) (string, error) {
	d.result.Nodes = len(d.cluster.Nodes)
	var err error
	if d.cl, err = d.cluster.Client(nil); err != nil {
		return "", err
	}
	d.pinned = map[string]*client.Client{}
	text := fmt.Sprintf("%d processes", len(d.cluster.Nodes))
	for _, n := range d.cluster.Nodes {
		if d.pinned[n.ID], err = d.cluster.Client(n); err != nil {
			return "", err
		}
		text += fmt.Sprintf(", %s (pid %d)", n.ID, n.PID())
	}
	leader, err := d.cluster.Leader(ctx, d.cl)
	if err != nil {
		return "", err
	}
	return text + "; " + leader.ID + " leads", nil
}

func (d *demo) closeClients() {
	if d.writers != nil {
		d.writers.stop()
	}
	if d.cl != nil {
		_ = d.cl.Close()
	}
	for _, c := range d.pinned {
		if c != nil {
			_ = c.Close()
		}
	}
}

// load reads the data set.
func (d *demo) load(ctx context.Context) (string, error) {
	var err error
	if d.data != "" {
		d.set, err = openFolderSet(d.data)
	} else {
		d.set, err = openGoDocs(ctx)
	}
	if err != nil {
		return "", err
	}
	return d.set.describe(), nil
}

// index imports it and waits until every replica's graph covers it.
func (d *demo) index(ctx context.Context) (string, error) {
	n, dim, err := d.set.fill(ctx, d.cl)
	if err != nil {
		return "", err
	}
	d.result.Documents, d.result.Dimension = n, dim
	if _, err := d.converge(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s documents of %d dimensions, indexed on every replica", thousands(n), dim), nil
}

// search shows a few searches, each on another replica.
func (d *demo) search(ctx context.Context) (string, error) {
	n := 0
	for i, q := range d.set.questions() {
		node := d.cluster.Nodes[i%len(d.cluster.Nodes)]
		reply, err := d.pinned[node.ID].Query(ctx, &collectionv1.QueryRequest{CollectionId: demoCollection, QueryVector: q.vector, TopK: 3, IncludeMetadata: true})
		if err != nil {
			return "", err
		}
		d.say.question(q.text, node.ID, reply)
		n++
	}
	return fmt.Sprintf("%d searches, linearizable, each on another replica", n), nil
}

// recall compares the graph's answers with exact ones, on all replicas in turn.
func (d *demo) recall(ctx context.Context) (string, error) {
	queries := d.set.queries(recallQueries)
	hits, total := 0, 0
	for i, q := range queries {
		node := d.cluster.Nodes[i%len(d.cluster.Nodes)]
		reply, err := d.pinned[node.ID].Query(ctx, &collectionv1.QueryRequest{CollectionId: demoCollection, QueryVector: q, TopK: demoK})
		if err != nil {
			return "", err
		}
		good, err := d.set.good(ctx, d.cl, q)
		if err != nil {
			return "", err
		}
		for _, m := range reply.Matches {
			if good(m.Distance) {
				hits++
			}
		}
		total += demoK
	}
	d.result.RecallAt10 = float64(min(hits, total)) / float64(max(total, 1))
	return fmt.Sprintf("recall@10 %.4f over %d queries, against exact search", d.result.RecallAt10, len(queries)), nil
}

// failover kills the leader under load.
func (d *demo) failover(ctx context.Context) (string, error) {
	var err error
	if d.ledger, err = newLedger(ctx, d.cl, demoLedger); err != nil {
		return "", err
	}
	d.writers = d.ledger.start(ctx, d.cl, "w", demoWriters)
	if err := d.ledger.waitAcked(ctx, beforeKill); err != nil {
		return "", err
	}
	if d.killed, err = d.cluster.Leader(ctx, d.cl); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, failoverLimit)
	defer cancel()
	began := time.Now()
	d.killed.Kill()
	at, err := d.ledger.ackAfter(ctx, time.Now())
	if err != nil {
		return "", err
	}
	d.result.FailoverMS = float64(at.Sub(began).Microseconds()) / 1000
	if err := d.ledger.waitAcked(ctx, d.ledger.ackedCount()+afterFailover); err != nil {
		return "", err
	}
	leader, err := d.leaderWithout(ctx, d.killed)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("SIGKILL for %s under %d writers; next acknowledged write after %.0f ms, %s leads",
		d.killed.ID, demoWriters, d.result.FailoverMS, leader), nil
}

func (d *demo) leaderWithout(ctx context.Context, dead *localcluster.Node) (string, error) {
	for _, n := range d.cluster.Nodes {
		if n == dead {
			continue
		}
		out, err := d.pinned[n.ID].Leader(ctx)
		if err != nil {
			return "", err
		}
		return out.NodeId, nil
	}
	return "", errors.New("one node is no cluster")
}

// restart brings the killed node back while the writers go on.
func (d *demo) restart(ctx context.Context) (string, error) {
	began := time.Now()
	if err := d.killed.Start(); err != nil {
		return "", err
	}
	if err := d.killed.WaitReady(ctx); err != nil {
		return "", err
	}
	ready := time.Since(began)
	d.writers.stop()
	if errs := d.ledger.errs; len(errs) > 0 {
		return "", fmt.Errorf("%d writes failed in the client, the first with: %w", len(errs), errs[0])
	}
	if _, err := d.converge(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s is ready again after %.1f s and has caught up", d.killed.ID, ready.Seconds()), nil
}

// readBack compares the ledger with what each replica holds.
func (d *demo) readBack(ctx context.Context) (string, error) {
	d.result.Acknowledged = d.ledger.ackedCount()
	for _, n := range d.cluster.Nodes {
		a, err := d.ledger.audit(ctx, d.pinned[n.ID])
		if err != nil {
			return "", err
		}
		for _, e := range a.Examples {
			d.say.line("%s: %s", n.ID, e)
		}
		d.result.Lost += a.Lost
		d.result.Duplicated += a.Duplicated
		count, err := d.pinned[n.ID].Count(ctx, &collectionv1.CountRequest{CollectionId: demoCollection})
		if err != nil {
			return "", err
		}
		if missing := d.result.Documents - int(count.Count); missing != 0 {
			d.say.line("%s: %d documents of the data set, want %d", n.ID, count.Count, d.result.Documents)
			d.result.Lost += max(missing, 0)
			d.result.Duplicated += max(-missing, 0)
		}
	}
	return fmt.Sprintf("acknowledged %s   lost %d   doubled %d, read back from every replica",
		thousands(d.result.Acknowledged), d.result.Lost, d.result.Duplicated), nil
}

// hashes shows what every replica holds and built.
func (d *demo) hashes(ctx context.Context) (string, error) {
	all, err := d.converge(ctx)
	if err != nil {
		return "", err
	}
	for i, st := range all {
		d.result.StateHashes = append(d.result.StateHashes, st.StateHash)
		d.result.GraphHashes = append(d.result.GraphHashes, st.GraphHash)
		d.say.line("%s   state %s   graph %s", d.cluster.Nodes[i].ID, st.StateHash, st.GraphHash)
	}
	v, err := d.cl.Verify(ctx)
	if err != nil {
		return "", err
	}
	if !verified(v) || v.Building {
		return "", fmt.Errorf("cluster verify says that the replicas differ: %v", v)
	}
	return fmt.Sprintf("at log index %d", all[0].AppliedIndex), nil
}

// converge waits until all replicas are at one point, graphs included.
func (d *demo) converge(ctx context.Context) ([]*clusterv1.StatusResponse, error) {
	return converge(ctx, d.cl, d.cluster.Endpoints(), convergeLimit, d.cluster.Alive)
}

// verdict is what the exit status says.
func (d *demo) verdict() error {
	r := &d.result
	var wrong []error
	if r.Lost > 0 {
		wrong = append(wrong, fmt.Errorf("demo: %d acknowledged writes are lost", r.Lost))
	}
	if r.Duplicated > 0 {
		wrong = append(wrong, fmt.Errorf("demo: %d writes are doubled", r.Duplicated))
	}
	if !allEqual(r.StateHashes) || !allEqual(r.GraphHashes) {
		wrong = append(wrong, errors.New("demo: the replicas' hashes differ"))
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	d.say.end("Nothing lost, nothing doubled, every replica the same.")
	return nil
}

func allEqual(s []string) bool {
	for _, x := range s {
		if x != s[0] {
			return false
		}
	}
	return len(s) > 0
}
