// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/akidb/akidb/client"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// convergePoll is how often replicas are asked how far they are.
const convergePoll = 20 * time.Millisecond

// converge waits until all endpoints have applied the same log and their graphs
// are idle, and returns what they say then. alive, if not nil, ends the wait for
// nodes that will never come.
func converge(ctx context.Context, cl *client.Client, endpoints []string, limit time.Duration, alive func() error) ([]*clusterv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(convergePoll)
	defer tick.Stop()
	var reason string
	for {
		all, now := statuses(ctx, cl, endpoints)
		if now == "" {
			return all, nil
		}
		if ctx.Err() == nil || reason == "" {
			reason = now // and not that the time was over
		}
		if alive != nil {
			if err := alive(); err != nil {
				return nil, err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("the replicas did not come together in %v: %s", limit, reason)
		}
	}
}

// statuses asks all endpoints; reason says why they are not at one point.
func statuses(ctx context.Context, cl *client.Client, endpoints []string) (all []*clusterv1.StatusResponse, reason string) {
	all = make([]*clusterv1.StatusResponse, len(endpoints))
	reasons := make([]string, len(endpoints))
	var wg sync.WaitGroup
	for i, addr := range endpoints {
		wg.Go(func() {
			st, err := cl.Status(ctx, addr)
			if all[i] = st; err != nil {
				reasons[i] = fmt.Sprintf("%s: %v", addr, err)
			}
		})
	}
	wg.Wait()
	for i, st := range all {
		switch {
		case reasons[i] != "":
			return nil, reasons[i]
		case st.AppliedIndex != all[0].AppliedIndex:
			return nil, fmt.Sprintf("%s has applied log index %d, %s %d", st.NodeId, st.AppliedIndex, all[0].NodeId, all[0].AppliedIndex)
		case !st.GraphIdle:
			return nil, st.NodeId + " is still building its graph"
		}
	}
	return all, ""
}
