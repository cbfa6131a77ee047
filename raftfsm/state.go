// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// state is everything at one applied index. It never changes. The FSM's pointer
// to it counts as one reference, each View as one; the last one to go closes the
// storage snapshot.
type state struct {
	refs atomic.Int64
	seq  uint64 // in the order of publishing

	eng            *engine // nil after Close; only its db is used by readers
	snap           *storage.Snapshot
	applied, term  uint64
	hash           StateHash
	clusterID      string
	clusterVersion uint32
	alarms         []Alarm
	nodes          []*fsmv1.NodeRecord
	pendingPurges  []string

	colls  []*collState   // by tenant, database, name; shared with other states
	byID   map[string]int // into colls
	byName map[string]int

	superseded chan struct{} // closed when a newer state is published
}

// collState is a collection at the applied index.
type collState struct {
	c     *collection // only number, idx and src are used by readers
	rec   *fsmv1.CollectionRecord
	slots index.Slot
	live  int
	tbl   slotView
	ids   int64 // bytes of the set of document ids
}

// acquire returns the newest state with a reference. It can miss only a state
// that was just superseded, and then takes the next one.
func (f *FSM) acquire() *state {
	for {
		st := f.state.Load()
		if n := st.refs.Load(); n > 0 && st.refs.CompareAndSwap(n, n+1) {
			return st
		}
	}
}

func (f *FSM) release(st *state) {
	if st.refs.Add(-1) > 0 {
		return
	}
	if st.snap != nil {
		if err := st.snap.Close(); err != nil {
			f.cfg.Logger.Error("raftfsm: close snapshot", "error", err)
		}
	}
	f.life.end(st.seq)
}

// publish makes the engine's state the one that readers get.
func (f *FSM) publish() {
	e := f.eng
	st := &state{
		eng: e, snap: e.db.NewSnapshot(),
		applied: e.applied, term: e.term, hash: e.sum.stateHash(),
		clusterID: e.meta.clusterID, clusterVersion: e.meta.clusterVersion,
		superseded: make(chan struct{}),
	}
	old := f.state.Load()
	if a := f.apply; old == nil || old.eng != e || a.catalogChanged {
		st.fillCatalog(e)
		a.catalogChanged = false
	} else {
		st.alarms, st.nodes, st.pendingPurges = old.alarms, old.nodes, old.pendingPurges
		st.byID, st.byName = old.byID, old.byName
		st.colls = slices.Clone(old.colls)
		for c := range a.changed {
			st.colls[st.byID[c.rec.GetCollectionId()]] = newCollState(c)
		}
	}
	clear(f.apply.changed)
	f.swap(st)
}

// publishClosed leaves readers with an empty state.
func (f *FSM) publishClosed() {
	old := f.state.Load()
	f.swap(&state{applied: old.applied, term: old.term, hash: old.hash, superseded: make(chan struct{})})
}

func (f *FSM) swap(st *state) {
	st.refs.Store(1)
	st.seq = f.life.begin(st.eng != nil)
	old := f.state.Swap(st)
	if old != nil {
		close(old.superseded)
		f.release(old)
	}
}

func newCollState(c *collection) *collState {
	return &collState{c: c, rec: c.rec, slots: index.Slot(c.cnt.nextSlot), live: int(c.cnt.live), tbl: c.table.view(), ids: c.ids.bytes()}
}

func (st *state) fillCatalog(e *engine) {
	cs := e.sorted()
	st.colls = make([]*collState, len(cs))
	st.byID = make(map[string]int, len(cs))
	st.byName = make(map[string]int, len(cs))
	for i, c := range cs {
		st.colls[i] = newCollState(c)
		st.byID[c.rec.GetCollectionId()] = i
		st.byName[recordNameKey(c.rec)] = i
	}
	for _, k := range sortedKeys(e.alarms) {
		st.alarms = append(st.alarms, e.alarms[k])
	}
	for _, k := range sortedKeys(e.nodes) {
		st.nodes = append(st.nodes, e.nodes[k])
	}
	st.pendingPurges = sortedKeys(e.dropped)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// lifetimes closes what no state refers to any more, in its own goroutines: an
// index whose collection was dropped, or the engine before a restore. Things are
// retired in the order of publishing; a thing may go when every state older than
// the first one without it has gone.
type lifetimes struct {
	mu      sync.Mutex // guards the fields below
	next    uint64
	open    []uint64 // states that are referred to, in order
	retired []retiree
	idle    *sync.Cond // signalled when open shrinks; made by wait
	wg      sync.WaitGroup
}

type retiree struct {
	seq uint64 // the first state without it
	fn  func()
}

// begin counts a new state; one that refers to nothing need not be counted.
func (l *lifetimes) begin(refers bool) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	if refers {
		l.open = append(l.open, l.next)
	}
	return l.next
}

func (l *lifetimes) end(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := slices.BinarySearch(l.open, seq); ok {
		l.open = slices.Delete(l.open, i, i+1)
	}
	l.collectLocked()
}

// retire runs fn once the states published so far have gone. It is called after
// the first state without the thing was published.
func (l *lifetimes) retire(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retired = append(l.retired, retiree{seq: l.next, fn: fn})
	l.collectLocked()
}

func (l *lifetimes) collectLocked() {
	oldest := l.next
	if len(l.open) > 0 {
		oldest = l.open[0]
	}
	n := 0
	for n < len(l.retired) && l.retired[n].seq <= oldest {
		l.wg.Go(l.retired[n].fn)
		n++
	}
	l.retired = slices.Delete(l.retired, 0, n)
	if len(l.open) == 0 && l.idle != nil {
		l.idle.Broadcast()
	}
}

// wait returns when no state refers to anything and all retired things are closed.
func (l *lifetimes) wait() {
	l.mu.Lock()
	l.idle = sync.NewCond(&l.mu)
	for len(l.open) > 0 {
		l.idle.Wait()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
