// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/index/distance"
)

// generation is the vectors of one generation of a collection and their graph.
// Vertices number its slots in order, without holes.
//
// Who writes what: the appender writes rows at total and then raises total; the
// builder writes the graph and then raises graphed; deadAt is atomic. A reader
// loads a watermark and may read what stands below it, with no lock. A
// generation is freed when the last of its readers has released it.
type generation struct {
	id       uint64
	sealedAt uint64 // its first vertices are the slots live at this log index
	cfg      *Config
	rows     int // how many vertices there is room for
	refs     atomic.Int64

	slots   *arena                  // Slot per vertex, ascending
	deadAt  *arena                  // log index of the delete per vertex; 0 while live
	vectors *arena                  // float32 rows, normalised under Cosine
	norms   *arena                  // squared length per vertex, under Dot only
	codes   atomic.Pointer[codeset] // of the vertices below graphed and some behind; nil without
	graph   *graph
	disk    *onDisk // nil while all vectors are in RAM

	// Invariant: graphed <= total, and graphed is a batch boundary.
	total   atomic.Uint32
	graphed atomic.Uint32
	garbage atomic.Int64
	// radius is the largest squared norm of the vertices below graphed, as bits.
	radius    atomic.Uint32
	longest   atomic.Pointer[longest] // under Dot; see rankLengths
	graphHash atomic.Pointer[digest]
	marks     markRing
	// plain: codes do not tell these vectors apart, so the graph is built and
	// walked on the vectors. poor: that was found out when there was a graph
	// already, and no other one follows yet; the builder sets it, before graphed.
	plain atomic.Bool
	poor  atomic.Bool
	// late: codes of the first firstTraining vertices were poor, so the first batch is
	// of fullTraining.
	late atomic.Bool
	// cramped: there was no address space for a larger one.
	cramped atomic.Bool
	// vectorsHash covers slots and vectors below graphed; the builder's.
	vectorsHash digest
	// taken is how many vertices of the generation before were looked at.
	taken uint32
}

func newGeneration(cfg *Config, src Source, id, sealedAt uint64, rows int) (*generation, error) {
	g := &generation{id: id, sealedAt: sealedAt, cfg: cfg, rows: rows}
	if cfg.onDisk() {
		g.disk = &onDisk{src: src}
	}
	g.refs.Store(1)
	g.graphHash.Store(&digest{})
	var err error
	make := func(a **arena, stride int) {
		if err == nil {
			*a, err = newArena(stride, rows)
		}
	}
	make(&g.slots, 4)
	make(&g.deadAt, 8)
	make(&g.vectors, (cfg.Dimension*4+63)&^63)
	if err == nil {
		g.vectors.small = g.disk != nil
	}
	if cfg.Metric == distance.Dot {
		make(&g.norms, 4)
	}
	if err == nil {
		g.graph, err = newGraph(cfg.M, rows)
	}
	if err != nil {
		g.free()
		return nil, err
	}
	return g, nil
}

