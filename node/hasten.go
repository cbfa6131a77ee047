// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// A follower of hashicorp/raft that has missed heartbeats for its time-out asks
// the others whether they would vote for it. They refuse as long as they know a
// leader, which is until their own timers have fired: an election begins with the
// last timer of a majority, not with the first. The candidate's question is news
// to a follower, though: one that has itself not heard of the leader for the
// time-out need not wait for its timer, which is drawn from one to two time-outs.
//
// So it looks at once, and becomes a candidate in turn, whom the first one, which
// knows no leader any more, votes for. With more than two who may do that at the
// same time each waits a while by chance first, so that their votes do not split.
// One that hears of the leader within the time-out does nothing, as before.

// hasten is called with each pre-vote that this node is asked for, and by whom.
func (g *group) hasten(candidate raft.ServerID) {
	c := g.core.Load()
	if c == nil || c.r.State() != raft.Follower || !g.hastening.CompareAndSwap(false, true) {
		return
	}
	if !g.wg.Go(func() {
		defer g.hastening.Store(false)
		if c.hasten(g.ctx, candidate, g.cfg.HeartbeatTimeout) {
			g.met.hastened.Inc()
		}
	}) {
		g.hastening.Store(false)
	}
}

// hasten lets Raft look for its leader as soon as that has been silent for the
// time-out, unless it is heard of first, and reports whether it did. Who has no vote,
// having been removed for instance, hastens nothing.
func (c *raftCore) hasten(ctx context.Context, candidate raft.ServerID, timeout time.Duration) bool {
	last := c.r.LastContact()
	if _, leader := c.r.LeaderWithID(); leader == "" || last.IsZero() {
		return false
	}
	voters := votersAmong(c.servers())
	if !slices.ContainsFunc(voters, func(s raft.Server) bool { return s.ID == candidate }) {
		return false
	}
	// Raft refuses the candidate first: else both would be elected in part.
	wait := max(time.Until(last.Add(timeout)), timeout/50)
	if len(voters) > 3 {
		wait += rand.N(timeout / 2)
	}
	pause(ctx, wait)
	if ctx.Err() != nil || c.r.State() != raft.Follower || !c.r.LastContact().Equal(last) {
		return false
	}
	return c.lookForLeader() == nil
}

// lookForLeader makes Raft's timer fire, if this node follows: it does when the
// time-out is shortened, and the time-out is afterwards what it was.
func (c *raftCore) lookForLeader() error {
	c.confMu.Lock()
	defer c.confMu.Unlock()
	conf := c.r.ReloadableConfig()
	longer := conf
	longer.HeartbeatTimeout += time.Millisecond
	longer.ElectionTimeout += time.Millisecond
	if err := c.r.ReloadConfig(longer); err != nil {
		return err
	}
	return c.r.ReloadConfig(conf)
}

// setElectionTimeout changes how long Raft waits for votes.
func (c *raftCore) setElectionTimeout(d time.Duration) error {
	c.confMu.Lock()
	defer c.confMu.Unlock()
	conf := c.r.ReloadableConfig()
	conf.ElectionTimeout = d
	return c.r.ReloadConfig(conf)
}
