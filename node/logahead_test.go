// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// valve holds up the flushes of one node, and decides how they end.
type valve struct {
	mu   sync.Mutex // guards the fields below
	shut bool
	err  error
	open *sync.Cond
}

func newValve() *valve {
	v := &valve{}
	v.open = sync.NewCond(&v.mu)
	return v
}

func (v *valve) close() {
	v.mu.Lock()
	v.shut = true
	v.mu.Unlock()
}

// end lets what waits go on with err.
func (v *valve) end(err error) {
	v.mu.Lock()
	v.shut, v.err = false, err
	v.mu.Unlock()
	v.open.Broadcast()
}

func (v *valve) pass() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.shut {
		v.open.Wait()
	}
	return v.err
}

type valveLog struct {
	closableLogStore
	v *valve
}

func (l valveLog) StoreLogs(logs []*raft.Log) error {
	if err := l.v.pass(); err != nil {
		return err
	}
	return l.closableLogStore.StoreLogs(logs)
}

func startWithValves(t *testing.T) (*cluster, map[string]*valve) {
	valves := map[string]*valve{"n1": newValve(), "n2": newValve(), "n3": newValve()}
	c := startCluster(t, 3, func(cfg *Config) {
		cfg.wrapLog = func(l closableLogStore) closableLogStore { return valveLog{l, valves[cfg.NodeID]} }
	})
	t.Cleanup(func() {
		for _, v := range valves {
			v.end(nil)
		}
	})
	return c, valves
}

// propose writes in the background.
func (c *cluster) propose(n *Node, cmd *fsmv1.Command) chan error {
	done := make(chan error, 1)
	ctx := c.ctx()
	go func() {
		_, err := n.Propose(ctx, cmd)
		done <- err
	}()
	return done
}

// A leader sends what it has not flushed yet. Two followers have flushed it and
// Raft counts it as committed, but until the leader has flushed it as well
// nobody may act on that: with one of the followers gone for good and the leader
// restarted, one copy would be all there is.
func TestNothingIsAppliedBeforeTheLeaderFlushedIt(t *testing.T) {
	c, valves := startWithValves(t)
	l := c.leader()
	c.put(l, "before")
	c.wait("followers to catch up", func() bool {
		for _, m := range c.mem {
			if _, ok := m.doc("before"); !ok {
				return false
			}
		}
		return true
	})
	valves[l.ID()].close()
	done := c.propose(l, put("held"))
	core := l.g.core.Load()
	c.wait("Raft to commit what the leader has not flushed", func() bool {
		return core.r.CommitIndex() > core.ls.ahead.commitLimit()
	})
	for _, n := range c.nodes {
		if n == l {
			continue
		}
		for range 3 {
			at := time.Now()
			c.wait("another message of the leader", func() bool { return n.g.core.Load().r.LastContact().After(at) })
		}
	}
	select {
	case err := <-done:
		t.Fatalf("acknowledged before the leader flushed it (error: %v)", err)
	default:
	}
	for name, m := range c.mem {
		if _, ok := m.doc("held"); ok {
			t.Errorf("%s applied it before the leader flushed it", name)
		}
	}
	valves[l.ID()].end(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.wait("all to apply it", func() bool {
		for _, m := range c.mem {
			if _, ok := m.doc("held"); !ok {
				return false
			}
		}
		return true
	})
}

// The leader's flush fails after the followers hold the entry. The caller hears
// that nobody knows; the node leaves, and comes back with what the others have.
func TestFailedFlushOfTheLeader(t *testing.T) {
	c, valves := startWithValves(t)
	l := c.leader()
	for {
		c.put(l, "before")
		core := l.g.core.Load()
		term := core.r.CurrentTerm()
		valves[l.ID()].close()
		done := c.propose(l, put("lost or not"))
		c.wait("Raft to commit it", func() bool { return core.r.CommitIndex() > core.ls.ahead.commitLimit() })
		valves[l.ID()].end(fmt.Errorf("write segment: %w", syscall.EIO))
		err := <-done
		valves[l.ID()].end(nil)
		if errors.Is(err, ErrUnknownOutcome) {
			break
		}
		// A busy machine may lose its leader: another one acknowledged it, or could not.
		if core.r.CurrentTerm() == term {
			t.Fatalf("got %v, want %v", err, ErrUnknownOutcome)
		}
		t.Logf("another leader: %v", err)
		l = c.leader()
	}
	c.put(c.leader(), "after")
	c.wait("three equal states", func() bool {
		var first string
		for i, name := range c.names {
			m := c.mem[name]
			m.mu.Lock()
			s := fmt.Sprintf("%d %x", m.st.Applied, m.st.Hash)
			_, ok := m.st.Docs["after"]
			m.mu.Unlock()
			if i == 0 {
				first = s
			}
			if !ok || s != first {
				return false
			}
		}
		return true
	})
}

// A leader that hears of a newer one answers nothing before its own entries are
// flushed: the answer would count them.
func TestDeposedLeaderSettlesFirst(t *testing.T) {
	for _, failing := range []bool{false, true} {
		t.Run(fmt.Sprintf("failing=%v", failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAhead(4)
				gate := make(chan error)
				go a.run(func([]*raft.Log) error { return <-gate }, func(int, int, time.Duration) {}, func(err error) error { return err }, diskPatience)
				entry := []*raft.Log{{Index: 5, Term: 7, Type: raft.LogCommand}}
				if a.take(entry) {
					t.Fatal("taken before the leadership was established")
				}
				a.allow(7)
				if a.take([]*raft.Log{{Index: 5, Term: 7, Type: raft.LogConfiguration}}) {
					t.Fatal("a configuration was taken")
				}
				if !a.take(entry) {
					t.Fatal("not taken")
				}
				if err := a.settle(6); err != nil {
					t.Fatalf("a leader of the past: %v", err)
				}
				settled := make(chan error, 1)
				go func() { settled <- a.settle(8) }()
				synctest.Wait()
				select {
				case err := <-settled:
					t.Fatalf("settled before the flush: %v", err)
				default:
				}
				if a.take([]*raft.Log{{Index: 6, Term: 7, Type: raft.LogCommand}}) {
					t.Fatal("taken after a newer leader was heard of")
				}
				var want error
				if failing {
					want = syscall.EIO
				}
				gate <- want
				if err := <-settled; !errors.Is(err, want) {
					t.Fatalf("settled with %v, want %v", err, want)
				}
				a.allow(7)
				if a.take([]*raft.Log{{Index: 6, Term: 7, Type: raft.LogCommand}}) {
					t.Fatal("allowed again for a term that is over")
				}
				a.close()
			})
		})
	}
}

