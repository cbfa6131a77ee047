// SPDX-License-Identifier: Apache-2.0

package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
)

// Autopilot decides to promote a member, the member is removed for good, then the
// promotion is carried out: it must not come back, since a voter that is gone
// counts against every majority. Found by jepsen (membership, seed 83014): two
// removed members had become voters again, and the next replacement of a node
// cost the majority.
func TestPromotionDoesNotBringBackARemovedMember(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	l := c.leader()
	names := func() []string {
		var s []string
		for _, m := range l.Members() {
			s = append(s, m.NodeID)
		}
		slices.Sort(s)
		return s
	}
	pilot := carefulRaft{l.g.core.Load().r}
	gone := "10.1.2.3:9444"
	if err := l.AddMember(c.ctx(), "n4", gone, false); err != nil {
		t.Fatal(err)
	}
	if err := l.RemoveMember(c.ctx(), "n4"); err != nil {
		t.Fatal(err)
	}
	if err := pilot.AddVoter("n4", raft.ServerAddress(gone), 0, 0).Error(); err == nil {
		t.Error("a member that was removed was promoted")
	}
	if got := names(); !slices.Equal(got, []string{"n1", "n2", "n3"}) {
		t.Fatalf("members are %v: the removed one is back", got)
	}
	// One that is a member is promoted.
	follower := c.follower()
	if err := l.g.core.Load().r.DemoteVoter(raft.ServerID(follower.ID()), 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	if err := pilot.AddVoter(raft.ServerID(follower.ID()), raft.ServerAddress(c.addrs[follower.ID()]), 0, 0).Error(); err != nil {
		t.Fatalf("promotion of a member: %v", err)
	}
	for _, m := range l.Members() {
		if !m.Voter {
			t.Errorf("%s has no vote", m.NodeID)
		}
	}
}

// Which vote moves next, decided on lists of members.
func TestVotesMoveToBetterPlaces(t *testing.T) {
	now := time.Now()
	const l, v, n = autopilot.RaftLeader, autopilot.RaftVoter, autopilot.RaftNonVoter
	type list = [][4]any
	for _, c := range []struct {
		name    string
		members list
		max     int
		promote string
		demote  string
	}{
		{"three in one zone, two others free", list{{"a", "z1", l, true}, {"b", "z1", v, true}, {"c", "z1", v, true}, {"d", "z2", n, true}, {"e", "z3", n, true}}, 3, "d", ""},
		{"second half of the swap", list{{"a", "z1", l, true}, {"b", "z1", v, true}, {"c", "z1", v, true}, {"d", "z2", v, true}, {"e", "z3", n, true}}, 3, "", "c"},
		{"second swap", list{{"a", "z1", l, true}, {"b", "z1", v, true}, {"c", "z1", n, true}, {"d", "z2", v, true}, {"e", "z3", n, true}}, 3, "e", ""},
		{"spread", list{{"a", "z1", l, true}, {"b", "z1", n, true}, {"c", "z1", n, true}, {"d", "z2", v, true}, {"e", "z3", v, true}}, 3, "", ""},
		{"no better place", list{{"a", "z1", l, true}, {"b", "z1", v, true}, {"c", "z2", v, true}, {"d", "z2", n, true}}, 3, "", ""},
		{"no zones", list{{"a", "", l, true}, {"b", "", v, true}, {"c", "", v, true}, {"d", "", n, true}}, 3, "", ""},
		{"a voter that fails", list{{"a", "z1", l, true}, {"b", "z1", v, false}, {"c", "z1", v, true}, {"d", "z2", n, true}}, 3, "", ""},
		{"a candidate that fails", list{{"a", "z1", l, true}, {"b", "z1", v, true}, {"c", "z1", v, true}, {"d", "z2", n, false}}, 3, "", ""},
		{"five where three are wanted", list{{"a", "", v, true}, {"b", "", v, true}, {"c", "", v, true}, {"d", "", v, true}, {"e", "", l, true}}, 3, "", "d"},
		{"surplus and long dead", list{{"a", "", l, true}, {"b", "", v, false}, {"c", "", v, true}, {"d", "", v, true}}, 3, "", "b"},
		{"the leader is the one in the full zone", list{{"a", "z1", v, true}, {"b", "z2", l, true}}, 1, "", "a"},
		{"below the number wanted", list{{"a", "z1", l, true}, {"b", "z1", v, true}, {"c", "z1", v, true}, {"d", "z2", n, true}}, 5, "", ""},
	} {
		got := moveVotes(&autopilot.Config{}, pilotState(now, c.members...), now, c.max)
		one := func(ids []raft.ServerID) string {
			var all []string
			for _, id := range ids {
				all = append(all, string(id))
			}
			return strings.Join(all, " ")
		}
		if one(got.Promotions) != c.promote || one(got.Demotions) != c.demote {
			t.Errorf("%s: %+v, want promotion of %q and demotion of %q", c.name, got, c.promote, c.demote)
		}
	}
}

// Nodes of better zones that join later get votes from the zone that had all of
// them; and a lower max_voters takes votes away. Writes go on meanwhile, and the
// number of voters never leaves what was asked for by more than one.
func TestVotesFollowZonesAndMaxVoters(t *testing.T) {
	zone := map[string]string{"n1": "a", "n2": "a", "n3": "a", "n4": "b", "n5": "c"}
	maxVoters := 3
	c := newCluster(t, []string{"n1", "n2", "n3"}, func(cfg *Config) {
		cfg.Zone, cfg.MaxVoters, cfg.RemoveDeadAfter = zone[cfg.NodeID], maxVoters, -1
	})
	for _, name := range c.names {
		c.start(name)
	}
	c.leader()
	for _, name := range []string{"n4", "n5"} {
		c.addrs[name] = freeAddr(t)
		c.net.name(c.addrs[name], name)
		c.start(name)
	}
	inZones := func() (voters, zones int) {
		seen := map[string]bool{}
		for id, votes := range votes(c.leader()) {
			if votes {
				voters++
				seen[zone[id]] = true
			}
		}
		if voters < 2 {
			t.Fatalf("%d voters", voters)
		}
		return voters, len(seen)
	}
	c.wait("votes in two zones", func() bool { _, zones := inZones(); return zones >= 2 })
	c.put(c.leader(), "on the way")
	c.wait("three voters in three zones", func() bool { voters, zones := inZones(); return voters == 3 && zones == 3 })
	c.put(c.leader(), "spread")

	restart := func(most int) {
		maxVoters = most
		for _, name := range []string{"n1", "n2", "n3", "n4", "n5"} {
			c.stop(name)
			n := c.start(name)
			c.wait(name+" to be ready", func() bool { return n.Ready() == nil })
		}
	}
	restart(5)
	c.wait("five voters", func() bool { voters, _ := inZones(); return voters == 5 })
	restart(3)
	c.wait("fewer voters", func() bool { voters, _ := inZones(); return voters < 5 })
	c.wait("three voters in three zones", func() bool { voters, zones := inZones(); return voters == 3 && zones == 3 })
	c.put(c.leader(), "lowered")
}
