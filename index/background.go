// SPDX-License-Identifier: Apache-2.0

package index

import "time"

// takeOver is how many vertices the next generation takes from the current one
// while the appender waits.
const takeOver = 256

// reclaimPause is how long the builder leaves searches alone before it looks
// again whether they still read what the graph covers.
const reclaimPause = 20 * time.Millisecond

// build is the builder goroutine: it grows the graph of the current generation
// and, after Seal, the next one until it can take the current one's place.
func (x *Index) build() {
	// The builder holds the generation that it is at work on, since the appender may
	// replace it (see makeRoom).
	var current, next *builder
	defer func() { current.g.release() }()
	for {
		worked := false
		if current == nil || current.g != x.current.Load() {
			if current != nil {
				current.g.release()
			}
			current = newBuilder(x.acquire(), x.cfg.Workers)
			current.pace = &x.pace
		}
		if current.g.outgrown() && !current.g.cramped.Load() {
			if x.enlarge(current.g); current.g != x.current.Load() {
				continue
			}
		}
		g := x.acquireSuccessor()
		switch {
		case g == nil:
			next = nil
			worked = current.step()
			if current.g.poor.Load() {
				x.rebuildPlain(current.g)
				worked = true
			}
		default:
			if next == nil || next.g != g {
				next = newBuilder(g, x.cfg.Workers)
				next.pace = &x.pace
			}
			// The graph in use must not fall far behind meanwhile; it is gone
			// once advance has replaced it.
			worked = current.step()
			worked = next.step() || worked
			worked = x.advance(next) || worked
			g.release()
		}
		if !worked {
			x.signalIdle()
			var later <-chan time.Time
			if d := current.g.disk; d != nil && d.freed < current.g.graphed.Load() {
				// A search may be in the way.
				d.free(current.g.vectors, current.g.graphed.Load())
				later = time.After(reclaimPause)
			}
			select {
			case <-x.wake:
			case <-later:
			case req := <-x.checkpoints:
				x.answer(req)
			case <-x.stop:
				return
			}
			continue
		}
		select {
		case req := <-x.checkpoints:
			x.answer(req)
		case <-x.stop:
			return
		default:
		}
	}
}

// answer writes a checkpoint on the builder's goroutine.
func (x *Index) answer(req checkpointRequest) {
	g := x.acquire()
	defer g.release()
	req.reply <- x.writeCheckpoint(req.ctx, g)
}

// acquireSuccessor takes a reference to the successor, since another seal may replace
// it while the builder is at work on it.
func (x *Index) acquireSuccessor() *generation {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next != nil {
		x.next.acquire()
	}
	return x.next
}

// rebuildPlain begins the current generation anew, without codes.
func (x *Index) rebuildPlain(g *generation) {
	defer g.poor.Store(false) // when it is seen that another one follows
	fresh, err := newGeneration(&x.cfg, x.src, g.id, g.sealedAt, g.rows)
	if err != nil {
		x.cfg.Warn("a graph without codes was not begun", err)
		return
	}
	fresh.plain.Store(true)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next != nil { // a seal came first
		fresh.release()
		return
	}
	x.next = fresh
}

// signalIdle lets waiters look at the status again.
func (x *Index) signalIdle() {
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.idle)
	x.idle = make(chan struct{})
}

// advance moves vertices of the current generation to the next one and makes
// that the current one when its graph covers what it can.
func (x *Index) advance(b *builder) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	next, current := x.next, x.current.Load()
	if next != b.g {
		return true
	}
	total := current.total.Load()
	if next.taken == total {
		if next.graphed.Load() != next.boundary(next.total.Load()) {
			return false
		}
		x.next = nil
		x.current.Store(next)
		current.release()
		if total > 0 {
			x.purge.Store(uint32(next.lastSlot()) + 1)
			x.merge.nudge()
		}
		return true
	}
	if next.full() { // there were few when it was begun
		x.restartNext(x.cfg.room(int(next.total.Load())))
		return true
	}
	row := make([]float32, x.cfg.Dimension)
	for range takeOver {
		if next.taken == total || next.full() {
			break
		}
		v := next.taken
		dead := current.deadIndex(v)
		if dead == 0 || dead > next.sealedAt {
			if err := current.read(v, row); err != nil {
				x.cfg.Warn("the next generation is given up until the next start", err)
				x.next = nil
				next.release()
				return false
			}
			next.add(current.slot(v), row, dead, false)
		}
		next.taken++
	}
	return true
}

// mergePayload joins small payload runs as they come.
func (x *Index) mergePayload() {
	for {
		select {
		case <-x.merge:
		case <-x.stop:
			return
		}
		if end := x.purge.Swap(0); end > 0 {
			g := x.acquire()
			x.payload.purge(Slot(end), g.holds)
			g.release()
		}
		for x.payload.merge() {
			select {
			case <-x.stop:
				return
			default:
			}
		}
	}
}
