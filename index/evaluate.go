// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"
)

// Bounds of a filter.
const (
	maxFilterDepth      = 32
	maxFilterConditions = 4096
	earthRadiusM        = 6371008.8
)

// plan is a filter checked and made ready: keys are path numbers, bounds are
// numbers, dictionary keys are cut.
type plan struct {
	must, should, mustNot []test
}

// test is a condition of a plan.
type test struct {
	kind    testKind
	path    uint32
	unknown bool // no document has the path
	words   [][]byte
	numbers []number
	no, yes bool
	prefix  []byte
	lo, hi  *number
	// Whether the bound itself is inside.
	loIn, hiIn bool
	times      bool
	geo        GeoRadius
	missing    bool
	nested     *plan
}

type testKind uint8

const (
	testAny testKind = iota
	testExcept
	testPrefix
	testRange
	testGeo
	testMissing
	testNested
)

func (p *payload) plan(f *Filter, depth int, budget *int) (*plan, error) {
	if depth > maxFilterDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", ErrBadFilter, maxFilterDepth)
	}
	out := &plan{}
	for _, part := range []struct {
		from []Condition
		to   *[]test
	}{{f.Must, &out.must}, {f.Should, &out.should}, {f.MustNot, &out.mustNot}} {
		for i := range part.from {
			if *budget--; *budget < 0 {
				return nil, fmt.Errorf("%w: more than %d conditions", ErrBadFilter, maxFilterConditions)
			}
			t, err := p.test(&part.from[i], depth, budget)
			if err != nil {
				return nil, err
			}
			*part.to = append(*part.to, t)
		}
	}
	return out, nil
}

func (p *payload) test(c *Condition, depth int, budget *int) (test, error) {
	bad := func(why string) (test, error) { return test{}, fmt.Errorf("%w: key %q: %s", ErrBadFilter, c.Key, why) }
	set := 0
	for _, is := range []bool{c.Any != nil, c.Except != nil, c.Prefix != nil, c.Range != nil, c.Geo != nil, c.IsMissing != nil, c.Nested != nil} {
		if is {
			set++
		}
	}
	if set != 1 {
		return bad(fmt.Sprintf("%d tests, want exactly one", set))
	}
	if c.Nested != nil {
		if c.Key != "" {
			return bad("a nested filter has no key")
		}
		nested, err := p.plan(c.Nested, depth+1, budget)
		return test{kind: testNested, nested: nested}, err
	}
	if c.Key == "" {
		return bad("a test needs a key")
	}
	t := test{}
	id, known := p.path(c.Key)
	t.path, t.unknown = id, !known
	var why string
	switch {
	case c.Any != nil:
		t.kind, why = testAny, t.scalars(c.Any)
	case c.Except != nil:
		t.kind, why = testExcept, t.scalars(c.Except)
	case c.Prefix != nil:
		t.kind = testPrefix
		t.prefix = []byte(*c.Prefix)
		if len(t.prefix) > MaxPrefixBytes {
			why = fmt.Sprintf("prefix of %d bytes, at most %d", len(t.prefix), MaxPrefixBytes)
		}
	case c.Range != nil:
		t.kind, why = testRange, t.bounds(c.Range)
	case c.Geo != nil:
		t.kind, t.geo = testGeo, *c.Geo
		if g := c.Geo; !(math.Abs(g.Lat) <= 90) || !(math.Abs(g.Lon) <= 360) || !(g.RadiusM >= 0) {
			why = "no circle on the sphere"
		}
	default:
		t.kind, t.missing = testMissing, *c.IsMissing
	}
	if why != "" {
		return bad(why)
	}
	return t, nil
}

func (t *test) scalars(values []Scalar) string {
	if len(values) == 0 {
		return "an empty list"
	}
	for _, v := range values {
		switch v.Kind {
		case KindString:
			t.words = append(t.words, appendKey(nil, []byte(v.String)))
		case KindInt:
			t.numbers = append(t.numbers, intNumber(v.Int))
		case KindFloat:
			if math.IsNaN(v.Float) {
				return "not a number"
			}
			t.numbers = append(t.numbers, floatNumber(v.Float))
		case KindBool:
			t.yes, t.no = t.yes || v.Bool, t.no || !v.Bool
		default:
			return "a value of no kind"
		}
	}
	slices.SortFunc(t.words, bytes.Compare)
	slices.SortFunc(t.numbers, number.compare)
	return ""
}

func (t *test) bounds(r *Range) string {
	first := true
	for _, b := range []struct {
		s         *Scalar
		lower, in bool
	}{{r.Gt, true, false}, {r.Gte, true, true}, {r.Lt, false, false}, {r.Lte, false, true}} {
		if b.s == nil {
			continue
		}
		n, times, why := bound(b.s)
		if why != "" {
			return why
		}
		if !first && times != t.times {
			return "a range has numbers or datetimes, not both"
		}
		first, t.times = false, times
		if b.lower {
			if t.lo == nil || n.compare(*t.lo) > 0 {
				t.lo, t.loIn = &n, b.in
			} else if n == *t.lo {
				t.loIn = t.loIn && b.in
			}
		} else {
			if t.hi == nil || n.compare(*t.hi) < 0 {
				t.hi, t.hiIn = &n, b.in
			} else if n == *t.hi {
				t.hiIn = t.hiIn && b.in
			}
		}
	}
	if first {
		return "a range without bounds"
	}
	return ""
}

