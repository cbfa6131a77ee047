// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// startTwin starts an empty node under the id of another, at an address of its own.
func (c *cluster) startTwin(name string) *Node {
	c.t.Helper()
	cfg := c.config(name)
	cfg.DataDir += "-twin"
	cfg.RaftAddr = freeAddr(c.t)
	c.net.name(cfg.RaftAddr, name+"-twin")
	cfg.Net = c.net.of(name + "-twin")
	n, err := Open(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatalf("start a twin of %s: %v", name, err)
	}
	c.nodes[name+"-twin"] = n
	return n
}

func serverAddr(n *Node, id string) string {
	s, _ := n.server(id)
	return string(s.Address)
}

// An empty node does not take the place of a member that lives: it is told at
// which address that one answers, and nobody looks for the member elsewhere
// meanwhile. Once the member is gone the empty node is taken in as before.
func TestEmptyNodeDoesNotEvictALivingMember(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "kept")
	victim := c.follower()
	id, addr := victim.ID(), victim.RaftAddr()
	twin := c.startTwin(id)
	c.wait("the twin to be told who has its id", func() bool {
		if twin.g.member.Load() {
			t.Fatal("the twin took the member's place")
		}
		err := twin.Ready()
		return err != nil && strings.Contains(err.Error(), addr)
	})
	for name, n := range c.nodes {
		if got, err := n.g.ServerAddr("n1"); n != twin && (err != nil || string(got) != c.addrs["n1"]) {
			t.Errorf("%s looks for n1 at %s, %v", name, got, err)
		}
		if got, err := n.g.ServerAddr(victim.g.raftID()); n != twin && (err != nil || string(got) != addr) {
			t.Errorf("%s looks for %s at %s, %v", name, id, got, err)
		}
	}
	if s := serverAddr(c.leader(), id); s != addr {
		t.Fatalf("the configuration has %s at %s", id, s)
	}
	c.put(victim, "through the member")

	c.crash(id)
	c.wait("the twin to be taken in", func() bool { return twin.Ready() == nil })
	if s := serverAddr(c.leader(), id); s != twin.RaftAddr() {
		t.Fatalf("the configuration has %s at %s", id, s)
	}
	// The one that was replaced comes back with its data.
	old := c.start(id)
	c.wait("the old process to be refused", func() bool {
		replies, _ := old.helloAll(c.ctx())
		err := old.rejoin(c.ctx(), replies)
		if s := serverAddr(c.leader(), id); s != twin.RaftAddr() {
			t.Fatalf("the configuration has %s at %s", id, s)
		}
		return errors.Is(err, errInvalid) && strings.Contains(err.Error(), twin.RaftAddr())
	})
}

// A node that lost its disk and comes back where it was is taken in at once.
func TestWipedNodeRejoinsAtItsAddress(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "kept")
	id := c.follower().ID()
	c.crash(id)
	if err := os.RemoveAll(filepath.Join(c.dir, id)); err != nil {
		t.Fatal(err)
	}
	n := c.start(id)
	c.wait("the node to be taken back", func() bool { _, ok := c.mem[id].doc("kept"); return ok && n.Ready() == nil })
}

// A node takes its own address from nobody.
func TestNodeKeepsItsOwnAddress(t *testing.T) {
	c := startCluster(t, 3, nil)
	n := c.follower()
	req := &nodev1.HelloRequest{From: &nodev1.NodeInfo{NodeId: n.ID(), RaftAddr: "127.0.0.1:1"}, ClusterId: n.g.clusterID(), Member: true}
	for range 2 {
		n.hello(req)
	}
	if got, err := n.g.ServerAddr(n.g.raftID()); err != nil || string(got) != n.RaftAddr() {
		t.Fatalf("%s believes it is at %s, %v", n.ID(), got, err)
	}
}
