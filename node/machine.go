// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// machine is the replicated state a group applies its log to: raftfsm's FSM,
// or the small one in RAM of this package's tests.
type machine interface {
	ApplyBatch(logs []*raft.Log) []any
	// Applied is the index of the last applied command.
	Applied() uint64
	// Flush makes the state durable and returns the index it is durable up to.
	Flush() (uint64, error)
	// Export writes the state into the empty directory dir, cheaply, and
	// returns the index it is of.
	Export(dir string) (uint64, error)
	// Import replaces the state by an exported one, atomically; it may take
	// the files away.
	Import(dir string) error
	// CheckpointIndexes makes the next start quicker.
	CheckpointIndexes(ctx context.Context) error
	// Refound replaces the cluster id; no Raft runs then.
	Refound(clusterID string) error
	// View is the newest state; nil if this machine has none to show.
	View() *raftfsm.View
	Facts() facts
	// HashAt is the state hash as of a log index not long ago.
	HashAt(logIndex uint64) (raftfsm.StateHash, bool)
	// Diverged is not nil once a state check disagreed.
	Diverged() error
	// Damaged is not nil once an entry was not applied because the state is
	// damaged: nothing is applied from then on until Import.
	Damaged() error
	// Verify reads everything and compares it with its checksums; an error
	// wrapping raftfsm.ErrCorrupt says that the replica is damaged.
	Verify(ctx context.Context) error
	// Backlog is the number of vectors the indexes are behind.
	Backlog() int
	Close() error
}

// facts is what a group needs to know of its state.
type facts struct {
	applied, term  uint64 // of the last entry in the state
	stateHash      raftfsm.StateHash
	clusterID      string
	clusterVersion uint32
	alarms         []raftfsm.Alarm
	nodes          []*fsmv1.NodeRecord
}

// adapter stands between Raft and the machine. It counts what Raft handed
// over: configuration entries too, so that a wait for Raft's commit index ends
// on an idle cluster, where the last committed entry may be no command.
type adapter struct {
	m     machine
	snaps *snapshotStore
	// onApply is called after each batch with the entries; it must not block.
	onApply func(logs []*raft.Log)
	// await returns once entries up to an index may be applied; onHeld is told of
	// an error of it, after which nothing is applied until attach.
	await  func(index uint64) error
	onHeld func(error)
	held   error // of Raft's applying goroutine

	mu   sync.Mutex // guards the fields below
	seen uint64
	// wake is closed and replaced when seen grows, or never will again since the
	// machine is damaged; nil while nobody waits.
	wake chan struct{}
}

var _ raft.BatchingFSM = (*adapter)(nil)

// Apply is ApplyBatch of one entry.
func (a *adapter) Apply(l *raft.Log) any { return a.ApplyBatch([]*raft.Log{l})[0] }

// attach is called before another Raft applies to the machine.
func (a *adapter) attach(await func(index uint64) error, onHeld func(error)) {
	a.await, a.onHeld, a.held = await, onHeld, nil
}

// ApplyBatch passes entries on and wakes those who wait for them. If this node
// could not flush the entries they are not applied, and each response is an
// error wrapping ErrUnknownOutcome: the followers may hold them. So it is once the
// machine is damaged.
func (a *adapter) ApplyBatch(logs []*raft.Log) []any {
	if a.await != nil && a.held == nil {
		if a.held = a.await(logs[len(logs)-1].Index); a.held != nil {
			a.onHeld(a.held)
		}
	}
	if a.held != nil {
		return notApplied(logs, a.held)
	}
	out := a.m.ApplyBatch(logs)
	if err := a.m.Damaged(); err != nil {
		a.wakeAll()
		return notApplied(logs, err)
	}
	a.advance(logs[len(logs)-1].Index)
	if a.onApply != nil {
		a.onApply(logs)
	}
	return out
}

func notApplied(logs []*raft.Log, why error) []any {
	out := make([]any, len(logs))
	for i := range out {
		out[i] = fmt.Errorf("%w: %w", ErrUnknownOutcome, why)
	}
	return out
}

func (a *adapter) wakeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wakeLocked()
}

// advance is called when every entry up to index is in the state.
func (a *adapter) advance(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if index <= a.seen {
		return
	}
	a.seen = index
	a.wakeLocked()
}

func (a *adapter) wakeLocked() {
	if a.wake != nil {
		close(a.wake)
		a.wake = nil
	}
}

func (a *adapter) applied() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// wait returns once every entry up to index is in the state; ErrFenced if it never
// will be, since the state is damaged.
func (a *adapter) wait(ctx context.Context, index uint64) error {
	for {
		a.mu.Lock()
		if a.seen >= index {
			a.mu.Unlock()
			return nil
		}
		if err := a.m.Damaged(); err != nil {
			a.mu.Unlock()
			return fmt.Errorf("%w: %w", ErrFenced, err)
		}
		if a.wake == nil {
			a.wake = make(chan struct{})
		}
		wake := a.wake
		a.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Snapshot is O(1): the work is in Persist.
func (a *adapter) Snapshot() (raft.FSMSnapshot, error) {
	if err := cmp.Or(a.held, a.m.Damaged()); err != nil {
		return nil, err // Raft believes more to be applied than is
	}
	return flushSnapshot{a.m}, nil
}

// Restore installs what the snapshot store staged; r is the manifest.
func (a *adapter) Restore(r io.ReadCloser) error {
	defer r.Close()
	if a.held != nil {
		return a.held
	}
	man, err := readManifest(r)
	if err != nil {
		return err
	}
	index, err := a.snaps.install(man, a.m)
	if err != nil {
		if a.m.Applied() < man.AppliedIndex {
			err = errors.Join(err, a.snaps.abandon(man))
		}
		return err
	}
	a.advance(index)
	return nil
}

// flushSnapshot is a local snapshot: the machine's own files, made durable.
type flushSnapshot struct{ m machine }

// Persist flushes; the log may be truncated once it returns.
func (s flushSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.m.Flush(); err != nil {
		return err
	}
	return sink.Close()
}

// Release does nothing.
func (flushSnapshot) Release() {}

// fsmMachine is the real machine.
type fsmMachine struct{ *raftfsm.FSM }

func (m fsmMachine) Export(dir string) (uint64, error) {
	man, err := m.FSM.Export(dir)
	if err != nil {
		return 0, err
	}
	return man.Applied, nil
}

func (m fsmMachine) Import(dir string) error { return m.FSM.RestoreDir(context.Background(), dir) }

func (m fsmMachine) Facts() facts {
	v := m.View()
	defer v.Close()
	return facts{
		applied: v.Applied(), term: v.Term(), stateHash: v.StateHash(), clusterID: v.ClusterID(), clusterVersion: v.ClusterVersion(),
		alarms: v.Alarms(), nodes: v.Nodes(),
	}
}

func (m fsmMachine) Backlog() int {
	v := m.View()
	defer v.Close()
	most := 0
	for _, c := range v.AllCollections() {
		st := c.IndexStatus()
		most = max(most, st.Total-st.Graphed)
	}
	return most
}

func (m fsmMachine) Diverged() error {
	v := m.View()
	defer v.Close()
	return v.Diverged()
}

// graphHash is one hash over the graphs of a view.
func graphHash(v *raftfsm.View) string {
	sum := sha256.New()
	for _, c := range v.Collections() {
		fmt.Fprintf(sum, "%s %s\n", c.Record().GetCollectionId(), c.IndexStatus().GraphHash)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}
