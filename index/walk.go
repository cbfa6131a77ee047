// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"math/bits"
	"sync/atomic"

	"github.com/akidb/akidb/index/distance"
)

// scratch is the memory of one search or one build worker, reused.
type scratch struct {
	request  request // in here, so that a search allocates nothing
	asked    Query
	measure  measure
	pool     pool
	seen     marks
	ids      []uint32
	out      []uint32
	nearer   []uint64           // candidates of one expansion
	longest  distance.Expansion // of rows side by side
	frontier heap
	// expansion, where expands, compares with the neighbours of a vertex.
	expansion distance.Expansion
	expands   bool
	query     []float32
	results   []uint64
	dists     []float32
	visited   int
	near      []uint32 // matching vertices near a query
	// Vectors read from disk, and their numbers.
	disk      []float32
	local     []uint32
	found     pool      // of a walk on blocks: the nearest compared
	estimator estimator // of a walk on blocks
	sketcher  sketcher  // of a scan of sketches
	// Of filters: a bit per vertex, and what evaluates them.
	bits      []uint64
	evaluator evaluator
}

// need makes room for n ids and their keys.
func (s *scratch) need(n int) {
	if cap(s.ids) < n {
		s.ids = make([]uint32, 0, n+n/4+64)
	}
	if cap(s.out) < n {
		s.out = make([]uint32, n+n/4+64)
	}
}

// begin prepares for the vertices below limit, and reports whether by an expansion.
func (s *scratch) begin(limit uint32) bool {
	s.expands = s.measure.expand(&s.expansion, limit)
	return s.expands
}

// descend goes greedily from the entry point on layer top down to the layer
// above stop and returns the nearest candidate found. Vertices at or above limit
// do not exist for it. The walks below go on from there, with the same measure and
// limit.
func (s *scratch) descend(g *graph, entry uint32, top, stop int, limit uint32) uint64 {
	s.need(1)
	out := s.out[:1]
	s.measure.keys(append(s.ids[:0], entry), out)
	best := candidate(out[0], entry)
	// What was compared once, on whatever layer, cannot become the best later.
	s.seen.reset(int(limit))
	s.seen.add(entry)
	s.begin(limit)
	for layer := top; layer > stop; layer-- {
		for {
			from := best
			for _, c := range s.expand(g.row(candidateVertex(best), layer), limit, best) {
				best = min(best, c)
			}
			if best == from {
				break
			}
		}
	}
	return best
}

// walk expands candidates of the pool until all in it are expanded. The pool
// holds the way in, and what is in it is marked as seen.
func (s *scratch) walk(g *graph, layer int, limit uint32, ctx context.Context) error {
	for {
		if more := s.walkOn(g, layer, limit, 64); !more {
			return nil
		}
		if ctx != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// walkOn expands so many candidates at most and reports whether there may be
// more.
func (s *scratch) walkOn(g *graph, layer int, limit uint32, steps int) (more bool) {
	for range steps {
		c, ok := s.pool.pop()
		if !ok {
			return false
		}
		if c, ok := s.pool.peek(); ok {
			distance.Prefetch(g.row(candidateVertex(c), layer))
		}
		if s.pool.insertAll(s.expand(g.row(candidateVertex(c), layer), limit, s.pool.bound())) {
			distance.Prefetch(g.row(candidateVertex(s.pool.items[s.pool.next]), layer))
		}
	}
	return true
}

// room is for n candidates of an expansion.
func (s *scratch) room(n int) []uint64 {
	if n += distance.Slack; cap(s.nearer) < n {
		s.nearer = make([]uint64, n)
	}
	return s.nearer[:cap(s.nearer)]
}

// expand compares the query with those of a row of links that are below limit and
// were not seen yet, and returns the candidates below bound, which are good until the
// next call.
func (s *scratch) expand(row []uint32, limit uint32, bound uint64) []uint64 {
	nearer := s.room(len(row))
	if s.expands {
		seen, found := s.expansion.Neighbours(row, s.seen.bits, s.seen.shift, bound, s.seen.room(len(row)+distance.Slack), nearer)
		s.seen.took(seen)
		s.visited += seen
		return nearer[:found]
	}
	ids := s.seen.gather(row, limit)
	s.need(len(ids))
	out := s.out[:cap(s.out)]
	s.measure.prefetch(ids)
	s.measure.keys(ids, out)
	s.visited += len(ids)
	n := 0
	for i, u := range ids {
		c := candidate(out[i], u)
		nearer[n] = c
		_, below := bits.Sub64(c, bound, 0)
		n += int(below)
	}
	return nearer[:n]
}

// walkThrough is walk for a predicate that most vertices pass: others lead on
// but are no results. The pool collects results; the way in is in the frontier.
func (s *scratch) walkThrough(g *graph, limit uint32, ctx context.Context, see *sight) error {
	for steps := 1; len(s.frontier) > 0; steps++ {
		c := s.frontier.pop()
		if c > s.pool.bound() {
			return nil
		}
		if steps%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		for _, n := range s.expand(g.row(candidateVertex(c), 0), limit, s.pool.bound()) {
			if n >= s.pool.bound() {
				continue
			}
			s.frontier.push(n)
			if see.match(candidateVertex(n)) {
				s.pool.insert(n)
			}
		}
	}
	return nil
}

// walkMatching is walk on the matching vertices alone: where a neighbour does
// not match, its own neighbours stand in for it (ACORN, doi 10.1145/3654923). The
// pool holds matching vertices to begin with, marked as seen.
func (s *scratch) walkMatching(g *graph, limit uint32, ctx context.Context, see *sight) error {
	s.need(g.m0 * (g.m0 + 2))
	out := s.out[:cap(s.out)]
	for steps := 1; ; steps++ {
		c, ok := s.pool.pop()
		if !ok {
			return nil
		}
		if steps%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		ids := s.ids[:0]
		row := g.row(candidateVertex(c), 0)
		for i := range row {
			u := atomic.LoadUint32(&row[i])
			if u == none {
				break
			}
			if u >= limit || !s.seen.add(u) {
				continue
			}
			if see.match(u) {
				ids = append(ids, u)
				continue
			}
			second := g.row(u, 0)
			for j := range second {
				w := atomic.LoadUint32(&second[j])
				if w == none {
					break
				}
				if w < limit && see.match(w) && s.seen.add(w) {
					ids = append(ids, w)
				}
			}
		}
		s.measure.keys(ids, out)
		s.visited += len(ids)
		bound := s.pool.bound()
		for i, u := range ids {
			if n := candidate(out[i], u); n < bound {
				s.pool.insert(n)
				bound = s.pool.bound()
			}
		}
	}
}
