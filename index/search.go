// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"fmt"
	"math/bits"
	"slices"

	"github.com/akidb/akidb/index/distance"
)

// Search answers a query at a view; results are appended to dst. It fails with
// ErrBadFilter, ErrBadQuery, ErrViewTooOld or the context's error.
func (x *Index) Search(ctx context.Context, q Query, v View, dst []Result) ([]Result, Stats, error) {
	if err := x.checkQuery(&q); err != nil {
		return dst, Stats{}, err
	}
	x.pace.searched()
	sel, err := x.selectBy(ctx, q.Filter)
	if err != nil {
		return dst, Stats{}, err
	}
	g, err := x.acquireFor(v)
	if err != nil {
		return dst, Stats{}, err
	}
	defer g.release()
	s := x.scratches.Get().(*scratch)
	defer s.put(x)
	s.visited = 0
	s.query = append(s.query[:0], q.Vector...)
	if x.cfg.Metric == distance.Cosine && !distance.Normalize(s.query, s.query) {
		return dst, Stats{}, fmt.Errorf("%w: the zero vector has no direction", ErrBadQuery)
	}
	s.asked = q
	r := &s.request
	*r = request{x: x, ctx: ctx, q: &s.asked, g: g, s: s, vector: v.Vector}
	if g.disk != nil {
		defer g.disk.leave(g.disk.enter())
	}
	// The entry point before the watermark, which then is above it; the watermark
	// before codes and the view's bound, which then cover it.
	entry, top, ok := g.graph.entryPoint()
	if ok {
		r.entry, r.top, r.graphed = entry, top, g.graphed.Load()
	}
	r.see = sight{g: g, bound: g.lowerBound(v.Slots, g.total.Load()), applied: v.Applied}
	r.see.anyDead = g.garbage.Load() > 0
	r.ef = x.chooseEf(&q)
	r.stats.Matching = -1
	if sel.plan != nil {
		if err := r.evaluate(sel); err != nil {
			return dst, Stats{}, err
		}
	}
	if !q.Exact && r.graphed > 0 && g.coded() {
		r.codes = g.acquireCodes()
		defer r.codes.release()
	}
	if err := r.run(); err != nil {
		return dst, Stats{}, err
	}
	return r.finish(dst)
}

// put gives the scratch memory back without what the search was about.
func (s *scratch) put(x *Index) {
	s.request, s.asked = request{}, Query{}
	x.scratches.Put(s)
}

func (x *Index) checkQuery(q *Query) error {
	if len(q.Vector) != x.cfg.Dimension {
		return fmt.Errorf("%w: vector of %d dimensions, the collection has %d", ErrBadQuery, len(q.Vector), x.cfg.Dimension)
	}
	if i := NotFinite(q.Vector); i >= 0 {
		return fmt.Errorf("%w: vector[%d] is not finite", ErrBadQuery, i)
	}
	if q.K < 1 || q.K > maxK {
		return fmt.Errorf("%w: k %d: want 1 to %d", ErrBadQuery, q.K, maxK)
	}
	if q.Ef < 0 || q.Ef > maxEf {
		return fmt.Errorf("%w: ef %d: want 0 to %d", ErrBadQuery, q.Ef, maxEf)
	}
	if q.RecallTarget < 0 || q.RecallTarget > 1 {
		return fmt.Errorf("%w: recall target %g: want 0.95, 0.99 or 1", ErrBadQuery, q.RecallTarget)
	}
	if q.RecallTarget == 1 {
		q.Exact = true
	}
	return nil
}

// NotFinite is the first element that is infinite or not a number, or -1.
func NotFinite(v []float32) int {
	if squares := distance.InnerProduct(v, v); squares-squares == 0 {
		return -1 // else this were not finite either
	}
	return slices.IndexFunc(v, func(f float32) bool { return f-f != 0 })
}

// sight says which vertices a query may return.
type sight struct {
	g       *generation
	bound   uint32 // vertices at or above it are not in the view
	applied uint64
	anyDead bool
	bits    []uint64 // of the filter, one per vertex; nil matches all
}

func (v *sight) match(u uint32) bool {
	if u >= v.bound || v.bits != nil && v.bits[u>>6]&(1<<(u&63)) == 0 {
		return false
	}
	if v.anyDead {
		if d := v.g.deadIndex(u); d != 0 && d <= v.applied {
			return false
		}
	}
	return true
}

