// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Nodes that start together, in whatever order and however far apart, found one
// cluster with all of them as voters.
func TestBootstrapIsSymmetric(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("AKIDB_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("AKIDB_SEED=%d go test ./node -run TestBootstrapIsSymmetric", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 3 {
		c := newCluster(t, []string{"n1", "n2", "n3"}, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, i := range rng.Perm(3) {
			name, after := c.names[i], time.Duration(rng.IntN(250))*time.Millisecond
			wg.Go(func() {
				pause(context.Background(), after)
				cfg := func() Config { mu.Lock(); defer mu.Unlock(); return c.config(name) }()
				open := cfg.openMachine
				cfg.openMachine = func(ctx context.Context, dir string) (machine, error) {
					mu.Lock()
					defer mu.Unlock()
					return open(ctx, dir)
				}
				n, err := Open(context.Background(), cfg)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				c.nodes[name] = n
				mu.Unlock()
			})
		}
		wg.Wait()
		c.leader()
		c.wait("three voters of one cluster", func() bool {
			ids := map[string]bool{}
			for _, n := range c.nodes {
				ids[n.g.clusterID()] = true
				voters := 0
				for _, m := range n.Members() {
					if m.Voter {
						voters++
					}
				}
				if voters != 3 {
					return false
				}
			}
			return len(ids) == 1 && !ids[""]
		})
		c.stopAll()
		c.nodes = map[string]*Node{}
	}
}

// More empty nodes than are expected to found the cluster: three do, the others
// join, whoever saw whom first.
func TestMoreNodesThanFounders(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3", "n4", "n5"}, func(cfg *Config) { cfg.BootstrapExpect = 3 })
	for _, i := range rand.Perm(5) {
		c.start(c.names[i])
	}
	c.leader()
	c.wait("five members of one cluster", func() bool {
		ids := map[string]bool{}
		for _, n := range c.nodes {
			ids[n.g.clusterID()] = true
			if len(n.Members()) != 5 {
				return false
			}
		}
		return len(ids) == 1 && !ids[""]
	})
}

// A first node with an empty disk joins the cluster that exists; it never
// founds another, not even while it reaches nobody.
func TestEmptyFirstNodeNeverFoundsASecondCluster(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "kept")
	id := c.leader().g.clusterID()
	c.stop("n1")
	if err := os.RemoveAll(filepath.Join(c.dir, "n1")); err != nil {
		t.Fatal(err)
	}
	c.net.isolate("n1", true)
	n := c.start("n1")
	pause(t.Context(), 3*helloPause)
	if n.g.member.Load() || n.g.clusterID() != "" {
		t.Fatal("an empty node that reaches nobody became a member of something")
	}
	if err := n.Ready(); err == nil {
		t.Fatal("it says it is ready")
	}
	c.net.isolate("n1", false)
	c.wait("the node to be taken back", func() bool { return n.g.clusterID() == id && n.Status().Voter })
	c.wait("its copy of the data", func() bool { _, ok := c.mem["n1"].doc("kept"); return ok })
}

// An empty node neither votes nor stores before a leader admitted it: it may be
// one that voted and acknowledged, and forgot.
func TestNotAdmittedNodeAnswersNoRaftMessage(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3"}, nil)
	n := c.start("n1")
	for _, cmd := range []any{&raft.RequestVoteRequest{Term: 9}, &raft.RequestPreVoteRequest{Term: 9}, &raft.AppendEntriesRequest{Term: 9}, &raft.InstallSnapshotRequest{Term: 9}} {
		ch := make(chan raft.RPCResponse, 1)
		if n.g.admit(n.g.core.Load(), raft.RPC{Command: cmd, RespChan: ch}, func(raft.RPC) { t.Error("forwarded") }) {
			t.Errorf("%T let through", cmd)
		}
		if r := <-ch; !errors.Is(r.Error, errNotMember) {
			t.Errorf("%T: %v", cmd, r.Error)
		}
	}
	if _, err := n.serveTerm(); !errors.Is(err, errNotMember) {
		t.Errorf("term: %v", err)
	}
}

