// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/akidb/akidb/index/distance"
)

// centreSample is how many vertices the centre of rotated codes is the mean of.
const centreSample = 1024

// grow makes blocks without lanes for the vertices below n.
func (b *blockset) grow(n uint32) {
	b.rows.grow(int(n))
	for v := b.made; v < n; v++ {
		for group := range b.groups {
			block := b.block(v, group)
			add, _ := distance.EstimateFactors(b.bits, block)
			for lane := range lanes {
				add[lane] = far
				b.numbers(block)[lane] = none
			}
		}
	}
	for uint32(len(b.stale)) < (n+63)/64 {
		b.stale = append(b.stale, 0)
	}
	for v := b.made; v < n; v++ {
		b.stale[v>>6] |= 1 << (v & 63)
	}
	b.made = n
}

// touch marks a vertex whose row was rewritten.
func (b *blockset) touch(v uint32) {
	if v < b.made {
		b.stale[v>>6] |= 1 << (v & 63)
	}
}

// mean is that of codes, a function of the codec's training; as many elements of
// rows as asked for.
func (s *codeset) mean(dim int) []float32 {
	n := max(s.trained, 1)
	step := max(1, n/centreSample)
	sums := make([]int, dim)
	count := 0
	for v := uint32(0); v < n; v += step {
		for i, u := range s.row(v)[:dim] {
			sums[i] += int(u)
		}
		count++
	}
	out := make([]float32, dim)
	for i, sum := range sums {
		out[i] = float32(sum / count)
	}
	return out
}

// refresh brings the blocks of the vertices below n to what the rows are.
func (b *builder) refresh(n uint32) {
	g := b.g
	codes := g.codes.Load()
	if codes == nil || codes.blocks == nil {
		return
	}
	set := codes.blocks
	if set.centre == nil && !set.inner {
		set.centre = codes.mean(codes.dim)
	}
	set.grow(n)
	const part = 16
	var words []int
	for i, w := range set.stale {
		if w != 0 {
			words = append(words, i)
		}
	}
	b.parallel((len(words)+part-1)/part, func(w *buildWorker, i int) {
		for _, at := range words[i*part : min(len(words), (i+1)*part)] {
			for left := set.stale[at]; left != 0; left &= left - 1 {
				set.rewrite(w, g.graph, uint32(at*64+bits.TrailingZeros64(left)))
			}
			set.stale[at] = 0
		}
	})
	set.poor.Store(!set.tells(b, n))
	set.covered.Store(n)
}

// Of the trial whether estimates tell neighbours apart: so many vertices as
// queries, so many of the links of each expanded.
const (
	blockTrials = 32
	trialLinks  = 8
)

// tells reports whether estimates are good enough to walk on: whether most err by
// less than half of what they are about, the square of a link and the difference
// it makes. They do not where clusters are far apart and the table of the query,
// which is made once for all of them, is coarser than a cluster. Under Dot the
// table is as fine for every vertex. The trial is a function of the graph and the
// vectors, so that idle replicas agree.
func (b *blockset) tells(build *builder, n uint32) bool {
	if b.inner {
		return true
	}
	g := build.g
	var wrong, all atomic.Int64
	step := max(1, n/blockTrials)
	build.parallel(int(min(blockTrials, n)), func(w *buildWorker, i int) {
		v := uint32(i) * step
		w.measure.codes = append(w.measure.codes[:0], b.codes.row(v)[:b.codes.dim]...)
		b.codes.codeMeasure(&w.measure)
		b.prepare(&w.estimator, &w.measure)
		for _, c := range g.graph.row(v, 0)[:min(trialLinks, g.graph.m0)] {
			if c != none {
				e, n := b.misjudged(w, c)
				wrong.Add(e)
				all.Add(n)
			}
		}
	})
	return wrong.Load()*4 <= all.Load()
}

// misjudged counts the neighbours of a vertex whose estimates are far off, and all.
func (b *blockset) misjudged(w *buildWorker, v uint32) (wrong, all int64) {
	e := &w.estimator
	key := func(u uint32) int64 {
		w.ids = append(w.ids[:0], u)
		w.need(1)
		w.measure.keys(w.ids, w.out[:1])
		return int64(w.out[0])
	}
	base := key(v)
	e.Base, e.Limit = float32(base), distance.MaxEstimate
	for group := range b.groups {
		block := b.block(v, group)
		distance.Estimate(e.table, block, &e.Estimator, &e.keys)
		for lane, u := range b.numbers(block) {
			if u == none {
				continue
			}
			exact, estimate := key(u), int64(e.keys[lane])
			link := int64(distance.L2U8(b.codes.row(v)[:b.codes.dim], b.codes.row(u)[:b.codes.dim]))
			all++
			if 2*max(exact-estimate, estimate-exact) > link+max(exact-base, base-exact) {
				wrong++
			}
		}
	}
	return wrong, all
}

// catchUp makes the blocks that were left for later, if any.
func (b *builder) catchUp() bool {
	n := b.g.graphed.Load()
	if b.g.blocked(n) {
		return false
	}
	b.refresh(n)
	return true
}

// blocked reports whether the vertices below n have their blocks, or need none.
func (g *generation) blocked(n uint32) bool {
	s := g.acquireCodes()
	if s == nil {
		return true
	}
	defer s.release()
	return s.blocks == nil || s.blocks.covered.Load() >= n
}

// touch marks the targets of a batch's links back.
func (b *builder) touch() {
	if codes := b.g.codes.Load(); codes != nil && codes.blocks != nil {
		for _, at := range b.groups[:len(b.groups)-1] {
			if e := b.edges[at]; e.layer == 0 {
				codes.blocks.touch(e.target)
			}
		}
	}
}

// rewrite brings a vertex's lanes to its links. Lanes of links that stayed are
// left where they are.
func (b *blockset) rewrite(w *buildWorker, g *graph, v uint32) {
	row := g.row(v, 0)
	w.ids = append(w.ids[:0], row[:rowLen(row)]...)
	b.makeCoder(&w.coder)
	size := b.blockBytes()
	bytes := u8At(unsafe.Pointer(&w.block[0]), b.groups*size)
	copy(bytes, u8At(b.rows.row(v), len(bytes)))
	for group := range b.groups {
		block := bytes[group*size:][:size]
		add, times := distance.EstimateFactors(b.bits, block)
		for lane, u := range b.numbers(block) {
			if i := slices.Index(w.ids, u); i >= 0 {
				w.ids[i] = w.ids[len(w.ids)-1]
				w.ids = w.ids[:len(w.ids)-1]
				continue
			}
			b.numbers(block)[lane] = none
			add[lane], times[lane] = far, 0
		}
	}
	if len(w.ids) > 0 {
		b.turn(w.from, b.codes.row(v))
		next := 0
		for _, u := range w.ids {
			for b.numbers(bytes[next/lanes*size:][:size])[next%lanes] != none {
				next++
			}
			b.setLane(&w.coder, bytes[next/lanes*size:][:size], next%lanes, v, u)
		}
	}
	to := unsafe.Slice((*uint64)(b.rows.row(v)), len(w.block))
	for i, x := range w.block {
		atomic.StoreUint64(&to[i], x)
	}
}
