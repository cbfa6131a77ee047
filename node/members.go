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
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Member is what is known here of a member.
type Member struct {
	NodeID, RaftAddr, GRPCAddr, RESTAddr string
	Zone, Version, Health                string
	Voter, Leader                        bool
	AppliedIndex                         uint64
	LastContact                          time.Duration
}

// Leader describes the leader as known here; ErrNoLeader.
func (n *Node) Leader() (Member, error) {
	m := n.g.leaderMember()
	if m.NodeID == "" {
		return Member{}, ErrNoLeader
	}
	return m, nil
}

func (g *group) leaderMember() Member {
	id, addr := g.leader()
	if id == "" {
		return Member{}
	}
	m := g.describe(id, g.m.Facts().nodes)
	m.RaftAddr, m.Leader, m.Voter = addr, true, true
	return m
}

// describe joins what is recorded in the state and what a node told itself.
func (g *group) describe(id string, records []*fsmv1.NodeRecord) Member {
	m := Member{NodeID: id}
	for _, r := range records {
		if r.NodeId == id {
			m = Member{NodeID: id, RaftAddr: r.RaftAddr, GRPCAddr: r.GrpcAddr, RESTAddr: r.RestAddr, Zone: r.Zone, Version: r.Version}
		}
	}
	if i := g.book.info(id); i != nil {
		m = memberOf(i)
	}
	if id == g.cfg.NodeID {
		m = memberOf(g.self())
	}
	return m
}

func infoOf(m Member) *nodev1.NodeInfo {
	return &nodev1.NodeInfo{NodeId: m.NodeID, RaftAddr: m.RaftAddr, GrpcAddr: m.GRPCAddr, RestAddr: m.RESTAddr, Zone: m.Zone, Version: m.Version}
}

// Members lists the Raft configuration, joined with gossip and with what the
// members last told this node.
func (n *Node) Members() []Member {
	leader, _ := n.g.leader()
	records := n.g.m.Facts().nodes
	var out []Member
	for _, s := range n.g.servers() {
		id := string(s.ID)
		m := n.g.describe(id, records)
		m.RaftAddr = n.g.addrOf(s)
		m.Voter = s.Suffrage == raft.Voter
		m.Leader = id == leader
		m.Health = n.health(id)
		if applied, at, ok := n.pilot.heardOf(id); ok {
			m.AppliedIndex, m.LastContact = applied, time.Since(at)
		}
		if id == n.cfg.NodeID {
			m.Health, m.AppliedIndex, m.LastContact = "alive", n.g.ad.applied(), 0
		}
		out = append(out, m)
	}
	return out
}

// health is the newest that is known of a member: what it said itself, or what
// gossip found.
func (n *Node) health(id string) string {
	_, heard, ok := n.pilot.heardOf(id)
	silent := time.Since(heard)
	word, gone := "", time.Time{}
	if n.gossip != nil {
		word, gone = n.gossip.health(id)
	}
	switch {
	case gone.After(heard):
		return word // dead
	case ok && silent < 2*n.cfg.paced(helloPauseMax):
		return "alive"
	case gone.IsZero() && word != "":
		return word // alive to those that it does answer
	case !ok:
		return "unknown"
	case silent < 5*n.cfg.paced(helloPauseMax):
		return "suspect"
	}
	return "dead"
}

// Status describes this node; it works without a leader.
type Status struct {
	NodeID, ClusterID, State, LeaderID         string
	Voter                                      bool
	Term, CommitIndex, AppliedIndex            uint64
	FirstLogIndex, LastLogIndex, SnapshotIndex uint64
	Ready                                      bool
	NotReadyReason                             string
	Uptime                                     time.Duration
	ClusterVersion, MaxClusterVersion          uint32
}

