// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// Goal: every node, leading or not, says who lives. Method: ask each; then kill
// one and ask the others; then let it come back.
func TestEveryNodeKnowsWhoLives(t *testing.T) {
	x := startTrial(t, 3, 1)
	healthy := func(dead string) func([]*clusterv1.Member) bool {
		return func(members []*clusterv1.Member) bool {
			for _, m := range members {
				if (m.Health == "alive") != (m.NodeId != dead) || m.Health == "unknown" {
					return false
				}
			}
			return len(members) == 3
		}
	}
	x.members("three that live", x.c.Nodes, healthy(""))
	gone := x.follower()
	gone.Kill()
	x.members("one that does not", without(x.c.Nodes, gone), healthy(gone.ID))
	x.restart(gone)
	x.members("three that live again", x.c.Nodes, healthy(""))
	x.finish()
}

func without[T comparable](all []T, one T) []T {
	var out []T
	for _, v := range all {
		if v != one {
			out = append(out, v)
		}
	}
	return out
}

// Goal: read replicas come and go without one failed request. Method: ten join
// three voters under load, ten leave as autoscaling makes them; reads on them work.
func TestTenReadReplicasJoinAndLeaveUnderLoad(t *testing.T) {
	x := startTrial(t, 3, 4)
	voters := x.c.Nodes
	count := func(want int) func([]*clusterv1.Member) bool {
		return func(members []*clusterv1.Member) bool {
			votes := 0
			for _, m := range members {
				if m.Voter {
					votes++
				}
			}
			return len(members) == want && votes == 3
		}
	}
	for range 10 {
		_, err := x.c.Add("--read-replica", "--leave-on-stop")
		x.must(err)
	}
	x.must(x.c.WaitReady(x.ctx()))
	x.members("thirteen members, three votes", voters, count(13))
	replicas := x.c.Nodes[3:]
	for _, n := range replicas {
		if _, err := x.l.audit(x.ctx(), x.on(n)); err != nil {
			t.Errorf("%s: %v", n.ID, err)
		}
	}
	x.more(50)
	for _, n := range append(replicas[:0:0], replicas...) {
		x.must(n.Stop(x.ctx()))
		x.left(n)
		x.must(x.c.Forget(n))
	}
	x.members("three members", voters, count(3))
	x.more(50)
	x.finish()
}

// left fails with what a stopped node said of leaving if it stayed a member.
func (x *trial) left(n *localcluster.Node) {
	x.t.Helper()
	text, err := os.ReadFile(n.LogPath())
	x.must(err)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "still a member") || strings.Contains(line, "it may be a member again") {
			x.t.Fatalf("%s did not leave: %s", n.ID, line)
		}
	}
}

// Goal: a node that lost its disk comes back by itself. Method: kill a follower,
// then the leader, each time empty its directory and start it.
func TestWipedNodeRejoins(t *testing.T) {
	x := startTrial(t, 3, 4, "--stabilization-time", "200ms")
	x.more(200)
	for _, pick := range []string{"follower", "leader"} {
		n := x.follower()
		if pick == "leader" {
			n = x.leader()
		}
		n.Kill()
		x.must(n.Wipe())
		x.restart(n)
		x.members(n.ID+" with a vote", x.c.Nodes, func(members []*clusterv1.Member) bool {
			for _, m := range members {
				if !m.Voter {
					return false
				}
			}
			return len(members) == 3
		})
		x.more(50)
	}
	x.finish()
}

// Goal: no address is for ever. Method: stop all nodes, give each five other
// ports, start them: they find each other, and a client that is told the new
// addresses goes on where the old one stopped.
func TestAllAddressesChange(t *testing.T) {
	x := startTrial(t, 3, 2)
	x.more(50)
	x.load.stop()
	before := x.status(x.leader()).ClusterId
	for _, n := range x.c.Nodes {
		x.must(n.Stop(x.ctx()))
	}
	for _, n := range x.c.Nodes {
		x.must(n.Readdress())
	}
	for _, n := range x.c.Nodes {
		x.must(n.Start())
	}
	x.must(x.c.WaitReady(x.ctx()))
	cl, err := x.c.Client(nil)
	x.must(err)
	defer cl.Close()
	x.cl = cl
	x.load = x.l.start(t.Context(), cl, "again", 2)
	defer x.load.stop()
	x.more(50)
	if now := x.status(x.leader()).ClusterId; now != before {
		t.Fatalf("it is cluster %s, it was %s", now, before)
	}
	x.members("the new addresses", x.c.Nodes, func(members []*clusterv1.Member) bool {
		for _, m := range members {
			for _, n := range x.c.Nodes {
				if n.ID == m.NodeId && (n.Raft != m.RaftAddr || n.GRPC != m.GrpcAddr || n.REST != m.RestAddr || m.Health != "alive") {
					return false
				}
			}
		}
		return len(members) == 3
	})
	x.finish()
}

