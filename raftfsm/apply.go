// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// applier carries out entries on an engine. It belongs to the goroutine that
// applies.
//
// A run of entries becomes one storage batch, or several if it is long: what was
// applied before is published then. Nothing in the batch can be read
// back from storage before it is committed, so what this run wrote is also kept
// in docs and requests. The alternative, Pebble's indexed batch, sorts every key
// a second time and was not tried further.
type applier struct {
	f     *FSM
	e     *engine
	batch *storage.Batch
	// finder reads what was committed before this run; nil until asked.
	finder *storage.Finder

	docs     map[docKey]docState
	requests map[string]*requestRecord // nil: forgotten by this run
	seqs     map[uint64]requestSeqRecord
	oldest   struct { // remembered request, of those stored before this run
		known bool
		seq   uint64
		rec   requestSeqRecord
	}
	indexOps []indexOp

	// The entry that is being applied.
	logIndex uint64
	ordinal  int             // of the command in the entry
	seals    []*collection   // sealed by this entry
	purged   map[uint32]bool // numbers of collections purged by this entry
	dirty    []*collection   // whose counters this entry changed
	cmds     []command

	unsaved []*collection // whose counters the batch must write

	// Since the last publish.
	catalogChanged bool
	changed        map[*collection]struct{} // collections in the catalog

	key, val []byte // scratch
	plan     []plannedWrite
	vector   []float32
}

// maxBatchBytes ends a run early, so that one of large entries, or of small ones that
// write much, does not take all memory.
const maxBatchBytes = 64 << 20

func newApplier(f *FSM, e *engine) *applier {
	a := &applier{
		f: f, e: e, batch: e.db.NewBatch(),
		docs:     make(map[docKey]docState),
		requests: make(map[string]*requestRecord),
		seqs:     make(map[uint64]requestSeqRecord),
		purged:   make(map[uint32]bool),
		changed:  make(map[*collection]struct{}),
	}
	f.history.restart(e.applied, e.sum.stateHash())
	return a
}

// indexOp is something to tell an index, after the storage batch is committed.
type indexOp struct {
	kind     indexOpKind
	c        *collection
	slot     index.Slot
	at       uint64 // log index; of a seal also the generation's
	gen      uint64
	vector   []byte
	metadata []byte
}

type indexOpKind uint8

const (
	indexAppend indexOpKind = iota + 1
	indexDelete
	indexOpen
	indexSeal
)

// Apply applies one entry; see ApplyBatch.
func (f *FSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries in one storage batch, if they write no more
// than maxBatchBytes. The response of a command entry is []*fsmv1.Result, one a
// command; nil for an entry that was applied before. An entry that cannot be decoded
// stops the process with its log index.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	if f.failed != nil {
		f.fail(logs[0].Index, f.failed)
		return out
	}
	a := f.apply
	defer a.closeFinder()
	worked := false
	for i, l := range logs {
		if l.Index <= f.eng.applied {
			continue
		}
		worked = true
		if l.Type == raft.LogCommand {
			res, err := a.entry(l)
			if err != nil {
				f.fail(l.Index, err)
				return out
			}
			out[i] = res
		}
		if err := a.endEntry(l); err != nil {
			f.fail(l.Index, err)
			return out
		}
		if a.batch.Bytes() >= maxBatchBytes || i == len(logs)-1 {
			if err := f.endRun(); err != nil {
				f.fail(f.eng.applied, err)
				return make([]any, len(logs))
			}
		}
	}
	if worked {
		f.metrics.applied(len(logs))
	}
	return out
}

// endRun commits and publishes the entries applied since the last run.
func (f *FSM) endRun() error {
	if err := f.apply.finish(); err != nil {
		return err
	}
	f.apply.closeFinder()
	f.publish()
	f.apply.retireDropped()
	return nil
}

// find reads a key as it was before this run of entries.
func (a *applier) find(key, dst []byte) (value []byte, ok bool, err error) {
	if a.finder == nil {
		if a.finder, err = a.e.db.NewFinder(); err != nil {
			return dst, false, err
		}
	}
	return a.finder.Get(key, dst)
}

