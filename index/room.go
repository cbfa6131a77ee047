// SPDX-License-Identifier: Apache-2.0

package index

import "slices"

// Rows never move while searches read them, so a generation reserves address space for
// as many vectors as it may have. Room for all that the machine can hold is more than
// the machine has of memory, and there may be thousands of collections: a generation has
// room for fewRows at first, then for one in middleShare of all, and for all when that
// is half full, which few collections can be (docs/adr/0104 and 0105).
const (
	fewRows     = 4096
	middleShare = 64
)

// room is how many vectors a generation is to have room for that has n now: of three
// sizes the least that is not half full.
func (cfg *Config) room(n int) int {
	few, all := fewRows, cfg.maxRows(0)
	if cfg.onDisk() {
		few = firstTraining // see withRoom
	}
	middle := max(all/middleShare, 8*fewRows)
	switch {
	case 2*n < few && 2*fewRows <= all:
		return few
	case 2*n < middle && 2*middle <= all:
		return middle
	}
	return all
}

// outgrown reports whether half of the room is taken and there could be more.
func (g *generation) outgrown() bool {
	return 2*int(g.total.Load()) >= g.rows && g.rows < g.cfg.maxRows(0)
}

// full reports whether there is no room for another vector, but could be more.
func (g *generation) full() bool {
	return int(g.total.Load()) >= g.rows && g.outgrown() && !g.cramped.Load()
}

// withRoom is the current generation, with room for one more vector; nil if there is
// none and the index is being closed. Little room is left behind at once, with vectors on
// disk before there is a graph, so that all of them are in memory still. To leave more is
// the builder's, since the graph goes along: the appender waits for it only if the other
// half has been filled meanwhile. x.mu is held, but for the wait.
func (x *Index) withRoom() *generation {
	for {
		g := x.current.Load()
		switch n := g.total.Load(); {
		case g.rows <= fewRows && n%64 == 0 && g.outgrown() && (g.disk == nil || g.graphed.Load() == 0):
			return x.makeRoom(g)
		case !g.full():
			return g
		case x.closed:
			return nil
		}
		x.wake.nudge()
		x.larger.Wait()
	}
}

// makeRoom puts the current generation g, whose vectors are few, into a larger one. Its
// graph is built anew, the same one; searches compare all vectors until it is. It
// returns g if there is no room, to be tried again; x.mu is held.
func (x *Index) makeRoom(g *generation) *generation {
	fresh, err := newGeneration(&x.cfg, x.src, g.id, g.sealedAt, x.cfg.room(int(g.total.Load())))
	if err != nil {
		x.cfg.Warn("there is no room for many more vectors", err)
		return g
	}
	fresh.plain.Store(g.plain.Load())
	for v := range g.total.Load() {
		fresh.add(g.slot(v), g.vector(v), g.deadIndex(v), false)
	}
	x.replace(g, fresh)
	return fresh
}

// replace makes a larger generation of the same vectors the current one; x.mu is held.
func (x *Index) replace(g, fresh *generation) {
	if x.next != nil && x.next.rows < fresh.rows {
		x.restartNext(fresh.rows)
	}
	x.current.Store(fresh)
	g.release()
	x.larger.Broadcast()
}

// restartNext begins the next generation again, with room for so many; x.mu is held.
func (x *Index) restartNext(rows int) {
	old := x.next
	x.next = nil
	if again, err := newGeneration(&x.cfg, x.src, old.id, old.sealedAt, rows); err != nil {
		x.cfg.Warn("the next generation is given up until the next start", err)
	} else {
		again.plain.Store(old.plain.Load())
		x.next = again
	}
	old.release()
}

// copyAhead is from how many vectors on that came while others were copied these are
// copied too before the appender is kept waiting for the rest.
const copyAhead = 1024