func bound(s *Scalar) (n number, isTime bool, why string) {
	switch s.Kind {
	case KindInt:
		return intNumber(s.Int), false, ""
	case KindFloat:
		if math.IsNaN(s.Float) {
			return n, false, "not a number"
		}
		return floatNumber(s.Float), false, ""
	case KindString:
		at, err := time.Parse(time.RFC3339Nano, s.String)
		if err != nil {
			return n, true, fmt.Sprintf("%q is no RFC 3339 datetime", s.String)
		}
		return number{float64(at.Unix()), int32(at.Nanosecond())}, true, ""
	}
	return n, false, "a bound is a number or a datetime"
}

// evaluator turns a plan into a bit per slot, a run at a time.
type evaluator struct {
	r    *run
	bits [][]uint64 // free ones
}

func (e *evaluator) take() []uint64 {
	words := (int(e.r.hi-e.r.lo) + 63) / 64
	if n := len(e.bits); n > 0 && cap(e.bits[n-1]) >= words {
		b := e.bits[n-1][:words]
		e.bits = e.bits[:n-1]
		clear(b)
		return b
	}
	return make([]uint64, words, max(words, maxRunSlots/64))
}

func (e *evaluator) give(b []uint64) { e.bits = append(e.bits, b) }

// filter is the slots that a plan selects.
func (e *evaluator) filter(p *plan) []uint64 {
	var out []uint64
	for i := range p.must {
		b := e.test(&p.must[i])
		if out == nil {
			out = b
			continue
		}
		for w := range out {
			out[w] &= b[w]
		}
		e.give(b)
	}
	if out == nil {
		out = e.take()
		for i := range out {
			out[i] = ^uint64(0)
		}
	}
	if len(p.should) > 0 {
		any := e.take()
		for i := range p.should {
			b := e.test(&p.should[i])
			for w := range any {
				any[w] |= b[w]
			}
			e.give(b)
		}
		for w := range out {
			out[w] &= any[w]
		}
		e.give(any)
	}
	for i := range p.mustNot {
		b := e.test(&p.mustNot[i])
		for w := range out {
			out[w] &^= b[w]
		}
		e.give(b)
	}
	return out
}

func (e *evaluator) test(t *test) []uint64 {
	if t.kind == testNested {
		return e.filter(t.nested)
	}
	out := e.take()
	c := e.r.columns[t.path]
	if t.unknown || c == nil {
		if t.kind == testMissing && t.missing {
			for i := range out {
				out[i] = ^uint64(0)
			}
		}
		return out
	}
	switch t.kind {
	case testAny:
		c.any(t, out)
	case testExcept:
		e.except(c, t, out)
	case testPrefix:
		// The end of the keys with this prefix: 0xff is above all text, and so many
		// are above the mark and whatever hash stand behind a prefix of longString.
		from := c.words.search(t.prefix)
		end := append(slices.Clone(t.prefix), bytes.Repeat([]byte{longMark}, 1+sha256.Size+1)...)
		c.words.or(out, from, c.words.search(end))
	case testRange:
		col := &c.numbers
		if t.times {
			col = &c.times
		}
		from, to := 0, len(col.f)
		if t.lo != nil {
			from = col.search(*t.lo, !t.loIn)
		}
		if t.hi != nil {
			to = col.search(*t.hi, t.hiIn)
		}
		col.fill(out, from, to)
	case testGeo:
		c.places.within(t.geo, out)
	case testMissing:
		c.present.or(out)
		if t.missing {
			for i := range out {
				out[i] = ^out[i]
			}
		}
	}
	return out
}

// any adds the slots with an element equal to one of the values.
func (c *column) any(t *test, out []uint64) {
	for _, w := range t.words {
		if i := c.words.search(w); i < c.words.len() && bytes.Equal(c.words.value(i), w) {
			c.words.or(out, i, i+1)
		}
	}
	for _, n := range t.numbers {
		c.numbers.or(out, c.numbers.search(n, false), c.numbers.search(n, true))
	}
	if t.no {
		c.no.or(out)
	}
	if t.yes {
		c.yes.or(out)
	}
}

// except adds the slots with an element equal to none of the values: those with
// elements but none of the listed, and of those with several elements the ones
// that have another beside.
func (e *evaluator) except(c *column, t *test, out []uint64) {
	listed := e.take()
	c.any(t, listed)
	elements := e.take()
	c.elements(nil, elements)
	for w := range out {
		out[w] = elements[w] &^ listed[w]
	}
	clear(elements)
	c.multi.or(elements)
	both := false
	for w := range elements {
		elements[w] &= listed[w]
		both = both || elements[w] != 0
	}
	if both {
		clear(listed)
		c.elements(t, listed)
		for w := range out {
			out[w] |= listed[w] & elements[w]
		}
	}
	e.give(listed)
	e.give(elements)
}

