// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"slices"
)

// choose picks up to limit links out of ascending candidates: one is taken if it
// is nearer to the vertex than to any taken before, with some tolerance (HNSW,
// algorithm 4; the tolerance is Vamana's). A full row and a tolerance of 1.25 on
// squared distances gave the best recall for the vertices visited on sets of 64
// to 784 dimensions; M links and no tolerance, as HNSW has it, needs a tenth
// more and finds a third less by inner product.
func (w *buildWorker) choose(g *generation, of uint32, candidates []uint64, limit int) {
	w.chosen = w.chosen[:0]
	candidates = w.fewEquals(g, of, candidates, limit)
	if len(candidates) == 1 {
		w.chosen = append(w.chosen, candidateVertex(candidates[0]))
		return
	}
	m := &w.pairs
	var keys [16]uint32
	for _, c := range candidates {
		v, key := candidateVertex(c), candidateKey(c)
		good := true
		g.buildMeasure(m, v)
		for done := 0; done < len(w.chosen) && good; {
			part := w.chosen[done:min(done+4, len(w.chosen))]
			m.keys(part, keys[:])
			for _, k := range keys[:len(part)] {
				good = good && m.apart(k, key)
			}
			done += len(part)
		}
		if !good {
			continue
		}
		w.chosen = append(w.chosen, v)
		if len(w.chosen) == limit {
			return
		}
	}
}

// fewEquals drops all but limit/2 of the candidates that are equal to the
// vertex, chosen by hash: in a crowd of equal vectors the lowest would have all
// links, and the crowd none to elsewhere.
func (w *buildWorker) fewEquals(g *generation, of uint32, candidates []uint64, limit int) []uint64 {
	equals := 0
	for equals < len(candidates) && candidateKey(candidates[equals]) == g.zeroKey() {
		equals++
	}
	if equals <= limit/2 {
		return candidates
	}
	slices.SortFunc(candidates[:equals], func(a, b uint64) int {
		return cmp.Compare(mix(uint64(of)<<32|uint64(candidateVertex(a))), mix(uint64(of)<<32|uint64(candidateVertex(b))))
	})
	copy(candidates[limit/2:], candidates[equals:])
	return candidates[:len(candidates)-equals+limit/2]
}

// closedLink marks the candidates that are closed links of the row (see
// graph.closed), in the place of the mark expanded, which they have no use for.
const closedLink = expanded

// mend picks what choose would, of candidates of which those marked closedLink
// are an outcome of choose themselves. Two of these need no comparison: dropping
// a link never makes another one worse. What is left is to compare those that
// are new with all nearer ones that stay, and the closed ones with the new that
// stay. A row that is full and closed gets one link at a time, mostly, so that is
// some 60 comparisons instead of 500.
func (w *buildWorker) mend(g *generation, of uint32, candidates []uint64, limit int) {
	w.chosen = w.chosen[:0]
	rest := append(w.rest[:0], w.fewEquals(g, of, candidates, limit)...)
	w.rest = rest
	w.old = w.old[:0]
	m := &w.pairs
	for len(rest) > 0 {
		c := rest[0]
		rest = rest[1:]
		v := candidateVertex(c)
		if c&closedLink == 0 {
			g.buildMeasure(m, v)
			if !w.apartFrom(m, w.old, candidateKey(c)) {
				continue
			}
		}
		w.chosen = append(w.chosen, v)
		if len(w.chosen) == limit {
			return
		}
		if c&closedLink != 0 {
			w.old = append(w.old, v)
			continue
		}
		rest = w.dropNear(m, rest)
	}
}

// apartFrom reports whether the vertex of m, key away from the target, is apart
// from all of chosen.
func (w *buildWorker) apartFrom(m *measure, chosen []uint32, key uint32) bool {
	const block = 16
	w.need(block)
	out := w.out[:block]
	for len(chosen) > 0 {
		part := chosen[:min(block, len(chosen))]
		m.keys(part, out)
		for _, k := range out[:len(part)] {
			if !m.apart(k, key) {
				return false
			}
		}
		chosen = chosen[len(part):]
	}
	return true
}

// dropNear takes out of the candidates those that are not apart from the vertex
// of m.
func (w *buildWorker) dropNear(m *measure, candidates []uint64) []uint64 {
	w.need(len(candidates))
	w.ids = w.ids[:0]
	for _, c := range candidates {
		w.ids = append(w.ids, candidateVertex(c))
	}
	out := w.out[:len(candidates)]
	m.keys(w.ids, out)
	n := 0
	for i, c := range candidates {
		candidates[n] = c
		if m.apart(out[i], candidateKey(c)) {
			n++
		}
	}
	return candidates[:n]
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
		w.mend(g, target, w.merged, len(row))
		links = w.chosen
		if layer == 0 {
			g.graph.setClosed(target, len(links))
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