// enlarge puts the current generation g, which the builder holds, into a larger one with
// its graph, beside appends and searches. Until these have left g both are in memory.
func (x *Index) enlarge(g *generation) {
	fresh, err := newGeneration(&x.cfg, x.src, g.id, g.sealedAt, x.cfg.room(int(g.total.Load())))
	if err == nil {
		err = fresh.copyGraph(g)
		if err != nil {
			fresh.release()
		}
	}
	if err != nil {
		g.cramped.Store(true)
		x.cfg.Warn("there is no room for many more vectors until the next start", err)
		x.mu.Lock()
		defer x.mu.Unlock()
		x.larger.Broadcast()
		return
	}
	var done uint32
	if g.disk != nil {
		done = g.disk.freed
	}
	for {
		total := g.total.Load()
		fresh.vectors.copyRows(g.vectors, done, total)
		more := total - done
		done = total
		if more < copyAhead {
			break
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.current.Load() != g { // the appender made room, or a seal's generation has taken over
		fresh.release()
		return
	}
	total := g.total.Load()
	fresh.vectors.copyRows(g.vectors, done, total)
	fresh.slots.copyRows(g.slots, 0, total)
	fresh.deadAt.copyRows(g.deadAt, 0, total) // deletes hold x.mu
	fresh.norms.copyRows(g.norms, 0, total)
	fresh.garbage.Store(g.garbage.Load())
	fresh.total.Store(total)
	if x.chain != nil && x.chain.g == g {
		x.chain.g = fresh
	}
	x.replace(g, fresh)
}

// copyGraph makes the graph and the codes of g, which has none, those of other, whose
// builder this is.
func (g *generation) copyGraph(other *generation) error {
	n := other.graphed.Load()
	if s := other.codes.Load(); s != nil {
		c, err := s.copy(g.cfg, g.rows, max(n, s.ahead.Load()))
		if err != nil {
			return err
		}
		g.codes.Store(c)
	}
	g.graph.copyRows(other.graph, n)
	if l := other.longest.Load(); l != nil {
		same := *l
		if same.codes != nil && same.codes == other.codes.Load() {
			same.codes = g.codes.Load()
		}
		g.longest.Store(&same)
	}
	if d := other.disk; d != nil {
		g.disk.freed, g.disk.limit = d.freed, n
		g.disk.unread.Store(d.unread.Load())
	}
	g.plain.Store(other.plain.Load())
	g.poor.Store(other.poor.Load())
	g.late.Store(other.late.Load())
	g.radius.Store(other.radius.Load())
	g.vectorsHash = other.vectorsHash
	g.graphHash.Store(other.graphHash.Load())
	g.marks.copy(&other.marks)
	g.graphed.Store(n)
	return nil
}

// copyRows makes the rows of n vertices those of other, with what the builder and
// checkpoints know of them.
func (g *graph) copyRows(other *graph, n uint32) {
	uppers := other.uppers.Load()
	g.links.copyRows(other.links, 0, n)
	g.upperRow.copyRows(other.upperRow, 0, n)
	g.closed.copyRows(other.closed, 0, n)
	g.upper.copyRows(other.upper, 0, uppers)
	g.changed.copyRows(other.changed, 0, uppers)
	g.uppers.Store(uppers)
	g.entry.Store(other.entry.Load())
}

// copy is the codes of n vertices once more, with room for so many rows.
func (s *codeset) copy(cfg *Config, rows int, n uint32) (*codeset, error) {
	c, err := newCodeset(&s.codec, cfg, rows)
	if err != nil {
		return nil, err
	}
	c.grow(int(n))
	c.rows.copyRows(s.rows, 0, n)
	c.terms.copyRows(s.terms, 0, n)
	c.checked = s.checked
	c.lossless.Store(s.lossless.Load())
	c.ahead.Store(s.ahead.Load())
	if b := s.blocks; b != nil {
		c.blocks.rows.copyRows(b.rows, 0, b.made)
		c.blocks.centre, c.blocks.made, c.blocks.stale = b.centre, b.made, slices.Clone(b.stale)
		c.blocks.covered.Store(b.covered.Load())
		c.blocks.poor.Store(b.poor.Load())
	}
	if k := s.sketches; k != nil {
		c.sketches.centre = k.centre
		c.sketches.rows.copyRows(k.rows, 0, n)
	}
	return c, nil
}