// closeFinder ends a run. What a failing read had to say was said by find.
func (a *applier) closeFinder() {
	if a.finder != nil {
		_ = a.finder.Close()
		a.finder = nil
	}
}

// fail ends applying. Readers keep the state that was published last, and what is
// stored stays as it is.
func (f *FSM) fail(logIndex uint64, err error) {
	err = markCorrupt(err)
	if f.failed == nil {
		f.cfg.Logger.Error("raftfsm: cannot apply", "log_index", logIndex, "error", err)
		f.failed = err
	}
	if errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("raftfsm: log index %d cannot be applied: %w", logIndex, err)
		f.damage.CompareAndSwap(nil, &err)
		return
	}
	f.cfg.Fatal(logIndex, err)
}

// Damaged is not nil once an entry could not be applied because the store is
// damaged: it wraps ErrCorrupt. Nothing is applied from then on, until a snapshot
// replaced the store; what ApplyBatch answered in the call that met the damage, and
// answers later, means nothing. It may be called at any time.
func (f *FSM) Damaged() error {
	if err := f.damage.Load(); err != nil {
		return *err
	}
	return nil
}

// entry applies the commands of one entry.
func (a *applier) entry(l *raft.Log) ([]*fsmv1.Result, error) {
	var err error
	clear(a.cmds)
	if a.cmds, err = decodeEntry(l.Data, a.cmds[:0]); err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	a.logIndex = l.Index
	if err := a.beforeEntry(); err != nil {
		return nil, err
	}
	results := make([]*fsmv1.Result, len(a.cmds))
	for i := range a.cmds {
		a.ordinal = i
		if results[i], err = a.command(&a.cmds[i]); err != nil {
			return nil, fmt.Errorf("command %d: %w", i, err)
		}
		a.f.metrics.result(results[i].GetStatus())
	}
	return results, nil
}

// beforeEntry commits what is pending if this entry will iterate over storage. It
// happens between entries only: a half-applied entry must never be committed.
func (a *applier) beforeEntry() error {
	iterates := false
	for i := range a.cmds {
		iterates = iterates || a.cmds[i].kind == opPurgeSlots || a.cmds[i].kind == opPurgeCollection
	}
	if a.batch.Empty() || !iterates {
		return nil
	}
	return a.commit()
}

// endEntry moves the applied index and brings the state hash up to date, so that
// it is known at every log index, however entries are batched.
func (a *applier) endEntry(l *raft.Log) error {
	e := a.e
	e.applied, e.term = l.Index, l.Term
	if err := a.endSeals(); err != nil {
		return err
	}
	clear(a.purged)
	for _, c := range a.dirty {
		a.foldCounters(c)
	}
	clear(a.dirty) // a collection that is dropped must not be kept by what is behind
	a.dirty = a.dirty[:0]
	a.val = e.meta.append(a.val[:0])
	if string(a.val) != string(e.metaHashed) {
		e.sum.remove([]byte(keyState), e.metaHashed)
		e.sum.add([]byte(keyState), a.val)
		e.metaHashed = append(e.metaHashed[:0], a.val...)
	}
	a.f.history.record(e.applied, e.sum.stateHash())
	return nil
}

func (a *applier) touch(c *collection) {
	a.changed[c] = struct{}{}
	if len(a.dirty) == 0 || a.dirty[len(a.dirty)-1] != c {
		a.dirty = append(a.dirty, c)
	}
}

func (a *applier) foldCounters(c *collection) {
	if a.e.byID[c.rec.GetCollectionId()] != c {
		return // dropped meanwhile
	}
	a.val = c.cnt.append(a.val[:0])
	if string(a.val) == string(c.cntHashed) {
		return
	}
	a.key = appendNumberKey(a.key[:0], prefixCounters, c.number)
	if c.cntHashed != nil {
		a.e.sum.remove(a.key, c.cntHashed)
	}
	a.e.sum.add(a.key, a.val)
	c.cntHashed = append(c.cntHashed[:0], a.val...)
	if !c.cntUnsaved {
		c.cntUnsaved = true
		a.unsaved = append(a.unsaved, c)
	}
}

