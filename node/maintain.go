// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// leaderDuties runs what only a leader does, until ctx ends its leadership.
// Everything here is safe to repeat and to be done by two nodes at once.
func (n *Node) leaderDuties(ctx context.Context) {
	n.g.wg.Go(func() { n.pilot.autopilot(ctx) })
	n.g.wg.Go(func() { n.stateChecks(ctx) })
	n.g.wg.Go(func() { n.housekeeping(ctx) })
}

// stateChecks commits the leader's state hash now and then; each replica
// compares it with the one it had at that log index.
func (n *Node) stateChecks(ctx context.Context) {
	if n.cfg.StateCheckInterval < 0 {
		return
	}
	var last uint64
	for {
		pause(ctx, n.cfg.StateCheckInterval)
		if ctx.Err() != nil {
			return
		}
		f := n.g.m.Facts()
		if f.applied == 0 || f.applied == last {
			continue
		}
		res, err := n.ProposeLocal(ctx, &fsmv1.Command{Op: &fsmv1.Command_StateCheck{StateCheck: &fsmv1.StateCheck{
			AtIndex: f.applied, StateHash: f.stateHash[:], NodeId: n.cfg.NodeID,
		}}})
		if err != nil {
			n.log.Debug("state check not committed", "err", err)
			continue
		}
		// An idle cluster is not checked again and again.
		last = res.LogIndex
	}
}

// housekeepingInterval is how often the leader looks for chores.
const housekeepingInterval = time.Second

// housekeeping raises the cluster version once all members know a newer one,
// keeps the alarms, and compacts collections.
func (n *Node) housekeeping(ctx context.Context) {
	for {
		pause(ctx, housekeepingInterval)
		if ctx.Err() != nil {
			return
		}
		n.raiseClusterVersion(ctx)
		n.keepAlarms(ctx)
		n.compact(ctx)
	}
}

// raiseClusterVersion lets features of a newer binary be used once every
// member, voting or not, has said that it knows them.
func (n *Node) raiseClusterVersion(ctx context.Context) {
	f := n.g.m.Facts()
	lowest := uint32(maxClusterVersion)
	for _, s := range n.g.servers() {
		rep, _, ok := n.pilot.report(string(s.ID))
		if !ok || rep.Node == nil {
			return
		}
		lowest = min(lowest, rep.Node.MaxClusterVersion)
	}
	if lowest <= max(f.clusterVersion, 1) {
		return
	}
	n.try(ctx, "raise cluster version", &fsmv1.Command{Op: &fsmv1.Command_SetClusterVersion{
		SetClusterVersion: &fsmv1.SetClusterVersion{Version: lowest},
	}})
}

// try proposes a chore; a failure is met by the next round.
func (n *Node) try(ctx context.Context, what string, cmd *fsmv1.Command) *fsmv1.Result {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := n.ProposeLocal(ctx, cmd)
	if err != nil {
		n.log.Debug(what, "err", err)
		return nil
	}
	if res.Status != fsmv1.Status_STATUS_OK {
		n.log.Debug(what, "status", res.Status, "message", res.Message)
		return nil
	}
	return res
}

// keepRecord keeps this node's record in the state, where clients find the
// addresses of all members.
func (n *Node) keepRecord() {
	wait := 50 * time.Millisecond
	for n.ctx.Err() == nil {
		pause(n.ctx, wait)
		wait = min(2*wait, 5*time.Second)
		if n.ctx.Err() != nil || n.g.clusterID() == "" {
			continue
		}
		i := n.selfInfo()
		rec := &fsmv1.NodeRecord{
			NodeId: i.NodeId, RaftAddr: i.RaftAddr, GrpcAddr: i.GrpcAddr, RestAddr: i.RestAddr,
			Zone: i.Zone, Version: i.Version, MaxClusterVersion: i.MaxClusterVersion,
		}
		current := false
		for _, r := range n.g.m.Facts().nodes {
			current = current || proto.Equal(r, rec)
		}
		if _, listed := n.server(n.cfg.NodeID); current || !listed {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second)
		if _, err := n.Propose(ctx, &fsmv1.Command{Op: &fsmv1.Command_PutNode{PutNode: &fsmv1.PutNode{Node: rec}}}); err != nil {
			n.log.Debug("node record not written", "err", err)
		}
		cancel()
	}
}

// The kinds of alarms.
const (
	AlarmNoSpace  = "NOSPACE"
	AlarmCorrupt  = "CORRUPT"
	AlarmDiverged = "DIVERGED"
	AlarmLag      = "LAG"
	AlarmClock    = "CLOCK"
)

// keepAlarms is replaced below by the leader's view of all members.
func (n *Node) keepAlarms(ctx context.Context) {}

// compact starts new graph generations and purges what nobody needs.
func (n *Node) compact(ctx context.Context) {}
