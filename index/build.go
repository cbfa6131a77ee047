// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// builder grows the graph of one generation, a batch at a time. Every vertex of
// batch [a, b) searches the graph as of a, and is compared with all vertices of
// the batch before it, so nothing depends on which goroutine comes first. Then
// the links back are grouped by target and each target's row is rewritten once.
// (Prefix-doubling batch insertion, ParlayANN, doi 10.1145/3627535.3638475; the
// comparison inside the batch is ours: it makes the result as good as inserting
// one by one and costs a few percent.)
type builder struct {
	g       *generation
	pace    *pacer // nil: never rest
	workers []*buildWorker
	edges   []edge
	groups  []int // start of each target's edges
}

// edge is a link back to be made: from target to source on a layer.
type edge struct {
	layer, target, source uint32
}

func compareEdges(a, b edge) int {
	if a.layer != b.layer {
		return int(a.layer) - int(b.layer)
	}
	if a.target != b.target {
		if a.target < b.target {
			return -1
		}
		return 1
	}
	if a.source < b.source {
		return -1
	}
	return 1
}

// buildWorker is what one goroutine of a batch needs.
type buildWorker struct {
	scratch
	edges  []edge
	hash   digest // change of the graph hash
	chosen []uint32
	chosenKeys,
	keys []uint32
	merged []uint64
	links  []uint32      // of a row, with the new ones
	rival  []uint32      // see mend and chooseFrom
	left   []uint64      // see chooseFrom
	old    []uint32      // closed links that stay
	filled []uint32      // see fill
	rest   []uint64      // see fill
	pairs  measure       // of a candidate with those chosen
	debt   time.Duration // worked since the last rest
	coder                // of blocks of 1-bit codes
	turned []float32     // a rotated vector
	row    []float32     // one as the codec has it
}

func newBuilder(g *generation, workers int) *builder {
	b := &builder{g: g}
	for range workers {
		b.workers = append(b.workers, &buildWorker{})
	}
	return b
}

// step takes the next batch if it is complete.
func (b *builder) step() bool {
	g := b.g
	from := g.graphed.Load()
	to := g.batchEnd(from)
	if n := g.total.Load(); to > n {
		if codes := g.codes.Load(); codes != nil {
			codes.addAhead(g, n)
		}
		return b.catchUp()
	}
	if !b.prepare(from, to) {
		return from == 0 && g.batchEnd(0) != to
	}
	if from == 0 && to > 64 {
		// The first batch of codes has no graph to search: in small steps.
		for a := uint32(0); a < to; a += 64 {
			b.insertBatch(a, a+64)
			b.raiseEntry(a, a+64)
		}
	} else {
		b.insertBatch(from, to)
	}
	for v := from; v < to; v++ {
		g.vectorsHash.add(g.vectorHash(v))
	}
	if g.batchEnd(to) > g.total.Load() {
		b.refresh(to) // otherwise when there is time
	}
	g.rankLengths(from, to)
	g.marks.add(to, *g.graphHash.Load())
	g.graphed.Store(to)
	b.raiseEntry(from, to)
	if g.disk != nil {
		g.disk.free(g.vectors, to)
	}
	return true
}

// insertBatch adds the vertices of [from, to) to the graph as of from.
func (b *builder) insertBatch(from, to uint32) {
	g := b.g
	b.parallel(int(to-from), func(w *buildWorker, i int) { b.insert(w, from, from+uint32(i)) })
	b.edges = b.edges[:0]
	hash := *g.graphHash.Load()
	for _, w := range b.workers {
		b.edges = append(b.edges, w.edges...)
		w.edges = w.edges[:0]
	}
	slices.SortFunc(b.edges, compareEdges)
	b.groups = b.groups[:0]
	for i, e := range b.edges {
		if i == 0 || e.layer != b.edges[i-1].layer || e.target != b.edges[i-1].target {
			b.groups = append(b.groups, i)
		}
	}
	b.groups = append(b.groups, len(b.edges))
	b.parallel(len(b.groups)-1, func(w *buildWorker, i int) { b.link(w, b.edges[b.groups[i]:b.groups[i+1]], from) })
	b.touch()
	// The rows of the batch are hashed when they are final, links back included.
	b.parallel(int(to-from), func(w *buildWorker, i int) {
		v := from + uint32(i)
		for layer := 0; layer <= g.graph.level(v); layer++ {
			row := g.graph.row(v, layer)
			w.hash.add(rowHash(v, layer, row[:rowLen(row)]))
		}
	})
	hash.add(b.takeHash())
	g.graphHash.Store(&hash)
}

