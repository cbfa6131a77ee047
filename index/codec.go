// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/akidb/akidb/index/distance"
)

// codec maps vectors to 8-bit codes: one offset per dimension, one scale for all,
// so that the squared distance of two codes is that of the vectors but for a
// factor and for rounding. Under Dot a vector has one more coordinate, which
// lifts it to the length of the longest (see kindBuildDot).
//
// It is trained on a sample of the vertices below a batch boundary and therefore
// a pure function of the vectors. All arithmetic is written so that no compiler
// may fuse it.
type codec struct {
	trained uint32 // boundary it was trained at
	dim     int    // with the lift
	width   int    // dim padded to 64, which is what kernels read of a row
	stride  int    // bytes of a row
	form    rowForm
	offset  []float32
	inverse float32 // of the scale
	scale   float32
	lifted  bool
	radius  float32 // lifted: squared norm that is not lifted
}

// rowForm says where the terms of a row are that make a squared distance out of
// an inner product (distance.L2U8TermRows).
type rowForm uint8

const (
	termsInRow rowForm = iota // at its end
	termsApart                // in another arena, there being no room
	// noTerms: the squared distance is computed as such, which takes more
	// instructions than an inner product, but less time than going for terms if rows
	// are short or the kernels are not far apart.
	noTerms
)

const (
	// firstTraining vertices make the first batch, fullTraining are enough to train on
	// for good: codes of fewer are made anew, and tell nothing of what these vectors
	// are like if they are poor.
	firstTraining = 256
	fullTraining  = 1024
	sampleRows    = 2048
	centreRows    = 256
	// mostStray is how many of those trained on may be so long that inner products
	// with them are left to others than the codes; see maxExcess.
	mostStray = 8
	// sampleValues is how many deviations the scale is taken from.
	sampleValues = 1 << 17
)

// codecDim is how many codes a vector has.
func codecDim(cfg *Config) int {
	if cfg.Metric == distance.Dot {
		return cfg.Dimension + 1
	}
	return cfg.Dimension
}

// newCodec is one that has not been trained.
func newCodec(cfg *Config) *codec {
	c := &codec{dim: codecDim(cfg), lifted: cfg.Metric == distance.Dot}
	c.width = (c.dim + 63) &^ 63
	c.stride = c.width
	switch {
	case c.width-c.dim >= termBytes:
		c.form = termsInRow
		switch used := c.dim + termBytes; {
		case cfg.VectorsOnDisk:
			// Rows that lie in whole cache lines are faster, but here memory counts for more.
			c.stride = (used + 1) &^ 1
		case used <= 16:
			c.stride = 16
		case used <= 32:
			c.stride = 32
		}
	case !cfg.productsRather(c.width):
		c.form = noTerms
	default:
		c.form = termsApart
	}
	return c
}

// trainCodec trains on vertices [0, n).
func trainCodec(g *generation, n uint32) *codec {
	c := newCodec(g.cfg)
	c.trained = n
	if c.lifted {
		for v := range n {
			c.radius = max(c.radius, g.norm(v))
		}
	}
	c.offset = make([]float32, c.dim)
	rows := min(n, sampleRows)
	step := n / rows
	row := make([]float32, c.dim)
	if !c.lifted && c.trainIntegers(g, rows, step, row) {
		return c
	}
	// The centre is between quantiles, which outliers do not move.
	columns := min(rows, centreRows)
	values := make([]float32, int(columns)*c.dim)
	for i := range columns {
		c.expand(g, i*(n/columns), row)
		for d, x := range row {
			values[d*int(columns)+int(i)] = x
		}
	}
	var high, low, rare, farthest highest
	for d := range c.offset {
		high.reset(int(columns)/16 + 1)
		low.reset(int(columns)/16 + 1)
		for _, x := range values[d*int(columns) : (d+1)*int(columns)] {
			high.add(x)
			low.add(-x)
		}
		c.offset[d] = high.least()/2 - low.least()/2
	}
	every := max(1, int(rows)*c.dim/sampleValues)
	deviations := int(rows) * c.dim / every
	rare.reset(deviations/2000 + 1)
	at := 0
	farthest.reset(int(min(rows, mostStray+1)))
	for i := range rows {
		c.expand(g, i*step, row)
		largest := float32(0)
		for d, x := range row {
			dev := float32(math.Abs(float64(x - c.offset[d])))
			largest = max(largest, dev)
			if at++; at == every {
				rare.add(dev)
				at = 0
			}
		}
		farthest.add(largest)
	}
	half := farthest.at(0)
	if c.lifted {
		half = farthest.withoutStray()
	} else if deviations > 0 {
		// Rare outliers are cut off rather than paid for by all.
		half = min(half, float32(rare.least()*1.2))
	}
	if half == 0 {
		half = 1
	}
	c.setScale(half / 127.5)
	for d := range c.offset {
		c.offset[d] -= half
	}
	return c
}

