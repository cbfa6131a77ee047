// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/akidb/akidb/node"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// smallMessage is longer than a heartbeat of Raft (114 bytes here) and shorter
// than a message with the first entry of a term (179).
const smallMessage = 150

// TestDeposedLeaderStampsNoEntry makes the one situation in which a heartbeat
// that goes around Raft's main loop costs data (hashicorp/raft issue 695), by
// faults of machines and network alone. A leader, n1, that has nothing under way
// keeps its lease, while n3, whose answers the lease rests on, dies and comes back
// without knowing a leader; it and n2 elect one of them. Of what that one sends
// to n1 only short messages arrive: heartbeats, not the first entry of the new
// term. Then a client writes through n1. Stored under the new term, that entry
// would have the index and the term of the first entry of the new leader and
// another content, for good.
//
// Random schedules hardly ever come here: with writes under way the wrong entry
// follows others of the old term, and is deleted with them.
func TestDeposedLeaderStampsNoEntry(t *testing.T) {
	seed := *flagSeed
	if seed == 0 {
		seed = *flagFirst
	}
	fmt.Fprintf(os.Stderr, "sim: go test ./sim -run %s -sim.seed=%d\n", t.Name(), seed)
	inBubble(t, func(t *testing.T) {
		tr := newTrace()
		c := newCluster(t, seed, 3, tr)
		// n1's lease outlasts the time in which n2 asks for votes again.
		c.hosts[0].tempo, c.hosts[1].tempo, c.hosts[2].tempo = 2000, 500, 500
		c.stateCheck = -1 // an entry of its own would come before the wrong one
		cs := &clients{c: c, h: newHistory(), stop: make(chan struct{})}
		defer c.shutdown()
		defer close(cs.stop)
		fail := func(err error) {
			t.Errorf("%v%s\n%s", err, c.report(), tr.tail(150))
		}
		for _, h := range c.hosts {
			if err := c.startHost(h); err != nil {
				fail(err)
				return
			}
		}
		if err := cs.setup(); err != nil {
			fail(err)
			return
		}
		deposed := 0
		for range 8 {
			ok, err := cs.depose()
			if err == nil {
				err = c.healAll()
			}
			if err == nil {
				err = c.readmit()
			}
			if err == nil {
				err = c.converge()
			}
			if err != nil {
				fail(err)
				return
			}
			if ok {
				deposed++
			}
			if deposed == 4 {
				break
			}
		}
		if deposed == 0 {
			fail(fmt.Errorf("sim: in eight attempts no heartbeat of a newer term met a leader: the test shows nothing"))
		}
		for _, p := range cs.h.broken() {
			t.Error(p)
		}
	})
}

// depose is one attempt. It is true if a write was sent to n1 at the moment when
// n1, leader until then, had learnt of the newer term.
func (cs *clients) depose() (bool, error) {
	c := cs.c
	n1, n2, n3 := c.hosts[0], c.hosts[1], c.hosts[2]
	if err := c.leadBy(n1); err != nil {
		return false, err
	}
	c.trace.event("cut n1 from n2")
	c.net.Cut("n1", "n2")
	c.net.Cut("n2", "n1")
	elapse(12 * heartbeat) // n2 asks for votes by now, in vain
	if err := c.converged(n1, n3); err != nil {
		return false, err
	}
	term := n1.process().n.Status().Term
	c.trace.event("n3 dies and comes back, n1 cannot reach it")
	c.net.Cut("n1", "n3")
	c.net.Cut("n3", "n1")
	c.kill(n3, false, 0)
	if err := c.startHost(n3); err != nil {
		return false, err
	}
	next := n1
	for next == n1 {
		for _, h := range []*Host{n2, n3} {
			if h.process().n.Status().State == "leader" {
				next = h
			}
		}
		if n1.process().n.Status().State != "leader" {
			c.trace.event("n1's lease was too short")
			return false, nil
		}
		elapse(time.Millisecond)
	}
	c.trace.event("%s leads; of what it sends to n1 the short messages arrive", next.name)
	c.net.Firewall("n1", next.name)
	c.net.SetLargest(next.name, "n1", smallMessage)
	c.net.Mend("n1", next.name)
	for {
		before := n1.process().n.Status()
		if before.State != "leader" {
			c.trace.event("n1 had stepped down before it heard of the new leader")
			return false, nil
		}
		elapse(time.Millisecond)
		if n1.process().n.Status().Term > term {
			break
		}
	}
	before := n1.process().n.Status()
	c.trace.event("write through n1, %s in term %d, log ends at %d; that of %s at %d", before.State, before.Term, before.LastLogIndex,
		next.name, next.process().n.Status().LastLogIndex)
	k := &client{clients: cs, name: "deposed"}
	ctx, cancel := context.WithTimeout(context.Background(), heartbeat)
	defer cancel()
	value := int(k.value.Add(1)) + 1_000_000
	err := n1.process().call(func(n *node.Node) error {
		_, err := n.ProposeLocal(ctx, write(upsert(fsmv1.Write_KIND_UPSERT, fmt.Sprintf("deposed-%d", value), value, nil)))
		return err
	})
	s := n1.process().n.Status()
	c.trace.event("n1 says: %v; log ends at %d, term %d", err, s.LastLogIndex, s.Term)
	return true, nil
}

// leadBy makes a host the leader of a cluster at rest.
func (c *Cluster) leadBy(h *Host) error {
	deadline := time.Now().Add(400 * heartbeat)
	for c.leader() != h {
		if time.Now().After(deadline) {
			return fmt.Errorf("sim: %s cannot be made to lead", h.name)
		}
		if l := c.leader(); l != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 20*heartbeat)
			if err := l.process().n.TransferLeader(ctx, h.name); err != nil {
				c.trace.event("transfer to %s: %v", h.name, err)
			}
			cancel()
		}
		elapse(heartbeat)
	}
	return c.converge()
}

// converged waits until the given hosts have the same log and have applied it.
func (c *Cluster) converged(hosts ...*Host) error {
	deadline := time.Now().Add(100 * heartbeat)
	for {
		seen := map[string]bool{}
		for _, h := range hosts {
			s := h.process().n.Status()
			seen[fmt.Sprint(s.LastLogIndex, s.AppliedIndex, s.Term)] = true
		}
		if len(seen) == 1 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sim: the logs of %v do not come to rest%s", hosts, c.report())
		}
		elapse(time.Millisecond)
	}
}
