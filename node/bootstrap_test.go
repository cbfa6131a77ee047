// SPDX-License-Identifier: Apache-2.0

package node

import "testing"

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
