// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"math/bits"
	"sync/atomic"

	"github.com/akidb/akidb/index/distance"
)

// walkBlocks is walk on the blocks of layer 0: a vertex that is expanded gets
// its distance on codes, and its neighbours enter the pool with estimates. A
// vertex is expanded once; until then each estimate of it may enter, and the
// smallest counts.
func (s *scratch) walkBlocks(b *blockset, limit uint32, ctx context.Context) error {
	s.need(lanes)
	b.prepare(&s.estimator, &s.measure)
	e := &s.estimator
	p := &s.pool
	s.found.reset(p.limit)
	var queue [lookAhead]uint64
	waiting := 0
	for steps := 1; ; steps++ {
		// What is expanded next is known before this vertex's neighbours are.
		for waiting < lookAhead {
			c, ok := s.takeEstimate()
			if !ok {
				break
			}
			b.codes.prefetch(candidateVertex(c))
			distance.Prefetch(b.block(candidateVertex(c), 0))
			queue[waiting] = c
			waiting++
		}
		if waiting == 0 {
			p.items = append(p.items[:0], s.found.items...)
			return nil
		}
		c := queue[0]
		copy(queue[:], queue[1:waiting])
		waiting--
		at := p.find(c)
		if at < 0 {
			continue
		}
		if ctx != nil && steps%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		v := candidateVertex(c)
		s.ids = append(s.ids[:0], v)
		s.measure.keys(s.ids, s.out[:1])
		s.visited++
		key := s.out[0]
		// The distance takes the place of the estimate.
		found := candidate(key, v) | expanded
		p.replace(at, found)
		s.found.insert(found)
		e.Base = estimateKey(b.inner, key)
		bound := p.bound()
		for group := range b.groups {
			e.Limit = distance.MaxEstimate
			if len(p.items) == p.limit {
				e.Limit = estimateKey(b.inner, candidateKey(bound))
			}
			block := b.block(v, group)
			numbers := b.numbers(block)
			// Without branches on what is hard to foretell.
			n := 0
			for mask := distance.Estimate(e.table, block, &e.Estimator, &e.keys); mask != 0; mask &= mask - 1 {
				lane := bits.TrailingZeros32(mask) % lanes
				if u := atomic.LoadUint32(&numbers[lane]); u < limit {
					e.found[n%lanes] = candidate(e.keys[lane], u)
					n += 1 - int(s.seen.bit(u))
				}
			}
			for _, c := range e.found[:n] {
				if c < bound {
					p.insert(c)
					bound = p.bound()
				}
			}
		}
	}
}

// lookAhead is how many vertices are fetched before they are expanded.
const lookAhead = 3

// takeEstimate marks the nearest vertex that was not expanded yet. Others of its
// estimates are dropped.
func (s *scratch) takeEstimate() (uint64, bool) {
	p := &s.pool
	for i := p.next; i < len(p.items); {
		c := p.items[i]
		switch {
		case c&expanded != 0:
			i++
		case !s.seen.add(candidateVertex(c)):
			copy(p.items[i:], p.items[i+1:])
			p.items = p.items[:len(p.items)-1]
		default:
			p.items[i] |= expanded
			p.next = i + 1
			return p.items[i], true
		}
	}
	p.next = len(p.items)
	return 0, false
}

// find is the place of an item, -1 if it was dropped.
func (p *pool) find(c uint64) int {
	at := 0
	for size := len(p.items); size > 0; {
		half := (size + 1) / 2
		if p.items[at+half-1] < c {
			at += half
		}
		size -= half
	}
	if at < len(p.items) && p.items[at] == c {
		return at
	}
	return -1
}

// replace puts c in order in the place of item at.
func (p *pool) replace(at int, c uint64) {
	p.next = min(p.next, at)
	for ; at+1 < len(p.items) && p.items[at+1] < c; at++ {
		p.items[at] = p.items[at+1]
	}
	for ; at > 0 && p.items[at-1] > c; at-- {
		p.items[at] = p.items[at-1]
	}
	p.items[at] = c
}

// prefetch asks for what the distance to a vertex reads.
func (s *codeset) prefetch(v uint32) {
	distance.Prefetch(s.row(v))
	if s.terms != nil {
		distance.Prefetch(s.termRow(v))
	}
}