// highest is the best of the numbers added, of which there are at least as many as its
// limit: a pool in which the higher is the nearer.
type highest struct{ pool }

func (h *highest) add(x float32) {
	if c := candidate(^orderedBits(x), 0); c < h.bound() {
		h.insert(c)
	}
}

// at is the i-th highest of them.
func (h *highest) at(i int) float32 { return fromOrderedBits(^candidateKey(h.items[i])) }

// least is the lowest of them.
func (h *highest) least() float32 { return h.at(h.limit - 1) }

// withoutStray is the highest but for those, up to mostStray, that are more than
// maxExcess times as high as the next.
func (h *highest) withoutStray() float32 {
	for i := h.limit - 1; i > 0; i-- {
		if h.at(i-1) > maxExcess*h.at(i) && h.at(i) > 0 {
			return h.at(i)
		}
	}
	return h.at(0)
}

// trainIntegers chooses codes that lose nothing if all values are whole numbers
// of a small range, as pixels and histograms are.
func (c *codec) trainIntegers(g *generation, rows, step uint32, row []float32) bool {
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	for i := range rows {
		c.expand(g, i*step, row)
		for _, x := range row {
			if x != float32(math.Trunc(float64(x))) {
				return false
			}
			lo, hi = min(lo, x), max(hi, x)
		}
	}
	if hi-lo > 255 || math.Abs(float64(lo)) > 1<<20 {
		return false
	}
	if lo >= 0 && hi <= 255 {
		lo = 0
	}
	for d := range c.offset {
		c.offset[d] = lo
	}
	c.setScale(1)
	return true
}

func (c *codec) setScale(s float32) {
	c.scale, c.inverse = s, 1/s
}

// widen makes the scale at least s, around the same centres.
func (c *codec) widen(s float32) {
	if c.scale >= s {
		return
	}
	for d := range c.offset {
		c.offset[d] += float32((c.scale - s) * 127.5)
	}
	c.setScale(s)
}

// expand writes a vertex's vector, lifted if need be.
func (c *codec) expand(g *generation, v uint32, row []float32) {
	if g.read(v, row) != nil {
		clear(row) // counted; codes of zeros are poor ones, not wrong ones
	}
	if c.lifted {
		row[c.dim-1] = lift(c.radius, g.norm(v))
	}
}

// reach is how far the values of a vertex go from the middle of the range, half of it
// being 1. Row has room for them.
func (c *codec) reach(g *generation, v uint32, row []float32) float32 {
	c.expand(g, v, row)
	half := float32(c.scale * 127.5)
	for d, x := range row {
		row[d] = (x - c.offset[d]) - half
	}
	return distance.Largest(row) / half
}

// suits reports whether other would encode much as c does, so that encoding
// everything anew is not worth it. What was trained on few does not once there are enough.
func (c *codec) suits(other *codec) bool {
	if c.trained < fullTraining && other.trained >= fullTraining {
		return false
	}
	if c.scale == 1 && other.scale == 1 {
		return slices.Equal(c.offset, other.offset)
	}
	wider, most := float32(1.1), 16
	if c.lifted {
		wider, most = 1.02, 4 // nothing is to be cut off
	}
	if other.scale > c.scale*wider || other.scale < c.scale*0.8 || c.radius != other.radius {
		return false
	}
	var moved float64
	for d := range c.offset {
		moved = max(moved, math.Abs(float64(c.offset[d]-other.offset[d])))
	}
	return moved <= float64(c.scale)*float64(most)
}

