// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
	"slices"

	"github.com/akidb/akidb/index/distance"
)

// A candidate is one number: distance key, vertex, and whether it has been
// expanded, from the highest bit down. Comparing candidates is comparing
// numbers, and ties go to the lower vertex by themselves.
const expanded = 1

func candidate(key uint32, v uint32) uint64 { return uint64(key)<<32 | uint64(v)<<1 }
func candidateVertex(c uint64) uint32       { return uint32(c) >> 1 }
func candidateKey(c uint64) uint32          { return uint32(c >> 32) }

// orderedBits maps float32 to uint32 so that the order is the same.
func orderedBits(f float32) uint32 {
	b := math.Float32bits(f)
	if b>>31 != 0 {
		return ^b
	}
	return b | 1<<31
}

func fromOrderedBits(b uint32) float32 {
	if b>>31 != 0 {
		return math.Float32frombits(b &^ (1 << 31))
	}
	return math.Float32frombits(^b)
}

// pool is the best candidates seen, ascending, at most limit of them. A sorted
// array beats heaps at the sizes searches use.
type pool struct {
	items []uint64 // behind the margin of room
	room  []uint64
	limit int
	reach int // pop returns none that as many are nearer than
	next  int // Invariant: all before next are expanded
}

func (p *pool) reset(limit int) {
	p.limit, p.reach, p.next = limit, limit, 0
	if room := distance.Margin + max(limit, distance.Short); len(p.room) < room {
		p.room = make([]uint64, room)
	}
	p.items = p.room[distance.Margin:][:0]
}

// bound is the key above which a candidate would not enter.
func (p *pool) bound() uint64 {
	if len(p.items) < p.limit {
		return math.MaxUint64
	}
	return p.items[len(p.items)-1]
}

// insert adds c unless it is too far. It reports whether c is what pop would
// return now.
func (p *pool) insert(c uint64) (next bool) {
	n := len(p.items)
	if n < p.limit {
		p.items = p.items[:n+1]
	} else if c >= p.items[n-1] {
		return false
	}
	at := distance.InsertSorted(p.items, c)
	if at <= p.next {
		p.next = at
		return true
	}
	return false
}

// insertAll is insert for each of some candidates, whose order is lost.
func (p *pool) insertAll(cs []uint64) (next bool) {
	first := p.merge(cs)
	if first < len(p.items) && first <= p.next {
		p.next = first
		return true
	}
	return false
}

// insertMany is insertAll where nothing is popped. It reports whether one is in now.
func (p *pool) insertMany(cs []uint64) bool { return p.merge(cs) < len(p.items) }

// merge puts candidates in and returns the first place where one is, behind all if
// none is.
func (p *pool) merge(cs []uint64) (first int) {
	n, first := distance.InsertAll(p.room, len(p.items), p.limit, cs)
	p.items = p.room[distance.Margin:][:n]
	return first
}

// pop returns the nearest candidate not expanded yet and marks it.
func (p *pool) pop() (uint64, bool) {
	end := min(len(p.items), p.reach)
	for i := p.next; i < end; i++ {
		if p.items[i]&expanded == 0 {
			c := p.items[i]
			p.items[i] |= expanded
			p.next = i + 1
			return c, true
		}
	}
	p.next = end
	return 0, false
}

// peek is the candidate that pop would return.
func (p *pool) peek() (uint64, bool) {
	for _, c := range p.items[p.next:] {
		if c&expanded == 0 {
			return c, true
		}
	}
	return 0, false
}

// heap is a binary heap of candidates, nearest first.
type heap []uint64

func (h *heap) push(c uint64) {
	*h = append(*h, c)
	s := *h
	i := len(s) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if s[parent] <= c {
			break
		}
		s[i] = s[parent]
		i = parent
	}
	s[i] = c
}

func (h *heap) pop() uint64 {
	s := *h
	top, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	i := 0
	for {
		child := 2*i + 1
		if child >= len(s) {
			break
		}
		if child+1 < len(s) && s[child+1] < s[child] {
			child++
		}
		if last <= s[child] {
			break
		}
		s[i] = s[child]
		i = child
	}
	if len(s) > 0 {
		s[i] = last
	}
	return top
}

// marks is a set of vertices that is emptied by what was put in, or whole where that
// is less: a bit per vertex stays in the nearest cache where a stamp per vertex would
// not.
type marks struct {
	bits    []uint64
	shift   uint32 // a word for each 1<<shift vertices (see distance.Unmarked)
	touched []uint32
}

// fewMarks is for how many vertices there is a byte each: a word for eight.
const fewMarks = 4096

// reset empties the set and makes room for so many vertices.
func (m *marks) reset(vertices int) {
	if len(m.bits) < 4*len(m.touched) {
		clear(m.bits)
	} else {
		for _, v := range m.touched {
			m.bits[v>>m.shift] = 0
		}
	}
	m.touched = m.touched[:0]
	if m.shift = 6; vertices <= fewMarks {
		m.shift = 3
	}
	if words := (vertices + 1<<m.shift - 1) >> m.shift; len(m.bits) < words {
		m.bits = make([]uint64, words+words/4+16)
	}
}

// add returns false if v is there already.
func (m *marks) add(v uint32) bool {
	w, bit := &m.bits[v>>m.shift], uint64(1)<<(v&63)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	m.touched = append(m.touched, v)
	return true
}

// bit is 1 if v is there, else 0.
func (m *marks) bit(v uint32) uint64 { return m.bits[v>>m.shift] >> (v & 63) & 1 }

// room is n places behind what was put in, to be filled with vertices that were
// added to the bits. took says how many were.
func (m *marks) room(n int) []uint32 {
	m.touched = slices.Grow(m.touched, n)
	return m.touched[len(m.touched):][:n]
}

func (m *marks) took(n int) { m.touched = m.touched[:len(m.touched)+n] }

// gather adds those of a row of links that are below limit and not there yet,
// and returns them; they are good until reset.
func (m *marks) gather(row []uint32, limit uint32) []uint32 {
	n := len(m.touched)
	m.took(distance.Unmarked(row, m.bits, m.shift, limit, m.room(len(row))))
	return m.touched[n:]
}