// acquire takes a reference; false if the generation is being freed.
func (g *generation) acquire() bool {
	for {
		n := g.refs.Load()
		if n == 0 {
			return false
		}
		if g.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *generation) release() {
	if g.refs.Add(-1) == 0 {
		g.free()
	}
}

func (g *generation) free() {
	for _, a := range []*arena{g.slots, g.deadAt, g.vectors, g.norms} {
		a.free()
	}
	g.codes.Load().release()
	if g.graph != nil {
		g.graph.free()
	}
}

// forgetGraph undoes a restore that failed half-way.
func (g *generation) forgetGraph() {
	if g.graphed.Load() != 0 {
		return
	}
	g.graph.uppers.Store(0)
	g.graph.entry.Store(0)
	g.plain.Store(false)
	g.late.Store(false)
}

// append adds a vertex; only the appender calls it.
func (g *generation) append(slot Slot, vector []float32, deadAt uint64) {
	g.add(slot, vector, deadAt, g.cfg.Metric == distance.Cosine)
}

// add is append; normalize says that the vector has not been normalised yet. Doing so
// twice may change a last bit.
func (g *generation) add(slot Slot, vector []float32, deadAt uint64, normalize bool) {
	v := g.total.Load()
	g.slots.grow(int(v) + 1)
	g.deadAt.grow(int(v) + 1)
	g.vectors.grow(int(v) + 1)
	row := g.vector(v)
	if !normalize || !distance.Normalize(row, vector) {
		copy(row, vector)
	}
	if g.norms != nil {
		g.norms.grow(int(v) + 1)
		// No more than a float32: the difference of two infinite ones would be no number.
		*(*float32)(g.norms.row(v)) = min(distance.InnerProduct(row, row), math.MaxFloat32)
	}
	*(*uint32)(g.slots.row(v)) = uint32(slot)
	(*atomic.Uint64)(g.deadAt.row(v)).Store(deadAt)
	if deadAt != 0 {
		g.garbage.Add(1)
	}
	g.total.Store(v + 1)
}

// kill marks the vertex of a slot dead; nothing happens if it has none.
func (g *generation) kill(slot Slot, at uint64) {
	v := g.lowerBound(slot, g.total.Load())
	if v == g.total.Load() || g.slot(v) != slot {
		return
	}
	if (*atomic.Uint64)(g.deadAt.row(v)).CompareAndSwap(0, at) {
		g.garbage.Add(1)
	}
}

func (g *generation) vector(v uint32) []float32 {
	return f32At(g.vectors.row(v), g.cfg.Dimension)
}

func (g *generation) slot(v uint32) Slot { return Slot(*(*uint32)(g.slots.row(v))) }

// vectorHash covers a vertex, its slot and its vector.
func (g *generation) vectorHash(v uint32) digest {
	row := u8At(g.vectors.row(v), g.cfg.Dimension*4)
	h := xxh3.Hash128Seed(row, uint64(v)<<32|uint64(g.slot(v)))
	return digest{h.Hi, h.Lo}
}

// lastSlot is the slot of the last vertex, 0 if there is none.
func (g *generation) lastSlot() Slot {
	if n := g.total.Load(); n > 0 {
		return g.slot(n - 1)
	}
	return 0
}

// holds reports whether a slot has a vertex.
func (g *generation) holds(s Slot) bool {
	n := g.total.Load()
	v := g.lowerBound(s, n)
	return v < n && g.slot(v) == s
}

func (g *generation) deadIndex(v uint32) uint64 {
	return (*atomic.Uint64)(g.deadAt.row(v)).Load()
}

// lowerBound is the first vertex below n whose slot is not below slot, or n.
func (g *generation) lowerBound(slot Slot, n uint32) uint32 {
	// Without holes below it a slot is its own vertex.
	if uint32(slot) < n && g.slot(uint32(slot)) == slot {
		return uint32(slot)
	}
	lo, hi := uint32(0), min(n, uint32(slot))
	for lo < hi {
		mid := lo + (hi-lo)/2
		if g.slot(mid) < slot {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// base32 is all float32 rows as one slice, to be indexed below total only.
func (g *generation) base32() []float32 {
	return unsafe.Slice((*float32)(g.vectors.base), g.vectors.reserved/4)
}

func (g *generation) stride32() int { return int(g.vectors.stride / 4) }

// norm is the squared length of a vertex, under Dot.
func (g *generation) norm(v uint32) float32 { return *(*float32)(g.norms.row(v)) }

// acquireCodes takes a reference to the codes in use; nil if there are none.
func (g *generation) acquireCodes() *codeset {
	for {
		if s := g.codes.Load(); s == nil || s.acquire() {
			return s
		}
	}
}

// buildMeasure compares vertex v with others while the graph is built.
func (g *generation) buildMeasure(m *measure, v uint32) {
	if s := g.codes.Load(); s != nil {
		// The builder itself replaces the codes, so they stay as long as this.
		s.rowMeasure(m, v)
		return
	}
	m.base32, m.stride = g.base32(), g.stride32()
	m.query = g.vector(v)
	m.kind = kindL2
	if g.norms != nil {
		m.kind, m.norms = kindBuildDot, g.norms
		m.radius = math.Float32frombits(g.radius.Load())
		m.lift = lift(m.radius, g.norm(v))
	}
}

// zeroKey is the key of equal vertices under buildMeasure.
func (g *generation) zeroKey() uint32 {
	if g.norms == nil && g.codes.Load() == nil {
		return orderedBits(0)
	}
	return 0
}

// exactMeasure compares a query, normalised under Cosine, with vertices; its
// keys are the ordered bits of the distances a caller sees.
func (g *generation) exactMeasure(m *measure, query []float32) {
	m.base32, m.stride = g.base32(), g.stride32()
	m.query = query
	switch g.cfg.Metric {
	case distance.L2:
		m.kind = kindL2
	case distance.Cosine:
		m.kind = kindCosine
	default:
		m.kind = kindDot
	}
}

// batchEnd is the boundary after boundary a: batches are a pure function of the
// number of vertices, so that the graph does not depend on when vectors came.
// They stay so small that the rest, which is scanned, costs less than walking
// the graph. Codes are trained on the first batch, which is larger for that.
func (g *generation) batchEnd(a uint32) uint32 {
	switch {
	case a == 0 && g.coded():
		return g.firstBatch()
	case a < 64<<10:
		return a + 64
	case a < 256<<10:
		return a + 128
	default:
		return a + 256
	}
}

// boundary is the last boundary at or below n.
func (g *generation) boundary(n uint32) uint32 {
	switch {
	case g.coded() && n < g.firstBatch():
		return 0
	case n < 64<<10:
		return n &^ 63
	case n < 256<<10:
		return n &^ 127
	default:
		return n &^ 255
	}
}

// firstBatch is the first boundary of a graph on codes.
func (g *generation) firstBatch() uint32 {
	if g.late.Load() {
		return fullTraining
	}
	return firstTraining
}

// coded reports whether the graph is built and walked on codes.
func (g *generation) coded() bool {
	return g.cfg.Quantization != QuantizationNone && !g.plain.Load()
}