// encode writes the codes of a vector. It reports whether they lose nothing and
// whether a value is far out of range.
func (c *codec) encode(dst []byte, x []float32) (lossless, clipped bool) {
	same, clipped := distance.Encode8(dst[:len(x)], x, c.offset[:len(x)], c.inverse)
	return same && c.scale == 1, clipped
}

// Of the trial whether codes order vectors well enough: so many vertices, each
// compared with so many others at most.
const (
	trials     = 24
	trialNear  = 10
	trialDeep  = 2 * trialNear
	trialLimit = 1 << 20
)

// orders reports whether codes put the neighbours of a vertex in about the order
// the vectors do: whether the ten nearest are among the first twenty by codes.
// Where values lie in tight clusters far apart they do not.
func (s *codeset) orders(b *builder, n uint32) bool {
	if b.g.disk != nil {
		return true // there is nothing to fall back to
	}
	var hit, want atomic.Int64
	b.parallel(trials, func(w *buildWorker, i int) {
		h := s.trial(b.g, w, uint32(i)*(n/trials), n)
		hit.Add(int64(h))
		want.Add(trialNear)
	})
	return hit.Load()*10 >= want.Load()*9
}

// trial is how many of the vertices nearest to v are among the first by codes.
func (s *codeset) trial(g *generation, w *buildWorker, v, n uint32) int {
	exact := make([]uint64, 0, trialNear)
	step := max(1, n/trialLimit)
	g.exactMeasure(&w.measure, g.vector(v))
	exact = append(exact, w.nearest(n, step, trialNear)...)
	s.queryMeasure(&w.measure, g.cfg.Metric, g.vector(v))
	first := w.nearest(n, step, trialDeep)
	ids := make([]uint32, len(first))
	for i, c := range first {
		ids[i] = candidateVertex(c)
	}
	g.exactMeasure(&w.measure, g.vector(v))
	keys := make([]uint32, len(ids))
	w.measure.keys(ids, keys)
	hit := 0
	for _, k := range keys {
		if k <= candidateKey(exact[len(exact)-1]) {
			hit++
		}
	}
	return min(hit, len(exact))
}

// nearest fills the pool with the vertices nearest by the measure, of every step-th
// below n, and returns them.
func (w *buildWorker) nearest(n, step uint32, limit int) []uint64 {
	w.pool.reset(limit)
	if step == 1 && w.begin(n) {
		near := w.room(rowsBlock)
		for v := uint32(0); v < n; v += rowsBlock {
			w.pool.insertAll(near[:w.expansion.Rows(v, min(v+rowsBlock, n), w.pool.bound(), near)])
		}
		return w.pool.items
	}
	const block = 256
	w.need(block)
	out := w.out[:cap(w.out)]
	for u := uint32(0); u < n; {
		ids := w.ids[:0]
		for ; u < n && len(ids) < block; u += step {
			ids = append(ids, u)
		}
		w.measure.keys(ids, out)
		for i, id := range ids {
			if c := candidate(out[i], id); c < w.pool.bound() {
				w.pool.insert(c)
			}
		}
	}
	return w.pool.items
}

// codeset is the codes of the vertices below graphed, and below ahead, by one codec.
// Training anew makes another one; the old one is freed when the last search has left
// it.
type codeset struct {
	codec
	rows     *arena
	terms    *arena     // termsApart: the rows' terms
	blocks   *blockset  // 1-bit codes of neighbours, nil without
	sketches *sketchset // 1-bit codes of the vertices themselves, nil without
	refs     atomic.Int64
	lossless atomic.Bool // nothing encoded so far lost anything
	checked  uint32      // the builder's: vertices when training was last tried
	// The vertices below ahead have codes, though the graph may not cover them yet.
	ahead atomic.Uint32
}

