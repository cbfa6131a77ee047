// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// heldFuture answers when it is told to, as Raft's do.
type heldFuture struct{ answer chan error }

func (f heldFuture) Error() error { return <-f.answer }

// An entry that Raft had not taken when it was shut down is never answered. The
// wait for it must end with Raft, and must not claim to know the outcome.
func TestUnansweredFutureEndsWithRaft(t *testing.T) {
	c := &raftCore{ended: make(chan struct{})}
	c.pending.Add(2)
	never := heldFuture{make(chan error)}
	got := make(chan error, 1)
	go func() { got <- c.answer(never) }()
	close(c.ended)
	if err := <-got; !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("answer after Raft's end: %v, want ErrUnknownOutcome", err)
	}
	never.answer <- nil // lets the goroutine left behind go

	late := heldFuture{make(chan error, 1)}
	late.answer <- raft.ErrLeadershipLost
	if err := c.answer(late); !errors.Is(err, raft.ErrLeadershipLost) {
		t.Errorf("answer given before Raft's end: %v", err)
	}
	c.drain() // nothing pending: returns
	if n := c.pending.Load(); n != 0 {
		t.Errorf("%d answers pending", n)
	}
}

// Once drained, a Raft is given nothing more: it would not be answered.
func TestDrainedRaftIsGivenNothing(t *testing.T) {
	c := &raftCore{ended: make(chan struct{})} // without a Raft: to ask it would panic
	c.drain()
	if err := c.answer(c.apply([]byte("entry"), 0)); !errors.Is(classifyApply(err), ErrNotLeader) {
		t.Errorf("%v, want ErrNotLeader", err)
	}
	if n := c.pending.Load(); n != 0 {
		t.Errorf("%d answers pending", n)
	}
}
