// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
)

// The last committed entry of an idle cluster may be one that no state machine
// is told of; a read must not wait for it for ever.
func TestReadAfterMembershipChangeOnAnIdleCluster(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.StateCheckInterval = -1 })
	c.wait("all records", func() bool { return len(c.mem["n1"].Facts().nodes) == 3 })
	l := c.leader()
	// A member that does not exist: nothing follows its entry.
	if err := l.AddMember(c.ctx(), "ghost", "127.0.0.1:1", false); err != nil {
		t.Fatal(err)
	}
	for name, n := range c.nodes {
		if err := n.awaitRead(c.ctx(), ReadOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A session read waits for its token and for nothing else; tokens of another
// cluster and malformed ones are refused.
func TestSessionTokens(t *testing.T) {
	c := startCluster(t, 3, nil)
	n := c.leader()
	at := c.put(n, "x")
	f := c.follower()
	index, err := f.ParseToken(n.Token(at))
	if err != nil || index != at {
		t.Fatalf("%d, %v", index, err)
	}
	if err := f.awaitRead(c.ctx(), ReadOptions{Consistency: Session, MinIndex: index}); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.mem[f.ID()].doc("x"); !ok {
		t.Fatal("own write not seen")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := f.awaitRead(ctx, ReadOptions{Consistency: Session, MinIndex: at + 1000}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a token from the future: %v", err)
	}
	if i, err := f.ParseToken(""); err != nil || i != 0 {
		t.Errorf("no token: %d, %v", i, err)
	}
	for _, bad := range []string{"7", "x.7", "deadbeef.7", n.Token(1)[:9], n.Token(1) + "x", n.Token(1)[:9] + "-1"} {
		if _, err := f.ParseToken(bad); !errors.Is(err, ErrBadToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A member may forward a write before it has applied the entry that names its
// cluster. The token it gives must be good at the others, which know it; that of
// a read before anything is known is empty and asks for nothing.
func TestTokenBeforeTheClusterIsKnown(t *testing.T) {
	gate := make(chan struct{})
	names := []string{"n1", "n2", "n3"}
	c := newCluster(t, names, nil)
	c.conf = func(cfg *Config) {
		if cfg.NodeID == "n1" {
			return // and with the shortest patience it leads
		}
		cfg.HeartbeatTimeout = 3 * time.Second
		name := cfg.NodeID
		cfg.openMachine = func(_ context.Context, dir string) (machine, error) {
			m, err := openMem(dir)
			m.applyGate = gate
			c.mem[name] = m
			return m, err
		}
	}
	for _, n := range names {
		c.start(n)
	}
	defer close(gate)
	if l := c.leader(); l.ID() != "n1" {
		t.Fatalf("%s leads", l.ID())
	}
	f, o := c.nodes["n2"], c.nodes["n1"]
	if tok := f.Token(0); tok != "" {
		t.Errorf("token of a member that knows nothing: %q", tok)
	}
	at := c.put(f, "x")
	if id := f.g.clusterID(); id != "" {
		t.Fatalf("n2 has applied what it should not: cluster %s", id)
	}
	if index, err := o.ParseToken(f.Token(at)); err != nil || index != at {
		t.Fatalf("token %q: %d, %v; want %d", f.Token(at), index, err, at)
	}
}

// A replica that is cut off serves bounded reads until the bound has passed.
func TestBoundedReads(t *testing.T) {
	c := startCluster(t, 3, nil)
	f := c.follower()
	o := ReadOptions{Consistency: Bounded, MaxStaleness: time.Hour}
	// It may not have heard of its leader yet.
	c.wait("a bounded read", func() bool { return f.awaitRead(c.ctx(), o) == nil })
	c.net.isolate(f.ID(), true)
	if err := f.awaitRead(c.ctx(), o); err != nil {
		t.Fatalf("within the bound: %v", err)
	}
	if err := f.awaitRead(c.ctx(), ReadOptions{Consistency: Bounded, MaxStaleness: time.Nanosecond}); !errors.Is(err, ErrTooStale) {
		t.Fatalf("beyond the bound: %v", err)
	}
	if err := f.awaitRead(c.ctx(), ReadOptions{Consistency: Eventual}); err != nil {
		t.Fatalf("eventual: %v", err)
	}
}

// A replica whose state is not to be trusted serves nothing, is not ready, and
// everybody is told.
func TestDivergedReplicaIsFenced(t *testing.T) {
	c := startCluster(t, 3, nil)
	f := c.follower()
	m := c.mem[f.ID()]
	m.mu.Lock()
	m.diverged = errors.New("hash differs")
	m.mu.Unlock()
	for _, k := range []Consistency{Linearizable, Session, Bounded, Eventual} {
		if err := f.awaitRead(c.ctx(), ReadOptions{Consistency: k, MaxStaleness: time.Hour}); !errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v", k, err)
		}
	}
	if err := f.Ready(); !errors.Is(err, ErrFenced) {
		t.Errorf("ready: %v", err)
	}
	c.wait("the alarm on another node", func() bool {
		for _, a := range c.mem[c.leader().ID()].Facts().alarms {
			if a.Kind == AlarmDiverged && a.NodeID == f.ID() {
				return true
			}
		}
		return false
	})
	// A restart does not lift the fence, which was only ever the machine's word.
	c.stop(f.ID())
	f = c.start(f.ID())
	if err := f.Ready(); !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "hash differs") {
		t.Errorf("after a restart: %v", err)
	}
}

// A leader whose state went astray does not take the others for wrong: it fences
// itself and does not lead for long.
func TestDivergedLeaderFencesItself(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.StateCheckInterval = 20 * time.Millisecond })
	l := c.leader()
	m := c.mem[l.ID()]
	m.mu.Lock()
	m.st.Hash[0] ^= 1
	m.mu.Unlock()
	c.put(l, "after")
	c.wait("the leader's fence", func() bool {
		// The machine of these tests does not compare hashes itself, so that only a
		// leader finds out; a busy machine may have made another one meanwhile.
		for _, n := range c.nodes {
			if n != l {
				_ = n.transferHere(c.ctx(), l.ID())
			}
		}
		return errors.Is(l.Ready(), ErrFenced)
	})
	c.wait("another leader", func() bool { id, _ := l.g.leader(); return id != "" && id != l.ID() })
	for id, n := range c.nodes {
		if n != l {
			c.wait(id+" to serve", func() bool { return n.Ready() == nil })
		}
	}
}

// A read that waits while its replica is found to differ is not answered from it.
func TestReadThatWaitsIsFencedToo(t *testing.T) {
	c := startCluster(t, 3, nil)
	at := c.put(c.leader(), "x")
	f := c.follower()
	c.wait("the write on the follower", func() bool { return f.g.ad.applied() >= at })
	m, gate := c.mem[f.ID()], make(chan struct{})
	m.mu.Lock()
	m.applyGate = gate
	m.mu.Unlock()
	next := c.put(c.leader(), "y")
	read := make(chan error, 1)
	ctx := c.ctx()
	go func() { read <- f.awaitRead(ctx, ReadOptions{Consistency: Session, MinIndex: next}) }()
	c.wait("the read to wait", func() bool {
		f.g.ad.mu.Lock()
		defer f.g.ad.mu.Unlock()
		return f.g.ad.wake != nil
	})
	m.mu.Lock()
	m.diverged, m.applyGate = raftfsm.ErrDiverged, nil
	m.mu.Unlock()
	close(gate)
	if err := <-read; !errors.Is(err, ErrFenced) {
		t.Errorf("answered by a fenced replica: %v", err)
	}
}

// Damage that a scrub finds has the same effect, under its own alarm.
func TestDamagedReplicaIsFenced(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.ScrubInterval = 20 * time.Millisecond })
	f := c.follower()
	m := c.mem[f.ID()]
	m.mu.Lock()
	m.damage = fmt.Errorf("table 7: %w", raftfsm.ErrCorrupt)
	m.mu.Unlock()
	c.wait("the fence", func() bool { return errors.Is(f.Ready(), ErrFenced) })
	c.wait("the alarm", func() bool {
		for _, a := range c.mem[c.leader().ID()].Facts().alarms {
			if a.Kind == AlarmCorrupt && a.NodeID == f.ID() {
				return true
			}
		}
		return false
	})
}