func newCodeset(c *codec, cfg *Config, n int) (*codeset, error) {
	rows, err := newArena(c.stride, n+c.behind())
	if err != nil {
		return nil, err
	}
	s := &codeset{codec: *c, rows: rows}
	if c.form == termsApart {
		if s.terms, err = newArena(termBytes, n); err != nil {
			rows.free()
			return nil, err
		}
	}
	if cfg.Quantization == QuantizationRaBitQ {
		if s.blocks, err = newBlockset(s, cfg, n); err != nil {
			rows.free()
			s.terms.free()
			return nil, err
		}
	}
	if cfg.Dimension >= minSketched && !cfg.VectorsOnDisk {
		if s.sketches, err = newSketchset(s, cfg, n); err != nil {
			rows.free()
			s.terms.free()
			s.blocks.free()
			return nil, err
		}
	}
	s.refs.Store(1)
	s.lossless.Store(c.scale == 1 && !c.lifted)
	return s, nil
}

func (s *codeset) acquire() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *codeset) release() {
	if s != nil && s.refs.Add(-1) == 0 {
		s.rows.free()
		s.terms.free()
		s.blocks.free()
		s.sketches.free()
	}
}

// termBytes: a row that has terms has two terms, for when it is the query and when it is not.
const termBytes = 8

// behind is how many rows there must be behind the last, since a kernel reads
// width bytes of each.
func (c *codec) behind() int { return (c.width - 1) / c.stride }

// grow makes rows [0, n) usable.
func (s *codeset) grow(n int) {
	s.rows.grow(n + s.behind())
	if s.terms != nil {
		s.terms.grow(n)
	}
	if s.sketches != nil {
		s.sketches.rows.grow(n)
	}
}

// termRow is where the terms of a vertex are, if it has any.
func (s *codeset) termRow(v uint32) []byte {
	if s.terms != nil {
		return u8At(s.terms.row(v), termBytes)
	}
	return s.row(v)[s.stride-termBytes:]
}

// add encodes a vertex and reports whether it is far out of range.
func (s *codeset) add(g *generation, v uint32) (clipped bool) {
	dst := s.row(v)
	row := g.vector(v)
	if g.disk != nil && v < g.disk.freed {
		row = make([]float32, g.cfg.Dimension)
		if g.read(v, row) != nil {
			clear(row)
		}
	}
	lossless, clipped := s.encode(dst, row)
	if !lossless && s.lossless.Load() {
		s.lossless.Store(false)
	}
	n := g.cfg.Dimension
	if s.lifted {
		l := [1]float32{lift(s.radius, g.norm(v))}
		t := float32((l[0]-s.offset[n])*s.inverse) + 0.5
		dst[n] = byte(max(0, min(255, t)))
		n++
	}
	clear(dst[n:])
	if s.form == noTerms {
		return clipped
	}
	var squares uint32
	for _, u := range dst[:s.dim] {
		squares += uint32(u) * uint32(u)
	}
	terms := s.termRow(v)
	binary.LittleEndian.PutUint32(terms, squares)
	binary.LittleEndian.PutUint32(terms[4:], uint32(distance.L2Term(dst[:s.dim])))
	return clipped
}

// addAhead encodes the vertices below n that have no codes yet, up to the first that
// is far out of range. What has been published is not written again.
func (s *codeset) addAhead(g *generation, n uint32) {
	v := max(s.ahead.Load(), g.graphed.Load())
	if v >= n {
		return
	}
	s.grow(int(n))
	for v < n && !s.add(g, v) {
		v++
	}
	s.ahead.Store(v)
}

// row is the codes of a vertex, and what is behind them.
func (s *codeset) row(v uint32) []byte { return u8At(s.rows.row(v), s.stride) }

