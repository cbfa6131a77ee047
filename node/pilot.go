// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// statsInterval is how often the leader asks the members how they are.
const statsInterval = 500 * time.Millisecond

// pilot is this node's part in raft-autopilot: it tells it about the members,
// whom the leader polls, and decides which of them vote.
type pilot struct {
	n *Node

	mu      sync.Mutex // guards the fields below
	reports map[string]memberReport
	since   time.Time // when this node began to lead
	moved   time.Time // when it last moved a vote without need
	heard   map[string]heard
}

// heard is when a member last answered this node's greeting, leader or not.
type heard struct {
	applied uint64
	at      time.Time
}

type memberReport struct {
	stats *nodev1.StatsReply
	at    time.Time
	skew  time.Duration // its clock less ours, as far as the round trip shows
}

var (
	_ autopilot.ApplicationIntegration = (*pilot)(nil)
	_ autopilot.Promoter               = (*pilot)(nil)
)

func newPilot(n *Node) *pilot {
	return &pilot{n: n, reports: make(map[string]memberReport), heard: make(map[string]heard)}
}

// run is autopilot while this node leads.
func (p *pilot) run(ctx context.Context, c *raftCore) {
	p.mu.Lock()
	p.since = time.Now()
	p.mu.Unlock()
	ap := autopilot.New(carefulRaft{c.r}, p, autopilot.WithLogger(raftLogger(p.n.log)), autopilot.WithPromoter(p),
		autopilot.WithUpdateInterval(p.n.cfg.paced(statsInterval)), autopilot.WithReconcileInterval(2*p.n.cfg.paced(statsInterval)))
	ap.Start(ctx)
	<-ctx.Done()
	<-ap.Stop()
}

// carefulRaft is Raft as autopilot has it. Autopilot promotes by AddVoter on what
// it saw up to two intervals ago, and AddVoter adds whom it does not find: a
// member that was removed meanwhile would come back as a voter, and one that is
// gone for good would count against every majority. Here a member is promoted
// only if it is one, in the very configuration that is changed.
type carefulRaft struct{ *raft.Raft }

// DemoteVoter leaves the last voter and this node its vote.
func (r carefulRaft) DemoteVoter(id raft.ServerID, _ uint64, timeout time.Duration) raft.IndexFuture {
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return refusedFuture{err}
	}
	voters := votersAmong(f.Configuration().Servers)
	if _, leader := r.LeaderWithID(); leader == id || len(voters) < 2 {
		return refusedFuture{fmt.Errorf("node: %s leads or is the last voter: it keeps its vote", id)}
	}
	return r.Raft.DemoteVoter(id, f.Index(), timeout)
}

var _ autopilot.Raft = carefulRaft{}

func (r carefulRaft) AddVoter(id raft.ServerID, address raft.ServerAddress, _ uint64, timeout time.Duration) raft.IndexFuture {
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return refusedFuture{err}
	}
	for _, s := range f.Configuration().Servers {
		if s.ID == id {
			return r.Raft.AddVoter(id, address, f.Index(), timeout)
		}
	}
	return refusedFuture{fmt.Errorf("node: %s is no member any more: not promoted", id)}
}

// report is what a member said last, and when.
func (p *pilot) report(id string) (*nodev1.StatsReply, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.reports[id]
	return r.stats, r.at, ok
}

// hear notes an answer to a greeting.
func (p *pilot) hear(id string, applied uint64) {
	p.mu.Lock()
	p.heard[id] = heard{applied, time.Now()}
	p.mu.Unlock()
}

// heardOf is the newest word of a member: a report to the leader or a greeting.
func (p *pilot) heardOf(id string) (applied uint64, at time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.heard[id]
	if r, reported := p.reports[id]; reported && r.at.After(h.at) {
		return r.stats.AppliedIndex, r.at, true
	}
	return h.applied, h.at, ok
}

func (p *pilot) skew(id string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports[id].skew
}

// poll asks every member once.
func (p *pilot) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statsInterval)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range p.n.g.servers() {
		wg.Go(func() { _, _ = p.ask(ctx, s) }) // silence shows in the age of its report
	}
	wg.Wait()
}

