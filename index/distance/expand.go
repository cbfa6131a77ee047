// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// Expansion is a query on 8-bit codes, ready to be compared with the neighbours of
// one vertex after the other, as a walk on a graph does. What the kernels rely on is
// checked once, by SetL2, SetL2Term or SetDot, and not for each row. It is for one
// goroutine at a time; the zero value has no neighbours.
type Expansion struct {
	query  []int8
	codes  []byte // of SetL2, instead of query
	base   []byte
	stride int
	termAt int // negative: inner products
	term   int32
	apart  [][2]int32 // of SetL2Apart
	limit  uint32
	kernel bool    // does all steps at once
	short  bool    // the query stays in registers
	wide   []int16 // else, where there are kernels that want it so: the query
	ahead  int     // else: so many rows are asked for at once
	// Of the call under way.
	marks []uint64
	shift uint32
	ids   []uint32
	out   []uint64
	given int // without links: so many ids are there
	keys  [piece]int32
	rows  [piece + Slack]uint32
}

// piece is how many rows are compared before those that are near are picked out.
const piece = 64

// SetL2 makes e compare by L2U8Rows, with rows below limit. Those must lie in base.
func (e *Expansion) SetL2(query, base []byte, stride int, limit uint32) {
	if len(query) > stride {
		badRows(len(query), len(base), stride, 0, 1, 1)
	}
	e.set(len(query), base, stride, limit)
	e.codes = query
	e.ready()
}

// SetL2Term makes e compare by L2U8TermRows, with rows below limit. Those must lie
// in base.
func (e *Expansion) SetL2Term(query []int8, queryTerm int32, base []byte, stride, termAt int, limit uint32) {
	if uint(termAt) > uint(stride-4) {
		panic(fmt.Sprintf("distance: term at %d of a row of %d bytes", termAt, stride))
	}
	e.set(len(query), base, stride, limit)
	e.query, e.term, e.termAt = e.fit(query), queryTerm, termAt
	e.ready()
}

// SetL2Apart is SetL2Term for rows whose terms are elsewhere: the second number of
// each of terms, of which there must be limit.
func (e *Expansion) SetL2Apart(query []int8, queryTerm int32, base []byte, stride int, terms [][2]int32, limit uint32) {
	e.set(len(query), base, stride, limit)
	e.query, e.term, e.apart = query, queryTerm, terms[:limit]
	e.ready()
	e.kernel = e.kernel && ProductsRather(len(query))
}

// SetDot makes e compare by DotU8S8Rows, with rows below limit; the key of inner
// product x is uint32(-x) ^ 1<<31.
func (e *Expansion) SetDot(query []int8, base []byte, stride int, limit uint32) {
	e.set(len(query), base, stride, limit)
	e.query, e.termAt = e.fit(query), -1
	e.ready()
}

// Slack is how much more room Neighbours wants than it has results.
const Slack = 4

func (e *Expansion) set(query int, base []byte, stride int, limit uint32) {
	checkCodeRow(query)
	if limit > 0 {
		last := [1]uint32{limit - 1}
		checkOverlapping(query, len(base), stride, last[:], 1)
	}
	e.query, e.codes, e.apart, e.termAt, e.base, e.stride, e.limit = nil, nil, nil, 0, base, stride, limit
	e.short = haveSeveral() && query <= maxShort
}

// ready is the end of what sets e.
func (e *Expansion) ready() {
	e.kernel, e.ahead = haveSeveral(), max(1, PrefetchBytes/e.stride)
	if e.kernel && !e.short {
		e.widen()
	}
}

// fit is the query as the kernels want it.
func (e *Expansion) fit(query []int8) []int8 {
	if e.short {
		return withoutPadding(query)
	}
	return query
}