// A read that met damage has all of the state read, long before that is due.
func TestSuspicionIsLookedInto(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.ScrubInterval = -1 })
	f := c.follower()
	m := c.mem[f.ID()]
	m.mu.Lock()
	m.damage = fmt.Errorf("table 7: %w", raftfsm.ErrCorrupt)
	m.mu.Unlock()
	f.Suspect(m.damage)
	c.wait("the fence", func() bool { return errors.Is(f.Ready(), ErrFenced) })
}

// A leader that meets damage as it applies does not end, nor does it answer: what it
// was given is with the others, one of which leads then. Its reads are refused, those
// too that wait for what it will never apply, and so it is after a restart.
func TestDamageWhileApplyingFences(t *testing.T) {
	c := startCluster(t, 3, nil)
	l := c.leader()
	c.put(l, "before")
	m := c.mem[l.ID()]
	waiting := make(chan error, 1)
	go func() { waiting <- l.awaitRead(c.ctx(), ReadOptions{Consistency: Session, MinIndex: 1 << 40}) }()
	m.mu.Lock()
	m.spoilt = fmt.Errorf("table 7: %w", raftfsm.ErrCorrupt)
	m.mu.Unlock()
	during, err := encodeCommand(put("during"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.proposeOnce(c.ctx(), during); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("a write that the leader could not apply: %v", err)
	}
	if err := <-waiting; !errors.Is(err, ErrFenced) {
		t.Errorf("a read that waited for it: %v", err)
	}
	if err := l.awaitRead(c.ctx(), ReadOptions{Consistency: Eventual}); !errors.Is(err, ErrFenced) {
		t.Errorf("a read after it: %v", err)
	}
	if _, err := l.g.ad.Snapshot(); !errors.Is(err, raftfsm.ErrCorrupt) {
		t.Errorf("a snapshot of what was not applied: %v", err)
	}
	if said, is := l.g.ad.applied(), m.Applied(); said > is {
		t.Errorf("it says that it applied %d, and applied %d", said, is)
	}
	next := c.nextLeader(l)
	c.wait("the write on the next leader", func() bool { _, ok := c.mem[next.ID()].doc("during"); return ok })
	c.put(next, "after")
	c.wait("the alarm", func() bool {
		for _, a := range c.mem[next.ID()].Facts().alarms {
			if a.Kind == AlarmCorrupt && a.NodeID == l.ID() {
				return true
			}
		}
		return false
	})
	c.wait("the fence on the disk", func() bool { _, err := os.Stat(l.fencePath()); return err == nil })
	c.stop(l.ID())
	if again := c.start(l.ID()); !errors.Is(again.Ready(), ErrFenced) {
		t.Errorf("after a restart: %v", again.Ready())
	}
}

// Budgets: writes of documents are refused with a pause while reads go on.
func TestUsedUpBudgetRefusesWrites(t *testing.T) {
	c := startCluster(t, 1, func(cfg *Config) { cfg.MaxApplyLag = 1 })
	n := c.leader()
	gate := make(chan struct{})
	c.mem["n1"].mu.Lock()
	c.mem["n1"].applyGate = gate
	c.mem["n1"].mu.Unlock()
	first := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := n.Propose(context.Background(), put("slow"))
			first <- err
		}()
	}
	var o *OverloadedError
	c.wait("a refusal", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err := n.Propose(ctx, put("more"))
		return errors.As(err, &o)
	})
	if o.Budget != "apply lag" || o.RetryAfter <= 0 {
		t.Errorf("%+v", o)
	}
	if err := n.awaitRead(c.ctx(), ReadOptions{Consistency: Eventual}); err != nil {
		t.Error(err)
	}
	c.mem["n1"].mu.Lock()
	c.mem["n1"].applyGate = nil
	c.mem["n1"].mu.Unlock()
	close(gate)
	for range 3 {
		// The last of them may have found the budget used up by the others.
		if err := <-first; err != nil && !errors.As(err, &o) {
			t.Error(err)
		}
	}
	c.wait("writes again", func() bool {
		_, err := n.Propose(context.Background(), put("later"))
		return err == nil
	})
}

