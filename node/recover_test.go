// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
)

func (c *cluster) wipe(name string) {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
		c.t.Fatal(err)
	}
}

// clusterID waits until every node knows what it belongs to.
func (c *cluster) clusterID() string {
	c.t.Helper()
	id := c.leader().g.clusterID()
	c.wait("every node to know the cluster", func() bool {
		for _, n := range c.nodes {
			if n.g.clusterID() != id {
				return false
			}
		}
		return true
	})
	return id
}

// As long as another member answers, recovery is refused: it says which and where,
// and the node is still the member that it was.
func TestRecoverRefusesWhileAMemberAnswers(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "before")
	id := c.clusterID()
	c.stop("n3")
	confirm := RecoverConfirmation{ClusterID: id, NodeID: "n3"}
	refused := func(confirm RecoverConfirmation, names ...string) {
		t.Helper()
		_, err := Recover(t.Context(), c.config("n3"), confirm)
		if !errors.Is(err, ErrMembersLive) || !strings.Contains(err.Error(), "nothing was changed") {
			t.Fatalf("recovered: %v", err)
		}
		for _, n := range names {
			if !strings.Contains(err.Error(), n+" answers at "+c.addrs[n]) {
				t.Errorf("no word of %s: %v", n, err)
			}
		}
	}
	refused(confirm, "n1", "n2")
	c.stop("n1") // the majority is gone, but n2 may hold more
	refused(confirm, "n2")
	confirm.Gone = []string{"n1", "n2"}
	refused(confirm, "n2")
	c.start("n1")
	n := c.start("n3")
	c.put(n, "after")
	c.wait("n3 to be a member as before", func() bool { return n.Ready() == nil && n.g.clusterID() == id })
}

// A survivor whose state is damaged is not made a cluster of: it cannot hold what
// its log does.
func TestRecoverRefusesDamagedState(t *testing.T) {
	damage := fmt.Errorf("table 7: %w", raftfsm.ErrCorrupt)
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "before")
	id := c.clusterID()
	for _, n := range c.names {
		c.stop(n)
	}
	if err := os.Remove(filepath.Join(c.mem["n3"].dir, "mem.json")); err != nil { // its log has all of it
		t.Fatal(err)
	}
	cfg := c.config("n3")
	open := cfg.openMachine
	cfg.openMachine = func(ctx context.Context, dir string) (machine, error) {
		m, err := open(ctx, dir)
		if err == nil {
			m.(*memMachine).spoilt = damage
		}
		return m, err
	}
	confirm := RecoverConfirmation{ClusterID: id, NodeID: "n3"}
	if _, err := Recover(t.Context(), cfg, confirm); !errors.Is(err, raftfsm.ErrCorrupt) || !strings.Contains(err.Error(), "another survivor") {
		t.Fatalf("recovered: %v", err)
	}
	if out, err := Recover(t.Context(), c.config("n3"), confirm); err != nil || out.Unconfirmed == 0 {
		t.Fatalf("once it is mended: %+v, %v", out, err)
	}
}

// What listens at a member's address and does not talk may be that member behind
// TLS: it counts as alive until somebody says otherwise.
func TestRecoverTakesASilentListenerForAMember(t *testing.T) {
	c := startCluster(t, 3, nil)
	id := c.clusterID()
	for _, n := range c.names {
		c.stop(n)
	}
	ln, err := net.Listen("tcp", c.addrs["n1"])
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	confirm := RecoverConfirmation{ClusterID: id, NodeID: "n3"}
	if _, err := Recover(t.Context(), c.config("n3"), confirm); !errors.Is(err, ErrMembersLive) || !strings.Contains(err.Error(), "--gone n1") {
		t.Fatalf("recovered: %v", err)
	}
	confirm.Gone = []string{"n9"}
	if _, err := Recover(t.Context(), c.config("n3"), confirm); err == nil || !strings.Contains(err.Error(), `no member "n9"`) {
		t.Fatalf("recovered: %v", err)
	}
	confirm.Gone = []string{"n1"}
	if out, err := Recover(t.Context(), c.config("n3"), confirm); err != nil || len(out.Silent) != 2 {
		t.Fatalf("%+v, %v", out, err)
	}
}