// Neighbours compares with those of links that Unmarked gives, whose ids are
// written to ids, and returns how many they are. Those of them that are below
// bound as key<<32 | id<<1 are written to out as such, in order; found is how many.
// Ids and out must have room for Slack more than links are long; what is behind the
// results is overwritten. Marks, with a word for each 1<<shift ids, must have room for
// the limit.
func (e *Expansion) Neighbours(links []uint32, marks []uint64, shift uint32, bound uint64, ids []uint32, out []uint64) (seen, found int) {
	if len(ids) < len(links)+Slack || len(out) < len(links)+Slack || !haveMarks(marks, shift, e.limit) {
		panic(fmt.Sprintf("distance: %d links below %d, a set of %d words by %d bits, room for %d and %d",
			len(links), e.limit, len(marks), shift, len(ids), len(out)))
	}
	if len(links) == 0 || e.limit == 0 {
		return 0, 0
	}
	if e.kernel {
		e.marks, e.shift, e.ids, e.out = marks, shift, ids, out
		return expand(e, links, bound)
	}
	n := unmarked(links, marks, shift, e.limit, ids)
	if n == 0 {
		return 0, 0
	}
	ids = ids[:n]
	prefetchRows(e.base, e.stride, e.stride, ids[:min(n, e.ahead)])
	return n, e.compare(ids, bound, out)
}

// Rows is Neighbours for the rows [from, to), which must be below the limit, whether
// or not they are marked. Out must have room for Slack more than these are.
func (e *Expansion) Rows(from, to uint32, bound uint64, out []uint64) (found int) {
	if from > to || to > e.limit || len(out) < int(to-from)+Slack {
		panic(fmt.Sprintf("distance: rows %d to %d below %d, room for %d", from, to, e.limit, len(out)))
	}
	for from < to {
		ids := e.rows[:min(to-from, piece)]
		for i := range ids {
			ids[i] = from + uint32(i)
		}
		from += uint32(len(ids))
		found += e.gathered(len(ids), bound, out[found:])
	}
	return found
}

// Given is Rows for ids, which must be below the limit.
func (e *Expansion) Given(ids []uint32, bound uint64, out []uint64) (found int) {
	if len(out) < len(ids)+Slack {
		panic(fmt.Sprintf("distance: %d ids, room for %d", len(ids), len(out)))
	}
	for len(ids) > 0 {
		n := min(len(ids), piece)
		last := uint32(0)
		for i, id := range ids[:n] {
			e.rows[i] = id
			last = max(last, id)
		}
		if last >= e.limit {
			panic(fmt.Sprintf("distance: row %d of %d", last, e.limit))
		}
		ids = ids[n:]
		found += e.gathered(n, bound, out[found:])
	}
	return found
}

// gathered is Rows for the first n of e.rows, a piece at most.
func (e *Expansion) gathered(n int, bound uint64, out []uint64) (found int) {
	if !e.kernel {
		return e.compare(e.rows[:n], bound, out)
	}
	e.ids, e.out, e.given = e.rows[:], out, n
	_, found = expand(e, nil, bound)
	return found
}

// compare is the second half of Neighbours without a kernel for that.
func (e *Expansion) compare(ids []uint32, bound uint64, out []uint64) (found int) {
	for len(ids) > 0 {
		part := ids[:min(len(ids), len(e.keys))]
		keys := e.keys[:len(part)]
		switch {
		case e.codes != nil:
			l2U8Rows(e.codes, e.base, e.stride, part, keys)
		case e.apart != nil:
			dotU8S8Rows(e.query, e.base, e.stride, part, keys)
			for i, id := range part {
				keys[i] = e.term + e.apart[id][1] - 2*keys[i]
			}
		case e.termAt >= 0:
			dotU8S8Rows(e.query, e.base, e.stride, part, keys)
			for i, id := range part {
				term := binary.LittleEndian.Uint32(e.base[int(id)*e.stride+e.termAt:])
				keys[i] = e.term + int32(term) - 2*keys[i]
			}
		default:
			dotU8S8Rows(e.query, e.base, e.stride, part, keys)
			for i, k := range keys {
				keys[i] = -k ^ math.MinInt32
			}
		}
		for i, id := range part {
			c := uint64(uint32(keys[i]))<<32 | uint64(id)<<1
			out[found] = c
			_, below := bits.Sub64(c, bound, 0)
			found += int(below)
		}
		ids = ids[len(part):]
	}
	return found
}
