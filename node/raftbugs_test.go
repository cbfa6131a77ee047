// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// dialOnly is a stream layer for a stranger that only calls.
type dialOnly struct {
	m    *mux
	done chan struct{}
}

func (d dialOnly) Accept() (net.Conn, error) { <-d.done; return nil, io.EOF }
func (d dialOnly) Close() error              { close(d.done); return nil }
func (d dialOnly) Addr() net.Addr            { return dnsAddr("stranger:1") }
func (d dialOnly) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.m.dial(ctx, string(addr), streamRaft, groupID)
}

// hashicorp/raft issue 695: an idle leader gets a heartbeat of a newer term and
// then a proposal. With the library's heartbeat fast path the entry is stored
// with the newer term, in which another node leads. Here it must never be.
func TestHeartbeatOfNewerTermDoesNotStampEntries(t *testing.T) {
	c := startCluster(t, 1, nil)
	n := c.leader()
	tr := raft.NewNetworkTransport(dialOnly{n.mux, make(chan struct{})}, 1, time.Second, io.Discard)
	defer func() { tr.CloseStreams(); tr.Close() }()
	for range 8 {
		n = c.leader()
		core := n.g.core.Load()
		newer := core.r.CurrentTerm() + 5
		req := &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("other"), Addr: []byte("other:1")},
			Term:      newer, Leader: []byte("other:1"),
		}
		var resp raft.AppendEntriesResponse
		if err := tr.AppendEntries("n1", raft.ServerAddress(c.addrs["n1"]), req, &resp); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, _ = n.ProposeLocal(ctx, put("x"))
		cancel()
		last, err := core.ls.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(1); i <= last; i++ {
			if core.ls.termAt(i) == newer {
				t.Fatalf("entry %d carries term %d, in which this node never led", i, newer)
			}
		}
	}
}

// A leader cut off from the other voters, but not from non-voters, must not
// confirm a read: raft.VerifyLeader would, for as long as its lease lasts.
func TestNonVotersDoNotConfirmReads(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3"}, func(cfg *Config) {
		cfg.HeartbeatTimeout = 3 * time.Second // the lease outlasts the test
		if cfg.NodeID == "n4" || cfg.NodeID == "n5" {
			cfg.ReadReplica = true
			cfg.BootstrapExpect = 3
		}
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		c.start(name)
	}
	l := c.leader()
	for _, name := range []string{"n4", "n5"} {
		c.addrs[name] = freeAddr(t)
		c.net.name(c.addrs[name], name)
		c.start(name)
	}
	c.wait("two non-voters", func() bool {
		non := 0
		for _, m := range l.Members() {
			if !m.Voter {
				non++
			}
		}
		return non == 2 && c.mem["n5"].Applied() > 0 && c.mem["n4"].Applied() > 0
	})
	if err := l.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatalf("read before the cut: %v", err)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != l.ID() {
			c.net.set(l.ID(), name, true)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := l.awaitRead(ctx, ReadOptions{}); err == nil {
		t.Fatal("a leader without a majority of voters confirmed a read")
	}
	if l.g.core.Load().r.State() != raft.Leader {
		t.Fatal("the leader stepped down: the test shows nothing")
	}
	if err := l.awaitRead(context.Background(), ReadOptions{Consistency: Eventual}); err != nil {
		t.Fatalf("eventual read: %v", err)
	}
}

// Before a leader has committed an entry of its own term, its commit index may
// be behind what was acknowledged, so it confirms nothing.
func TestNoReadIndexBeforeOwnTermEntry(t *testing.T) {
	c := startCluster(t, 3, nil)
	l := c.leader()
	term := l.g.established.Swap(0)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := l.awaitRead(ctx, ReadOptions{}); !errors.Is(err, ErrNoLeader) {
		t.Fatalf("read of a leader that is not established: %v", err)
	}
	l.g.established.Store(term)
	if err := l.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
}