// Status is cheap.
func (n *Node) Status() Status {
	f := n.g.m.Facts()
	s := Status{
		NodeID: n.cfg.NodeID, ClusterID: n.g.clusterID(), State: "shutdown", AppliedIndex: n.g.ad.applied(),
		Uptime: time.Since(n.started), ClusterVersion: f.clusterVersion, MaxClusterVersion: maxClusterVersion,
	}
	s.LeaderID, _ = n.g.leader()
	for _, srv := range n.g.servers() {
		if string(srv.ID) == s.NodeID {
			s.Voter = srv.Suffrage == raft.Voter
		}
	}
	if c := n.g.core.Load(); c != nil {
		switch c.r.State() {
		case raft.Leader:
			s.State = "leader"
		case raft.Candidate:
			s.State = "candidate"
		case raft.Follower:
			s.State = "follower"
		}
		s.Term, s.CommitIndex, s.LastLogIndex = c.r.CurrentTerm(), c.r.CommitIndex(), c.r.LastIndex()
		s.FirstLogIndex, _ = c.ls.FirstIndex()
		if metas, err := n.g.snaps.List(); err == nil && len(metas) > 0 {
			s.SnapshotIndex = metas[0].Index
		}
	}
	if err := n.Ready(); err != nil {
		s.NotReadyReason = err.Error()
	} else {
		s.Ready = true
	}
	return s
}

// Ready is nil if this replica can serve: a leader is known, it has caught up,
// its state hash agrees, its storage is writable.
func (n *Node) Ready() error {
	if n.isClosing() {
		return ErrClosed
	}
	if err := n.fenced(); err != nil {
		return err
	}
	c := n.g.core.Load()
	if c == nil {
		n.g.mu.Lock()
		defer n.g.mu.Unlock()
		return fmt.Errorf("the log cannot be written: %w", n.g.broken)
	}
	if !n.g.member.Load() {
		if why := n.seeking.Load(); why != nil {
			return fmt.Errorf("%w: %s", errNotMember, *why)
		}
		return errNotMember
	}
	if id, _ := n.g.leader(); id == "" {
		if n.removed.Load() {
			return errRemoved
		}
		return ErrNoLeader
	}
	if c.r.State() != raft.Leader {
		if t := c.r.LastContact(); t.IsZero() || time.Since(t) > 10*n.cfg.HeartbeatTimeout {
			return fmt.Errorf("%w: no contact for %v", ErrNoLeader, time.Since(t).Round(time.Millisecond))
		}
		if n.g.clusterID() == "" {
			return errors.New("the cluster is being founded")
		}
		if !n.caughtUp.Load() {
			return fmt.Errorf("catching up: at log index %d, and not yet at what was committed when this process started", n.g.ad.applied())
		}
	}
	if lag := c.r.CommitIndex(); lag > n.g.ad.applied()+n.cfg.MaxApplyLag {
		return fmt.Errorf("catching up: %d entries to apply", lag-n.g.ad.applied())
	}
	return nil
}

// catchUp notes when this process first held everything that was committed. Raft
// does not say: it does not know the commit index of the time before it started,
// and takes what the leader has sent so far for all there is. A linearizable read
// knows.
func (n *Node) catchUp() {
	for n.ctx.Err() == nil {
		if n.awaitRead(n.ctx, ReadOptions{Consistency: Linearizable}) == nil {
			n.caughtUp.Store(true)
			n.g.poke()
			return
		}
		pause(n.ctx, n.cfg.HeartbeatTimeout/4)
	}
}

// AddMember adds a member through the leader, from any node. A voter is added
// without a vote and gets it once it answers and has caught up; if the context
// ends before, it stays a member without one and the error says so.
func (n *Node) AddMember(ctx context.Context, nodeID, raftAddr string, voter bool, opts ...MemberOption) error {
	return n.change(ctx, &nodev1.MemberRequest{Op: nodev1.MemberRequest_OP_ADD, NodeId: nodeID, RaftAddr: raftAddr, Voter: voter}, opts...)
}

// RemoveMember takes a member out of the configuration; ErrUnsafeChange if that
// would cost the majority.
func (n *Node) RemoveMember(ctx context.Context, nodeID string, opts ...MemberOption) error {
	return n.change(ctx, &nodev1.MemberRequest{Op: nodev1.MemberRequest_OP_REMOVE, NodeId: nodeID}, opts...)
}