// A recovered cluster and what is left of the one before have nothing to say to
// each other: the old members go out of service and say why, none of them is let
// in with what it holds, and emptied they join the recovered one, whoever else
// answers them.
func TestOldMembersAreNoneOfTheRecoveredCluster(t *testing.T) {
	c := startCluster(t, 3, realConf)
	col := createCollection(t, c.leader(), realDim)
	at := mustWrite(t, c.leader(), upsert(col, "before", realDim, 1))
	token := c.leader().Token(at)
	old := c.clusterID()
	c.wait("the write on n1", func() bool { return c.nodes["n1"].g.ad.applied() >= at })
	for _, n := range c.names {
		c.stop(n)
	}
	cfg := c.config("n1")
	cfg.NodeID, cfg.RaftAddr = "", "" // the data directory tells
	out, err := Recover(t.Context(), cfg, RecoverConfirmation{ClusterID: old, NodeID: "n1"})
	if err != nil || out.NodeID != "n1" || !supersedes(out.ClusterID, old) {
		t.Fatalf("recover: %+v, %v", out, err)
	}
	n1 := c.start("n1")
	c.wait("n1 to serve alone", func() bool { return n1.Ready() == nil && n1.g.clusterID() == out.ClusterID })
	mustWrite(t, n1, upsert(col, "after", realDim, 2))
	if _, err := n1.ParseToken(token); !errors.Is(err, ErrBadToken) {
		t.Errorf("a token of before: %v", err)
	}

	n2, n3 := c.start("n2"), c.start("n3")
	for _, n := range []*Node{n2, n3} {
		c.wait(n.ID()+" to be out of service", func() bool {
			err := n.Ready()
			return errors.Is(err, ErrFenced) && strings.Contains(err.Error(), "recovered as "+out.ClusterID) && strings.Contains(err.Error(), "move its data directory away")
		})
		if _, err := n.Read(t.Context(), ReadOptions{Consistency: Eventual}); !errors.Is(err, ErrFenced) {
			t.Errorf("%s answers reads: %v", n.ID(), err)
		}
	}
	c.wait("n2 and n3 to have elected a leader", func() bool { id, _ := n2.g.leader(); return id != "" })
	if _, err := n2.Propose(t.Context(), upsert(col, "stale", realDim, 3)); !errors.Is(err, ErrFenced) {
		t.Errorf("a write to the old cluster: %v", err)
	}
	ask := func(from, to *Node) error {
		return from.rpc.call(c.ctx(), to.RaftAddr(), laneControl, methodStats, &nodev1.StatsRequest{}, &nodev1.StatsReply{})
	}
	if err := ask(n2, n1); !errors.Is(err, errWrongCluster) || !strings.Contains(err.Error(), "recovered") {
		t.Errorf("n2 asks n1: %v", err)
	}
	if err := ask(n1, n2); !errors.Is(err, errWrongCluster) || !strings.Contains(err.Error(), "recovered") {
		t.Errorf("n1 asks n2: %v", err)
	}
	for _, pair := range [][2]*Node{{n2, n1}, {n1, n2}} {
		for _, kind := range []streamKind{streamRaft, streamFetch} {
			conn, err := pair[0].mux.dial(c.ctx(), pair[1].RaftAddr(), kind, groupID)
			if err != nil {
				t.Fatal(err)
			}
			if k, err := conn.Read(make([]byte, 1)); err == nil || k > 0 {
				t.Errorf("%s took a %c stream of %s", pair[1].ID(), kind, pair[0].ID())
			}
			conn.Close()
		}
	}
	if _, err := n1.serveJoin(c.ctx(), &nodev1.JoinRequest{Node: n2.selfInfo(), ClusterId: old}); !errors.Is(err, errWrongCluster) {
		t.Errorf("n1 takes n2 in: %v", err)
	}
	if len(n1.Members()) != 1 {
		t.Errorf("members of the recovered cluster: %+v", n1.Members())
	}

	for _, name := range []string{"n2", "n3"} {
		c.stop(name)
		c.wipe(name)
		n := c.start(name) // while old n3 still answers n2
		c.wait(name+" to join the recovered cluster", func() bool { return n.Ready() == nil && n.g.clusterID() == out.ClusterID && n.Status().Voter })
		if readDoc(t, n, ReadOptions{}, col, "after") == nil || readDoc(t, n, ReadOptions{}, col, "stale") != nil {
			t.Errorf("%s does not hold what n1 does", name)
		}
	}
	verifyEqual(t, c)
	mustWrite(t, c.nodes["n3"], upsert(col, "together", realDim, 4))
}

