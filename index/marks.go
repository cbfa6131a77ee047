// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"slices"
	"sync"
)

// maxMarks is how many boundaries of batches a graph remembers its hash at: 24
// bytes each. A replica can lag this many batches behind another one and still
// be compared with it.
const maxMarks = 256

// Mark is the hash of a graph as it was when it covered Graphed vectors.
type Mark struct {
	Graphed uint32
	Hash    [16]byte
}

// Progress is a graph that grows, so that it can be compared with that of a
// replica which is further or not as far. Batches end at counts that are the same
// everywhere, so two graphs of the same Generation and Plain have equal hashes at
// every count that both have a mark of.
type Progress struct {
	Generation uint64
	Plain      bool // built without codes, which gives another graph
	Graphed    int
	Total      int
	Idle       bool
	Marks      []Mark // ascending; the last is the graph as it is
}

// Progress tells at most the newest most marks.
func (x *Index) Progress(most int) Progress {
	g := x.acquire()
	defer g.release()
	p := Progress{Generation: g.id, Plain: g.plain.Load(), Marks: g.marks.newest(most)}
	// Total is read after the marks, so that it is not below them.
	total := g.total.Load()
	graphed := p.Marks[len(p.Marks)-1].Graphed
	p.Graphed, p.Total = int(graphed), int(total)
	p.Idle = x.final(g, graphed, total)
	return p
}

// markRing is the newest marks of one graph.
type markRing struct {
	mu   sync.Mutex // guards the fields below
	ring []Mark
	next int
}

func (m *markRing) add(graphed uint32, hash digest) {
	mark := Mark{Graphed: graphed}
	binary.BigEndian.PutUint64(mark.Hash[:8], hash.hi)
	binary.BigEndian.PutUint64(mark.Hash[8:], hash.lo)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ring) < maxMarks {
		m.ring = append(m.ring, mark)
		return
	}
	m.ring[m.next] = mark
	m.next = (m.next + 1) % maxMarks
}

// copy takes the marks of another graph.
func (m *markRing) copy(other *markRing) {
	other.mu.Lock()
	defer other.mu.Unlock()
	m.ring, m.next = slices.Clone(other.ring), other.next
}

// newest returns at least one mark: a graph of nothing has the hash zero.
func (m *markRing) newest(most int) []Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.ring)
	if n == 0 {
		return []Mark{{}}
	}
	out := make([]Mark, 0, min(max(most, 1), n))
	for i := n - cap(out); i < n; i++ {
		out = append(out, m.ring[(m.next+i)%n])
	}
	return out
}