// What waits while a flush runs shares the next one.
func TestPendingEntriesShareOneFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAhead(0)
		flushes := make(chan int)
		go a.run(func(logs []*raft.Log) error { flushes <- len(logs); return nil },
			func(int, int, time.Duration) {}, func(err error) error { return err }, diskPatience)
		a.allow(1)
		for i := range uint64(5) {
			a.take([]*raft.Log{{Index: i + 1, Term: 1, Type: raft.LogCommand}})
			synctest.Wait()
		}
		if n := <-flushes; n != 1 {
			t.Errorf("first flush of %d entries, want 1", n)
		}
		if n := <-flushes; n != 4 {
			t.Errorf("second flush of %d entries, want 4", n)
		}
		if err := a.await(5); err != nil {
			t.Error(err)
		}
		a.close()
	})
}

// Entries that are not flushed are in the cache, however small that is.
func TestPendingEntriesStayInRAM(t *testing.T) {
	v := newValve()
	s := testLog(t, logStoreWAL)
	s.under = valveLog{s.under, v}
	s.start()
	t.Cleanup(s.ahead.close)
	s.ahead.allow(1)
	v.close()
	const n = 2 * logCacheEntries
	for i := range uint64(n) {
		if err := s.StoreLogs([]*raft.Log{{Index: i + 1, Term: 1, Type: raft.LogCommand, Data: []byte{byte(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	check := func() {
		t.Helper()
		for i := range uint64(n) {
			var l raft.Log
			if err := s.GetLog(i+1, &l); err != nil || l.Data[0] != byte(i) {
				t.Fatalf("entry %d: %v, %v", i+1, l.Data, err)
			}
		}
	}
	check()
	v.end(nil)
	if last, err := s.LastIndex(); err != nil || last != n {
		t.Fatalf("last index %d, %v", last, err)
	}
	check()
	if err := s.ahead.await(n); err != nil {
		t.Fatal(err)
	}
}