// PromoteMember makes a non-voter a voter, once it answers and has caught up.
func (n *Node) PromoteMember(ctx context.Context, nodeID string, opts ...MemberOption) error {
	return n.change(ctx, &nodev1.MemberRequest{Op: nodev1.MemberRequest_OP_PROMOTE, NodeId: nodeID}, opts...)
}

// TransferLeader hands leadership to nodeID, or to any voter if it is empty.
func (n *Node) TransferLeader(ctx context.Context, nodeID string) error {
	return n.change(ctx, &nodev1.MemberRequest{Op: nodev1.MemberRequest_OP_TRANSFER, NodeId: nodeID})
}

// Leave takes this node out of the configuration, for good: another node leads
// afterwards if it led. Nothing is left to do for one that was removed already.
// Close follows.
func (n *Node) Leave(ctx context.Context) error {
	if n.askIfRemoved(ctx) {
		return nil
	}
	n.handOver(ctx)
	n.endJoining(ctx)
	err := n.RemoveMember(ctx, n.cfg.NodeID)
	if err != nil && n.removed.Load() {
		return nil
	}
	return err
}

// change runs a membership operation at the leader.
func (n *Node) change(ctx context.Context, req *nodev1.MemberRequest, opts ...MemberOption) error {
	for _, o := range opts {
		o(req)
	}
	return n.atLeader(ctx, func(ctx context.Context) error { return n.changeHere(ctx, req) }, methodMember, req, &nodev1.MemberReply{})
}

// leaderWait is how long an operation waits for a leader.
const leaderWait = 5 * time.Second

// atLeader runs an operation on the leader: here, or by asking for it. It must
// have the same outcome when repeated, since it is tried again while an election
// may be under way. That ends before the caller's patience does, so that it learns
// of a node that finds no leader and can ask another one.
func (n *Node) atLeader(ctx context.Context, here func(context.Context) error, m method, req, reply proto.Message) error {
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	patience, end := context.WithTimeout(ctx, min(leaderWait, timeoutOf(ctx)/2))
	defer end()
	once := func() error {
		if n.isClosing() {
			return ErrClosed
		}
		id, addr := n.g.leader()
		switch id {
		case "":
			return ErrNoLeader
		case n.cfg.NodeID:
			return here(ctx)
		}
		return n.rpc.call(ctx, addr, laneControl, m, req, reply)
	}
	for {
		changed := n.g.changed()
		err := once()
		retry := errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome) || errors.Is(err, errNotSent)
		if err == nil || !retry || patience.Err() != nil {
			n.g.unwatch(changed)
			return err
		}
		n.g.awaitChange(patience, changed)
		n.g.unwatch(changed)
	}
}

// changeHere carries a membership operation out on the leader.
func (n *Node) changeHere(ctx context.Context, req *nodev1.MemberRequest) error {
	c, _, established := n.g.leading()
	if c == nil || !established {
		return n.g.notLeader()
	}
	if req.NodeId == "" && req.Op != nodev1.MemberRequest_OP_TRANSFER {
		return fmt.Errorf("%w: node id is empty", errInvalid)
	}
	switch req.Op {
	case nodev1.MemberRequest_OP_ADD:
		return n.addHere(ctx, c, req)
	case nodev1.MemberRequest_OP_REMOVE:
		return n.removeHere(ctx, c, req.NodeId, req.Force)
	case nodev1.MemberRequest_OP_PROMOTE:
		return n.promoteHere(ctx, c, raft.ServerID(req.NodeId), req.Force)
	case nodev1.MemberRequest_OP_TRANSFER:
		return n.transferHere(ctx, req.NodeId)
	}
	return fmt.Errorf("%w: unknown membership operation %d", errInvalid, req.Op)
}

// forgetRecord takes a removed member's record out of the state.
func (n *Node) forgetRecord(ctx context.Context, id string) {
	_, err := n.ProposeLocal(ctx, &fsmv1.Command{Op: &fsmv1.Command_PutNode{PutNode: &fsmv1.PutNode{
		Node: &fsmv1.NodeRecord{NodeId: id}, Remove: true,
	}}})
	if err != nil {
		n.log.Warn("record of removed member stays", "member", id, "err", err)
	}
}

