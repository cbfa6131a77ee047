// SPDX-License-Identifier: Apache-2.0

package index

import (
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
	inner  bool
	centre []float32 // m; nil under Dot
	signCode
	// All blocks below covered are those of the graph as of it. poor: estimates
	// did not tell the neighbours of these vertices apart when that was tried.
	covered atomic.Uint32
	poor    atomic.Bool
	// The builder's.
	made  uint32   // blocks below have been written at all
	stale []uint64 // a bit per vertex whose row was rewritten since
}

// far is Add of a lane without a neighbour.
const far = 3e38

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

func newBlockset(s *codeset, cfg *Config, rows int) (*blockset, error) {
	links := 2 * cfg.M
	width, planes := codeShape(s.dim)
	b := &blockset{codes: s, groups: (links + lanes - 1) / lanes, inner: s.lifted, signCode: newSignCode(s.dim, width, planes)}
	var err error
	if b.rows, err = newArena(b.groups*b.blockBytes(), min(rows, cfg.maxRows(b.groups*b.blockBytes()))); err != nil {
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
	if b.centre != nil {
		b.turnFrom(dst, codes, b.centre)
		return
	}
	for i, u := range codes[:b.codes.dim] {
		dst[i] = float32(u)
	}
	clear(dst[b.codes.dim:])
	b.rotate(dst)
}

// prepare makes the table of the query that m measures on codes.
func (b *blockset) prepare(e *estimator, m *measure) {
	v := e.room(&b.signCode)
	if b.inner {
		for i, q := range m.signed[:b.codes.dim] {
			v[i] = float32(q)
		}
		clear(v[b.codes.dim:])
		b.rotate(v)
	} else {
		b.turn(v, m.codes)
	}
	b.tabulate(e, v[:b.width])
	e.Low, e.Flip = 0, 0
	if b.inner {
		e.Low, e.Flip = -distance.MaxEstimate, 1<<31
	}
}

func (b *blockset) makeCoder(c *coder) {
	b.signCode.makeCoder(c)
	if n := b.groups * b.blockBytes() / 8; len(c.block) != n {
		c.block = make([]uint64, n)
	}
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
