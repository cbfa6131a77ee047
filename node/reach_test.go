// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// An append to a member that is away waits for a heartbeat to get through, not
// longer than it is needed, and not beyond the end of Raft.
func TestAppendsWaitForAMemberThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		r := newReach(reachCheck, func(id raft.ServerID, term uint64) bool { return !gone.Load() && term == 7 })
		lost := errors.New("connection refused")
		if err := r.await("a", 7); err != nil {
			t.Fatalf("nothing is known of the member, yet: %v", err)
		}
		r.note("a", true, lost)
		if !r.answers("a") {
			t.Error("one heartbeat was lost, and appends wait")
		}
		r.note("a", false, lost)
		if r.answers("a") || !r.answers("b") {
			t.Errorf("answers: a %v, b %v; a is away", r.answers("a"), r.answers("b"))
		}
		wait := func(term uint64) (<-chan error, func() bool) {
			got := make(chan error, 1)
			go func() { got <- r.await("a", term) }()
			return got, func() bool { time.Sleep(time.Hour); synctest.Wait(); return len(got) == 0 }
		}
		got, waits := wait(7)
		if r.note("a", true, lost); !waits() {
			t.Error("the append does not wait, and the member is away")
		}
		r.note("a", true, nil)
		if err := <-got; !errors.Is(err, errBack) || !r.answers("a") {
			t.Errorf("after a heartbeat got through: %v", err)
		}
		r.note("a", false, lost)
		if got, _ := wait(6); !errors.Is(<-got, errUnreachable) {
			t.Error("an append of another term waits")
		}
		got, waits = wait(7)
		if !waits() {
			t.Error("the append does not wait")
		}
		gone.Store(true)
		if err := <-got; !errors.Is(err, errUnreachable) {
			t.Errorf("the leader was deposed: %v", err)
		}
		gone.Store(false)
		got, _ = wait(7)
		synctest.Wait()
		r.end()
		r.end()
		if err := <-got; !errors.Is(err, raft.ErrTransportShutdown) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A transfer to a member that is away is refused, and one without a target goes
// to a member that answers: Raft would hand it to a replication that waits.
func TestLeadershipIsNotHandedToAMemberThatIsAway(t *testing.T) {
	c := startCluster(t, 3, nil)
	l := c.leader()
	var away string
	for name := range c.nodes {
		if name != l.ID() {
			away = name
		}
	}
	c.put(l, "before")
	c.net.isolate(away, true)
	c.wait("a failed append", func() bool { return !l.g.core.Load().trans.reach.answers(raft.ServerID(away)) })
	if err := l.transferHere(c.ctx(), away); !errors.Is(err, errUnreachable) {
		t.Fatalf("transfer to a member that is away: %v", err)
	}
	if err := l.transferHere(c.ctx(), ""); err != nil {
		t.Fatal(err)
	}
	c.wait("another leader", func() bool {
		next, _ := l.g.leader()
		return next != "" && next != l.ID() && next != away
	})
	c.net.isolate(away, false)
	c.put(c.leader(), "after")
}
