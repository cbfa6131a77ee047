// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"math"
	"slices"
)

const (
	// fewLongest vectors at least, and mostLongest at most, are what walks by inner
	// product begin at. More than a few are worth it where lengths differ: where the
	// last of them is longerRatio times as long, squared, as half of all are not.
	fewLongest  = 64
	mostLongest = 1024
	longerRatio = 2
	// One in longestShare vectors at most, half as many where memory counts for
	// more, and rows of longestBytes at most, which stay in a core's cache.
	longestShare = 16
	longestBytes = 256 << 10
	// lengthSample is how many lengths tell what half of all are.
	lengthSample = 512
)

// longest is a copy of the rows of the longest vectors, side by side: by inner
// product they are near to more queries than any others, yet far from all vertices,
// so that few links lead to them (ADR 0098). Never changed once published.
type longest struct {
	ranked []uint32 // up to mostLongest, longest first
	ids    []uint32 // those of them whose rows are here
	order  []uint32 // of rows32: 0, 1, ...
	codes  *codeset // whose rows they are; nil: the vectors' own
	cut    []uint32 // of the first fewLongest, those that the codes cut off
	rows8  []byte   // without the lift, which queries have none of
	rows32 []float32
}

// rowOf is how many bytes a row has, and the query that it is compared with.
func (g *generation) rowOf(codes *codeset) int {
	if codes == nil {
		return int(g.vectors.stride)
	}
	return (g.cfg.Dimension + 63) &^ 63
}

// rankLengths keeps the longest vectors below the watermark up to date with vertices
// [from, to), which have codes if any have. The builder calls it.
func (g *generation) rankLengths(from, to uint32) {
	if g.norms == nil {
		return
	}
	old := &longest{}
	if p := g.longest.Load(); p != nil && from > 0 {
		old = p
	}
	list := slices.Clone(old.ranked)
	least := float32(-1) // equally long ones replace none: they have the higher number
	if len(list) == mostLongest {
		least = g.norm(list[mostLongest-1])
	}
	rank := func() {
		slices.SortFunc(list, func(a, b uint32) int {
			if c := cmp.Compare(g.norm(b), g.norm(a)); c != 0 {
				return c
			}
			return cmp.Compare(a, b)
		})
		if len(list) >= mostLongest {
			list = list[:mostLongest]
			least = g.norm(list[mostLongest-1])
		}
	}
	news := 0
	for v := from; v < to; v++ {
		if g.norm(v) > least {
			news++
			if list = append(list, v); len(list) == 4*mostLongest {
				rank()
			}
		}
	}
	if news > 0 {
		rank()
	}
	codes := g.codes.Load()
	if g.plain.Load() {
		codes = nil
	}
	l := &longest{ranked: list, codes: codes}
	l.ids = l.ranked[:g.worthRanking(l, to)]
	l.cut = old.cut
	if first := min(len(list), fewLongest); codes != old.codes || first > len(old.ranked) || !slices.Equal(list[:first], old.ranked[:first]) {
		l.cut = g.cutOff(codes, list[:first])
	}
	if news == 0 && len(l.ids) == len(old.ids) && codes == old.codes {
		return
	}
	switch row := g.rowOf(codes); {
	case len(l.ids) <= fewLongest: // compared where they are
	case codes != nil:
		l.rows8 = make([]byte, len(l.ids)*row)
		for i, v := range l.ids {
			copy(l.rows8[i*row:][:row], codes.row(v))
		}
	case g.disk == nil:
		l.rows32 = make([]float32, len(l.ids)*row/4)
		l.order = make([]uint32, len(l.ids))
		for i, v := range l.ids {
			l.order[i] = uint32(i)
			copy(l.rows32[i*row/4:], g.vector(v))
		}
	}
	g.longest.Store(l)
}

// cutOff is which of the vertices have values out of the range of the codes.
func (g *generation) cutOff(codes *codeset, of []uint32) (cut []uint32) {
	if codes == nil {
		return nil
	}
	row := make([]float32, codes.dim)
	for _, v := range of {
		if codes.reach(g, v, row) > 1+1.0/127 {
			cut = append(cut, v)
		}
	}
	return cut
}

