// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"math/bits"
	"slices"
)

// choose picks up to limit links out of ascending candidates: one is taken if it
// is nearer to the vertex than to any taken before (HNSW, algorithm 4). For the
// nearest half of a row that is judged with some tolerance (Vamana's), which
// gives more recall for the vertices visited on sets of 64 to 784 dimensions. For
// the rest it is not: in clusters of many dimensions all distances are much alike,
// and with tolerance whole rows would be filled by the vertex's own cluster, with
// nothing left that leads out of it. The first links, apart of them, are chosen so, the
// others by fill.
func (w *buildWorker) choose(g *generation, of uint32, candidates []uint64, limit int) (apart int) {
	w.chosen = w.chosen[:0]
	candidates = w.fewEquals(g, of, candidates, limit)
	if len(candidates) == 1 {
		w.chosen = append(w.chosen, candidateVertex(candidates[0]))
		return 1
	}
	w.chooseAll(g, candidates, limit)
	return w.fill(g, candidates, limit)
}

// chooseAll goes on with the candidates, a block at a time.
func (w *buildWorker) chooseAll(g *generation, candidates []uint64, limit int) {
	for len(candidates) > 0 && len(w.chosen) < limit {
		part := candidates[:min(len(candidates), chooseBlock)]
		candidates = candidates[len(part):]
		w.chooseFrom(g, part, limit)
	}
}

// leastShare of the places of a row are taken if there are candidates.
const leastShare = 4

// fill brings the links chosen out of candidates to a quarter of the row, and returns how
// many there were before. Where some vertices are near to all others, as those next to
// the origin are when lengths are spread widely, one of them stands between a vertex and
// all that is not of its own cluster. Every row then leads to these alone, whose rows lead
// to a few. So of the candidates left it is chosen as if the links there are were not, and
// again until there are enough; that leads to other clusters, which the nearest of
// those left do not.
func (w *buildWorker) fill(g *generation, candidates []uint64, limit int) (apart int) {
	apart = len(w.chosen)
	least := min(limit/leastShare, len(candidates))
	if apart >= least {
		return apart
	}
	row, rest := append(w.filled[:0], w.chosen...), append(w.rest[:0], candidates...)
	for len(row) < least && len(rest) > 0 {
		rest = slices.DeleteFunc(rest, func(c uint64) bool { return slices.Contains(row, candidateVertex(c)) })
		w.chosen = w.chosen[:0]
		w.chooseAll(g, rest, least-len(row))
		row = append(row, w.chosen...)
	}
	w.filled, w.rest = row, rest
	w.chosen = append(w.chosen[:0], row...)
	return apart
}

// chooseBlock is how many candidates are compared with each of those taken, before
// it is known whether they will have a place in the row.
const chooseBlock = 64

// chooseFrom goes on with the next candidates. Those that are left are compared with
// each one taken, instead of each with all taken before it: that has a query for 32
// vertices instead of 200, and many rows for each. One that is too near to a vertex
// taken stays so, however strictly it is judged later.
func (w *buildWorker) chooseFrom(g *generation, candidates []uint64, limit int) {
	left := append(w.left[:0], candidates...)
	// Of each candidate, the key of the one taken that is nearest to it.
	rival := slices.Grow(w.rival[:0], len(left))[:len(left)]
	w.left, w.rival = left, rival
	for i := range rival {
		rival[i] = noKey
	}
	m := &w.pairs
	for _, v := range w.chosen {
		if len(left) == 0 {
			return
		}
		g.buildMeasure(m, v)
		n := w.drop(m, left, rival, strictAt(len(w.chosen), limit))
		left, rival = left[:n], rival[:n]
	}
	for len(left) > 0 {
		c, near := left[0], rival[0]
		left, rival = left[1:], rival[1:]
		strict := strictAt(len(w.chosen), limit)
		if near != noKey && !m.apart(near, candidateKey(c), strict) {
			continue
		}
		w.chosen = append(w.chosen, candidateVertex(c))
		if len(w.chosen) == limit {
			return
		}
		g.buildMeasure(m, candidateVertex(c))
		n := w.drop(m, left, rival, strictAt(len(w.chosen), limit))
		left, rival = left[:n], rival[:n]
	}
}

// drop takes the ones that are not apart from the vertex of m out of those left, and
// returns how many are left now.
func (w *buildWorker) drop(m *measure, left []uint64, rival []uint32, strict bool) (n int) {
	out := w.keysOf(m, left)
	if m.squares() {
		// Without a branch: which ones stay is hard to foresee.
		between, key := tolerance(strict)
		for i, c := range left {
			near := min(rival[i], out[i])
			left[n], rival[n] = c, near
			_, gone := bits.Sub64(uint64(near)*between, uint64(candidateKey(c))*key, 0)
			n += 1 - int(gone)
		}
		return n
	}
	for i, c := range left {
		near := min(rival[i], out[i])
		left[n], rival[n] = c, near
		if m.apart(near, candidateKey(c), strict) {
			n++
		}
	}
	return n
}

// strictAt reports whether a link is judged without tolerance if so many nearer
// ones are in its row.
func strictAt(nearer, limit int) bool { return nearer >= limit/2 }