// next is the first vertex from v on that may be returned, or to if there is none
// below that.
func (v *sight) next(u, to uint32) uint32 {
	for ; u < to; u++ {
		if v.bits != nil {
			w := v.bits[u>>6] >> (u & 63)
			if w == 0 {
				u |= 63
				continue
			}
			u += uint32(bits.TrailingZeros64(w))
			if u >= to {
				break
			}
		}
		if v.match(u) {
			return u
		}
	}
	return to
}

// gather appends vertices of [u, to) that may be returned to ids, in order, until
// there may be no room for 64 more. It returns where it stopped.
func (v *sight) gather(u, to uint32, ids []uint32) ([]uint32, uint32) {
	end := to
	to = min(to, v.bound)
	for u < to && len(ids)+64 <= cap(ids) {
		w := ^uint64(0)
		if v.bits != nil {
			if u&63 == 0 && to-u >= 64 {
				n, done := distance.Members(v.bits[u>>6:to>>6], u, ids[len(ids):cap(ids)])
				ids = ids[:len(ids)+n]
				if u += 64 * uint32(done); done > 0 {
					continue
				}
			}
			w = v.bits[u>>6]
		}
		w &= ^uint64(0) << (u & 63)
		word := u &^ 63
		u = word + 64
		if u > to {
			w &= 1<<(to&63) - 1
			u = to
		}
		n := len(ids)
		ids = ids[:n+bits.OnesCount64(w)]
		for ; w != 0; w &= w - 1 {
			ids[n] = word + uint32(bits.TrailingZeros64(w))
			n++
		}
	}
	if v.anyDead {
		n := 0
		for _, w := range ids {
			if d := v.g.deadIndex(w); d == 0 || d > v.applied {
				ids[n] = w
				n++
			}
		}
		ids = ids[:n]
	}
	if u >= to {
		u = end
	}
	return ids, u
}

// request is one search under way. Its results are s.results, candidates in any
// order.
type request struct {
	x   *Index
	ctx context.Context
	q   *Query
	g   *generation
	s   *scratch
	see sight
	// vector reads one of the view; nil if the source has them all.
	vector func(Slot, []float32) error
	entry  uint32
	top    int // the entry point's level
	// Invariant: entry < graphed, or graphed is zero
	graphed uint32
	codes   *codeset // nil if the vectors themselves are compared
	// lossless: the keys of codes are exact.
	lossless bool
	ef       int // how many candidates a walk expands
	// matching is how many vertices can match: exact under a filter but for the
	// dead, otherwise an estimate.
	matching int
	stats    Stats
}

// run plans and collects candidates.
func (r *request) run() error {
	r.s.results = r.s.results[:0]
	var ahead uint32
	if r.codes != nil {
		// Before it is asked whether codes lose anything: that is said of these.
		ahead = r.codes.ahead.Load()
		var outside bool
		r.lossless, outside = r.codes.queryMeasure(&r.s.measure, r.g.cfg.Metric, r.s.query)
		if outside && r.g.disk == nil {
			r.codes, r.lossless = nil, false
		}
	}
	if r.codes == nil {
		r.g.exactMeasure(&r.s.measure, r.s.query)
	}
	covered := min(r.graphed, r.see.bound)
	if r.see.bits == nil {
		r.matching = max(0, int(r.see.bound)-int(r.g.garbage.Load()))
	}
	if err := r.walk(covered); err != nil {
		return err
	}
	if r.codes != nil {
		// None of these is left out by the length of the list, only by its distance.
		ahead = max(covered, ahead)
		if err := r.scan(covered, ahead, len(r.s.results)+int(ahead-covered)); err != nil {
			return err
		}
		covered = ahead
	}
	if err := r.rescore(); err != nil {
		return err
	}
	r.g.exactMeasure(&r.s.measure, r.s.query)
	if err := r.compareCut(); err != nil {
		return err
	}
	// The rest has no codes.
	return r.scan(covered, r.see.bound, r.q.K)
}

