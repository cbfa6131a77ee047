// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// trial is a cluster of real processes under a load whose every write is kept
// account of: what the tests of operations have in common.
type trial struct {
	t *testing.T
	c *localcluster.Cluster
	// cl is on all nodes; the load uses it.
	cl   *client.Client
	l    *ledger
	load *writers
}

// trialLimit bounds each wait of a trial, on a slow and busy machine.
const trialLimit = 2 * time.Minute

// startTrial starts a cluster and begins to write to it.
func startTrial(t *testing.T, nodes, writers int, flags ...string) *trial {
	t.Helper()
	c, cl := startTestCluster(t, nodes, flags...)
	return watch(t, c, cl, writers)
}

// watch begins to write to a cluster.
func watch(t *testing.T, c *localcluster.Cluster, cl *client.Client, writers int) *trial {
	t.Helper()
	l, err := newLedger(t.Context(), cl, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	x := &trial{t: t, c: c, cl: cl, l: l, load: l.start(t.Context(), cl, "w", writers)}
	t.Cleanup(x.load.stop)
	x.more(1)
	return x
}

func (x *trial) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *trial) ctx() context.Context {
	ctx, cancel := context.WithTimeout(x.t.Context(), trialLimit)
	x.t.Cleanup(cancel)
	return ctx
}

// more waits until so many further writes are acknowledged.
func (x *trial) more(n int) {
	x.t.Helper()
	x.must(x.l.waitAcked(x.ctx(), x.l.ackedCount()+n))
}

// wait waits until cond holds; what it returns last is said if it never does.
func (x *trial) wait(what string, cond func() (ok bool, last string)) {
	x.t.Helper()
	ctx := x.ctx()
	tick := time.NewTicker(convergePoll)
	defer tick.Stop()
	for {
		ok, last := cond()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			x.t.Fatalf("waited in vain for %s: %s", what, last)
		}
	}
}

func (x *trial) leader() *localcluster.Node {
	x.t.Helper()
	n, err := x.c.Leader(x.ctx(), x.cl)
	x.must(err)
	return n
}

func (x *trial) follower() *localcluster.Node {
	x.t.Helper()
	l := x.leader()
	for _, n := range x.c.Nodes {
		if n != l {
			return n
		}
	}
	x.t.Fatal("there is no follower")
	return nil
}

// on is a client of one node.
func (x *trial) on(n *localcluster.Node) *client.Client {
	x.t.Helper()
	cl, err := x.c.Client(n)
	x.must(err)
	x.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// restart starts a node and waits until it serves.
func (x *trial) restart(n *localcluster.Node) {
	x.t.Helper()
	x.must(n.Start())
	x.must(n.WaitReady(x.ctx()))
}

// status asks a node; nil if it does not answer.
func (x *trial) status(n *localcluster.Node) *clusterv1.StatusResponse {
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Second)
	defer cancel()
	st, err := x.cl.Status(ctx, n.GRPC)
	if err != nil {
		return nil
	}
	return st
}

// members waits until the list of members is as wanted, on every given node.
func (x *trial) members(what string, on []*localcluster.Node, want func([]*clusterv1.Member) bool) {
	x.t.Helper()
	for _, n := range on {
		cl := x.on(n)
		x.wait(what+" on "+n.ID, func() (bool, string) {
			ctx, cancel := context.WithTimeout(x.t.Context(), 5*time.Second)
			defer cancel()
			out, err := cl.Members(ctx)
			if err != nil {
				return false, err.Error()
			}
			return want(out.Members), fmt.Sprint(out.Members)
		})
	}
}

// other makes a second collection, of which the ledger knows nothing.
func (x *trial) other() {
	x.t.Helper()
	_, err := x.cl.CreateCollection(x.t.Context(), &collectionv1.CreateCollectionRequest{Name: "other", Dimension: ledgerDim, Metric: "l2"})
	x.must(err)
}

// alarms are the replicated alarms, "KIND node" each.
func (x *trial) alarms() map[string]bool {
	x.t.Helper()
	out, err := x.cl.ListAlarms(x.ctx())
	x.must(err)
	all := map[string]bool{}
	for _, a := range out.Alarms {
		all[a.Kind+" "+a.NodeId] = true
	}
	return all
}

// finish stops the load, waits until all nodes are at one point, and demands that
// no write failed, that each replica holds what was acknowledged, once, and that
// all hashes are equal.
func (x *trial) finish() {
	x.t.Helper()
	x.load.stop()
	for _, err := range x.l.errs {
		x.t.Errorf("a write failed: %v", err)
	}
	x.settled()
}

// settled is finish for loads that were meant to fail.
func (x *trial) settled() {
	x.t.Helper()
	x.load.stop()
	cl, err := x.c.Client(nil) // the nodes of now, which may not be those of the beginning
	x.must(err)
	defer cl.Close()
	all, err := converge(x.ctx(), cl, x.c.Endpoints(), trialLimit, x.c.Alive)
	if err != nil {
		for _, n := range x.c.Nodes {
			ctx, cancel := context.WithTimeout(x.t.Context(), 10*time.Second)
			if _, err := cl.Status(ctx, n.GRPC); err != nil {
				x.t.Logf("%s does not answer: %v\n%s", n.ID, err, n.Stacks())
			}
			cancel()
		}
	}
	x.must(err)
	for _, st := range all {
		if st.StateHash != all[0].StateHash || st.GraphHash != all[0].GraphHash || !st.Ready {
			x.t.Errorf("%s has state %s and graph %s, ready %v %s; %s has %s and %s", st.NodeId, st.StateHash, st.GraphHash, st.Ready, st.NotReadyReason,
				all[0].NodeId, all[0].StateHash, all[0].GraphHash)
		}
	}
	for _, n := range x.c.Nodes {
		a, err := x.l.audit(x.ctx(), x.on(n))
		x.must(err)
		if a.Lost+a.Duplicated > 0 {
			x.t.Errorf("%s: %d lost, %d doubled: %v", n.ID, a.Lost, a.Duplicated, a.Examples)
		}
	}
	x.t.Logf("%d writes acknowledged, longest time without one %v", x.l.ackedCount(), x.l.longestGap(x.l.acks[0]).Round(time.Millisecond))
}
