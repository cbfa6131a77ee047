// SPDX-License-Identifier: Apache-2.0

package index

import "slices"

// scanCovered compares all matches that the graph covers.
func (r *request) scanCovered(covered uint32) error {
	r.stats.Plan = "exact"
	limit := r.q.K
	if r.codes != nil && !r.lossless {
		limit = max(r.ef, 2*r.q.K)
	}
	if k := r.sketches(); k != nil {
		return r.scanSketches(k, covered, limit)
	}
	return r.scan(0, covered, limit)
}

// scan compares the query with every matching vertex of [from, to) and keeps the
// best limit of them and of what was found before.
func (r *request) scan(from, to uint32, limit int) error {
	if from >= to {
		return nil
	}
	s := r.s
	const block = 256
	s.need(block)
	s.pool.reset(limit)
	slices.Sort(s.results)
	s.pool.items = append(s.pool.items, s.results[:min(len(s.results), limit)]...)
	if s.begin(to) && r.see.bits == nil && !r.see.anyDead {
		return r.scanRows(from, min(to, r.see.bound))
	}
	for v := from; v < to; {
		var ids []uint32
		if ids, v = r.see.gather(v, to, s.ids[:0:block]); len(ids) == 0 {
			continue
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		rows := ids
		if r.g.disk != nil && r.codes == nil && from < r.graphed {
			var err error
			if rows, err = r.readMany(ids); err != nil {
				return err
			}
		}
		r.compare(rows, ids)
	}
	s.results = append(s.results[:0], s.pool.items...)
	return nil
}

// scanRows is scan on codes for [from, to) where all may be returned, with the pool
// and the measure ready.
func (r *request) scanRows(from, to uint32) error {
	s := r.s
	near := s.room(rowsBlock)
	for v := from; v < to; v += rowsBlock {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		end := min(v+rowsBlock, to)
		r.stats.Scanned += int(end - v)
		bound := min(s.pool.bound(), r.farthestKey())
		s.pool.insertAll(near[:s.expansion.Rows(v, end, bound, near)])
	}
	s.results = append(s.results[:0], s.pool.items...)
	return nil
}

// rowsBlock is how many rows are compared before those that are near are taken in.
const rowsBlock = 64

// compare compares the query with vertices, ascending and of known rows, and puts
// those into the pool that are near enough. It follows a begin.
func (r *request) compare(rows, ids []uint32) {
	s := r.s
	if !s.expands {
		out := s.out[:cap(s.out)]
		s.measure.keysAhead(rows, out)
		r.offer(ids, out)
		return
	}
	r.stats.Scanned += len(ids)
	near := s.room(rowsBlock)
	s.measure.inPieces(ids, func(ids []uint32) {
		bound := min(s.pool.bound(), r.farthestKey())
		s.pool.insertAll(near[:s.expansion.Given(ids, bound, near)])
	})
}

// offer puts those of the vertices compared into the pool that are near enough.
func (r *request) offer(ids, keys []uint32) {
	const block = 32
	p := &r.s.pool
	r.stats.Scanned += len(ids)
	for len(ids) > 0 {
		n := min(block, len(ids))
		bound := min(p.bound(), r.farthestKey())
		for i, u := range ids[:n] {
			if c := candidate(keys[i], u); c < bound {
				p.insert(c)
				bound = min(bound, p.bound())
			}
		}
		ids, keys = ids[n:], keys[n:]
	}
}