// Proposals of a leader that is cut off are of unknown outcome, never "not the
// leader"; one with a request id is settled once the cluster is whole.
func TestLostLeadershipIsUnknown(t *testing.T) {
	c := startCluster(t, 3, nil)
	var l *Node
	for {
		l = c.leader()
		c.net.isolate(l.ID(), true)
		_, err := l.Propose(c.ctx(), put("without id"))
		if errors.Is(err, ErrUnknownOutcome) {
			break
		}
		// A busy machine may take so long that it leads no more when it is asked.
		if !errors.Is(err, ErrNoLeader) {
			t.Fatalf("got %v, want unknown", err)
		}
		c.net.isolate(l.ID(), false)
	}
	done := make(chan error, 1)
	go func() {
		cmd := put("with id")
		cmd.RequestId = "r1"
		_, err := l.Propose(c.ctx(), cmd)
		done <- err
	}()
	c.nextLeader(l)
	c.net.isolate(l.ID(), false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := l.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.mem[l.ID()].doc("with id"); !ok {
		t.Fatal("acknowledged write is missing")
	}
}

// hashicorp/raft issue 697: a member with a conflicting tail that nobody
// committed, so far behind that it needs a snapshot, must take it once and go
// on. Both log stores.
func TestConflictingTailThenSnapshot(t *testing.T) {
	for _, store := range []string{logStoreWAL, logStoreBolt} {
		t.Run(store, func(t *testing.T) {
			c := startCluster(t, 3, func(cfg *Config) {
				cfg.LogStore = store
				cfg.TrailingLogs = 4
			})
			old := c.leader()
			c.put(old, "before")
			c.net.isolate(old.ID(), true)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					if _, err := old.ProposeLocal(ctx, put(fmt.Sprintf("lost%d", i))); err == nil {
						t.Error("a leader without a quorum acknowledged a write")
					}
				})
			}
			wg.Wait()
			oldLast := old.Status().LastLogIndex
			next := c.nextLeader(old)
			for i := range 40 {
				c.put(next, fmt.Sprintf("new%d", i))
			}
			if _, _, err := next.Snapshot(c.ctx()); err != nil {
				t.Fatal(err)
			}
			if first := next.Status().FirstLogIndex; first <= oldLast {
				t.Fatalf("log starts at %d, the cut-off leader ends at %d: no snapshot will be needed", first, oldLast)
			}
			c.net.isolate(old.ID(), false)
			c.wait("the old leader to catch up", func() bool { return old.awaitRead(c.ctx(), ReadOptions{}) == nil && old.Ready() == nil })
			if _, ok := c.mem[old.ID()].doc("new39"); !ok {
				t.Fatal("the old leader misses a committed write")
			}
			if _, ok := c.mem[old.ID()].doc("lost0"); ok {
				if _, elsewhere := c.mem[next.ID()].doc("lost0"); !elsewhere {
					t.Fatal("the old leader kept a write nobody else has")
				}
			}
			c.put(old, "after")
			verifyEqual(t, c)
		})
	}
}

// The state that comes with a snapshot may be newer than the snapshot. If the
// leader forgets the entries between the two before the member has them, the
// member needs the next snapshot: that its state covers it does not mean that its
// log can go on from there. But no state may take the place of a newer one.
func TestSnapshotThatTheStateCoversButTheLogDoesNot(t *testing.T) {
	c := startCluster(t, 3, nil)
	f := c.follower()
	at := c.put(c.leader(), "x")
	c.wait("the member to have it", func() bool { return f.Status().AppliedIndex >= at })
	core := f.g.core.Load()
	term := core.r.CurrentTerm()
	if !f.g.alreadyHas(at, core.ls.termAt(at)) || !f.g.alreadyHas(1, 1) {
		t.Error("a snapshot would be installed of what this node has in its log")
	}
	const ahead = 1000
	f.g.ad.advance(at + ahead) // as an installation does
	if f.g.alreadyHas(at+ahead/2, term) {
		t.Error("a snapshot is taken for done that the log cannot go on from")
	}
	req := &raft.InstallSnapshotRequest{Term: term, LastLogIndex: at + ahead/2, LastLogTerm: term}
	b, err := proto.Marshal(&nodev1.Manifest{Format: 1, AppliedIndex: at + ahead - 1, ExportId: "e", SourceAddr: "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	req.Size = int64(len(b))
	answer := make(chan raft.RPCResponse, 1)
	f.g.receiveSnapshot(raft.RPC{Command: req, Reader: bytes.NewReader(b), RespChan: answer}, req, func(raft.RPC) {
		t.Error("an older state was about to take the place of a newer one")
	})
	if r := <-answer; r.Error == nil || !strings.Contains(r.Error.Error(), "older than") {
		t.Errorf("answered %v, %v", r.Response, r.Error)
	}
}

// A snapshot that waits while another one is fetched does not keep its node from closing.
func TestSnapshotThatWaitsForItsTurnEndsWithItsNode(t *testing.T) {
	c := startCluster(t, 3, nil)
	f := c.follower()
	b, err := proto.Marshal(&nodev1.Manifest{Format: 1, ExportId: "e", SourceAddr: "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	f.g.staging <- struct{}{} // another one is fetched, and its source does not answer
	req := &raft.InstallSnapshotRequest{Term: f.g.core.Load().r.CurrentTerm(), Size: int64(len(b))}
	answer := make(chan raft.RPCResponse, 1)
	f.g.admit(f.g.core.Load(), raft.RPC{Command: req, Reader: bytes.NewReader(b), RespChan: answer}, func(raft.RPC) {
		t.Error("it was installed out of turn")
	})
	if err := f.Close(c.ctx()); err != nil {
		t.Error(err)
	}
	if r := <-answer; !errors.Is(r.Error, ErrClosed) {
		t.Errorf("answered %v, %v", r.Response, r.Error)
	}
}

// A node that finds no leader for long gives candidates more time, and goes
// back to the configured time-out once there is a leader.
func TestElectionsAreCalmedAndSpedUpAgain(t *testing.T) {
	const base = 60 * time.Millisecond
	c := startCluster(t, 3, func(cfg *Config) { cfg.HeartbeatTimeout = base })
	f := c.follower()
	timeout := func() time.Duration { return f.g.core.Load().r.ReloadableConfig().ElectionTimeout }
	c.wait("the member to follow", func() bool { return timeout() == base && f.Ready() == nil })
	c.net.isolate(f.ID(), true)
	c.wait("a longer time-out", func() bool { return timeout() > base })
	c.net.isolate(f.ID(), false)
	c.wait("the configured time-out", func() bool { return timeout() == base && f.Ready() == nil })
	c.put(f, "x")
}
