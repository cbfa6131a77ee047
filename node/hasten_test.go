// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

func hastened(t *testing.T, n *Node) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(n.g.met.hastened)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	return families[0].Metric[0].Counter.GetValue()
}

// When a leader is lost, the follower whose timer fires first is refused by the
// other one, which has not noticed yet. That one then looks, and is elected, without
// waiting for its own timer.
func TestACandidateHastensTheElection(t *testing.T) {
	c := startCluster(t, 3, nil)
	for try := 1; ; try++ {
		l := c.leader()
		before := map[string]float64{}
		for id, n := range c.nodes {
			before[id] = hastened(t, n)
		}
		c.net.isolate(l.ID(), true)
		c.nextLeader(l)
		c.net.isolate(l.ID(), false)
		for id, n := range c.nodes {
			c.wait(id+" to serve", func() bool { return n.Ready() == nil })
		}
		for id, n := range c.nodes {
			if hastened(t, n) > before[id] {
				return
			}
		}
		if try == 20 { // timers may fire so close to each other that nothing is left to gain
			t.Fatal("20 leaders were lost, and no election was hastened")
		}
	}
}

// A candidate that is alone in not hearing of the leader makes nobody look for it.
func TestACandidateAloneHastensNothing(t *testing.T) {
	c := startCluster(t, 3, nil)
	f := c.follower()
	var other raft.ServerID
	for id, n := range c.nodes {
		if n != f {
			other = raft.ServerID(id)
		}
	}
	c.wait("the member to follow", func() bool { return f.Ready() == nil })
	for try := 1; ; try++ {
		before := hastened(t, f)
		heard := f.g.core.Load().r.LastContact()
		f.g.hasten(other)
		c.wait("that to end", func() bool { return !f.g.hastening.Load() })
		if hastened(t, f) == before && !f.g.core.Load().r.LastContact().Equal(heard) {
			break
		}
		if try == 20 { // the leader of a busy machine may be late indeed
			t.Fatal("a follower that hears of its leader looked for it 20 times")
		}
	}
	c.put(f, "x")
}

// Nor does one that has no vote, as a member that was removed and does not know it.
func TestOnlyVotersHastenElections(t *testing.T) {
	c := startCluster(t, 3, nil)
	f, l := c.follower(), c.leader()
	c.wait("the member to follow", func() bool { return f.Ready() == nil })
	core := f.g.core.Load()
	// With so short a time-out the leader is silent for long enough.
	calls := func(candidate raft.ServerID) (n int) {
		for range 20 {
			if core.hasten(t.Context(), candidate, time.Millisecond) {
				n++
			}
		}
		return n
	}
	if n := calls("gone"); n > 0 {
		t.Errorf("looked for the leader %d times", n)
	}
	c.wait("a voter to be listened to", func() bool { return calls(raft.ServerID(l.ID())) > 0 })
}

// Raft's time-outs are afterwards what they were.
func TestLookingForALeaderKeepsTheTimeOuts(t *testing.T) {
	c := startCluster(t, 3, nil)
	core := c.follower().g.core.Load()
	before := core.r.ReloadableConfig()
	for range 3 {
		if err := core.lookForLeader(); err != nil {
			t.Fatal(err)
		}
	}
	if after := core.r.ReloadableConfig(); after != before {
		t.Fatalf("%+v, before %+v", after, before)
	}
	if n := len(votersAmong(core.servers())); n != 3 {
		t.Fatalf("%d voters", n)
	}
}
