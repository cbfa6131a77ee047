// SPDX-License-Identifier: Apache-2.0

package index

// takeOver is how many vertices the next generation takes from the current one
// while the appender waits.
const takeOver = 256

// build is the builder goroutine: it grows the graph of the current generation
// and, after Seal, the next one until it can take the current one's place.
func (x *Index) build() {
	var current, next *builder
	for {
		worked := false
		if g := x.current.Load(); current == nil || current.g != g {
			current = newBuilder(g, x.cfg.Workers)
		}
		x.mu.Lock()
		g := x.next
		x.mu.Unlock()
		switch {
		case g == nil:
			next = nil
			worked = current.step()
			if current.g.poor && !x.cfg.VectorsOnDisk {
				x.rebuildPlain(current.g)
				worked = true
			}
		default:
			if next == nil || next.g != g {
				next = newBuilder(g, x.cfg.Workers)
			}
			// The graph in use must not fall far behind meanwhile; it is gone
			// once advance has replaced it.
			worked = current.step()
			worked = next.step() || worked
			worked = x.advance(next) || worked
		}
		if !worked {
			x.signalIdle()
			select {
			case <-x.wake:
			case req := <-x.checkpoints:
				req.reply <- x.writeCheckpoint(req.ctx, x.current.Load())
			case <-x.stop:
				return
			}
			continue
		}
		select {
		case req := <-x.checkpoints:
			req.reply <- x.writeCheckpoint(req.ctx, x.current.Load())
		case <-x.stop:
			return
		default:
		}
	}
}

// rebuildPlain begins the current generation anew, without codes.
func (x *Index) rebuildPlain(g *generation) {
	g.poor = false
	fresh, err := newGeneration(&x.cfg, g.id, g.sealedAt)
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
		return true
	}
	for range takeOver {
		if next.taken == total {
			break
		}
		v := next.taken
		next.taken++
		dead := current.deadIndex(v)
		if dead == 0 || dead > next.sealedAt {
			next.append(current.slot(v), current.vector(v), dead)
		}
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
		for x.payload.merge() {
			select {
			case <-x.stop:
				return
			default:
			}
		}
	}
}
