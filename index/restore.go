// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
)

// loadAndRestore takes the replicated state of the generation in, and its graph
// from a checkpoint if there is a sound one.
func (x *Index) loadAndRestore(ctx context.Context, g *generation, src Source) error {
	path := checkpointPath(x.cfg.Dir, g.id)
	c, err := x.findCheckpoint(g)
	if c != nil && err != nil {
		x.cfg.Warn("the checkpoint "+path+" is used as far as it is sound; the rest is built anew", err)
		err = nil
	}
	var e *earlyCodes
	if c != nil {
		e, err = beginEarly(g, c)
	}
	if err := x.load(ctx, g, src, e); err != nil {
		e.release()
		return err
	}
	if c != nil && err == nil {
		err = newBuilder(g, x.cfg.Workers).restore(c, e)
	}
	if err != nil {
		g.forgetGraph()
		e.release()
		x.cfg.Warn("the checkpoint "+path+" is not used; the graph is built anew", err)
		return e.undo(ctx)
	}
	if c != nil {
		x.chain = &c.chain
		x.chain.g = g
	}
	return nil
}

// findCheckpoint reads the checkpoint of a generation; nil if there is none.
func (x *Index) findCheckpoint(g *generation) (*checkpoint, error) {
	if x.cfg.Dir == "" {
		return nil, nil
	}
	c, err := readCheckpoint(x.cfg.Dir, g.id, &x.cfg)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return c, err
}

// errOutgrown: there are more vectors than little room is for.
var errOutgrown = errors.New("index: too many vectors for little room")

