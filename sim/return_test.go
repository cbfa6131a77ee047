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

// TestMemberThatReturnsCatchesUpAtOnce takes a follower away for longer and
// longer, lets clients write meanwhile, and starts it again: it must hold what
// they wrote within a few heartbeats, however long it was away. hashicorp/raft
// alone would let it wait for up to ten seconds more (the wait of replicateTo
// doubles with each failure and nothing interrupts it), and a member that lags
// cannot stand in for the next one that dies. It must not call itself ready
// before, either.
func TestMemberThatReturnsCatchesUpAtOnce(t *testing.T) {
	seed := *flagSeed
	if seed == 0 {
		seed = *flagFirst
	}
	fmt.Fprintf(os.Stderr, "sim: go test ./sim -run %s -sim.seed=%d\n", t.Name(), seed)
	inBubble(t, func(t *testing.T) {
		tr := newTrace()
		c := newCluster(t, seed, 3, tr)
		c.trailing, c.threshold = 2000, 2000 // by entries, not by a snapshot
		cs := &clients{c: c, h: newHistory(), stop: make(chan struct{})}
		defer c.shutdown()
		defer close(cs.stop)
		err := func() error {
			for _, h := range c.hosts {
				if err := c.startHost(h); err != nil {
					return err
				}
			}
			if err := cs.setup(); err != nil {
				return err
			}
			for i, away := range []int{1, 3, 11, 23, 60, 500} {
				if err := c.converge(); err != nil {
					return err
				}
				if err := cs.returns(i, time.Duration(away)*heartbeat); err != nil {
					return err
				}
			}
			return nil
		}()
		if err != nil {
			t.Errorf("%v%s\n%s", err, c.report(), tr.tail(100))
		}
	})
}

// returns takes a follower away for a while, by a crash or, half of the time, by
// the loss of its power.
func (cs *clients) returns(round int, away time.Duration) error {
	c := cs.c
	l := c.leader()
	var follower *Host
	for _, h := range c.hosts {
		if h != l {
			follower = h
		}
	}
	c.kill(follower, round%2 == 1, 0)
	elapse(away)
	k := &client{clients: cs, name: "returns"}
	value := int(k.value.Add(1)) + 1_000_000
	res, o := k.propose(l.process(), write(upsert(fsmv1.Write_KIND_UPSERT, fmt.Sprintf("returns-%d", round), value, nil)))
	if o != done {
		return fmt.Errorf("sim: a write with one of three away: outcome %v", o)
	}
	c.trace.event("%s comes back after %v", follower.name, away)
	if err := c.startHost(follower); err != nil {
		return err
	}
	began := time.Now()
	for {
		s := follower.process().n.Status()
		took := time.Since(began)
		if s.Ready && s.AppliedIndex < res.LogIndex {
			return fmt.Errorf("sim: %s is ready %v after its start, at log index %d of %d", follower.name, took, s.AppliedIndex, res.LogIndex)
		}
		if s.AppliedIndex >= res.LogIndex && s.Ready {
			break
		}
		if took > 3*heartbeat {
			return fmt.Errorf("sim: %s was away for %v, and %v after its start it is at log index %d of %d, ready: %v (%s)", follower.name, away, took,
				s.AppliedIndex, res.LogIndex, s.Ready, s.NotReadyReason)
		}
		elapse(heartbeat / 50)
	}
	ctx, cancel := context.WithTimeout(context.Background(), heartbeat)
	defer cancel()
	v, err := follower.process().n.Read(ctx, node.ReadOptions{Consistency: node.Linearizable})
	if err != nil {
		return fmt.Errorf("sim: linearizable read at %s, which has caught up: %w", follower.name, err)
	}
	v.Close()
	return nil
}