// ask asks a member how it is, and keeps the answer.
func (p *pilot) ask(ctx context.Context, s raft.Server) (*nodev1.StatsReply, error) {
	id := string(s.ID)
	if id == p.n.cfg.NodeID {
		r := p.n.stats()
		p.put(id, memberReport{r, time.Now(), 0})
		return r, nil
	}
	var r nodev1.StatsReply
	sent := time.Now()
	if err := p.n.rpc.call(ctx, p.n.g.addrOf(s), laneControl, methodStats, &nodev1.StatsRequest{}, &r); err != nil {
		return nil, err
	}
	if r.Node.GetNodeId() != id {
		return nil, errOtherNode
	}
	now := time.Now()
	p.put(id, memberReport{&r, now, clockSkew(r.UnixMs, sent, now)})
	p.n.book.learn(r.Node)
	return &r, nil
}

// clockSkew is how far a clock that showed ms between sent and received must be
// off, 0 if it need not be.
func clockSkew(ms int64, sent, received time.Time) time.Duration {
	if t := time.UnixMilli(ms); t.Before(sent) {
		return t.Sub(sent)
	} else if t.After(received) {
		return t.Sub(received)
	}
	return 0
}

func (p *pilot) put(id string, r memberReport) {
	p.mu.Lock()
	p.reports[id] = r
	p.mu.Unlock()
}

// silence is how long a member has not answered this leader.
func (p *pilot) silence(id string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.since
	if r, ok := p.reports[id]; ok && r.at.After(last) {
		last = r.at
	}
	return time.Since(last)
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (p *pilot) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers:      p.n.cfg.RemoveDeadAfter > 0,
		LastContactThreshold:    p.n.cfg.lastContactLimit(),
		MaxTrailingLogs:         maxTrailing,
		MinQuorum:               3,
		ServerStabilizationTime: p.n.cfg.StabilizationTime,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (p *pilot) NotifyState(*autopilot.State) {}

// FetchServerStats implements autopilot.ApplicationIntegration.
func (p *pilot) FetchServerStats(ctx context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	p.poll(ctx)
	out := make(map[raft.ServerID]*autopilot.ServerStats)
	for id := range servers {
		r, at, ok := p.report(string(id))
		if !ok || time.Since(at) > 2*p.n.cfg.paced(statsInterval) {
			continue
		}
		s := &autopilot.ServerStats{LastContact: time.Duration(r.LastContactMs) * time.Millisecond, LastTerm: r.LastTerm, LastIndex: r.LastIndex}
		if string(id) == p.n.cfg.NodeID {
			s.LastContact = 0
		}
		out[id] = s
	}
	return out
}

// KnownServers implements autopilot.ApplicationIntegration: the members of the
// configuration, none of which is removed merely for not being known.
func (p *pilot) KnownServers() map[raft.ServerID]*autopilot.Server {
	out := make(map[raft.ServerID]*autopilot.Server)
	for _, s := range p.n.g.servers() {
		srv := &autopilot.Server{
			ID: s.ID, Name: string(s.ID), Address: s.Address, NodeStatus: autopilot.NodeFailed,
			RaftVersion: raft.ProtocolVersionMax, IsLeader: string(s.ID) == p.n.cfg.NodeID, NodeType: autopilot.NodeVoter,
		}
		if p.silence(string(s.ID)) < 6*p.n.cfg.paced(statsInterval) {
			srv.NodeStatus = autopilot.NodeAlive
		}
		if r, _, ok := p.report(string(s.ID)); ok {
			srv.Version = r.Node.GetVersion()
			srv.Meta = map[string]string{"zone": r.Node.GetZone()}
			if r.Diverged != "" || r.Corrupt != "" || r.LowDisk || r.OverMemory {
				srv.Meta["ailing"] = "yes"
			}
			if r.Node.GetReadReplica() {
				srv.NodeType = readReplica
			}
		}
		out[s.ID] = srv
	}
	return out
}

const readReplica autopilot.NodeType = "read-replica"

// RemoveFailedServer implements autopilot.ApplicationIntegration.
func (p *pilot) RemoveFailedServer(s *autopilot.Server) {
	p.n.log.Warn("removing a member that failed long ago", "member", s.ID)
	p.n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(p.n.ctx, 10*time.Second)
		defer cancel()
		if err := p.n.RemoveMember(ctx, string(s.ID)); err != nil {
			p.n.log.Warn("failed member not removed", "member", s.ID, "err", err)
		}
	})
}

