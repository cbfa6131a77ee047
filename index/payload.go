// SPDX-License-Identifier: Apache-2.0

package index

import (
	"slices"
	"sync"
	"sync/atomic"
)

// payload indexes the fields of all payloads. The newest documents are leaves in
// a memtable; they are frozen into runs, and small runs are merged into larger
// ones in background. Readers take the list of runs from one pointer and hold no
// lock while they evaluate a filter; what the memtable holds is frozen for them,
// at most memtableDocs documents, once per change.
type payload struct {
	runs atomic.Pointer[[]*run] // ascending, without overlap
	size atomic.Int64

	mu     sync.Mutex // guards the fields below
	paths  map[string]uint32
	named  uint32 // numbers of paths given so far
	flat   flattener
	lo, hi Slot // of the memtable
	docs   int
	limit  int  // documents after which the memtable is frozen
	tail   *run // the memtable frozen for readers, or nil

	merging sync.Mutex // held by whoever replaces runs by others
}

const (
	memtableDocs = 128
	bulkDocs     = 1 << 15
	mergeFactor  = 4
	maxRunSlots  = 1 << 16
)

func newPayload() *payload {
	p := &payload{paths: map[string]uint32{}, limit: memtableDocs}
	p.flat.intern = p.intern
	p.runs.Store(&[]*run{})
	return p
}

func (p *payload) intern(path []byte) uint32 {
	if id, ok := p.paths[string(path)]; ok {
		return id
	}
	id := p.named
	p.named++
	p.paths[string(path)] = id
	return id
}

// add takes the payload of a slot above all before and reports whether there is
// something to merge.
func (p *payload) add(slot Slot, raw []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	full := false
	if p.docs > 0 && (p.docs >= p.limit || int(slot-p.lo) >= maxRunSlots) {
		p.rotateLocked()
		full = true
	}
	if p.docs == 0 {
		p.lo = slot
	}
	p.docs++
	p.hi = slot + 1
	p.tail = nil
	p.flat.document(raw, uint16(slot-p.lo))
	return full
}

// rotateLocked freezes the memtable for good.
func (p *payload) rotateLocked() {
	if p.docs == 0 {
		return
	}
	r := p.tail
	if r == nil {
		r = freeze(p.lo, p.hi, p.docs, p.flat.leaves)
	}
	runs := append(slices.Clone(*p.runs.Load()), r)
	p.runs.Store(&runs)
	p.size.Add(r.size)
	p.docs, p.tail = 0, nil
	p.flat.leaves = p.flat.leaves[:0]
	if cap(p.flat.leaves) > 1<<16 {
		p.flat.leaves = nil
	}
	p.flat.text = nil // the run has copies
}

// bulk freezes in large pieces while the replicated state is read in.
func (p *payload) bulk(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = memtableDocs
	if on {
		p.limit = bulkDocs
	} else {
		p.rotateLocked()
	}
}

// snapshot is the runs that cover all documents so far.
func (p *payload) snapshot() []*run {
	p.mu.Lock()
	defer p.mu.Unlock()
	runs := *p.runs.Load()
	if p.docs == 0 {
		return runs
	}
	if p.tail == nil {
		p.tail = freeze(p.lo, p.hi, p.docs, slices.Clone(p.flat.leaves))
	}
	return append(slices.Clip(runs), p.tail)
}

// path is the number of a path, if any document has it.
func (p *payload) path(key string) (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.paths[key]
	return id, ok
}

// merge joins neighbouring runs of like size and reports whether it did. keep,
// if set, drops slots from every run first.
func (p *payload) merge() bool {
	p.merging.Lock()
	defer p.merging.Unlock()
	runs := *p.runs.Load()
	from, to := mergeable(runs)
	if from == to {
		return false
	}
	p.replace(runs[from:to], joinRuns(runs[from:to], nil))
	return true
}

// mergeable finds neighbouring runs worth joining: together they are mergeFactor
// times as large as the largest of them at least. So a document is merged
// log(maxRunSlots/memtableDocs)/log(mergeFactor) times at most, and whenever the
// appender came in between, few runs are left. Of all such groups it is the one
// that begins first and of these the longest, which saves merging in several steps.
func mergeable(runs []*run) (from, to int) {
	for from := range runs {
		sum, largest, to := 0, 0, 0
		for i, r := range runs[from:] {
			if int(r.hi-runs[from].lo) > maxRunSlots {
				break
			}
			sum += r.docs
			largest = max(largest, r.docs)
			if sum >= mergeFactor*largest {
				to = from + i + 1
			}
		}
		if to > from+1 {
			return from, to
		}
	}
	return 0, 0
}

func joinRuns(group []*run, keep func(Slot) bool) *run {
	lo, hi := group[0].lo, group[len(group)-1].hi
	var leaves []leaf
	docs := 0
	for _, r := range group {
		leaves = r.thaw(lo, leaves, keep)
		docs += r.docs
	}
	return freeze(lo, hi, docs, leaves)
}

// replace puts one run in the place of a group; the appender may have added
// others behind it meanwhile.
func (p *payload) replace(group []*run, with *run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	runs := *p.runs.Load()
	at := slices.Index(runs, group[0])
	out := slices.Clone(runs[:at])
	if with != nil {
		out = append(out, with)
		p.size.Add(with.size)
	}
	for _, r := range group {
		p.size.Add(-r.size)
	}
	out = append(out, runs[at+len(group):]...)
	p.runs.Store(&out)
}

// purge forgets the slots below end that keep does not want.
func (p *payload) purge(end Slot, keep func(Slot) bool) {
	p.merging.Lock()
	defer p.merging.Unlock()
	for _, r := range *p.runs.Load() {
		if r.lo < end {
			p.replace([]*run{r}, joinRuns([]*run{r}, func(s Slot) bool { return s >= end || keep(s) }))
		}
	}
	p.forgetPaths()
}

// forgetPaths forgets the names of paths that no document has any more: there may be a
// new one in every document. Numbers are not given twice, since readers hold them.
func (p *payload) forgetPaths() {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := make(map[uint32]bool, len(p.paths))
	for _, r := range *p.runs.Load() {
		for id := range r.columns {
			used[id] = true
		}
	}
	for _, l := range p.flat.leaves {
		used[l.path] = true
	}
	kept := make(map[string]uint32)
	for name, id := range p.paths {
		if used[id] {
			kept[name] = id
		}
	}
	p.paths = kept
}

func (p *payload) bytes() int64 { return p.size.Load() }
