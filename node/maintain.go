// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// leaderDuties runs what only a leader does, until ctx ends its leadership.
// Everything here is safe to repeat and to be done by two nodes at once.
func (n *Node) leaderDuties(ctx context.Context) {
	if c := n.g.core.Load(); c != nil {
		n.g.wg.Go(func() { n.pilot.run(ctx, c) })
	}
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
		if f.applied == 0 || f.applied == last || n.outvoted(ctx, f) {
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
		pause(ctx, n.cfg.paced(housekeepingInterval))
		if ctx.Err() != nil {
			return
		}
		n.fixLeaderAddress(ctx)
		n.raiseClusterVersion(ctx)
		n.keepAlarms(ctx)
		n.compact(ctx)
	}
}

// fixLeaderAddress puts this node's address into the configuration if it came
// back at another one; the others tell the leader theirs (rejoin).
func (n *Node) fixLeaderAddress(ctx context.Context) {
	s, ok := n.server(n.cfg.NodeID)
	c := n.g.core.Load()
	if !ok || c == nil || s.Suffrage != raft.Voter || string(s.Address) == n.cfg.AdvertiseAddr {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := waitRaft(ctx, c.r.AddVoter(s.ID, raft.ServerAddress(n.cfg.AdvertiseAddr), 0, 5*time.Second)); err != nil {
		n.log.Debug("own address not recorded", "err", err)
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
		wait = min(2*wait, n.cfg.paced(5*time.Second))
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

// The kinds of alarms. They are texts in the replicated state, so that a binary
// that does not know a kind keeps it and shows it; only a leader that knows it
// raises it and takes it back.
const (
	AlarmNoSpace  = "NOSPACE"
	AlarmMemory   = "MEMORY"
	AlarmBacklog  = "BACKLOG"
	AlarmCorrupt  = "CORRUPT"
	AlarmDiverged = "DIVERGED"
	AlarmLag      = "LAG"
	AlarmClock    = "CLOCK"
)

// alarmKey names an alarm.
type alarmKey struct{ kind, nodeID string }

const (
	// lagAlarm entries behind the leader for two rounds raise LAG.
	lagAlarm = 65536
	// clockAlarm is the difference of clocks, beyond half the round trip, that
	// raises CLOCK. Nothing here relies on clocks, but the ages of request ids
	// and the time stamps of documents come from them.
	clockAlarm = 2 * time.Second
)

// keepAlarms raises what the members' reports call for and takes back what no
// longer holds. DIVERGED and CORRUPT stay until a person clears them: the node
// they name must be given a new copy first.
func (n *Node) keepAlarms(ctx context.Context) {
	want := make(map[alarmKey]string)
	var short *shortage // the first used-up budget of a voter
	own := n.stats()
	for _, s := range n.g.servers() {
		id := string(s.ID)
		r, at, ok := n.pilot.report(id)
		if !ok || time.Since(at) > 5*n.cfg.paced(statsInterval) {
			continue // nothing known: keep what is raised
		}
		if r.LowDisk {
			want[alarmKey{AlarmNoSpace, id}] = fmt.Sprintf("%d bytes free on the data disk", r.FreeDiskBytes)
		}
		if r.OverMemory {
			want[alarmKey{AlarmMemory, id}] = fmt.Sprintf("%d bytes of memory used, which is over its budget", r.MemoryBytes)
		}
		if r.OverBacklog {
			want[alarmKey{AlarmBacklog, id}] = fmt.Sprintf("%d vectors wait for the graph, which is over its budget", r.IndexBacklog)
		}
		if short == nil && s.Suffrage == raft.Voter {
			short = shortageOf(id, r)
		}
		if r.Diverged != "" {
			want[alarmKey{AlarmDiverged, id}] = r.Diverged
		}
		if r.Corrupt != "" {
			want[alarmKey{AlarmCorrupt, id}] = r.Corrupt
		}
		if r.AppliedIndex+lagAlarm < own.AppliedIndex {
			want[alarmKey{AlarmLag, id}] = fmt.Sprintf("%d entries behind", own.AppliedIndex-r.AppliedIndex)
		}
		if d := n.pilot.skew(id); d > clockAlarm || d < -clockAlarm {
			want[alarmKey{AlarmClock, id}] = fmt.Sprintf("clock differs from the leader's by %v", d.Round(100*time.Millisecond))
		}
	}
	n.budgets.others.Store(short)
	have := make(map[alarmKey]bool)
	for _, a := range n.g.m.Facts().alarms {
		k := alarmKey{a.Kind, a.NodeID}
		have[k] = true
		_, wanted := want[k]
		_, at, reported := n.pilot.report(a.NodeID)
		_, member := n.server(a.NodeID)
		sticky := a.Kind == AlarmDiverged || a.Kind == AlarmCorrupt
		fresh := reported && time.Since(at) <= 5*n.cfg.paced(statsInterval)
		if !wanted && (!member || fresh && !sticky) && n.isOurs(a.Kind) {
			n.try(ctx, "clear alarm", alarm(k, "", true))
		}
	}
	for k, msg := range want {
		if !have[k] {
			n.log.Warn("alarm", "kind", k.kind, "member", k.nodeID, "message", msg)
			n.try(ctx, "raise alarm", alarm(k, msg, false))
		}
	}
}

// shortageOf is what a member reports to be used up; nil if nothing is.
func shortageOf(id string, r *nodev1.StatsReply) *shortage {
	switch {
	case r.LowDisk:
		return &shortage{budgetDisk, id}
	case r.OverMemory:
		return &shortage{budgetMemory, id}
	case r.OverBacklog:
		return &shortage{budgetBacklog, id}
	}
	return nil
}

func (n *Node) isOurs(kind string) bool {
	switch kind {
	case AlarmNoSpace, AlarmMemory, AlarmBacklog, AlarmCorrupt, AlarmDiverged, AlarmLag, AlarmClock:
		return true
	}
	return false
}

func alarm(k alarmKey, message string, clear bool) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_SetAlarm{SetAlarm: &fsmv1.SetAlarm{
		Kind: k.kind, NodeId: k.nodeID, Message: message, Clear: clear,
	}}}
}

const (
	// A collection is sealed anew when this share of its vectors, and at least
	// minGarbage of them, is deleted.
	garbageShare = 0.3
	minGarbage   = 4096
	// purgeStep bounds what one command takes away, purgeSteps how many of them
	// one round proposes.
	purgeStep  = 2048
	purgeSteps = 16
)

// compact starts new graph generations where garbage has piled up, and purges
// what no generation needs any more, step by step.
func (n *Node) compact(ctx context.Context) {
	v := n.g.m.View()
	if v == nil {
		return
	}
	type chore struct {
		id         string
		generation uint64
		seal       bool
	}
	var chores []chore
	for _, c := range v.AllCollections() {
		rec, st := c.Record(), c.IndexStatus()
		seal := st.Idle && st.Garbage >= minGarbage && float64(st.Garbage) >= garbageShare*float64(st.Total)
		key := rec.GetCollectionId()
		if seal || rec.GetGeneration() > n.purged[key] {
			chores = append(chores, chore{key, rec.GetGeneration(), seal})
		}
	}
	dropped := v.PendingPurges()
	v.Close()
	for _, c := range chores {
		if c.seal {
			n.log.Info("compacting", "collection", c.id, "generation", c.generation+1)
			n.try(ctx, "seal generation", &fsmv1.Command{Op: &fsmv1.Command_SealGeneration{
				SealGeneration: &fsmv1.SealGeneration{CollectionId: c.id, FromGeneration: c.generation},
			}})
			continue
		}
		if n.repeat(ctx, "purge slots", &fsmv1.Command{Op: &fsmv1.Command_PurgeSlots{
			PurgeSlots: &fsmv1.PurgeSlots{CollectionId: c.id, MaxSlots: purgeStep},
		}}) {
			n.purged[c.id] = c.generation
		}
	}
	for _, id := range dropped {
		n.repeat(ctx, "purge collection", &fsmv1.Command{Op: &fsmv1.Command_PurgeCollection{
			PurgeCollection: &fsmv1.PurgeCollection{CollectionId: id, MaxKeys: purgeStep},
		}})
		delete(n.purged, id)
	}
}

// repeat proposes a purge until nothing is left, or for one round's steps.
func (n *Node) repeat(ctx context.Context, what string, cmd *fsmv1.Command) (done bool) {
	for range purgeSteps {
		res := n.try(ctx, what, cmd)
		if res == nil {
			return false
		}
		if !res.More {
			return true
		}
	}
	return false
}

// checkpointInterval is how often the graphs are written to disk if they
// changed: what is built after it is built again at the next start.
const checkpointInterval = 2 * time.Minute

func (n *Node) keepCheckpoints() {
	var last uint64
	for n.ctx.Err() == nil {
		pause(n.ctx, n.cfg.paced(checkpointInterval))
		if applied := n.g.m.Applied(); n.ctx.Err() == nil && applied != last {
			if err := n.g.m.CheckpointIndexes(n.ctx); err != nil && n.ctx.Err() == nil {
				n.log.Warn("index checkpoint", "err", err)
				continue
			}
			last = applied
		}
	}
}

// Suspect says that a read met damage, which err wraps: all of the state is read
// soon, and this replica fences itself if what is stored is damaged indeed.
func (n *Node) Suspect(err error) {
	select {
	case n.suspected <- struct{}{}:
		n.log.Error("a read met damage: looking through the state", "err", err)
	default:
	}
}

// scrubRest is how long a suspicion is not looked into after a scrub found nothing.
const scrubRest = time.Minute

// scrub looks for damage that nobody has read yet, and at once where somebody has
// (Suspect). A damaged replica fences itself, and the leader raises CORRUPT for it.
func (n *Node) scrub() {
	for n.ctx.Err() == nil {
		var due <-chan time.Time
		if n.cfg.ScrubInterval >= 0 {
			due = time.After(n.cfg.ScrubInterval)
		}
		suspected := false
		select {
		case <-due:
		case <-n.suspected:
			suspected = true
		case <-n.ctx.Done():
			return
		}
		err := n.g.m.Verify(n.ctx)
		switch {
		case errors.Is(err, raftfsm.ErrCorrupt):
			n.log.Error("this replica is damaged: remove its data directory and let it rejoin", "err", err)
			n.raiseFence(fence{Corrupt: err.Error()})
		case err != nil && n.ctx.Err() == nil:
			n.log.Warn("scrub", "err", err)
		}
		if suspected {
			pause(n.ctx, n.cfg.paced(scrubRest))
		}
	}
}