// fewEquals drops all but limit/2 of the candidates that are equal to the
// vertex, chosen by hash: in a crowd of equal vectors the lowest would have all
// links, and the crowd none to elsewhere. Other crowds of candidates that are
// equally far (one-hot vectors, say) are put in the order of such a hash for the
// same reason.
func (w *buildWorker) fewEquals(g *generation, of uint32, candidates []uint64, limit int) []uint64 {
	for from := 0; from < len(candidates); {
		key, to := candidateKey(candidates[from]), from+1
		for to < len(candidates) && candidateKey(candidates[to]) == key {
			to++
		}
		if to-from > limit/2 {
			slices.SortFunc(candidates[from:to], func(a, b uint64) int {
				return cmp.Compare(mix(uint64(of)<<32|uint64(candidateVertex(a))), mix(uint64(of)<<32|uint64(candidateVertex(b))))
			})
			if key == g.zeroKey() {
				candidates = slices.Delete(candidates, from+limit/2, to)
				to = from + limit/2
			}
		}
		from = to
	}
	return candidates
}

// closedLink marks the candidates that are closed links of the row (see
// graph.closed), in the place of the mark expanded, which they have no use for.
const closedLink = expanded

// mend picks what choose would, of candidates of which those marked closedLink
// are an outcome of choose themselves. Two of these need no comparison: dropping
// a link never makes another one worse, and one that has moved to where links are
// judged without tolerance is the only one of its row, mostly. What is left is to
// compare those that are new with all nearer ones that stay, and the closed ones
// with the new that stay. A row that is full and closed gets one link at a time,
// mostly, so that is some 80 comparisons instead of 500.
func (w *buildWorker) mend(g *generation, of uint32, candidates []uint64, limit int) (apart int) {
	w.chosen = w.chosen[:0]
	rest := w.fewEquals(g, of, candidates, limit)
	w.old = w.old[:0]
	// Of each candidate, the key of the new link that stays and is nearest to it.
	w.rival = slices.Grow(w.rival[:0], len(rest))[:len(rest)]
	for i := range w.rival {
		w.rival[i] = noKey
	}
	m := &w.pairs
	// Of the closed links looked at, and of those the ones nearer than the one at
	// hand: among links equally far nobody knows in which order they were judged.
	closed, nearer, last := 0, 0, noKey
	for i, c := range rest {
		v, key := candidateVertex(c), candidateKey(c)
		strict := strictAt(len(w.chosen), limit)
		if key != last {
			nearer, last = closed, key
		}
		isNew, wasStrict := c&closedLink == 0, strictAt(nearer, limit)
		if !isNew {
			closed++
		}
		if w.rival[i] != noKey && !m.apart(w.rival[i], key, strict) {
			continue
		}
		if isNew || strict && !wasStrict {
			g.buildMeasure(m, v)
			if !w.apartFrom(m, w.old, key, strict) {
				continue
			}
		}
		w.chosen = append(w.chosen, v)
		if len(w.chosen) == limit {
			return limit
		}
		if isNew {
			w.drawNear(m, rest[i+1:], w.rival[i+1:])
		} else {
			w.old = append(w.old, v)
		}
	}
	return w.fill(g, rest, limit)
}

// noKey stands for a key that there is not; no distance has it.
const noKey = ^uint32(0)

// apartFrom reports whether the vertex of m, key away from the target, is apart
// from all of chosen.
func (w *buildWorker) apartFrom(m *measure, chosen []uint32, key uint32, strict bool) bool {
	const block = 8
	var out [block]uint32
	for len(chosen) > 0 {
		part := chosen[:min(block, len(chosen))]
		m.keys(part, out[:])
		for _, k := range out[:len(part)] {
			if !m.apart(k, key, strict) {
				return false
			}
		}
		chosen = chosen[len(part):]
	}
	return true
}

// drawNear lowers near to the keys of candidates and the vertex of m.
func (w *buildWorker) drawNear(m *measure, candidates []uint64, near []uint32) {
	for i, k := range w.keysOf(m, candidates) {
		near[i] = min(near[i], k)
	}
}

// keysOf compares candidates with the vertex of m. The keys are good until the next call.
func (w *buildWorker) keysOf(m *measure, candidates []uint64) []uint32 {
	w.need(len(candidates))
	ids, out := w.ids[:len(candidates)], w.out[:len(candidates)]
	for i, c := range candidates {
		ids[i] = candidateVertex(c)
	}
	m.keys(ids, out)
	return out
}

// link adds the links back of one target, all of one layer.
func (b *builder) link(w *buildWorker, edges []edge, from uint32) {
	g := b.g
	target, layer := edges[0].target, int(edges[0].layer)
	row := g.graph.row(target, layer)
	n := rowLen(row)
	links := append(w.links[:0], row[:n]...)
	for _, e := range edges {
		links = append(links, e.source)
	}
	w.links = links
	if len(links) > len(row) {
		closed := 0
		if layer == 0 {
			closed = g.graph.closedLinks(target)
		}
		g.buildMeasure(&w.measure, target)
		w.keys = slices.Grow(w.keys[:0], len(links))[:len(links)]
		w.measure.keys(links, w.keys)
		w.merged = w.merged[:0]
		for i, u := range links {
			c := candidate(w.keys[i], u)
			if i < closed {
				c |= closedLink
			}
			w.merged = append(w.merged, c)
		}
		slices.Sort(w.merged)
		apart := w.mend(g, target, w.merged, len(row))
		links = w.chosen
		if layer == 0 {
			g.graph.setClosed(target, apart)
		}
	}
	if slices.Equal(links, row[:n]) {
		return
	}
	g.graph.setChanged(target, layer)
	if target < from {
		w.hash.sub(rowHash(target, layer, row[:n]))
	}
	setRow(row, links)
	if target < from {
		w.hash.add(rowHash(target, layer, links))
	}
}