// compareCut adds the vertices that the codes cut off to the results, by their
// vectors: they are few, mostly none, and so long that they are what many queries by
// inner product look for. The measure is exact.
func (r *request) compareCut() error {
	l := r.g.longest.Load()
	if r.codes == nil || r.q.NoRescore || l == nil || len(l.cut) == 0 {
		return nil
	}
	s := r.s
	s.need(len(l.cut))
	ids := s.ids[:0]
	for _, v := range l.cut {
		if v < r.graphed && r.see.match(v) && !slices.ContainsFunc(s.results, func(c uint64) bool { return candidateVertex(c) == v }) {
			ids = append(ids, v)
		}
	}
	rows, out := ids, s.out[:len(ids)]
	if r.g.disk != nil {
		var err error
		if rows, err = r.readMany(ids); err != nil {
			return err
		}
		defer r.g.exactMeasure(&s.measure, s.query) // again, of the rows in RAM
	}
	s.measure.keys(rows, out)
	for i, v := range ids {
		s.results = append(s.results, candidate(out[i], v))
	}
	return nil
}

// worthRanking is how many of the n vectors walks begin at.
func (g *generation) worthRanking(l *longest, n uint32) int {
	share := longestShare
	if g.disk != nil {
		share *= 2
	}
	most := min(len(l.ranked), int(n)/share, longestBytes/g.rowOf(l.codes))
	if most > fewLongest {
		sample := make([]float32, 0, lengthSample+1)
		for v := uint32(0); v < n; v += n/lengthSample + 1 {
			sample = append(sample, g.norm(v))
		}
		slices.Sort(sample)
		usual := sample[len(sample)/2]
		most, _ = slices.BinarySearchFunc(l.ranked[:most], longerRatio*usual, func(v uint32, norm float32) int {
			return cmp.Compare(norm, g.norm(v))
		})
	}
	return min(max(most, fewLongest), len(l.ranked))
}

// bytes is what the rows take; there may be none yet.
func (l *longest) bytes() int64 {
	if l == nil {
		return 0
	}
	return int64(len(l.rows8) + 4*len(l.rows32))
}

// enterLongest puts the longest vectors into the pool, as far as they are near.
func (r *request) enterLongest() {
	l := r.g.longest.Load()
	if l == nil {
		return
	}
	s := r.s
	if s.measure.onCodes() && l.rows8 != nil && l.codes == r.codes {
		r.enterRows(l)
		return
	}
	s.need(len(l.ids))
	ids, rows, m := l.ids, l.order, s.measure
	if !m.onCodes() && l.rows32 != nil {
		m.base32 = l.rows32
	} else { // few, or there are other codes by now, which the newest may not have
		rows = s.ids[:0]
		for _, v := range ids[:min(len(ids), fewLongest)] {
			if v < r.graphed {
				rows = append(rows, v)
			}
		}
		ids = rows
	}
	out := s.out[:len(ids)]
	m.keys(rows[:len(ids)], out)
	s.visited += len(ids)
	for i, v := range ids {
		if c := candidate(out[i], v); c < s.pool.bound() && v < r.graphed && s.seen.add(v) {
			s.pool.insert(c)
		}
	}
}

// enterRows is enterLongest on the rows of codes that lie side by side.
func (r *request) enterRows(l *longest) {
	s := r.s
	row, n := r.g.rowOf(l.codes), uint32(len(l.ids))
	s.longest.SetDot(s.measure.signed[:row], l.rows8, row, n)
	s.visited += len(l.ids)
	near := s.room(rowsBlock)
	for i := uint32(0); i < n; i += rowsBlock {
		// A row's number says nothing of its vertex: equal keys go by that.
		bound := s.pool.bound() | math.MaxUint32
		for _, c := range near[:s.longest.Rows(i, min(i+rowsBlock, n), bound, near)] {
			v := l.ids[candidateVertex(c)]
			if c = candidate(candidateKey(c), v); c < s.pool.bound() && v < r.graphed && s.seen.add(v) {
				s.pool.insert(c)
			}
		}
	}
}