// raiseEntry makes the highest vertex of a batch the entry point if it is above
// the one there is. Searches must not see it before the watermark that covers
// it, or while there is none.
func (b *builder) raiseEntry(from, to uint32) {
	g := b.g
	_, top, _ := g.graph.entryPoint()
	for v := from; v < to; v++ {
		if l := g.graph.level(v); l > top || from == 0 && v == 0 {
			top = l
			g.graph.entry.Store(uint64(l+1)<<32 | uint64(v))
		}
	}
}

// prepare makes the rows of a batch and what its distances need.
func (b *builder) prepare(from, to uint32) bool {
	g := b.g
	if g.coded() && !b.encode(from, to) {
		return false
	}
	g.graph.addVertices(from, to)
	if g.norms != nil {
		radius := math.Float32frombits(g.radius.Load())
		for v := from; v < to; v++ {
			radius = max(radius, *(*float32)(g.norms.row(v)))
		}
		if bits := math.Float32bits(radius); bits != g.radius.Load() {
			g.radius.Store(bits)
			if !g.coded() {
				g.graph.openRows(from) // the lifts have changed
			}
		}
	}
	return true
}

// encode makes the codes of a batch. Each time the vertices have doubled, and
// when a batch is out of range, the codec is trained again, and if that says
// something else everything is encoded anew: vectors may come in any order, also
// cluster by cluster.
func (b *builder) encode(from, to uint32) bool {
	g := b.g
	codes := g.codes.Load()
	if codes == nil || from >= 2*codes.checked {
		return b.retrain(trainCodec(g, to), to)
	}
	clipped := b.code(codes, from, to)
	if clipped*8 <= int(to-from) && (clipped == 0 || !codes.lifted || b.excess(&codes.codec, from, to) <= 1) {
		b.sketch(codes, from, to)
		return true
	}
	// A sample of all may hardly know the newcomers. Widening by half each time
	// keeps the number of times small.
	c := trainCodec(g, to)
	c.widen(float32(codes.scale * 1.5))
	return b.retrain(c, to)
}

// maxExcess is how many times their range codes are widened at most, so that an inner
// product with every vector is known but for rounding. One that is longer by more is
// cut off, rather than paid for by all.
const maxExcess = 4

// excess is how far the values of the vertices [from, to) go from the middle of the
// codec's range, half of it being 1; those that go further than maxExcess do not count.
func (b *builder) excess(c *codec, from, to uint32) float32 {
	var largest atomic.Uint32 // its bits, which are in the order of positive numbers
	b.parallel(int(to-from), func(w *buildWorker, i int) {
		w.row = slices.Grow(w.row[:0], c.dim)[:c.dim]
		far := c.reach(b.g, from+uint32(i), w.row)
		if far > maxExcess {
			return
		}
		bits := math.Float32bits(far)
		for {
			old := largest.Load()
			if bits <= old || largest.CompareAndSwap(old, bits) {
				return
			}
		}
	})
	return math.Float32frombits(largest.Load())
}

// code makes the codes of the vertices [from, to) that have none yet, and returns how
// many are far out of range.
func (b *builder) code(codes *codeset, from, to uint32) (clipped int) {
	codes.grow(int(to))
	from = min(to, max(from, codes.ahead.Load()))
	var far atomic.Int64
	b.parallel(int(to-from), func(_ *buildWorker, i int) {
		if codes.add(b.g, from+uint32(i)) {
			far.Add(1)
		}
	})
	return int(far.Load())
}