// GetServerExt, GetStateExt, GetNodeTypes and IsPotentialVoter implement
// autopilot.Promoter.
func (p *pilot) GetServerExt(*autopilot.Config, *autopilot.ServerState) any { return nil }

// GetStateExt has nothing to add.
func (p *pilot) GetStateExt(*autopilot.Config, *autopilot.State) any { return nil }

// GetNodeTypes keeps the types KnownServers gave.
func (p *pilot) GetNodeTypes(_ *autopilot.Config, s *autopilot.State) map[raft.ServerID]autopilot.NodeType {
	types := make(map[raft.ServerID]autopilot.NodeType)
	known := p.KnownServers()
	for id := range s.Servers {
		types[id] = autopilot.NodeVoter
		if k := known[id]; k != nil {
			types[id] = k.NodeType
		}
	}
	return types
}

// IsPotentialVoter excludes read replicas.
func (p *pilot) IsPotentialVoter(t autopilot.NodeType) bool { return t != readReplica }

// FilterFailedServerRemovals keeps those that have been silent for long.
func (p *pilot) FilterFailedServerRemovals(_ *autopilot.Config, _ *autopilot.State, f *autopilot.FailedServers) *autopilot.FailedServers {
	long := func(all []*autopilot.Server) []*autopilot.Server {
		var out []*autopilot.Server
		for _, s := range all {
			if p.silence(string(s.ID)) > p.n.cfg.RemoveDeadAfter {
				out = append(out, s)
			}
		}
		return out
	}
	return &autopilot.FailedServers{FailedNonVoters: long(f.FailedNonVoters), FailedVoters: long(f.FailedVoters)}
}

// replaceAfter is how long a voter must be unhealthy before a healthy non-voter
// takes its vote.
const replaceAfter = 30 * time.Second

// movePause is how long the leader leaves the voters alone between two changes
// that nothing compels it to, in stabilization times: 20 s by default.
const movePause = 10

