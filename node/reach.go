// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// reach knows the members that a leader's messages do not get through to. Their
// replication waits here until a heartbeat gets through again.
//
// Without it a member that returns lags for up to ten seconds more:
// hashicorp/raft (1.8.0, replicateTo) doubles its wait after each failure, from
// 10 ms to 10 s, and nothing but a shutdown interrupts it. Until then the member
// cannot stand in for another that fails. Heartbeats have a goroutine of their
// own, which never waits longer than half a heartbeat time-out, so they notice
// first. However long a member is away, Raft counts two failures, so its own wait
// stays at the shortest.
type reach struct {
	// needed says whether an append of a term to a member still has a purpose:
	// nothing else ends the wait of a leader that was deposed, or of replication
	// to a member that was removed.
	needed func(id raft.ServerID, term uint64) bool
	check  time.Duration // reachCheck
	ended  chan struct{} // closed when Raft shuts down
	once   sync.Once

	mu   sync.Mutex // guards away
	away map[raft.ServerID]chan struct{}
}

// reachCheck is how often a call that waits asks whether it is still needed.
const reachCheck = 100 * time.Millisecond

var (
	errUnreachable = errors.New("the member does not answer")
	errBack        = errors.New("the member answers again: sending what is new instead")
)

func newReach(check time.Duration, needed func(id raft.ServerID, term uint64) bool) *reach {
	return &reach{needed: needed, check: check, ended: make(chan struct{}), away: make(map[raft.ServerID]chan struct{})}
}

// end lets every call go, for good.
func (r *reach) end() { r.once.Do(func() { close(r.ended) }) }

// answers reports whether the last message to a member got through.
func (r *reach) answers(id raft.ServerID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away[id] == nil
}

// await returns nil if an append to a member is worth trying now. If that is so
// only after a wait it returns an error: the request is as old as the wait is
// long, and Raft makes a new one.
func (r *reach) await(id raft.ServerID, term uint64) error {
	r.mu.Lock()
	back := r.away[id]
	r.mu.Unlock()
	if back == nil {
		return nil
	}
	t := time.NewTicker(r.check)
	defer t.Stop()
	for r.needed(id, term) {
		select {
		case <-back:
			return errBack
		case <-t.C:
		case <-r.ended:
			return raft.ErrTransportShutdown
		}
	}
	return errUnreachable
}

// note takes the outcome of a message: a heartbeat that gets through ends the
// wait of the others.
func (r *reach) note(id raft.ServerID, heartbeat bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	back := r.away[id]
	switch {
	case err == nil && back != nil:
		close(back)
		delete(r.away, id)
	case err != nil && back == nil && !heartbeat:
		r.away[id] = make(chan struct{})
	}
}

// isHeartbeat recognises what Raft sends beside its entries (1.8.0, heartbeat):
// a message that says nothing but the term.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}
