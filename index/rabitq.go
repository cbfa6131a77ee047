// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/akidb/akidb/index/distance"
)

// blockset is, for each vertex, 1-bit codes of its neighbours on layer 0, beside
// the neighbours' numbers: what a walk needs of a vertex lies in one piece of
// memory (SymphonyQG, SIGMOD 2025, arXiv 2411.12229). Lanes are groups of 32.
//
// Everything is in the space of the 8-bit codes u of the codeset. The code of a
// neighbour o of c is the signs s of P(u_o - u_c), P being a rotation, so that
// (RaBitQ, SIGMOD 2024, arXiv 2405.12497)
//
//	<u_o - u_c, q> is about f <s, P q>,  f = |u_o - u_c|² / <s, P(u_o - u_c)>
//
// for whatever q, and
//
//	|q - u_o|² is about |q - u_c|² + |u_o - u_c|² + 2f <s, P(u_c - m)> - 2f <s, P(q - m)>
//
// with m near the mean, which keeps the numbers small. The first term is known
// when c is visited; the next two are Add of a lane and -2f is Times; the last
// is a sum of table entries (distance.Estimate).
//
// A block is a function of the row of links and of codes, but for the order of
// lanes: a lane stays where it is while its link does. Searches read blocks while
// the builder rewrites them, word by word: what comes of a mixture is a wrong
// estimate, while numbers of vertices are whole words and distances given as
// results are not taken from here.
type blockset struct {
	codes  *codeset
	rows   *arena
	groups int // of 32 lanes
	bits   int // of a code: planes * width
	planes int
	width  int // elements of a rotated vector that are coded
	inner  bool
	centre []float32 // m; nil under Dot
	rotation
	// All blocks below covered are those of the graph as of it. poor: estimates
	// did not tell the neighbours of these vertices apart when that was tried.
	covered atomic.Uint32
	poor    atomic.Bool
	// The builder's.
	made  uint32   // blocks below have been written at all
	stale []uint64 // a bit per vertex whose row was rewritten since
}

const (
	lanes = distance.FastScanLanes
	// far is Add of a lane without a neighbour.
	far = 3e38
	// entryMiddle is the table entry of zero: elements of a query are -31 to 31,
	// four make an entry.
	entryMiddle   = 4 * elementMiddle
	elementMiddle = 31
)

// codeShape is how many elements of a rotated vector are coded, and with how many
// bits each. One bit for two dimensions is enough beside exact distances of what
// is visited; few dimensions get at least 256, which for up to 128 are spent best
// on two bits for each (measured: docs/adr/0070).
func codeShape(dims int) (width, planes int) {
	if dims <= 128 {
		return 128, 2
	}
	return max(256, (dims/2+63)&^63), 1
}

func newBlockset(s *codeset, cfg *Config) (*blockset, error) {
	links := 2 * cfg.M
	b := &blockset{codes: s, groups: (links + lanes - 1) / lanes, inner: s.lifted}
	b.width, b.planes = codeShape(s.dim)
	b.bits = b.planes * b.width
	b.rotation = newRotation(max(b.width, s.dim))
	var err error
	if b.rows, err = newArena(b.groups*b.blockBytes(), cfg.maxRows(b.groups*b.blockBytes())); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *blockset) blockBytes() int { return distance.EstimateBytes(b.bits) + 4*lanes }

func (b *blockset) free() {
	if b != nil {
		b.rows.free()
	}
}

// block is one group of a vertex: codes, factors, numbers.
func (b *blockset) block(v uint32, group int) []byte {
	n := b.blockBytes()
	return u8At(unsafe.Add(b.rows.row(v), group*n), n)
}

// numbers is whose lanes a block has; none where there is none.
func (b *blockset) numbers(block []byte) *[lanes]uint32 {
	return (*[lanes]uint32)(unsafe.Pointer(&block[len(block)-4*lanes]))
}

// turn writes P(u - m) of a vertex's codes.
func (b *blockset) turn(dst []float32, codes []byte) {
	if b.centre == nil {
		for i, u := range codes[:b.codes.dim] {
			dst[i] = float32(u)
		}
	} else {
		for i, m := range b.centre {
			dst[i] = float32(codes[i]) - m
		}
	}
	clear(dst[b.codes.dim:])
	b.rotate(dst)
}

// estimator is a query ready for a walk on blocks.
type estimator struct {
	distance.Estimator
	turned   []float32
	elements []byte
	table    []byte
	keys     [lanes]uint32
	found    [lanes]uint64
}