// Goal: a read replica can be made a voter, and stays one. Method: as an operator
// does, while it is being written to.
func TestPromotedReadReplicaKeepsItsVote(t *testing.T) {
	x := startTrial(t, 1, 2, "--zone", "z1")
	n, err := x.c.Add("--read-replica", "--zone", "z2")
	x.must(err)
	x.must(n.WaitReady(x.ctx()))
	votes := func(want bool) func([]*clusterv1.Member) bool {
		return func(members []*clusterv1.Member) bool {
			for _, m := range members {
				if m.NodeId == n.ID && m.Voter == want && m.Zone == "z2" {
					return true
				}
			}
			return false
		}
	}
	x.members("a read replica in its zone", x.c.Nodes, votes(false))
	if _, stderr, status := akidb(t, "cluster", "promote", n.ID, "--endpoints", x.c.Nodes[0].GRPC, "--ca-cert", x.c.CACert); status != 0 {
		t.Fatal(stderr)
	}
	x.more(50)
	x.members("a voter", x.c.Nodes, votes(true))
	x.finish()
}

// Goal: a cluster cannot be left by its last voter. Method: stop the only node,
// which was told to leave, and start it.
func TestLastVoterStays(t *testing.T) {
	x := startTrial(t, 1, 1, "--leave-on-stop")
	x.load.stop()
	x.must(x.c.Nodes[0].Stop(x.ctx()))
	x.restart(x.c.Nodes[0])
	x.finish()
}

// Goal: keys of gossip are rotated while everything runs. Method: three steps, as
// the manual says, after which gossip still reaches all, but not a node that was
// started with the old key only.
func TestGossipKeysAreRotated(t *testing.T) {
	oldKey, newKey := base64.StdEncoding.EncodeToString(make([]byte, 32)), base64.StdEncoding.EncodeToString([]byte("another key of thirty-two bytes."))
	keyFile := func(n *localcluster.Node) string { return filepath.Join(n.DataDir(), "..", "gossip.keys") }
	write := func(n *localcluster.Node, keys ...string) error {
		return os.WriteFile(keyFile(n), []byte(strings.Join(keys, "\n")+"\n"), 0o600)
	}
	c, cl := startTestClusterWith(t, localcluster.Options{Nodes: 3, Prepare: func(n *localcluster.Node) error {
		n.SetFlags("--gossip-key", "", "--gossip-key-file", keyFile(n))
		return write(n, oldKey)
	}})
	x := watch(t, c, cl, 1)
	for step, keys := range [][]string{{oldKey, newKey}, {newKey, oldKey}, {newKey}} {
		for _, n := range c.Nodes {
			x.must(write(n, keys...))
		}
		for _, n := range c.Nodes {
			x.wait("the keys of "+n.ID, func() (bool, string) {
				text, err := os.ReadFile(n.LogPath())
				return err == nil && strings.Count(string(text), "gossip keys changed") == step+1, ""
			})
		}
	}
	x.gossips(c.Nodes, 3)
	n := x.follower()
	others := without(c.Nodes, n)
	for _, try := range []struct {
		key          string
		here, others int
	}{{oldKey, 1, 2}, {newKey, 3, 3}} {
		x.must(n.Stop(x.ctx()))
		x.must(write(n, try.key))
		x.restart(n)
		x.gossips(others, try.others)
		x.gossips([]*localcluster.Node{n}, try.here)
	}
	x.finish()
}

// gossips waits until the gossip of each given node reaches so many, by their
// metrics.
func (x *trial) gossips(on []*localcluster.Node, want int) {
	x.t.Helper()
	for _, n := range on {
		x.wait(fmt.Sprintf("%d in the gossip of %s", want, n.ID), func() (bool, string) {
			resp, err := http.Get("http://" + n.Metrics + "/metrics")
			if err != nil {
				return false, err.Error()
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			return strings.Contains(string(text), fmt.Sprintf("\nakidb_node_gossip_members %d\n", want)), fmt.Sprint(err)
		})
	}
}

// Goal: a member that is gone for good does not stay in the way. Method: kill one
// of three for good; with five seconds of patience the leader takes it out, and
// the two that are left still write.
func TestDeadMemberIsRemoved(t *testing.T) {
	x := startTrial(t, 4, 2, "--remove-dead-after", "5s")
	gone := x.follower()
	gone.Kill()
	x.must(x.c.Forget(gone))
	x.members("three members", x.c.Nodes, func(members []*clusterv1.Member) bool { return len(members) == 3 })
	x.more(20)
	x.finish()
}

// Goal: an empty first node is no founder of a second cluster. Method: of three
// nodes the first loses its disk while the other two are down.
func TestEmptyNodeFoundsNoSecondCluster(t *testing.T) {
	x := startTrial(t, 3, 1)
	x.load.stop()
	before := x.status(x.leader()).ClusterId
	for _, n := range x.c.Nodes {
		n.Kill()
	}
	first := x.c.Nodes[0]
	x.must(first.Wipe())
	x.must(first.Start())
	x.wait("the empty node to answer", func() (bool, string) { return x.status(first) != nil, "" })
	for _, n := range x.c.Nodes[1:] {
		x.must(n.Start())
	}
	x.must(x.c.WaitReady(x.ctx()))
	for _, n := range x.c.Nodes {
		if st := x.status(n); st == nil || st.ClusterId != before {
			t.Errorf("%s: %v, want cluster %s", n.ID, st, before)
		}
	}
	x.finish()
}