// New members come as non-voters, get the data and then a vote up to MaxVoters;
// read replicas never; those removed are gone from every list.
func TestMembersComeAndGoUnderLoad(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3"}, func(cfg *Config) {
		cfg.BootstrapExpect = 3
		cfg.MaxVoters = 4
		cfg.ReadReplica = strings.HasPrefix(cfg.NodeID, "r")
	})
	for _, n := range c.names {
		c.start(n)
	}
	l := c.leader()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var failed error
	var written int
	n1 := c.nodes["n1"]
	wg.Go(func() {
		for ctx.Err() == nil {
			cmd := put(fmt.Sprintf("w%d", written))
			cmd.RequestId = fmt.Sprintf("r%d", written)
			if _, err := n1.Propose(context.Background(), cmd); err != nil {
				failed = err
				return
			}
			written++
		}
	})
	extra := []string{"m1", "m2", "r1", "r2"}
	for _, name := range extra {
		c.addrs[name] = freeAddr(t)
		c.net.name(c.addrs[name], name)
		c.start(name)
	}
	c.wait("four voters and three others", func() bool {
		voters, others := 0, 0
		for _, m := range l.Members() {
			if m.Voter {
				voters++
			} else {
				others++
			}
		}
		return voters == 4 && others == 3
	})
	for _, m := range l.Members() {
		if strings.HasPrefix(m.NodeID, "r") && m.Voter {
			t.Errorf("read replica %s votes", m.NodeID)
		}
	}
	if err := c.nodes["r1"].awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Errorf("linearizable read on a read replica: %v", err)
	}
	for _, name := range extra {
		if err := c.nodes[name].Leave(c.ctx()); err != nil {
			t.Errorf("%s leaves: %v", name, err)
		}
		c.stop(name)
	}
	stop()
	wg.Wait()
	if failed != nil {
		t.Fatalf("a write failed meanwhile: %v", failed)
	}
	c.wait("three members again", func() bool { return len(c.leader().Members()) == 3 })
	for i := range written {
		if _, ok := c.mem[c.leader().ID()].doc(fmt.Sprintf("w%d", i)); !ok {
			t.Fatalf("w%d is missing", i)
		}
	}
	t.Logf("%d writes meanwhile", written)
}

// All addresses change while everything is down: the nodes find each other by
// what they tell, and the configuration is put right.
func TestAllAddressesChangeAtOnce(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "kept")
	for _, n := range c.names {
		c.stop(n)
	}
	for _, n := range c.names {
		c.addrs[n] = freeAddr(t)
		c.net.name(c.addrs[n], n)
	}
	for _, n := range c.names {
		c.start(n)
	}
	c.put(c.leader(), "after")
	c.wait("the new addresses in the configuration", func() bool {
		for _, s := range c.leader().g.servers() {
			if string(s.Address) != c.addrs[string(s.ID)] {
				return false
			}
		}
		return true
	})
	if _, ok := c.mem[c.leader().ID()].doc("kept"); !ok {
		t.Fatal("data is gone")
	}
}

// Every node in turn is stopped and started under load: no write fails.
func TestRollingRestartFailsNoWrite(t *testing.T) {
	c := startCluster(t, 3, nil)
	var mu sync.Mutex // guards nodes against the restarts
	up := map[string]*Node{}
	for name, n := range c.nodes {
		up[name] = n
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	acked := make([][]string, 4)
	for w := range acked {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("w%d-%d", w, i)
				cmd := put(id)
				cmd.RequestId = id
				for {
					mu.Lock()
					var n *Node
					for _, n = range up {
						break
					}
					mu.Unlock()
					opCtx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					_, err := n.Propose(opCtx, cmd)
					cancel()
					if err == nil {
						break
					}
					if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrUnknownOutcome) {
						t.Errorf("%s: %v", id, err)
						return
					}
				}
				acked[w] = append(acked[w], id)
			}
		})
	}
	for _, name := range c.names {
		mu.Lock()
		delete(up, name)
		mu.Unlock()
		c.stop(name)
		n := c.start(name)
		c.wait(name+" to be ready", func() bool { return n.Ready() == nil })
		mu.Lock()
		up[name] = n
		mu.Unlock()
	}
	stop()
	wg.Wait()
	l := c.leader()
	if err := l.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, ids := range acked {
		for _, id := range ids {
			if _, ok := c.mem[l.ID()].doc(id); !ok {
				t.Fatalf("%s is missing", id)
			}
		}
	}
}