func (n *Node) server(id string) (raft.Server, bool) {
	for _, s := range n.g.servers() {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// transferHere hands leadership over and waits until this node follows.
func (n *Node) transferHere(ctx context.Context, to string) error {
	c := n.g.core.Load()
	if c == nil || c.r.State() != raft.Leader {
		return nil
	}
	if to == n.cfg.NodeID {
		return nil
	}
	if len(n.voters()) == 1 && to == "" {
		return fmt.Errorf("%w: no other member has a vote, so that none can lead", ErrUnsafeChange)
	}
	if to == "" {
		allAnswer := true
		for _, s := range n.g.servers() {
			switch {
			case s.Suffrage != raft.Voter || string(s.ID) == n.cfg.NodeID:
			case !c.trans.reach.answers(s.ID):
				allAnswer = false
			default:
				to = string(s.ID)
			}
		}
		if allAnswer || to == "" {
			return waitRaft(ctx, c.r.LeadershipTransfer()) // to the most advanced
		}
	}
	s, ok := n.server(to)
	if !ok || s.Suffrage != raft.Voter {
		return fmt.Errorf("%w: %q is no voter", errInvalid, to)
	}
	// Raft hands a transfer to the replication of its target without a time-out.
	if !c.trans.reach.answers(s.ID) {
		return fmt.Errorf("%w: leadership is not handed to %s: %w", errNotSent, to, errUnreachable)
	}
	return waitRaft(ctx, c.r.LeadershipTransferToServer(s.ID, raft.ServerAddress(n.g.addrOf(s))))
}

// waitRaft waits for a Raft future no longer than ctx.
func waitRaft(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return classifyApply(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}

func timeoutOf(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return max(time.Until(d), time.Millisecond)
	}
	return defaultOpTimeout
}

// enterMembership waits for its turn to change the members, one at a time; leave ends
// it. A turn may take as long as it takes to ask members, so that waiting for it ends
// with ctx.
func (n *Node) enterMembership(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case n.membership <- struct{}{}:
		return func() { <-n.membership }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serveJoin admits a node. A member of the same id that lost its disk is
// removed first: what it acknowledged and whom it voted for is forgotten, so it
// must not count as the voter it was. Then it is a non-voter until autopilot
// finds it healthy. A member that still answers keeps its place: two processes
// under one id would take it from each other for ever.
func (n *Node) serveJoin(ctx context.Context, r *nodev1.JoinRequest) (*nodev1.JoinReply, error) {
	if r.Node == nil || r.Node.NodeId == "" || r.Node.RaftAddr == "" {
		return nil, fmt.Errorf("%w: join without id or address", errInvalid)
	}
	c, _, established := n.g.leading()
	if c == nil || !established {
		return nil, n.g.notLeader()
	}
	if err := n.superseded(); err != nil {
		return nil, err // nobody shall join what was given up
	}
	own := n.g.clusterID()
	if r.ClusterId != "" && r.ClusterId != own {
		return nil, fmt.Errorf("%w: %q has state of cluster %s, this is %s: remove its data directory to let it join", errWrongCluster, r.Node.NodeId, r.ClusterId, own)
	}
	if v := n.g.m.Facts().clusterVersion; r.Node.MaxClusterVersion < v {
		return nil, fmt.Errorf("%w: %q: %w", errInvalid, r.Node.NodeId, tooOld(v, r.Node.MaxClusterVersion))
	}
	leave, err := n.enterMembership(ctx)
	if err != nil {
		return nil, err // who asked has given up, and may have left meanwhile
	}
	defer leave()
	have, found := n.server(r.Node.NodeId)
	if r.Node.NodeId == n.cfg.NodeID {
		return nil, fmt.Errorf("%w: node id %q is the leader's own: ids must differ", errInvalid, r.Node.NodeId)
	}
	id, addr := raft.ServerID(r.Node.NodeId), raft.ServerAddress(r.Node.RaftAddr)
	if found && (r.Empty || have.Address != addr) {
		if at := n.answersElsewhere(ctx, have, r); at != "" {
			return nil, fmt.Errorf("%w: node id %q is taken: its member answers at %s with its data, and this is another process at %s: give it a node id of its own, or stop the member first",
				errInvalid, id, at, addr)
		}
	}
	if found && r.Empty {
		n.log.Warn("member returned without its data: taking it in anew", "member", id)
		if err := waitRaft(ctx, c.r.RemoveServer(id, 0, timeoutOf(ctx))); err != nil {
			return nil, fmt.Errorf("remove %s: %w", id, err)
		}
		found = false
	}
	n.book.learn(r.Node)
	reply := &nodev1.JoinReply{ClusterId: own}
	switch {
	case found && have.Suffrage == raft.Voter && have.Address != addr:
		err = waitRaft(ctx, c.r.AddVoter(id, addr, 0, timeoutOf(ctx)))
	case !found || have.Address != addr:
		f := c.r.AddNonvoter(id, addr, 0, timeoutOf(ctx))
		if err = waitRaft(ctx, f); err == nil && r.Empty {
			// The term may be newer than the entry's by now. No leader of this one or of a
			// later one is without the entry.
			reply.LogIndex, reply.Term = f.Index(), c.r.CurrentTerm()
			n.book.hear(r.Node.NodeId, reply.LogIndex)
		}
	}
	if err != nil {
		return nil, err
	}
	n.log.Info("member admitted", "member", id, "addr", addr)
	return reply, nil
}

// joinAsks is how often a member is asked whether it still lives before another
// process may have its place: one answer may be lost on a busy machine.
const joinAsks = 3

// answersElsewhere returns the address at which the member of a configuration
// answers with its data, if it is another process than the one that joins; "" if
// there is none.
func (n *Node) answersElsewhere(ctx context.Context, have raft.Server, joining *nodev1.JoinRequest) string {
	addrs := []string{string(have.Address)}
	if a := n.g.addrOf(have); a != addrs[0] {
		addrs = append(addrs, a)
	}
	for i := range joinAsks {
		if i > 0 {
			pause(ctx, helloPause)
		}
		// All at once: who asks to join waits no longer than a few seconds.
		answers := make(chan string, len(addrs))
		for _, a := range addrs {
			go func() {
				ctx, cancel := context.WithTimeout(ctx, helloTimeout)
				defer cancel()
				var r nodev1.HelloReply
				err := n.rpc.call(ctx, a, laneControl, methodHello, &nodev1.HelloRequest{ClusterId: n.g.clusterID()}, &r)
				if err != nil || !n.isAnother(&r, joining) {
					a = ""
				}
				answers <- a
			}()
		}
		found := ""
		for range addrs {
			if a := <-answers; a != "" {
				found = a
			}
		}
		if found != "" {
			return found
		}
	}
	return ""
}

// isAnother reports whether the process that answered is the registered member and
// not the one that joins. A joiner without data is told from it by the data, one
// with data by the address it goes by: its former one may still lead to it.
func (n *Node) isAnother(r *nodev1.HelloReply, joining *nodev1.JoinRequest) bool {
	if r.Node.GetNodeId() != joining.Node.NodeId || !r.Member || r.ClusterId != "" && r.ClusterId != n.g.clusterID() {
		return false
	}
	return joining.Empty || r.Node.RaftAddr != joining.Node.RaftAddr
}

// Snapshot takes a Raft snapshot now and returns its index and term.
func (n *Node) Snapshot(ctx context.Context) (index, term uint64, err error) {
	c := n.g.core.Load()
	if c == nil {
		return 0, 0, ErrClosed
	}
	if err := waitRaft(ctx, c.r.Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return 0, 0, fmt.Errorf("node: snapshot: %w", err)
	}
	metas, err := n.g.snaps.List()
	if err != nil {
		return 0, 0, err
	}
	if len(metas) == 0 {
		return 0, 0, errors.New("node: nothing to snapshot yet")
	}
	return metas[0].Index, metas[0].Term, nil
}