// walk collects candidates of the vertices that the graph covers.
func (r *request) walk(covered uint32) error {
	share := float64(r.matching) / float64(max(1, r.see.bound))
	wide, way := r.choosePlan(covered, share)
	r.stats.Plan = "graph"
	if r.see.bits != nil {
		r.stats.Plan = "filtered-graph"
	}
	var err error
	switch way {
	case wayScan:
		return r.scanCovered(covered)
	case wayPlain:
		err = r.plain()
	case wayWide:
		err = r.wide(covered, share, wide)
	default:
		err = r.matchingOnly(covered, share)
	}
	if err == nil && len(r.s.results) < r.q.K {
		// The walk ran dry, as it may among the deleted: answer in full.
		r.s.results = r.s.results[:0]
		err = r.scanCovered(covered)
	}
	return err
}

// way is how the vertices that the graph covers are searched.
type way uint8

const (
	wayScan     way = iota // all that match, one by one
	wayPlain               // by a walk that takes no notice of what matches
	wayWide                // by such a walk with a longer list
	wayMatching            // by a walk over matches alone
)

// What the ways cost, in comparisons of a scan; all were timed. A walk compares
// some 300 vertices and 4 to 14 more for each that it expands, and each costs it
// more. A walk over matches alone looks at the neighbours of neighbours.
const (
	walkStart   = 300
	walkStep    = 8
	scanStep    = 12 // without a filter, of a collection in cache: for each vertex expanded
	walkDearer  = 3
	hopsCompare = 0.2  // a neighbour's neighbour
	sketchCosts = 0.7  // a look at a sketch, with the comparison that may follow
	shortCosts  = 0.55 // the comparison of a row of up to two cache lines
	// scanRather is how many times what a walk is hoped to cost a scan may cost: it
	// is sure to find all. Where more than commonShare match, a walk costs little
	// more than without a filter, which is known better than what either costs.
	scanRather  = 1.3
	scanCommon  = 0.6
	commonShare = 0.25
	// scanLate is the same for a scan that a walk has begun instead of and is to be
	// given up for.
	scanLate = 0.75
	// wideShare is by how many times the rank at which the K-th match is to be
	// expected a list is made longer; wideEnd is the part of the list within which
	// it has to be.
	wideShare = 1.75
	wideEnd   = 0.75
	maxWide   = 4000
)

// choosePlan says how to search, and how long the list of a wide walk is to be.
func (r *request) choosePlan(covered uint32, share float64) (wide int, by way) {
	if r.q.Exact || covered == 0 || r.matching <= r.q.K {
		return 0, wayScan
	}
	if r.see.bits == nil && share >= fewDead {
		if r.scanCost() <= scanStep*float64(r.ef) {
			return 0, wayScan
		}
		return 0, wayPlain
	}
	longer := r.list() + int(wideShare*float64(r.q.K)*(1/share-1))
	walk := walkCost(min(float64(longer), r.expands(share)))
	matching := r.matchingCost()
	few, rather := share <= commonShare, scanCommon
	if few {
		rather = scanRather
	}
	switch scan := r.scanCost(); {
	case scan <= rather*min(walk, matching), few && scan <= walkCost(float64(r.ef)):
		return 0, wayScan
	case walk <= matching && longer <= maxWide:
		return longer, wayWide
	default:
		return 0, wayMatching
	}
}

// scanCost is what a scan of the matches costs.
func (r *request) scanCost() float64 {
	switch {
	case r.sketches() != nil:
		return sketchCosts * float64(r.matching)
	case r.codes != nil && r.codes.stride <= 128:
		return shortCosts * float64(r.matching)
	}
	return float64(r.matching)
}

// walkCost is what a walk costs that expands so many vertices.
func walkCost(expands float64) float64 {
	return walkDearer * (walkStart + float64(walkStep*expands))
}

// matchingCost is what a walk over matches alone costs.
func (r *request) matchingCost() float64 {
	m0 := float64(r.g.graph.m0)
	return walkDearer*walkStart + float64(r.ef)*m0*m0*hopsCompare
}

// enter makes a pool of ef candidates with those where to begin on layer 0.
func (r *request) enter(ef int) {
	s := r.s
	entry := s.descend(r.g.graph, r.entry, r.top, 0, r.graphed)
	s.pool.reset(ef)
	s.seen.reset(int(r.graphed))
	s.seen.add(candidateVertex(entry))
	s.pool.insert(entry)
	r.enterLongest()
}