// load takes the replicated state of the generation in.
func (x *Index) load(ctx context.Context, g *generation, src Source, early *earlyCodes) error {
	last := int64(-1)
	x.payload.bulk(true)
	defer x.payload.bulk(false)
	err := src.Scan(0, func(e Entry) error {
		if int64(e.Slot) <= last {
			return fmt.Errorf("index: slot %d came after slot %d", e.Slot, last)
		}
		last = int64(e.Slot)
		if g.total.Load()%64 == 0 && g.outgrown() {
			return errOutgrown
		}
		if len(e.Vector) != x.cfg.Dimension {
			return fmt.Errorf("index: slot %d has %d dimensions, the collection has %d", e.Slot, len(e.Vector), x.cfg.Dimension)
		}
		g.append(e.Slot, e.Vector, e.DeadAt)
		early.take(g.total.Load() - 1)
		x.payload.add(e.Slot, e.Payload)
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("index: load generation %d: %w", g.id, err)
	}
	return nil
}

// earlyCodes encodes the vectors of a checkpoint's graph as they are loaded and
// lets go of them, so that with Config.VectorsOnDisk there is never room needed
// for all. If the checkpoint turns out to be of no use, they are read again. Its
// methods do nothing on nil, which stands for vectors that stay in RAM.
type earlyCodes struct {
	g       *generation
	codes   *codeset
	n       uint32 // vertices of the checkpoint
	done    uint32
	gone    uint32 // rows below have been given back
	vectors digest
}

// earlyBlock is how many rows are let go at a time.
const earlyBlock = 1024

func beginEarly(g *generation, c *checkpoint) (*earlyCodes, error) {
	if g.disk == nil || c.Coded == 0 || c.Generation != g.id {
		return nil, nil
	}
	codes, err := c.codeset(g)
	if err != nil {
		return nil, err
	}
	return &earlyCodes{g: g, codes: codes, n: c.Graphed}, nil
}

// take does its part for vertex v, which has just been appended.
func (e *earlyCodes) take(v uint32) {
	if e == nil || v >= e.n {
		return
	}
	e.codes.grow(int(v) + 1)
	e.codes.add(e.g, v)
	e.vectors.add(e.g.vectorHash(v))
	e.done = v + 1
	if e.done-e.gone >= earlyBlock || e.done == e.n {
		e.g.vectors.discard(e.gone, e.done)
		e.gone = e.done
	}
}

func (e *earlyCodes) release() {
	if e != nil {
		e.codes.release()
		e.codes = nil
	}
}

// undo reads again what was let go.
func (e *earlyCodes) undo(ctx context.Context) error {
	if e == nil {
		return nil
	}
	for v := range e.gone {
		if v%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := e.g.readDisk(v, e.g.vector(v)); err != nil {
			return err
		}
	}
	return nil
}

// codeset is an empty one with the codec of the checkpoint.
func (c *checkpoint) codeset(g *generation) (*codeset, error) {
	codec := newCodec(g.cfg)
	codec.trained, codec.offset, codec.radius = c.Trained, c.offset, c.CodecRadius
	codec.scale, codec.inverse = c.Scale, c.Inverse
	codes, err := newCodeset(codec, g.cfg, g.rows)
	if err == nil {
		codes.checked = c.Checked
	}
	return codes, err
}

// restore takes the graph of a checkpoint over if it is one of g's vectors. g
// holds all of them and has no graph yet; e, if not nil, has encoded them.
func (b *builder) restore(c *checkpoint, e *earlyCodes) error {
	g := b.g
	n := c.Graphed
	// A graph without codes says that they were no good; no graph says nothing but
	// that there were too few vectors to try.
	g.plain.Store(n > 0 && c.Coded == 0 && g.coded())
	// An infinite radius is from when lengths were not bounded: see generation.add.
	if n > g.total.Load() || n != g.boundary(n) || c.Generation != g.id || math.IsInf(float64(math.Float32frombits(c.Radius)), 1) {
		return fmt.Errorf("%w: %d vertices of generation %d", errForeign, n, c.Generation)
	}
	if n == 0 {
		e.release()
		return nil
	}
	var vectors digest
	if e != nil {
		vectors = e.vectors
	} else {
		vectors = b.sum(n, func(v uint32) digest { return g.vectorHash(v) })
	}
	if vectors != (digest{c.VectorsHi, c.VectorsLo}) {
		return fmt.Errorf("%w: it was built of other vectors", errForeign)
	}
	if err := b.restoreRows(c, n); err != nil {
		return err
	}
	graph := g.graph
	hash := b.sum(n, func(v uint32) (d digest) {
		for layer := 0; layer <= graph.level(v); layer++ {
			row := graph.row(v, layer)
			d.add(rowHash(v, layer, row[:rowLen(row)]))
		}
		return d
	})
	if hash != (digest{c.GraphHi, c.GraphLo}) || uint32(c.Entry) >= n {
		return fmt.Errorf("%w: the graph's hash differs", errDamaged)
	}
	switch {
	case e != nil:
		g.codes.Store(e.codes)
		g.disk.freed, g.disk.limit = e.gone, e.gone
	case c.Coded != 0:
		codes, err := c.codeset(g)
		if err != nil {
			return err
		}
		b.code(codes, 0, n)
		b.sketch(codes, 0, n)
		g.codes.Store(codes)
	}
	graph.entry.Store(c.Entry)
	g.vectorsHash = vectors
	g.radius.Store(c.Radius)
	g.graphHash.Store(&hash)
	g.rankLengths(0, n)
	g.marks.add(n, hash)
	g.graphed.Store(n)
	return nil
}

// restoreRows fills the rows of the graph and checks every link.
func (b *builder) restoreRows(c *checkpoint, n uint32) error {
	graph := b.g.graph
	graph.addVertices(0, n)
	if graph.uppers.Load() != c.Uppers {
		return fmt.Errorf("%w: %d rows of upper layers, want %d", errDamaged, c.Uppers, graph.uppers.Load())
	}
	fill := func(rows *arena, raw []byte, count uint32, width int) bool {
		for i := range count {
			row := u32At(rows.row(i), width)
			for j := range row {
				u := binary.LittleEndian.Uint32(raw[(int(i)*width+j)*4:])
				if u != none && u >= n {
					return false
				}
				row[j] = u
			}
		}
		return true
	}
	if !fill(graph.links, c.links, n, graph.m0) || !fill(graph.upper, c.upper, c.Uppers, graph.m) {
		return fmt.Errorf("%w: a link leads nowhere", errDamaged)
	}
	return nil
}

// sum adds fn over the vertices below n, on all workers.
func (b *builder) sum(n uint32, fn func(v uint32) digest) digest {
	const block = 1024
	b.parallel(int((n+block-1)/block), func(w *buildWorker, i int) {
		for v := uint32(i) * block; v < min(n, uint32(i+1)*block); v++ {
			w.hash.add(fn(v))
		}
	})
	return b.takeHash()
}

// takeHash is the sum of what the workers have hashed.
func (b *builder) takeHash() (d digest) {
	for _, w := range b.workers {
		d.add(w.hash)
		w.hash = digest{}
	}
	return d
}
