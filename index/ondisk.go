// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"sync/atomic"

	"github.com/akidb/akidb/index/distance"
)

// onDisk is what a generation needs to give the memory of float32 rows back once
// the graph covers them (Config.VectorsOnDisk).
//
// A search reads rows at or above the watermark it has loaded and takes those
// below from the Source. The builder therefore frees rows only below a watermark
// that no search under way can still be above: searches enter one of two epochs
// in turn; when the other one is empty, what was graphed before it was closed is
// freed, and the epochs change places. Searches never wait for that.
type onDisk struct {
	src    Source
	epoch  atomic.Uint64
	active [2]atomic.Int64
	// The builder's: rows below freed are gone; below limit may go.
	freed, limit uint32
	unread       atomic.Int64 // vectors that could not be read
}

// enter begins a search; the result is for leave.
func (o *onDisk) enter() uint64 {
	for {
		e := o.epoch.Load()
		o.active[e&1].Add(1)
		if o.epoch.Load() == e {
			return e
		}
		o.active[e&1].Add(-1)
	}
}

func (o *onDisk) leave(e uint64) { o.active[e&1].Add(-1) }

// free gives back what nobody can be reading; graphed is the watermark.
func (o *onDisk) free(rows *arena, graphed uint32) {
	e := o.epoch.Load()
	if o.active[(e+1)&1].Load() != 0 {
		return
	}
	// Whoever entered epoch e-1 is gone; the others loaded at least limit.
	rows.discard(o.freed, o.limit)
	o.freed = max(o.freed, o.limit)
	o.limit = graphed
	o.epoch.Store(e + 1)
}

// read copies the vector of a vertex, normalised under Cosine, wherever it is.
// Only the builder may ask for one that is not on disk only.
func (g *generation) read(v uint32, dst []float32) error {
	if g.disk == nil || v >= g.disk.freed {
		copy(dst, g.vector(v))
		return nil
	}
	return g.readDisk(v, dst)
}

// readDisk copies the vector of a vertex from the replicated state.
func (g *generation) readDisk(v uint32, dst []float32) error {
	return g.readDiskBy(g.disk.src.Vector, v, dst)
}

func (g *generation) readDiskBy(vector func(Slot, []float32) error, v uint32, dst []float32) error {
	dst = dst[:g.cfg.Dimension]
	if err := vector(g.slot(v), dst); err != nil {
		g.disk.unread.Add(1)
		return fmt.Errorf("index: vector of slot %d: %w", g.slot(v), err)
	}
	if g.cfg.Metric == distance.Cosine {
		distance.Normalize(dst, dst)
	}
	return nil
}

// readMany brings the vectors of vertices into the scratch memory and sets the
// measure up to compare a query with them; ids become 0, 1, .... Those that the graph
// does not cover are in RAM, and may not be on disk yet.
func (r *request) readMany(ids []uint32) ([]uint32, error) {
	s, dim := r.s, r.g.cfg.Dimension
	if cap(s.disk) < len(ids)*dim {
		s.disk = make([]float32, len(ids)*dim)
	}
	s.disk = s.disk[:cap(s.disk)]
	vector := r.vector
	if vector == nil {
		vector = r.g.disk.src.Vector
	}
	for i, v := range ids {
		dst := s.disk[i*dim : (i+1)*dim]
		if v >= r.graphed {
			copy(dst, r.g.vector(v))
		} else if err := r.g.readDiskBy(vector, v, dst); err != nil {
			return nil, err
		}
		for i >= len(s.local) {
			s.local = append(s.local, uint32(len(s.local)))
		}
	}
	s.measure.base32, s.measure.stride = s.disk, dim
	return s.local[:len(ids)], nil
}