// fewDead is the share of live vertices from which a walk takes no notice of the
// others; plain looks whether that was right.
const fewDead = 0.9

func (r *request) plain() error {
	s := r.s
	if err := r.walkAll(); err != nil {
		return err
	}
	if !r.see.anyDead && r.graphed <= r.see.bound {
		s.results = append(s.results, s.pool.items...)
		return nil
	}
	for _, c := range s.pool.items {
		if r.see.match(candidateVertex(c)) {
			s.results = append(s.results, c)
		}
	}
	if n := len(s.results); n < r.q.K || n*5 < len(s.pool.items)*4 {
		// The dead lie together, and where the query is.
		s.results = s.results[:0]
		return r.through()
	}
	return nil
}

// wide walks without a look at what matches, with a list so long that enough of
// it should. It is right wherever the matches are as long as the K-th of them is
// well within the list; if it is not, they are where the query is not. The walk
// ends when it has expanded as many candidates as one without a filter, and half
// as many more as the K-th match is behind the K-th.
func (r *request) wide(covered uint32, share float64, ef int) error {
	s := r.s
	r.enter(ef)
	met := s.visited
	look := r.ef // at what was found, next: it takes as long as the list is
	for steps := 0; s.walkOn(r.g.graph, 0, r.graphed, wideSteps); {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if steps += wideSteps; steps == scoutSteps && r.ratherScan(share, ef, float64(s.visited-met)/scoutSteps) {
			return r.scanCovered(covered)
		}
		if s.pool.next < look {
			continue
		}
		if last := r.rank(s.pool.next); last > 0 && s.pool.next >= r.ef+(last-r.q.K)/2 {
			break
		}
		look = s.pool.next + s.pool.next/32
	}
	if last := r.rank(len(s.pool.items)); last > 0 && float64(last) <= wideEnd*float64(ef) {
		for _, c := range s.pool.items {
			if r.see.match(candidateVertex(c)) {
				s.results = append(s.results, c)
			}
		}
		return nil
	}
	if r.scanCost() <= r.matchingCost() {
		return r.scanCovered(covered)
	}
	return r.matchingOnly(covered, share)
}

// expands is how many vertices a wide walk expands where such a share matches.
func (r *request) expands(share float64) float64 {
	return float64(r.ef) + float64(r.q.K)*(1/share-1)/2
}

// Of a wide walk: how many vertices are expanded between two looks at what was
// found, and before it is judged whether to go on.
const (
	wideSteps  = 8
	scoutSteps = 24
)

// ratherScan reports whether a scan costs less than to go on with a wide walk that
// met so many vertices by each one expanded, of which some matched.
func (r *request) ratherScan(share float64, ef int, met float64) bool {
	hits := r.hits()
	seen := float64(len(r.s.seen.touched))
	here := (hits + 1) / (seen + 1/share) // as share as long as there is nothing to go by
	rest := walkDearer * met * (r.expands(here) - scoutSteps)
	if float64(r.q.K)/here > wideEnd*float64(ef) {
		if r.apart(share, hits) && r.matching <= apartLimit {
			return true
		}
		rest = r.matchingCost()
	}
	return r.scanCost() <= scanLate*rest
}

// rank is that of the K-th match among the first n candidates, from one; zero if
// there is none.
func (r *request) rank(n int) int {
	found := 0
	for i, c := range r.s.pool.items[:n] {
		if r.see.match(candidateVertex(c)) {
			if found++; found == r.q.K {
				return i + 1
			}
		}
	}
	return 0
}

// hits is how many of the vertices that a walk has seen match.
func (r *request) hits() (hits float64) {
	if bits := r.see.bits; bits != nil && !r.see.anyDead && r.graphed <= r.see.bound {
		n := uint64(0)
		for _, v := range r.s.seen.touched { // no branch: nobody could predict it
			n += bits[v>>6] >> (v & 63) & 1
		}
		return float64(n)
	}
	for _, v := range r.s.seen.touched {
		if r.see.match(v) {
			hits++
		}
	}
	return hits
}

// apart reports whether so many hits are few among the vertices that a walk has seen.
func (r *request) apart(share, hits float64) bool {
	expected := share * float64(len(r.s.seen.touched))
	return expected >= 8 && hits < expected/4
}