// A recovery that was interrupted leaves a node that does not start, and goes on
// when it is run again, wherever it stopped, towards the same new cluster.
func TestInterruptedRecoveryGoesOn(t *testing.T) {
	c := startCluster(t, 3, nil)
	var at uint64
	for i := range 5 {
		at = c.put(c.leader(), fmt.Sprintf("d%d", i))
	}
	old := c.clusterID()
	c.wait("the data on n1", func() bool { return c.nodes["n1"].g.ad.applied() >= at })
	for _, n := range c.names {
		c.stop(n)
	}
	begin := func(next string) {
		t.Helper()
		s, err := openOffline(context.Background(), c.config("n1"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if err := s.setIdentity(identity{Member: true, ClusterID: old, Recovering: next}); err != nil {
			t.Fatal(err)
		}
	}
	next := recoveredID(old)
	for range 2 { // right after it began, and right before it ended
		begin(next)
		if _, err := Open(t.Context(), c.config("n1")); err == nil || !strings.Contains(err.Error(), "run akidb cluster recover again") {
			t.Fatalf("started half recovered: %v", err)
		}
		if in, err := Inspect(t.Context(), c.config("n1")); err != nil || !in.Recovering || in.ClusterID != old {
			t.Fatalf("inspect: %+v, %v", in, err)
		}
		out, err := Recover(t.Context(), c.config("n1"), RecoverConfirmation{ClusterID: old, NodeID: "n1"})
		if err != nil || out.ClusterID != next {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	n := c.start("n1")
	c.put(n, "after")
	if n.g.clusterID() != next || c.mem["n1"].st.ClusterID != next {
		t.Errorf("cluster %s, in the state %s, want %s", n.g.clusterID(), c.mem["n1"].st.ClusterID, next)
	}
	if _, ok := c.mem["n1"].doc("d4"); !ok {
		t.Error("data is gone")
	}
}

func TestLineage(t *testing.T) {
	const a, b = "01234567-89ab-4def-8123-456789abcdef", "76543210-89ab-4def-8123-456789abcdef"
	a1, other := recoveredID(a), recoveredID(a)
	a2 := recoveredID(a1)
	if len(a2) > 64 || tokenPrefix(a) == tokenPrefix(a1) || tokenPrefix(a1) == tokenPrefix(a2) {
		t.Errorf("%s, %s", a1, a2)
	}
	for _, tc := range []struct {
		newer, older string
		want         bool
	}{
		{a1, a, true}, {a2, a, true}, {a2, a1, true}, {a, a1, false}, {a1, a2, false}, {a, a, false}, {a1, other, false},
		{a1, b, false}, {b, a, false}, {a1, "", false}, {"", a, false}, {"c", "c", false}, {"-r-", "", false},
	} {
		if got := supersedes(tc.newer, tc.older); got != tc.want {
			t.Errorf("%q supersedes %q: %v", tc.newer, tc.older, got)
		}
		if foreign(tc.newer, tc.older) == "" {
			t.Error("no words")
		}
	}
}
