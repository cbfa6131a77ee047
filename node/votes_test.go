// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// votes says who votes, by the configuration a node knows.
func votes(n *Node) map[string]bool {
	out := map[string]bool{}
	for _, m := range n.Members() {
		out[m.NodeID] = m.Voter
	}
	return out
}

// demandRefusal demands that a change was refused with everything in its text.
func demandRefusal(t *testing.T, what string, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %q does not say %q", what, err, w)
		}
	}
}

// With one of three voters down, taking out another one that lives would end the
// cluster: it is refused, through any node, and the dead one can be taken out.
// Then a cluster shrinks to one voter, which stays.
func TestRemovalThatCostsTheMajorityIsRefused(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	l, live := c.leader(), c.follower()
	dead := ""
	for _, name := range c.names {
		if name != l.ID() && name != live.ID() {
			dead = name
		}
	}
	c.crash(dead)
	for _, through := range []*Node{l, live} {
		err := through.RemoveMember(c.ctx(), live.ID())
		demandRefusal(t, "removing a live voter", err, ErrUnsafeChange, dead, "does not answer", "remove "+dead+" first")
	}
	demandRefusal(t, "the leader leaving", l.RemoveMember(c.ctx(), l.ID()), ErrUnsafeChange, dead)
	c.put(c.leader(), "still written")
	if err := live.RemoveMember(c.ctx(), dead); err != nil {
		t.Fatalf("removing the dead voter: %v", err)
	}
	c.put(c.leader(), "with two")
	if err := l.RemoveMember(c.ctx(), live.ID()); err != nil {
		t.Fatalf("removing one of two that answer: %v", err)
	}
	c.put(l, "alone")
	began := time.Now()
	demandRefusal(t, "removing the last voter", l.RemoveMember(c.ctx(), l.ID()), ErrUnsafeChange, "last voter")
	demandRefusal(t, "handing over to nobody", l.TransferLeader(c.ctx(), ""), ErrUnsafeChange, "no other member")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v: it was waited for in vain", took)
	}
}

// A vote goes only to a member that answers: neither promotion nor adding with a
// vote gives one to a node that was never there.
func TestGhostGetsNoVote(t *testing.T) {
	c := startCluster(t, 1, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	l := c.leader()
	nowhere := freeAddr(t)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	demandRefusal(t, "adding a ghost with a vote", l.AddMember(short(), "ghost", nowhere, true), ErrUnsafeChange, "ghost stays without a vote", "does not answer")
	demandRefusal(t, "promoting a ghost", l.PromoteMember(short(), "ghost"), ErrUnsafeChange, "ghost stays without a vote", "does not answer")
	if v, ok := votes(l)["ghost"]; v || !ok {
		t.Fatalf("members: %v, want the ghost without a vote", votes(l))
	}
	c.put(l, "written")
	demandRefusal(t, "promoting nobody", l.PromoteMember(c.ctx(), "nobody"), ErrInvalid, "no member")
	demandRefusal(t, "a member at another address", l.AddMember(c.ctx(), "ghost", freeAddr(t), false), ErrInvalid, "is a member already")
	demandRefusal(t, "an address twice", l.AddMember(c.ctx(), "other", nowhere, false), ErrInvalid, "the address of the member ghost")
	if err := l.AddMember(c.ctx(), "ghost", nowhere, false); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	if err := l.RemoveMember(c.ctx(), "ghost"); err != nil {
		t.Fatal(err)
	}
	// Who insists gets what he asked for: a voter that is not there. Whether the
	// change itself still commits is Raft's affair.
	err := l.AddMember(short(), "ghost", nowhere, true, Forced(true))
	if !votes(l)["ghost"] {
		t.Errorf("forced: %v, members %v", err, votes(l))
	}
}

// A member that answers gets its vote as soon as it has caught up, whichever way
// it is asked for; not beyond max_voters, where it would be taken away again.
func TestMemberThatAnswersGetsItsVote(t *testing.T) {
	c := newCluster(t, []string{"n1"}, func(cfg *Config) {
		cfg.ReadReplica = cfg.NodeID != "n1"
		cfg.MaxVoters = 3
	})
	c.start("n1")
	l := c.leader()
	for _, name := range []string{"r1", "r2", "r3"} {
		c.addrs[name] = freeAddr(t)
		c.net.name(c.addrs[name], name)
		c.start(name)
	}
	c.wait("four members", func() bool { return len(l.Members()) == 4 })
	c.put(l, "a")
	if err := c.nodes["r1"].PromoteMember(c.ctx(), "r1"); err != nil {
		t.Fatalf("promote: %v", err)
	}
	if err := c.leader().AddMember(c.ctx(), "r2", c.addrs["r2"], true); err != nil {
		t.Fatalf("add with a vote: %v", err)
	}
	if v := votes(c.leader()); !v["r1"] || !v["r2"] || v["r3"] {
		t.Errorf("voters: %v", v)
	}
	demandRefusal(t, "a fourth of three", c.leader().PromoteMember(c.ctx(), "r3"), ErrUnsafeChange, "max_voters is 3")
	c.put(c.leader(), "b")
}
