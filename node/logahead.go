// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ahead lets a leader send entries to its followers while it still writes them
// itself, so that a write takes the longer of the two flushes and not their sum
// (Raft dissertation, section 10.2.1). hashicorp/raft counts an entry for this
// node as soon as StoreLogs has returned, and would commit it with one flush too
// few; so nothing acts on a commit before this node's own flush:
//
//   - the machine applies no entry above durable (adapter.ApplyBatch waits),
//     which holds back acknowledgements and everything that is read;
//   - followers are told a commit index of at most durable
//     (groupTransport.AppendEntries).
//
// A follower's answer says what it has flushed, so a node that leads no longer
// answers nothing before its own entries are flushed (settle, called by admit).
// Configurations and Raft's own entries are rare and always flushed first.
//
// All of it is off unless a leadership was established (allow) and no newer one
// was heard of.
type ahead struct {
	mu      sync.Mutex // guards the fields below
	cond    *sync.Cond // signalled when one of them changes
	pending []*raft.Log
	durable uint64 // last entry that is flushed
	term    uint64 // whose entries may be pending; 0 for none
	barred  uint64 // newest term another leader was heard of
	err     error  // a flush failed: what was pending is lost, or half-written
	closed  bool
	done    chan struct{} // closed when the writer has ended
}

func newAhead(durable uint64) *ahead {
	a := &ahead{durable: durable, done: make(chan struct{})}
	a.cond = sync.NewCond(&a.mu)
	return a
}

// allow lets entries of a term that this node leads be sent before they are
// flushed.
func (a *ahead) allow(term uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if term > a.barred {
		a.term = term
	}
}

// settle ends that, if another leader of the given term may lead now, and waits
// until nothing is pending. An error says that entries this node seems to hold
// were not flushed: it must not answer for them.
func (a *ahead) settle(term uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if term > a.barred {
		a.barred = term
	}
	if a.term > term {
		return nil // a leader of the past, whom Raft refuses
	}
	a.term = 0
	a.drainLocked()
	return a.err
}

// drain waits until nothing is pending.
func (a *ahead) drain() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drainLocked()
	return a.err
}

func (a *ahead) drainLocked() {
	for len(a.pending) > 0 && a.err == nil && !a.closed {
		a.cond.Wait()
	}
}

// take leaves entries to the writer. It returns false if they must be flushed
// before Raft goes on.
func (a *ahead) take(logs []*raft.Log) bool {
	for _, l := range logs {
		if l.Type != raft.LogCommand {
			return false
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.term == 0 || a.term != logs[0].Term || a.barred >= a.term || a.err != nil || a.closed {
		return false
	}
	a.pending = append(a.pending, logs...)
	a.cond.Broadcast()
	return true
}

// flushed says that every entry up to index is on the disk.
func (a *ahead) flushed(index uint64) {
	a.mu.Lock()
	a.durable = index
	a.cond.Broadcast()
	a.mu.Unlock()
}

// last is the last entry pending, 0 if there is none.
func (a *ahead) last() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.pending); n > 0 {
		return a.pending[n-1].Index
	}
	return 0
}

// commitLimit is the highest commit index anybody may be told.
func (a *ahead) commitLimit() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.durable
}

// errNotFlushed: an entry is committed by Raft's count, but was not flushed here.
var errNotFlushed = errors.New("node: the log could not be written")

// await waits until every entry up to index is on the disk. After an error
// nothing of them, and nothing later, may be applied before the log was opened
// anew.
func (a *ahead) await(index uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.durable < index && a.err == nil && !a.closed && len(a.pending) > 0 {
		a.cond.Wait()
	}
	switch {
	case a.durable >= index:
		return nil
	case a.err != nil:
		return fmt.Errorf("%w: %w", errNotFlushed, a.err)
	}
	return errNotFlushed
}

// diskPatience is how long a flush may take before the log counts as failed. A leader's
// heartbeats go on however long that is, so that nobody else would lead, and nothing is
// written and no read answered without a leader that applies what is committed.
const diskPatience = 10 * time.Second

var errDiskHangs = errors.New("the disk does not answer")

func errHung(patience time.Duration) error {
	return fmt.Errorf("node: append to log: %w for %v", errDiskHangs, patience)
}

// hang gives up a flush that takes too long. It may end well all the same, but
// nothing here relies on it then.
func (a *ahead) hang() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = errDiskHangs
		a.cond.Broadcast()
	}
}

// run writes what is pending, all of it with one flush, until close.
func (a *ahead) run(store func([]*raft.Log) error, observe func(entries, bytes int, d time.Duration), fail func(error) error, patience time.Duration) {
	defer close(a.done)
	for {
		a.mu.Lock()
		for len(a.pending) == 0 && !a.closed {
			a.cond.Wait()
		}
		batch := a.pending
		a.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		start := time.Now()
		hung := time.AfterFunc(patience, func() {
			a.hang()
			_ = fail(errHung(patience))
		})
		err := store(batch)
		hung.Stop()
		a.mu.Lock()
		if err == nil {
			err = a.err
		}
		if err != nil {
			a.err = err
			a.pending = nil
			a.cond.Broadcast()
			a.mu.Unlock()
			_ = fail(fmt.Errorf("node: append to log: %w", err))
			return
		}
		a.durable = batch[len(batch)-1].Index
		if a.pending = a.pending[len(batch):]; len(a.pending) == 0 {
			a.pending = nil
		}
		a.cond.Broadcast()
		a.mu.Unlock()
		bytes := 0
		for _, l := range batch {
			bytes += len(l.Data)
		}
		observe(len(batch), bytes, time.Since(start))
	}
}

// close writes what is pending and ends the writer.
func (a *ahead) close() {
	a.mu.Lock()
	a.closed = true
	a.cond.Broadcast()
	a.mu.Unlock()
	<-a.done
}