// CalculatePromotionsAndDemotions gives votes to healthy members up to
// MaxVoters, one at a time, in the zone that has the fewest voters first, and
// takes the vote of a voter that has long been unhealthy if another member can
// have it. If there is none of that to do, it moves votes slowly to where they
// are better placed (moveVotes).
func (p *pilot) CalculatePromotionsAndDemotions(c *autopilot.Config, s *autopilot.State) autopilot.RaftChanges {
	if !sameVoters(s, p.n.voters()) {
		return autopilot.RaftChanges{} // the state is of before the last change
	}
	now := time.Now()
	if ch := decideVoters(c, s, now, p.n.cfg.MaxVoters); len(ch.Promotions)+len(ch.Demotions) > 0 {
		return ch
	}
	ch := moveVotes(c, s, now, p.n.cfg.MaxVoters)
	if len(ch.Promotions)+len(ch.Demotions) == 0 {
		return ch
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.since
	if p.moved.After(last) {
		last = p.moved
	}
	// The second half of a swap follows at once: an even number of voters stands
	// no more failures than one less.
	secondHalf := len(s.Voters)%2 == 0 && len(ch.Demotions) > 0
	if !secondHalf && now.Sub(last) < movePause*p.n.cfg.StabilizationTime {
		return autopilot.RaftChanges{}
	}
	p.moved = now
	p.n.log.Info("moving a vote", "to", ch.Promotions, "from", ch.Demotions, "voters", len(s.Voters), "max_voters", p.n.cfg.MaxVoters)
	return ch
}

// sameVoters reports whether the voters of a state are those of the latest
// configuration.
func sameVoters(s *autopilot.State, voters []raft.Server) bool {
	for _, v := range voters {
		if srv := s.Servers[v.ID]; srv == nil || !srv.HasVotingRights() {
			return false
		}
	}
	return len(voters) == len(s.Voters)
}

// moveVotes takes one vote beyond maxVoters away, or begins to move one from the
// zone with the most voters to one that has at least two fewer: the new voter is
// promoted first, so that the old one is then one too many. It only acts while
// every voter is healthy; one that long was not is the first to lose its vote.
// Never the leader: where there are two voters, another can be taken.
func moveVotes(c *autopilot.Config, s *autopilot.State, now time.Time, maxVoters int) autopilot.RaftChanges {
	zones := make(map[string]int)
	voters, healthy := 0, true
	var free []*autopilot.ServerState // voters that do not lead
	for _, srv := range s.Servers {
		if !srv.HasVotingRights() {
			continue
		}
		voters++
		healthy = healthy && srv.Health.Healthy
		zones[srv.Server.Meta["zone"]]++
		if srv.State != autopilot.RaftLeader {
			free = append(free, srv)
		}
	}
	if !healthy {
		for _, srv := range free {
			if voters > maxVoters && !srv.Health.Healthy && now.Sub(srv.Health.StableSince) > replaceAfter {
				return autopilot.RaftChanges{Demotions: []raft.ServerID{srv.Server.ID}}
			}
		}
		return autopilot.RaftChanges{}
	}
	if len(free) == 0 {
		return autopilot.RaftChanges{}
	}
	count := func(srv *autopilot.ServerState) int { return zones[srv.Server.Meta["zone"]] }
	// The vote to lose is one of the fullest zone, of an ailing node before others.
	sort.Slice(free, func(i, j int) bool {
		if ci, cj := count(free[i]), count(free[j]); ci != cj {
			return ci > cj
		}
		if ai, aj := free[i].Server.Meta["ailing"], free[j].Server.Meta["ailing"]; ai != aj {
			return ai != ""
		}
		return free[i].Server.ID > free[j].Server.ID
	})
	if voters > maxVoters {
		return autopilot.RaftChanges{Demotions: []raft.ServerID{free[0].Server.ID}}
	}
	if voters < maxVoters {
		return autopilot.RaftChanges{} // decideVoters fills up first
	}
	var best *autopilot.ServerState
	for _, srv := range s.Servers {
		if srv.State != autopilot.RaftNonVoter || srv.Server.NodeType == readReplica || srv.Server.Meta["ailing"] != "" ||
			!srv.Health.IsStable(now, s.ServerStabilizationTime(c)) || count(srv)+2 > count(free[0]) {
			continue
		}
		if best == nil || count(srv) < count(best) || count(srv) == count(best) && srv.Server.ID < best.Server.ID {
			best = srv
		}
	}
	if best == nil {
		return autopilot.RaftChanges{}
	}
	return autopilot.RaftChanges{Promotions: []raft.ServerID{best.Server.ID}}
}

func decideVoters(c *autopilot.Config, s *autopilot.State, now time.Time, maxVoters int) autopilot.RaftChanges {
	var candidates, voters []*autopilot.ServerState
	zones := make(map[string]int)
	for _, srv := range s.Servers {
		switch {
		case srv.HasVotingRights():
			voters = append(voters, srv)
			if srv.Health.Healthy {
				zones[srv.Server.Meta["zone"]]++
			}
		case srv.State == autopilot.RaftNonVoter && srv.Server.NodeType != readReplica && srv.Health.IsStable(now, s.ServerStabilizationTime(c)):
			candidates = append(candidates, srv)
		}
	}
	if len(candidates) == 0 {
		return autopilot.RaftChanges{}
	}
	sort.Slice(candidates, func(i, j int) bool {
		zi, zj := zones[candidates[i].Server.Meta["zone"]], zones[candidates[j].Server.Meta["zone"]]
		if zi != zj {
			return zi < zj
		}
		return candidates[i].Server.ID < candidates[j].Server.ID
	})
	if len(voters) < maxVoters {
		return autopilot.RaftChanges{Promotions: []raft.ServerID{candidates[0].Server.ID}}
	}
	sort.Slice(voters, func(i, j int) bool { return voters[i].Server.ID < voters[j].Server.ID })
	for _, v := range voters {
		if !v.Health.Healthy && now.Sub(v.Health.StableSince) > replaceAfter {
			return autopilot.RaftChanges{Demotions: []raft.ServerID{v.Server.ID}}
		}
	}
	return autopilot.RaftChanges{}
}