func TestTransferLeader(t *testing.T) {
	c := startCluster(t, 3, nil)
	to := c.follower()
	if err := to.TransferLeader(c.ctx(), to.ID()); err != nil {
		t.Fatal(err)
	}
	c.wait("the new leader", func() bool { _, _, ok := to.g.leading(); return ok })
	if err := to.TransferLeader(c.ctx(), "nobody"); !errors.Is(err, errInvalid) {
		t.Fatalf("transfer to a stranger: %v", err)
	}
}

func TestWrongDataDirectoryIsRefused(t *testing.T) {
	c := startCluster(t, 1, nil)
	c.stop("n1")
	cfg := c.config("n1")
	cfg.NodeID = "n9"
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), `belongs to node "n1"`) {
		t.Fatalf("got %v", err)
	}
	cfg = c.config("n1")
	cfg.LogStore = logStoreBolt
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "migrate") {
		t.Fatalf("other log store: %v", err)
	}
}

func pilotState(now time.Time, list ...[4]any) *autopilot.State {
	s := &autopilot.State{Servers: map[raft.ServerID]*autopilot.ServerState{}}
	for _, e := range list {
		id := raft.ServerID(e[0].(string))
		s.Servers[id] = &autopilot.ServerState{
			Server: autopilot.Server{ID: id, Meta: map[string]string{"zone": e[1].(string)}, NodeType: autopilot.NodeVoter},
			State:  e[2].(autopilot.RaftState),
			Health: autopilot.ServerHealth{Healthy: e[3].(bool), StableSince: now.Add(-time.Hour)},
		}
	}
	return s
}

// Votes go to the zone with the fewest; a voter that failed for long makes room.
func TestVotersAreSpreadOverZones(t *testing.T) {
	now := time.Now()
	conf := &autopilot.Config{}
	const v, n = autopilot.RaftVoter, autopilot.RaftNonVoter
	got := decideVoters(conf, pilotState(now, [4]any{"a", "z1", autopilot.RaftLeader, true}, [4]any{"b", "z2", v, true},
		[4]any{"c", "z1", n, true}, [4]any{"d", "z2", n, true}, [4]any{"e", "z3", n, true}), now, 3)
	if len(got.Promotions) != 1 || got.Promotions[0] != "e" || len(got.Demotions) != 0 {
		t.Errorf("third vote: %+v", got)
	}
	full := pilotState(now, [4]any{"a", "z1", autopilot.RaftLeader, true}, [4]any{"b", "z2", v, false}, [4]any{"c", "z3", v, true}, [4]any{"d", "z2", n, true})
	if got := decideVoters(conf, full, now, 3); len(got.Promotions) != 0 || len(got.Demotions) != 1 || got.Demotions[0] != "b" {
		t.Errorf("a failed voter: %+v", got)
	}
	full.Servers["b"].Health.StableSince = now
	if got := decideVoters(conf, full, now, 3); len(got.Promotions)+len(got.Demotions) != 0 {
		t.Errorf("a voter that failed just now: %+v", got)
	}
}

// A binary that does not know the cluster's version is not let in, nor does it
// start on a state of that version.
func TestBinaryOlderThanTheClusterIsRefused(t *testing.T) {
	c := startCluster(t, 1, nil)
	l := c.leader()
	raise := &fsmv1.Command{Op: &fsmv1.Command_SetClusterVersion{SetClusterVersion: &fsmv1.SetClusterVersion{Version: maxClusterVersion + 1}}}
	if _, err := l.Propose(c.ctx(), raise); err != nil {
		t.Fatal(err)
	}
	join := &nodev1.JoinRequest{Empty: true, Node: &nodev1.NodeInfo{NodeId: "old", RaftAddr: "127.0.0.1:1", MaxClusterVersion: maxClusterVersion}}
	if _, err := l.serveJoin(c.ctx(), join); !errors.Is(err, errInvalid) || !strings.Contains(err.Error(), "start a newer one") {
		t.Fatalf("join: %v", err)
	}
	c.stop("n1")
	if _, err := Open(t.Context(), c.config("n1")); err == nil || !strings.Contains(err.Error(), "start a newer one") {
		t.Fatalf("open: %v", err)
	}
}