// list is how many candidates a walk keeps. Codes say with an error which are the
// nearest, so that some more than K are compared in full; inner products hide their
// differences in it the most.
func (r *request) list() int {
	k := r.q.K
	switch {
	case r.codes == nil || r.lossless || r.q.NoRescore:
	case r.g.cfg.Metric == distance.Dot:
		k += k / 2
	default:
		k += k / 4
	}
	return min(max(r.ef, k), maxEf)
}

// walkAll fills the pool with the nearest vertices, whether or not they match.
func (r *request) walkAll() error {
	s := r.s
	if b := r.blocks(); b != nil {
		r.enter(max(r.ef, r.q.K))    // what is not expanded has but an estimate
		s.seen.reset(int(r.graphed)) // there it means expanded
		return s.walkBlocks(b, r.graphed, r.ctx)
	}
	r.enter(r.list())
	s.pool.reach = r.ef
	return s.walk(r.g.graph, 0, r.graphed, r.ctx)
}

// blocks is what the vertices below the watermark are walked on, nil if that is
// not their 1-bit codes.
func (r *request) blocks() *blockset {
	if r.codes == nil {
		return nil
	}
	b := r.codes.blocks
	if b == nil || b.covered.Load() < r.graphed || b.poor.Load() {
		return nil
	}
	return b
}

func (r *request) through() error {
	s := r.s
	r.enter(r.list())
	s.frontier = s.frontier[:0]
	n := 0
	for _, c := range s.pool.items {
		s.frontier.push(c)
		if r.see.match(candidateVertex(c)) {
			s.pool.items[n] = c
			n++
		}
	}
	s.pool.items = s.pool.items[:n]
	if err := s.walkThrough(r.g.graph, r.graphed, r.ctx, &r.see); err != nil {
		return err
	}
	s.results = append(s.results, s.pool.items...)
	return nil
}

// seeds is how many matching vertices, spread over all, a walk on matching
// vertices begins from beside those near the query. They find the matches when
// the neighbourhood of the query has none.
const seeds = 48

// A short walk on all vertices shows where the matches are: if there are many in
// all but few near the query, links lead badly from one to the next, and up to
// apartLimit of them are scanned.
const (
	scoutEf    = 24
	apartLimit = 1 << 18
)

func (r *request) matchingOnly(covered uint32, share float64) error {
	s := r.s
	r.enter(scoutEf)
	if err := s.walk(r.g.graph, 0, r.graphed, r.ctx); err != nil {
		return err
	}
	s.near = s.near[:0]
	for _, c := range s.pool.items {
		if v := candidateVertex(c); r.see.match(v) {
			s.near = append(s.near, v)
		}
	}
	for _, v := range s.seen.touched {
		if len(s.near) == 2*seeds {
			break
		}
		if r.see.match(v) {
			s.near = append(s.near, v)
		}
	}
	ef := r.list()
	if r.apart(share, r.hits()) {
		if r.matching <= apartLimit {
			return r.scanCovered(covered)
		}
		ef = min(4*ef, maxEf)
	}
	s.pool.reset(ef)
	s.seen.reset(int(r.graphed))
	s.need(4 * seeds)
	ids := s.ids[:0]
	for _, v := range s.near {
		if s.seen.add(v) {
			ids = append(ids, v)
		}
	}
	step := max(1, covered/seeds)
	for from := uint32(0); from < covered; from += step {
		end := min(from+step, covered)
		if u := r.see.next(from, end); u < end && s.seen.add(u) {
			ids = append(ids, u)
		}
	}
	s.need(len(ids))
	s.measure.keys(ids, s.out[:cap(s.out)])
	for i, u := range ids {
		s.pool.insert(candidate(s.out[i], u))
	}
	if err := s.walkMatching(r.g.graph, r.graphed, r.ctx, &r.see); err != nil {
		return err
	}
	s.results = append(s.results, s.pool.items...)
	return nil
}

// rescoreBlock is how many candidates are compared in full at a time.
const rescoreBlock = 8

