// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A node that is removed while it runs says so instead of looking for a leader
// for ever; told to leave, it finds that done at once; added again, it serves.
func TestRemovedNodeKnowsIt(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	l, f := c.leader(), c.follower()
	c.wait("the follower to know that it is listed", f.wasListed.Load)
	if err := l.RemoveMember(c.ctx(), f.ID()); err != nil {
		t.Fatal(err)
	}
	c.wait("the node to know that it was removed", func() bool { return errors.Is(f.Ready(), errRemoved) })
	if why := f.Status().NotReadyReason; !strings.Contains(why, "no member") || !strings.Contains(why, "restart it") {
		t.Errorf("it says %q", why)
	}
	began := time.Now()
	if err := f.Leave(c.ctx()); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("leaving took %v: %v", time.Since(began), err)
	}
	if err := c.leader().AddMember(c.ctx(), f.ID(), c.addrs[f.ID()], false); err != nil {
		t.Fatal(err)
	}
	c.wait("the node to serve again", func() bool { return f.Ready() == nil })
}

// A node that left is not taken back by its own request. From its admission on it
// knows that it is a member, and does not ask again where others have not heard of
// that; and once it leaves it asks no more.
func TestNodeThatLeftDoesNotAskToBeTakenBack(t *testing.T) {
	c := newCluster(t, []string{"n1", "n2", "n3", "n4"}, func(cfg *Config) { cfg.BootstrapExpect = 3 })
	for _, name := range c.names[:3] {
		c.start(name)
	}
	c.leader()
	n := c.start("n4")
	c.wait("the node to serve", func() bool { return n.Ready() == nil })
	if !n.wasListed.Load() {
		t.Error("the node was admitted and does not know it")
	}
	if err := n.Leave(c.ctx()); err != nil {
		t.Fatal(err)
	}
	// Others than the leader may list it for a moment: then it has nothing to ask for.
	c.wait("the node to be refused by itself", func() bool {
		replies, err := n.helloAll(c.ctx())
		if err != nil {
			t.Fatal(err)
		}
		n.wasListed.Store(false) // as in a process that was just started again
		err = n.rejoin(c.ctx(), replies)
		if err != nil && !errors.Is(err, errLeaving) {
			t.Errorf("asked again after leaving: %v", err)
		}
		return err != nil
	})
	if s, found := c.leader().server("n4"); found {
		t.Errorf("the node that left is a member: %v", s)
	}
}

// Leaving waits for a request to join that is under way, but not for ever.
func TestLeavingWaitsForARequestToJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{joinTurn: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
		n.joinTurn <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			<-n.joinTurn
		}()
		n.endJoining(ctx)
		if waited := time.Since(began); waited != 3*time.Second {
			t.Errorf("waited %v for a request that took 3s", waited)
		}
		n.joinTurn <- struct{}{}
		n.endJoining(ctx)
		if waited := time.Since(began); waited != (3*time.Second + (20*time.Second-3*time.Second)/2) {
			t.Errorf("went on after %v in all", waited)
		}
	})
}
