// SPDX-License-Identifier: Apache-2.0

package node

import (
	"strings"
	"testing"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// A leader that is removed knows that somebody meant it, though it never learnt
// from another leader that it was a member: it must not ask to be taken back.
func TestRemovedLeaderStaysRemoved(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	l := c.leader()
	l.wasListed.Store(false) // as of a leader that has led since it was founded
	if err := l.rejoin(c.ctx(), nil); err != nil {
		t.Fatal(err)
	}
	if err := l.RemoveMember(c.ctx(), l.ID()); err != nil {
		t.Fatal(err)
	}
	var next *Node
	c.wait("another leader without it", func() bool {
		for _, n := range c.nodes {
			if _, _, ok := n.g.leading(); ok && n != l && len(n.Members()) == 2 {
				next = n
				return true
			}
		}
		return false
	})
	told := false
	for range 3 {
		replies, err := l.helloAll(c.ctx())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range replies {
			told = told || r.LeaderAddr != ""
		}
		if err := l.rejoin(c.ctx(), replies); err != nil {
			t.Fatal(err)
		}
	}
	if !told {
		t.Fatal("no reply names a leader: the test shows nothing")
	}
	if got := next.Members(); len(got) != 2 {
		t.Fatalf("the removed leader was taken back: %+v", got)
	}
}

// A node that was told of peers and of no number of founders founds nothing,
// however long nobody answers: it says what it waits for and how to found on
// purpose, and joins the cluster once that exists.
func TestNodeWithPeersFoundsNothingAlone(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3"}, func(cfg *Config) {
		if cfg.NodeID == "n1" {
			cfg.BootstrapExpect = 0
		} else {
			cfg.BootstrapExpect = 2
		}
	})
	n := c.start("n1")
	c.wait("it to say what it waits for", func() bool {
		if n.g.member.Load() {
			t.Fatal("it founded a cluster alone")
		}
		err := n.Ready()
		return err != nil && strings.Contains(err.Error(), "waiting for a cluster to join") &&
			strings.Contains(err.Error(), c.addrs["n2"]) && strings.Contains(err.Error(), "bootstrap_expect")
	})
	c.start("n2")
	c.start("n3")
	c.wait("one cluster of all three", func() bool {
		return n.Ready() == nil && n.g.clusterID() == c.nodes["n2"].g.clusterID() && len(n.Members()) == 3
	})
}

// Told to found with itself alone though it has peers, a node does so only once
// every one of them has answered that it belongs to no cluster.
func TestFoundingAloneWithPeersAsksThemAll(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3"}, func(cfg *Config) { cfg.BootstrapExpect = 1 })
	n := c.start("n1")
	c.start("n2")
	c.wait("it to say whom it waits for", func() bool {
		for _, n := range c.nodes {
			if n.g.member.Load() {
				t.Fatalf("%s founded a cluster though n3 did not answer", n.ID())
			}
		}
		err := n.Ready()
		return err != nil && strings.Contains(err.Error(), c.addrs["n3"]) && !strings.Contains(err.Error(), c.addrs["n2"])
	})
	c.start("n3")
	c.wait("one cluster of all three", func() bool {
		for _, n := range c.nodes {
			if n.Ready() != nil || n.g.clusterID() != c.nodes["n1"].g.clusterID() || len(n.Members()) != 3 {
				return false
			}
		}
		return true
	})
}

// A node without peers founds a cluster of its own, as one does that is its only
// peer.
func TestNodeWithoutPeersFoundsAlone(t *testing.T) {
	for _, peers := range []func(*Config){
		func(cfg *Config) { cfg.Peers, cfg.BootstrapExpect = nil, 0 },
		func(cfg *Config) { cfg.Peers, cfg.BootstrapExpect = []string{cfg.RaftAddr}, 1 },
	} {
		c := newCluster(t, []string{"n1"}, peers)
		n := c.start("n1")
		c.wait("it to serve", func() bool { return n.Ready() == nil })
	}
}

// A founder that voted, lost its disk and is back while the first leader is being
// elected has forgotten its vote: founding the cluster again it could give another one
// in the same term, and the cluster would have two leaders in it. Nobody may have stood
// for election when a node follows a founder.
func TestFounderIsNotFollowedIntoAnElection(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3"}, nil)
	n := c.start("n3")
	founder := func(id string, term uint64) *nodev1.HelloReply {
		r := &nodev1.HelloReply{Node: &nodev1.NodeInfo{NodeId: id, RaftAddr: c.addrs[id]}, Member: true, BootstrapExpect: 3, Term: term}
		for _, s := range c.names {
			r.Servers = append(r.Servers, &nodev1.Server{NodeId: s, RaftAddr: c.addrs[s]})
		}
		return r
	}
	for _, terms := range [][2]uint64{{2, 1}, {1, 2}} {
		first, second := founder("n1", terms[0]), founder("n2", terms[1])
		if done, err := n.followBootstrap(first, []*nodev1.HelloReply{first, second}); done || err == nil || n.g.member.Load() {
			t.Fatalf("founders in terms %v were followed: %v", terms, err)
		}
	}
	first, second := founder("n1", 1), founder("n2", 0) // the other has not followed yet
	if done, err := n.followBootstrap(first, []*nodev1.HelloReply{first, second}); !done || err != nil {
		t.Fatalf("a founder that nobody has voted for was not followed: %v", err)
	}
}