// prepare makes the table of the query that m measures on codes.
func (b *blockset) prepare(e *estimator, m *measure) {
	if cap(e.turned) < b.turned || cap(e.elements) < b.bits {
		e.turned = make([]float32, b.turned)
		e.elements = make([]byte, b.bits)
		e.table = make([]byte, distance.FastScanBytes(b.bits))
	}
	v := e.turned[:b.turned]
	if b.inner {
		for i, q := range m.signed[:b.codes.dim] {
			v[i] = float32(q)
		}
		clear(v[b.codes.dim:])
		b.rotate(v)
	} else {
		b.turn(v, m.codes)
	}
	v = v[:b.width]
	// Positive floats are in the order of their bits.
	var top uint32
	var s0, s1 float32
	for i := 0; i < len(v); i += 2 {
		x, y := v[i], v[i+1]
		top = max(top, math.Float32bits(x)&^(1<<31), math.Float32bits(y)&^(1<<31))
		s0 += x
		s1 += y
	}
	step := math.Float32frombits(top) / elementMiddle
	if step == 0 {
		step = 1
	}
	sum, inverse := s0+s1, 1/step
	e.elements = e.elements[:b.bits]
	quantize(e.elements, v, inverse)
	if b.planes == 2 {
		// The second bits count half, so the query does there.
		quantize(e.elements[b.width:], v, inverse/2)
		sum += sum / 2
	}
	n := distance.FastScanBytes(b.bits)
	e.table = e.table[:n]
	distance.FastScanTable(e.table, e.elements)
	// Entries for elements 0 to 62 become those for -31 to 31, plus the middle:
	// 31*(4-i) more for i elements.
	const low, high = 0x1f_3e_3e_5d_3e_5d_5d_7c, 0x00_1f_1f_3e_1f_3e_3e_5d
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&e.table[0])), n/8)
	for i := 0; i < len(words); i += 2 {
		words[i] += low
		words[i+1] += high
	}
	// <s, x> = 2 (sum of x where s is 1) - (sum of x).
	e.Scale = 2 * step
	e.Shift = -float32(e.Scale*float32(entryMiddle*(n/16))) - sum
	e.Low, e.Flip = 0, 0
	if b.inner {
		e.Low, e.Flip = -distance.MaxEstimate, 1<<31
	}
}

// quantize rounds elements to steps, 0 to 62 with zero in the middle.
func quantize(dst []byte, v []float32, inverse float32) {
	dst = dst[:len(v)]
	for i, x := range v {
		dst[i] = byte(int32(float32(x*inverse) + (elementMiddle + 0.5)))
	}
}

// value is a key on codes as a float32.
func (b *blockset) value(key uint32) float32 {
	if b.inner {
		return float32(int32(key ^ 1<<31))
	}
	return float32(key)
}

// coder is the memory of one who writes codes.
type coder struct {
	from, to []float32 // rotated: the vertex and its neighbour
	word     []uint64
	block    []uint64 // all blocks of a vertex
}

func (b *blockset) makeCoder(c *coder) {
	if len(c.from) != b.turned || len(c.block) != b.groups*b.blockBytes()/8 {
		c.from, c.to = make([]float32, b.turned), make([]float32, b.turned)
		c.word = make([]uint64, (b.bits+63)/64)
		c.block = make([]uint64, b.groups*b.blockBytes()/8)
	}
}

// encode makes the code of the difference c.to-c.from, two bits of an element
// standing for -3, -1, 1, 3 halves of its spread. It returns the inner products of
// the signs, those of the second bits counting half, with the difference and with
// c.from.
func (b *blockset) encode(c *coder) (length, along float32) {
	const sign = 1 << 31
	clear(c.word)
	from, to := c.from[:b.width], c.to[:b.width]
	var squares float32
	for i, x := range from {
		d := to[i] - x
		to[i] = d
		squares += float32(d * d)
		negative := math.Float32bits(d) & sign
		length += math.Float32frombits(math.Float32bits(d) ^ negative)
		along += math.Float32frombits(math.Float32bits(x) ^ negative)
		c.word[i>>6] |= uint64(negative>>31^1) << (i & 63)
	}
	if b.planes == 1 {
		return length, along
	}
	spread := math.Float32bits(float32(math.Sqrt(float64(squares) / float64(b.width))))
	for i, x := range from {
		d := math.Float32bits(to[i])
		rest := to[i] - math.Float32frombits(spread|d&sign)
		negative := math.Float32bits(rest) & sign
		length += float32(math.Float32frombits(d^negative) / 2)
		along += float32(math.Float32frombits(math.Float32bits(x)^negative) / 2)
		i += b.width
		c.word[i>>6] |= uint64(negative>>31^1) << (i & 63)
	}
	return length, along
}

// setLane writes the code and the factors of neighbour u of vertex v, whose
// rotated codes are in c.from.
func (b *blockset) setLane(c *coder, block []byte, lane int, v, u uint32) {
	add, times := distance.EstimateFactors(b.bits, block)
	from, to := b.codes.row(v)[:b.codes.dim], b.codes.row(u)[:b.codes.dim]
	b.turn(c.to, to)
	length, along := b.encode(c)
	square := float64(distance.L2U8(from, to))
	f := float64(0)
	if length > 0 {
		f = square / float64(length)
	}
	if b.inner {
		add[lane], times[lane] = 0, float32(-f)
	} else {
		add[lane] = float32(square + float64(2*f*float64(along)))
		times[lane] = float32(-2 * f)
	}
	distance.FastScanPut(block[:distance.FastScanBytes(b.bits)], lane, c.word)
	b.numbers(block)[lane] = u
}