// retrain takes a codec trained on the vertices below to into use, if it differs
// from the one there is, and tries it.
func (b *builder) retrain(trained *codec, to uint32) bool {
	g := b.g
	codes := g.codes.Load()
	if trained.lifted {
		trained.widen(float32(trained.scale * b.excess(trained, 0, to)))
	}
	first := codes == nil
	if !first && codes.suits(trained) {
		from := g.graphed.Load()
		b.code(codes, from, to)
		b.sketch(codes, from, to)
		codes.checked = to
		g.poor.Store(!codes.orders(b, to))
		return true
	}
	fresh, err := newCodeset(trained, g.cfg, g.rows)
	if err != nil {
		g.cfg.Warn("the vectors could not be encoded anew", err)
		return false
	}
	b.code(fresh, 0, to)
	fresh.checked = to
	poor := !fresh.orders(b, to)
	if first && poor {
		fresh.release()
		if to < fullTraining {
			g.late.Store(true)
		} else {
			g.plain.Store(true)
		}
		return false
	}
	b.sketch(fresh, 0, to)
	g.poor.Store(poor)
	g.codes.Store(fresh)
	g.graph.openRows(g.graphed.Load())
	codes.release()
	return true
}

// sketch makes the sketches of the vertices [from, to), which have codes.
func (b *builder) sketch(codes *codeset, from, to uint32) {
	k := codes.sketches
	if k == nil {
		return
	}
	if k.centre == nil {
		k.centre = codes.mean(b.g.cfg.Dimension)
	}
	b.parallel(int(to-from), func(w *buildWorker, i int) {
		w.turned = slices.Grow(w.turned[:0], k.turned)[:k.turned]
		k.put(from+uint32(i), w.turned)
	})
}

// parallel calls fn for 0..n-1 on all workers and waits.
func (b *builder) parallel(n int, fn func(w *buildWorker, i int)) {
	if len(b.workers) == 1 {
		for i := range n {
			b.work(b.workers[0], i, fn)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, w := range b.workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				b.work(w, i, fn)
			}
		})
	}
	wg.Wait()
}

// work does one piece and rests if writes need the core more.
func (b *builder) work(w *buildWorker, i int, fn func(w *buildWorker, i int)) {
	if b.pace == nil {
		fn(w, i)
		return
	}
	start := time.Now()
	fn(w, i)
	w.debt = b.pace.rest(w.debt+time.Since(start), int(b.g.total.Load()-b.g.graphed.Load()))
}

// insert finds the links of vertex v of the batch that begins at from.
func (b *builder) insert(w *buildWorker, from, v uint32) {
	g := b.g
	g.buildMeasure(&w.measure, v)
	level := g.graph.level(v)
	ep, top, ok := g.graph.entryPoint()
	var entry uint64
	every := int(from) <= scanTimes*g.cfg.EfConstruction
	if ok && (level > 0 || !every) {
		entry = w.descend(g.graph, ep, top, level, from)
	}
	w.ids = w.ids[:0]
	for u := from; u < v; u++ {
		w.ids = append(w.ids, u)
	}
	w.keys = slices.Grow(w.keys[:0], len(w.ids))[:len(w.ids)]
	w.measure.keys(w.ids, w.keys)
	batch := w.merged[:0]
	for i, u := range w.ids {
		batch = append(batch, candidate(w.keys[i], u))
	}
	w.merged = batch
	for layer := level; layer >= 0; layer-- {
		w.pool.reset(g.cfg.EfConstruction)
		switch {
		case every && layer == 0:
			w.nearest(from, 1, g.cfg.EfConstruction)
		case ok && layer <= top:
			w.seen.reset(int(from))
			w.seen.add(candidateVertex(entry))
			w.pool.insert(entry &^ expanded)
			w.walk(g.graph, layer, from, nil)
			entry = w.pool.items[0]
		}
		for _, c := range batch {
			if layer == 0 || g.graph.level(candidateVertex(c)) >= layer {
				w.pool.insert(c)
			}
		}
		apart := w.choose(g, v, w.pool.items, g.graph.width(layer))
		setRow(g.graph.row(v, layer), w.chosen)
		g.graph.setChanged(v, layer)
		if layer == 0 {
			g.graph.setClosed(v, apart)
		}
		for _, u := range w.chosen {
			w.edges = append(w.edges, edge{uint32(layer), u, v})
		}
	}
}

// scanTimes is how many vertices, in times of the candidates of a walk, are compared with
// one after the other in less time than such a walk takes.
const scanTimes = 10
