// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// closeWithin closes a node that hangs, and returns what Close says within a time that
// has nothing to do with how long it hangs.
func closeWithin(t *testing.T, n *Node, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.Close(ctx) }()
	late := time.NewTimer(limit + 5*time.Second)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		t.Errorf("Close did not end within %v", limit)
		return nil
	}
}

// A disk that answers nothing holds up whoever flushes to it, which nothing can interrupt.
func TestCloseEndsThoughTheDiskHangs(t *testing.T) {
	c, valves := startWithValves(t)
	l := c.leader()
	c.put(l, "before")
	valves[l.ID()].close()
	held := c.propose(l, put("held"))
	core := l.g.core.Load()
	c.wait("a flush that hangs", func() bool { return core.r.LastIndex() > core.ls.ahead.commitLimit() })
	err := closeWithin(t, l, 500*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the log") {
		t.Errorf("Close says %v; want that the log did not end", err)
	}
	valves[l.ID()].end(nil)
	<-held
	if err := l.Close(c.ctx()); err != nil {
		t.Errorf("once the disk answers: %v", err)
	}
}

// slowMachine is a state whose end takes until let.
type slowMachine struct {
	*memMachine
	let chan struct{}
}

func (m *slowMachine) Close() error {
	<-m.let
	return m.memMachine.Close()
}

func TestCloseEndsThoughTheStateHangs(t *testing.T) {
	let := make(chan struct{})
	c := newCluster(t, []string{"n1"}, func(cfg *Config) {
		cfg.openMachine = func(_ context.Context, dir string) (machine, error) {
			m, err := openMem(dir)
			return &slowMachine{m, let}, err
		}
	})
	n := c.start("n1")
	c.leader()
	err := closeWithin(t, n, 500*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the state") {
		t.Errorf("Close says %v; want that the state did not end", err)
	}
	close(let)
	if err := n.Close(c.ctx()); err != nil {
		t.Errorf("once the state ends: %v", err)
	}
}

// A peer behind a router that drops everything neither takes a connection nor refuses
// it: a stop does not wait for it.
func TestCloseWaitsForNoPeerThatIsBeingDialled(t *testing.T) {
	asked := make(chan struct{}, 16)
	c := newCluster(t, []string{"n1"}, func(cfg *Config) {
		cfg.Peers = []string{"127.0.0.1:1"}
		cfg.BootstrapExpect = 2
		cfg.Net.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			asked <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	n := c.start("n1")
	<-asked
	began := time.Now()
	c.stop("n1")
	if d := time.Since(began); d >= dialTimeout*3/4 {
		t.Errorf("%s took %v to stop, for a peer that does not answer", n.ID(), d)
	}
}