// elements adds the slots that have an element outside the values of t, which
// may be nil.
func (c *column) elements(t *test, out []uint64) {
	c.other.or(out)
	if t == nil || !t.no {
		c.no.or(out)
	}
	if t == nil || !t.yes {
		c.yes.or(out)
	}
	at := 0
	if t != nil {
		for _, w := range t.words {
			i := c.words.search(w)
			c.words.or(out, at, i)
			at = max(at, i)
			if i < c.words.len() && bytes.Equal(c.words.value(i), w) {
				at = i + 1
			}
		}
	}
	c.words.or(out, at, c.words.len())
	at = 0
	if t != nil {
		for _, n := range t.numbers {
			i := c.numbers.search(n, false)
			c.numbers.or(out, at, i)
			at = max(at, c.numbers.search(n, true))
		}
	}
	c.numbers.or(out, at, len(c.numbers.f))
}

// within adds the slots with a point in a circle on the sphere.
func (p *places) within(g GeoRadius, out []uint64) {
	angle := g.RadiusM / earthRadiusM
	degrees := angle*180/math.Pi + 1e-9
	from, _ := slices.BinarySearch(p.lat, g.Lat-degrees)
	for i := from; i < len(p.lat) && p.lat[i] <= g.Lat+degrees; i++ {
		if greatCircleM(g.Lat, g.Lon, p.lat[i], p.lon[i]) <= g.RadiusM {
			out[p.posts[i]>>6] |= 1 << (p.posts[i] & 63)
		}
	}
}

// greatCircleM is the distance of two points by the haversine formula.
func greatCircleM(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	a := math.Sin((lat2 - lat1) * rad / 2)
	b := math.Sin((lon2 - lon1) * rad / 2)
	h := float64(a*a) + float64(math.Cos(lat1*rad)*math.Cos(lat2*rad))*float64(b*b)
	return 2 * earthRadiusM * math.Asin(math.Sqrt(min(1, h)))
}

// selection is a filter made ready, and the payloads that it is evaluated on.
type selection struct {
	plan *plan // nil without a filter
	runs []*run
}

// selectBy makes a filter ready for a view that there is. It comes before the
// generation: what a generation does not hold is purged from the payloads once that
// one is the current one, so that of payloads without it a search gets that generation
// or a later one, and knows whether it can show the view. The other way round
// documents of the view would be missing that its generation has.
func (x *Index) selectBy(ctx context.Context, filter *Filter) (selection, error) {
	if filter == nil {
		return selection{}, nil
	}
	budget := maxFilterConditions
	plan, err := x.payload.plan(filter, 0, &budget)
	if err != nil {
		return selection{}, err
	}
	return selection{plan, x.payload.snapshot()}, ctx.Err()
}

// evaluate fills the bits of the request's sight: one per vertex.
func (r *request) evaluate(sel selection) error {
	g, bound := r.g, r.see.bound
	words := (int(bound) + 63) / 64
	r.s.bits = slices.Grow(r.s.bits[:0], words+1)[:words+1]
	clear(r.s.bits)
	out := r.s.bits
	e := &r.s.evaluator
	for _, run := range sel.runs {
		from, to := g.lowerBound(run.lo, bound), g.lowerBound(run.hi, bound)
		if from == to {
			continue
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		e.r = run
		b := e.filter(sel.plan)
		if first := g.slot(from); int(to-from) == int(g.slot(to-1)-first)+1 {
			orShifted(out, b, int(first-run.lo), from, to)
		} else {
			for v := from; v < to; v++ {
				o := g.slot(v) - run.lo
				out[v>>6] |= (b[o>>6] >> (o & 63) & 1) << (v & 63)
			}
		}
		e.give(b)
	}
	r.see.bits = out
	matching := 0
	for _, w := range out {
		matching += bits.OnesCount64(w)
	}
	r.matching, r.stats.Matching = matching, matching
	return nil
}

// orShifted adds bits [at, at+to-from) of b to bits [from, to) of out.
func orShifted(out, b []uint64, at int, from, to uint32) {
	if at&63 == 0 && from&63 == 0 {
		whole := b[at>>6:][:(to-from)>>6]
		for i, w := range whole {
			out[int(from>>6)+i] |= w
		}
		from += uint32(64 * len(whole))
		at += 64 * len(whole)
	}
	for v := from; v < to; {
		// As many bits as fit the word of out.
		n := min(64-int(v&63), int(to-v))
		w := b[at>>6] >> (at & 63)
		if at&63 != 0 && at>>6+1 < len(b) {
			w |= b[at>>6+1] << (64 - at&63)
		}
		if n < 64 {
			w &= 1<<n - 1
		}
		out[v>>6] |= w << (v & 63)
		v += uint32(n)
		at += n
	}
}