// rescore gives the candidates, which come nearest first, their exact distances.
// It stops when none of the rest should be among the best K, by what rounding to
// codes can do and by the most that the codes were wrong so far; of inner products,
// of which one rule says less (see beyond), only when a block brought none either.
// Where codes tell well what is near, that is soon.
func (r *request) rescore() error {
	s := r.s
	if r.codes == nil || len(s.results) == 0 {
		return nil
	}
	if r.q.NoRescore {
		for i, c := range s.results {
			s.results[i] = candidate(orderedBits(s.measure.distance(candidateKey(c))), candidateVertex(c))
		}
		return nil
	}
	n := len(s.results)
	if r.lossless {
		n = min(n, r.q.K)
		if r.exactIntegers(s.results[:n]) {
			s.results = s.results[:n]
			return nil
		}
	}
	onCodes := s.measure
	r.g.exactMeasure(&s.measure, s.query)
	s.pool.reset(r.q.K)
	out := s.out[:cap(s.out)]
	// By how much a candidate may be nearer than by its codes.
	slack := onCodes.noise
	for from := 0; from < n; {
		to := min(n, from+rescoreBlock)
		if from == 0 {
			to = min(n, max(to, r.q.K))
		}
		ids := s.ids[:0]
		for _, c := range s.results[from:to] {
			ids = append(ids, candidateVertex(c))
		}
		s.need(len(ids))
		out = s.out[:cap(s.out)]
		rows := ids
		if r.g.disk != nil {
			var err error
			if rows, err = r.readMany(ids); err != nil {
				return err
			}
		}
		s.measure.prefetch(rows)
		s.measure.keys(rows, out)
		nearer := s.room(len(ids))[:len(ids)]
		for i, u := range ids {
			nearer[i] = candidate(out[i], u)
		}
		news := s.pool.insertMany(nearer)
		if to == n {
			break
		}
		for i, c := range s.results[from:to] {
			slack = max(slack, onCodes.length(onCodes.distance(candidateKey(c)))-onCodes.length(fromOrderedBits(out[i])))
		}
		if (!news || onCodes.kind != kindCodeDot) && len(s.pool.items) == r.q.K {
			next, worst := onCodes.distance(candidateKey(s.results[to])), fromOrderedBits(candidateKey(s.pool.bound()))
			if onCodes.length(next)-slack > onCodes.length(worst) && onCodes.beyond(candidateKey(s.results[to]), worst) {
				break
			}
		}
		s.ids = ids[:0]
		from = to
	}
	s.results = append(s.results[:0], s.pool.items...)
	return nil
}

// exactIntegers replaces keys of lossless codes by distances where float32
// arithmetic would have come to the same bits: sums of integers below 1<<24 are
// exact in any order.
func (r *request) exactIntegers(results []uint64) bool {
	if r.g.cfg.Metric != distance.L2 || len(results) == 0 || candidateKey(results[len(results)-1]) >= 1<<24 {
		return false
	}
	for i, c := range results {
		results[i] = candidate(orderedBits(float32(candidateKey(c))), candidateVertex(c))
	}
	return true
}

// finish appends the best results.
func (r *request) finish(dst []Result) ([]Result, Stats, error) {
	s := r.s
	r.stats.Visited = s.visited
	slices.Sort(s.results)
	for _, c := range s.results[:min(len(s.results), r.q.K)] {
		d := fromOrderedBits(candidateKey(c))
		if r.q.HasMaxDistance && d > r.q.MaxDistance {
			break
		}
		dst = append(dst, Result{Slot: r.g.slot(candidateVertex(c)), Distance: d})
	}
	return dst, r.stats, nil
}

// chooseEf is how many candidates a walk expands. The defaults were measured to hold
// the recall targets at K 10 on sets of 64 to 784 dimensions; inner products of
// vectors of very different lengths need more. Only a query itself may ask for fewer
// than K, down to half of it.
func (x *Index) chooseEf(q *Query) int {
	if q.Ef > 0 {
		return max(q.Ef, (q.K+1)/2)
	}
	ef := 90 + q.K
	switch {
	case q.RecallTarget == 0 && x.cfg.EfSearch > 0:
		return max(x.cfg.EfSearch, q.K)
	case q.RecallTarget > 0 && q.RecallTarget <= 0.95:
		ef = 32 + q.K
	}
	if x.cfg.Metric == distance.Dot {
		ef *= 3
	}
	return min(ef, maxEf)
}