// A snapshot request that arrives late, or again, must not take away what the
// node has applied since: the library would install it.
func TestLateSnapshotDoesNotSetBack(t *testing.T) {
	c := startCluster(t, 3, nil)
	for range 20 {
		c.put(c.leader(), "x")
	}
	f := c.follower()
	if err := f.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	before := f.Status()
	core := f.g.core.Load()
	man := mustMarshal(t, &nodev1.Manifest{Format: 1, AppliedIndex: 5, ExportId: "old", SourceAddr: "127.0.0.1:1"})
	stranger := raft.NewNetworkTransport(dialOnly{c.leader().mux, make(chan struct{})}, 1, time.Second, io.Discard)
	defer func() { stranger.CloseStreams(); stranger.Close() }()
	lid, laddr := f.g.leader()
	req := &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(lid), Addr: []byte(laddr)},
		SnapshotVersion: raft.SnapshotVersionMax, Term: core.r.CurrentTerm(), Leader: []byte(laddr),
		LastLogIndex: 5, LastLogTerm: core.ls.termAt(5), Size: int64(len(man)),
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: f.g.servers()}), ConfigurationIndex: 1,
	}
	var resp raft.InstallSnapshotResponse
	if err := stranger.InstallSnapshot(raft.ServerID(f.ID()), raft.ServerAddress(c.addrs[f.ID()]), req, &resp, bytes.NewReader(man)); err != nil {
		t.Fatal(err)
	}
	if !resp.Success {
		t.Error("the sender would try again")
	}
	if after := f.Status(); after.AppliedIndex < before.AppliedIndex || after.LastLogIndex < before.LastLogIndex {
		t.Errorf("set back from %d to %d", before.LastLogIndex, after.LastLogIndex)
	}
	// Should it come as far as Raft all the same, the sink refuses it there.
	sink, err := f.g.snaps.Create(raft.SnapshotVersionMax, 5, req.LastLogTerm, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(man); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("the sink took a snapshot from before the applied index")
	}
}

