// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

func memberNemeses() []*Nemesis {
	return []*Nemesis{
		{
			Name: "membership", About: "nodes are added, removed for good, or removed, emptied and taken back",
			Pause: 4 * time.Second, Hold: 3 * time.Second, Inject: churn,
		},
		{
			Name: "leader-storm", About: "leadership is handed to another node every few hundred milliseconds",
			Pause: 3 * time.Second, Hold: 8 * time.Second, Inject: storm,
		},
		{
			Name: "snapshots", About: "hardly any log is kept, snapshots are taken all the time, and a node that was away needs one",
			Needs: Needs{Args: []string{"--snapshot-threshold", "64", "--snapshot-interval", "1s", "--trailing-logs", "16", "--trailing-log-bytes", "64KiB"}},
			Pause: 3 * time.Second, Hold: 6 * time.Second, Inject: snapshots,
		},
	}
}

// churn replaces a follower, or adds a node and then removes it. It waits until
// all members vote, so that no two changes together cost the majority.
func churn(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	if r.IntN(2) == 0 {
		n := follower(ctx, e, r)
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healLimit)
		defer cancel()
		if err := replace(cctx, e, n); err != nil {
			return "", nil, fmt.Errorf("replace %s: %w", n.ID, err)
		}
		return "removed, emptied and took back " + n.ID, func(ctx context.Context) error { return allVote(ctx, e) }, nil
	}
	n, err := e.Cluster.AddNode()
	if err != nil {
		return "", nil, err
	}
	return "added " + n.ID, func(ctx context.Context) error {
		if err := e.Admin.CaughtUp(ctx, n); err != nil {
			e.Note("%s has not caught up: %v", n.ID, err)
		}
		for {
			err := e.Admin.RemoveMember(ctx, n.ID)
			if err == nil {
				break
			}
			if !wait(ctx, time.Second) {
				return fmt.Errorf("remove %s: %w", n.ID, err)
			}
		}
		if err := e.Cluster.Drop(n); err != nil {
			return err
		}
		return allVote(ctx, e)
	}, nil
}

// allVote waits until every node of the cluster is a voter again.
func allVote(ctx context.Context, e *Env) error {
	var last error
	for {
		_, voters, err := e.Admin.Members(ctx)
		if err == nil && len(voters) >= len(e.Cluster.Nodes()) {
			return nil
		}
		if last = err; err == nil {
			last = fmt.Errorf("only %v vote", voters)
		}
		if !wait(ctx, 300*time.Millisecond) {
			return last
		}
	}
}

func storm(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan int)
	seed := r.Uint64()
	go func() {
		r := rand.New(rand.NewPCG(seed, 1))
		moved := 0
		for wait(ctx, time.Duration(100+r.IntN(400))*time.Millisecond) {
			tctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			if e.Admin.TransferLeader(tctx, shuffled(e, r)[0].ID) == nil {
				moved++
			}
			cancel()
		}
		ended <- moved
	}()
	return "leadership moves", func(context.Context) error {
		stop()
		e.Note("leadership was handed over %d times", <-ended)
		return nil
	}, nil
}

// snapshots takes one node away for a while and makes the others take snapshots,
// so that its log has to be replaced by one when it comes back.
func snapshots(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	n := follower(ctx, e, r)
	if err := n.Kill(); err != nil {
		return "", nil, err
	}
	return "took " + n.ID + " away", func(ctx context.Context) error {
		for _, o := range e.Cluster.Nodes() {
			if o == n {
				continue
			}
			sctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			if err := e.Admin.Snapshot(sctx, o); err != nil {
				e.Note("snapshot of %s: %v", o.ID, err)
			}
			cancel()
		}
		if err := n.Start(); err != nil {
			return err
		}
		return e.Admin.CaughtUp(ctx, n)
	}, nil
}