// commit writes the batch with the applied index. Readers do not see it yet.
func (a *applier) commit() error {
	e := a.e
	for _, c := range a.unsaved {
		c.cntUnsaved = false
		if e.byID[c.rec.GetCollectionId()] != c {
			continue
		}
		if err := a.batch.Set(appendNumberKey(a.key[:0], prefixCounters, c.number), c.cntHashed); err != nil {
			return err
		}
	}
	clear(a.unsaved)
	a.unsaved = a.unsaved[:0]
	if err := a.batch.Set([]byte(keyState), e.metaHashed); err != nil {
		return err
	}
	rec := appliedRecord{applied: e.applied, term: e.term, hash: e.sum.stateHash()}
	if err := a.batch.Set([]byte(keyApplied), rec.append(a.val[:0])); err != nil {
		return err
	}
	if err := a.batch.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// finish commits the run and tells the indexes.
func (a *applier) finish() error {
	if err := a.commit(); err != nil {
		return err
	}
	for i := range a.indexOps {
		if err := a.tellIndex(&a.indexOps[i]); err != nil {
			return err
		}
	}
	clear(a.docs)
	clear(a.requests)
	clear(a.seqs)
	clear(a.plan)
	return nil
}

func (a *applier) tellIndex(op *indexOp) error {
	c := op.c
	switch op.kind {
	case indexAppend:
		d := int(c.rec.GetDimension())
		if cap(a.vector) < d {
			a.vector = make([]float32, d)
		}
		v := a.vector[:d]
		decodeVector(v, op.vector)
		c.idx.Append(op.slot, v, op.metadata)
	case indexDelete:
		c.idx.Delete(op.slot, op.at)
	case indexSeal:
		c.src.sealed.Store(op.at)
		c.idx.Seal(op.gen, op.at)
	case indexOpen:
		if err := a.e.openEmptyIndex(context.Background(), c); err != nil {
			return fmt.Errorf("collection %q: %w", c.rec.GetName(), err)
		}
	}
	return nil
}

// retireDropped closes the indexes of dropped collections behind the last
// reader. It comes after publish and ends the run.
func (a *applier) retireDropped() {
	for _, c := range a.e.leaving {
		a.f.life.retire(func() { a.f.closeDropped(a.e, c) })
	}
	a.e.leaving = nil
	clear(a.indexOps)
	a.indexOps = a.indexOps[:0]
}

func (f *FSM) closeDropped(e *engine, c *collection) {
	err := c.idx.Close()
	if dir := e.store.indexPath(&f.cfg, c.number); dir != "" {
		err = errors.Join(err, f.cfg.FS.RemoveAll(dir))
	}
	if err != nil {
		f.cfg.Logger.Warn("raftfsm: close index of dropped collection", "collection", c.rec.GetName(), "error", err)
	}
}

// set writes a key that has no value yet, or whose value is old.
func (a *applier) set(key, old, value []byte) error {
	if old != nil {
		a.e.sum.remove(key, old)
	}
	a.e.sum.add(key, value)
	return a.batch.Set(key, value)
}

// remove deletes a key whose value is old.
func (a *applier) remove(key, old []byte) error {
	a.e.sum.remove(key, old)
	return a.batch.Delete(key)
}

// hashHistory remembers the state hash at the last hashRing log indexes that
// were applied.
type hashHistory struct {
	mu   sync.Mutex // guards the fields below
	ring []indexedHash
	next int
}

type indexedHash struct {
	logIndex uint64
	hash     StateHash
}

// restart forgets everything but the given.
func (h *hashHistory) restart(logIndex uint64, hash StateHash) {
	h.mu.Lock()
	h.ring, h.next = h.ring[:0], 0
	h.mu.Unlock()
	h.record(logIndex, hash)
}

func (h *hashHistory) record(logIndex uint64, hash StateHash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < hashRing {
		h.ring = append(h.ring, indexedHash{logIndex, hash})
		return
	}
	h.ring[h.next] = indexedHash{logIndex, hash}
	h.next = (h.next + 1) % hashRing
}

func (h *hashHistory) at(logIndex uint64) (StateHash, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.ring {
		if x.logIndex == logIndex {
			return x.hash, true
		}
	}
	return StateHash{}, false
}