// Verify holds no writes back, also while it waits for a member that is silent.
func TestVerifyHoldsNothingBack(t *testing.T) {
	c := startCluster(t, 3, nil)
	f := c.follower()
	c.stop(f.ID())
	mute, err := net.Listen("tcp", c.addrs[f.ID()]) // as a paused process: it is there and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	l := c.leader()
	// A connection from before the stop may break at once, and nobody waits then.
	for try := 1; ; try++ {
		writes, out := writesWhileVerifying(c, l)
		for _, h := range out {
			if (h.Err != "") != (h.NodeID == f.ID()) {
				t.Errorf("%+v", h)
			}
		}
		if writes >= 3 {
			return
		}
		if try == 5 {
			t.Fatalf("%d writes while it waited for %s: %+v", writes, f.ID(), out)
		}
	}
}

// writesWhileVerifying counts the writes that came through during a Verify.
func writesWhileVerifying(c *cluster, l *Node) (writes int, out []MemberHash) {
	c.t.Helper()
	verified := make(chan struct{})
	go func() {
		defer close(verified)
		var err error
		if out, err = l.Verify(c.ctx()); err != nil {
			c.t.Error(err)
		}
	}()
	for ; ; writes++ {
		c.put(l, fmt.Sprintf("meanwhile%d", writes))
		select {
		case <-verified:
			return writes, out
		default:
		}
	}
}

// What a read returns that a closing node refuses names the cause, and there is one.
func TestReadOfAClosingNodeNamesItsCause(t *testing.T) {
	c := startCluster(t, 1, nil)
	n := c.leader()
	reads := newReadBarrier(n.g)
	reads.local.wg = new(crew)
	reads.local.wg.Wait() // as of a node that closes: it takes no more work
	if err := reads.linearizable(c.ctx()); !errors.Is(err, ErrClosed) || strings.Contains(err.Error(), "%!") {
		t.Fatalf("got %v", err)
	}
}
