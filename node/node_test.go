// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"testing"
)

// Three nodes start, elect, and every one of them takes writes and reads.
func TestThreeNodesWriteAndReadAnywhere(t *testing.T) {
	c := startCluster(t, 3, nil)
	for i := range 30 {
		w := c.nodes[c.names[i%3]]
		id := fmt.Sprintf("doc%d", i)
		c.put(w, id)
		for _, name := range c.names {
			if err := c.nodes[name].awaitRead(c.ctx(), ReadOptions{}); err != nil {
				t.Fatalf("read on %s: %v", name, err)
			}
			if _, ok := c.mem[name].doc(id); !ok {
				t.Fatalf("linearizable read on %s does not see %s", name, id)
			}
		}
	}
	if c.nodes["n1"].g.clusterID() == "" || c.nodes["n1"].g.clusterID() != c.nodes["n3"].g.clusterID() {
		t.Fatal("nodes disagree about the cluster id")
	}
	l, err := c.follower().Leader()
	if err != nil || l.GRPCAddr != "grpc-"+l.NodeID {
		t.Fatalf("leader as known by a follower: %+v, %v", l, err)
	}
}

func TestProposeLocalOnFollowerNamesTheLeader(t *testing.T) {
	c := startCluster(t, 3, nil)
	// On a busy machine a follower may have lost sight of the leader, or have another.
	eventually(t, "a follower knows the leader", func() bool {
		l, f := c.leader(), c.follower()
		if known, err := f.Leader(); err != nil || known.NodeID != l.ID() {
			return false
		}
		_, err := f.ProposeLocal(c.ctx(), put("x"))
		var nl *NotLeaderError
		if !errors.As(err, &nl) || !errors.Is(err, ErrNotLeader) {
			t.Fatalf("got %v", err)
		}
		return nl.Leader.NodeID == l.ID()
	})
}

// The leader crashes; everything acknowledged is there afterwards.
func TestLeaderCrashLosesNothing(t *testing.T) {
	c := startCluster(t, 3, nil)
	for i := range 20 {
		c.put(c.leader(), fmt.Sprintf("a%d", i))
	}
	old := c.leader().ID()
	c.crash(old)
	for i := range 20 {
		c.put(c.leader(), fmt.Sprintf("b%d", i))
	}
	n := c.start(old)
	if err := n.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		for _, p := range []string{"a", "b"} {
			if _, ok := c.mem[old].doc(fmt.Sprintf("%s%d", p, i)); !ok {
				t.Fatalf("%s%d is missing on the restarted node", p, i)
			}
		}
	}
}