// rowMeasure compares a vertex with others: codeMeasure, but eight codes at a
// time and with the sum of squares that is there already.
func (s *codeset) rowMeasure(m *measure, v uint32) {
	s.target(m)
	row := s.row(v)
	if s.form == noTerms {
		m.query8 = row
		return
	}
	words := (s.dim + 7) / 8 // the terms are a word
	to := unsafe.Slice((*uint64)(unsafe.Pointer(&m.signed[0])), words)
	for i, w := range unsafe.Slice((*uint64)(unsafe.Pointer(&row[0])), words) {
		to[i] = w ^ 0x8080808080808080
	}
	clear(m.signed[s.dim:])
	m.term = int32(binary.LittleEndian.Uint32(s.termRow(v)))
}

// codeMeasure compares m.codes (dim of them) with rows.
func (s *codeset) codeMeasure(m *measure) {
	s.target(m)
	if s.form == noTerms {
		m.codes = slices.Grow(m.codes, s.width-s.dim)
		m.query8 = m.codes[:s.width]
		clear(m.query8[s.dim:])
		return
	}
	m.term = distance.L2Query(m.signed, m.codes)
}

// target makes m measure squared distances to rows.
func (s *codeset) target(m *measure) {
	m.base8, m.stride = s.base(), s.stride
	m.kind = kindCodePadded
	switch s.form {
	case termsApart:
		m.kind = kindCode
		m.terms = unsafe.Slice((*[2]int32)(s.terms.base), s.terms.reserved/termBytes)
	case noTerms:
		m.kind = kindCodeDirect
		return
	}
	m.signed = slices.Grow(m.signed[:0], s.width)[:s.width]
}

// base is all rows, to be indexed below graphed or ahead only.
func (s *codeset) base() []byte { return unsafe.Slice((*byte)(s.rows.base), s.rows.reserved) }

// queryMeasure compares a query with coded vertices. Up to rounding, key k means
// distance m.factor*k + m.constant. It reports whether nothing is rounded, and
// whether so much of the query is out of range that its codes say little.
func (s *codeset) queryMeasure(m *measure, metric distance.Metric, query []float32) (lossless, outside bool) {
	if metric == distance.Dot {
		s.dotMeasure(m, query)
		return false, false
	}
	m.codes = slices.Grow(m.codes[:0], s.dim)[:s.dim]
	lossless, clipped := s.encode(m.codes, query)
	lossless = lossless && s.lossless.Load()
	if clipped {
		outside = s.loss(m.codes, query) > maxLoss*float64(s.dim)/12
	}
	s.codeMeasure(m)
	m.factor, m.constant = s.scale*s.scale, 0
	if metric == distance.Cosine {
		m.factor /= 2
	}
	// Two roundings, each uniform within a code, in the direction of the distance.
	m.noise = deviations * math.Sqrt(float64(m.factor)/6)
	return lossless, outside
}

// maxLoss is how many times the loss of rounding the loss of clipping may be.
const maxLoss = 16

// loss is the squared distance, in codes, of a vector and its codes.
func (s *codeset) loss(codes []byte, x []float32) float64 {
	var sum float64
	for i, b := range codes {
		d := float64((x[i]-s.offset[i])*s.inverse) - float64(b)
		sum += float64(d * d)
	}
	return sum
}

// deviations is how many standard deviations of rounding are reckoned with.
const deviations = 3

// dotMeasure orders by the inner product with what the codes decode to: the
// query as signed numbers times the codes, since offsets and scale change all
// products alike.
func (s *codeset) dotMeasure(m *measure, query []float32) {
	m.base8, m.stride = s.base(), s.stride
	m.kind = kindCodeDot
	m.signed = slices.Grow(m.signed[:0], s.width)[:s.width]
	clear(m.signed)
	var largest float32
	for _, x := range query {
		largest = max(largest, float32(math.Abs(float64(x))))
	}
	if largest == 0 {
		largest = 1
	}
	var constant float64
	for i, x := range query {
		m.signed[i] = int8(math.RoundToEven(float64(float32(x/largest)) * 127))
		constant -= float64(x) * float64(s.offset[i])
	}
	m.factor, m.constant = s.scale*largest/127, float32(constant)
	var squares float64
	for _, x := range query {
		squares += float64(float64(x) * float64(x))
	}
	m.noise = deviations * math.Sqrt(squares/12) * float64(s.scale)
}
