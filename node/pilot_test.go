// SPDX-License-Identifier: Apache-2.0

package node

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"
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
