// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/zeebo/xxh3"
)

// none ends a row of links that is not full.
const none = ^uint32(0)

// maxLevel bounds the layers; a level is reached by one vertex in m of the one
// below, so this is never met.
const maxLevel = 15

// graph is the layered proximity graph of a generation. A row holds the links of
// one vertex on one layer, padded with none. Layer 0 has a row per vertex; the
// upper layers' rows stand in a second arena, level of them in a row, where
// upperRow says.
//
// One builder changes rows while searches read them. Each link is one atomic
// word, so a search sees for each place the old or the new one, and both are
// vertices whose row is complete. Links to vertices above a search's watermark
// are skipped by the search.
type graph struct {
	m, m0    int
	links    *arena        // m0 links per vertex
	upper    *arena        // m links per vertex and upper layer
	upperRow *arena        // per vertex, its first row in upper
	uppers   atomic.Uint32 // rows of upper in use
	// closed is, per vertex, how many links at the beginning of its row on layer
	// 0 are known to be an outcome of choose: nearest first, and none too near to
	// another. It spares the builder comparisons, never decides anything, and is
	// not kept across restarts. Its highest bit says that the row has changed since
	// the last checkpoint; changed says it of the rows in upper.
	closed  *arena
	changed *arena
	// entry packs the top level (high word) and the entry vertex.
	entry atomic.Uint64
	hash  digest // sum of rowHash over all rows
}

func newGraph(m, rows int) (*graph, error) {
	g := &graph{m: m, m0: 2 * m}
	var err error
	if g.links, err = newArena((g.m0*4+63)&^63, rows); err != nil {
		return nil, err
	}
	// One vertex in m reaches the next layer: rows/(m-1) in all, and some to spare.
	if g.upper, err = newArena(m*4, 2*rows/(m-1)+4096); err != nil {
		g.free()
		return nil, err
	}
	if g.upperRow, err = newArena(4, rows); err != nil {
		g.free()
		return nil, err
	}
	if g.closed, err = newArena(1, rows); err != nil {
		g.free()
		return nil, err
	}
	if g.changed, err = newArena(1, rows); err != nil {
		g.free()
		return nil, err
	}
	return g, nil
}

func (g *graph) free() {
	g.links.free()
	g.upper.free()
	g.upperRow.free()
	g.closed.free()
	g.changed.free()
}

// level is the highest layer of vertex v, a pure function: one vertex in m
// reaches the next layer. Integers only, so that it is the same on every CPU.
func (g *graph) level(v uint32) int {
	h := mix(uint64(v) + 0x9e3779b97f4a7c15)
	l := 0
	for h%uint64(g.m) == 0 && l < maxLevel {
		l++
		h = mix(h)
	}
	return l
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// width is how many links a row of a layer has room for.
func (g *graph) width(layer int) int {
	if layer == 0 {
		return g.m0
	}
	return g.m
}

// row is the links of v on a layer that v reaches.
func (g *graph) row(v uint32, layer int) []uint32 {
	if layer == 0 {
		return u32At(g.links.row(v), g.m0)
	}
	return u32At(g.upper.row(g.upperOf(v, layer)), g.m)
}

// addVertices makes empty rows for vertices [a, b).
func (g *graph) addVertices(a, b uint32) {
	g.links.grow(int(b))
	g.upperRow.grow(int(b))
	g.closed.grow(int(b))
	for v := a; v < b; v++ {
		row := g.row(v, 0)
		for i := range row {
			row[i] = none
		}
		first := g.uppers.Load()
		*(*uint32)(g.upperRow.row(v)) = first
		l := uint32(g.level(v))
		g.upper.grow(int(first + l))
		g.changed.grow(int(first + l))
		for i := range l {
			row := u32At(g.upper.row(first+i), g.m)
			for i := range row {
				row[i] = none
			}
		}
		g.uppers.Store(first + l)
	}
}

// Of a byte of closed. maxClosed may be less than the truth, which is no harm.
const (
	maxClosed  = 127
	rowChanged = 128
)

func (g *graph) closedByte(v uint32) *uint8 { return (*uint8)(g.closed.row(v)) }

func (g *graph) closedLinks(v uint32) int { return int(*g.closedByte(v) & maxClosed) }

func (g *graph) setClosed(v uint32, links int) {
	b := g.closedByte(v)
	*b = *b&rowChanged | uint8(min(links, maxClosed))
}

// openRows forgets what is known of the rows below n, because distances between
// vertices have changed.
func (g *graph) openRows(n uint32) {
	for i := range u8At(g.closed.base, int(n)) {
		*g.closedByte(uint32(i)) &= rowChanged
	}
}

// setChanged marks a row for the next checkpoint.
func (g *graph) setChanged(v uint32, layer int) {
	if layer == 0 {
		*g.closedByte(v) |= rowChanged
		return
	}
	*(*uint8)(g.changed.row(g.upperOf(v, layer))) = 1
}

// forgetChanges unmarks all rows.
func (g *graph) forgetChanges(vertices uint32) {
	for v := range vertices {
		*g.closedByte(v) &= maxClosed
	}
	clear(u8At(g.changed.base, int(g.uppers.Load())))
}

// upperOf is the row in upper of v on a layer above 0.
func (g *graph) upperOf(v uint32, layer int) uint32 {
	return *(*uint32)(g.upperRow.row(v)) + uint32(layer-1)
}

// setRow replaces a row, none-padded, seen by concurrent searches word by word.
func setRow(row, links []uint32) {
	for i, u := range links {
		atomic.StoreUint32(&row[i], u)
	}
	for i := len(links); i < len(row); i++ {
		atomic.StoreUint32(&row[i], none)
	}
}

// rowLen counts the links of a row.
func rowLen(row []uint32) int {
	for i, u := range row {
		if u == none {
			return i
		}
	}
	return len(row)
}

// entryPoint is where searches begin, and its level; ok is false for no graph.
func (g *graph) entryPoint() (v uint32, level int, ok bool) {
	e := g.entry.Load()
	return uint32(e), int(e>>32) - 1, e != 0
}

// digest is a sum of 128-bit hashes, so that replacing a row costs two hashes
// of a row and the order of additions does not matter.
type digest struct{ hi, lo uint64 }

func (d *digest) add(o digest) {
	var carry uint64
	d.lo, carry = bits.Add64(d.lo, o.lo, 0)
	d.hi, _ = bits.Add64(d.hi, o.hi, carry)
}

func (d *digest) sub(o digest) {
	var borrow uint64
	d.lo, borrow = bits.Sub64(d.lo, o.lo, 0)
	d.hi, _ = bits.Sub64(d.hi, o.hi, borrow)
}

// rowHash covers the links of one row and whose it is.
func rowHash(v uint32, layer int, links []uint32) digest {
	var buf [8 + 8*maxM]byte
	binary.LittleEndian.PutUint32(buf[:], v)
	binary.LittleEndian.PutUint32(buf[4:], uint32(layer))
	n := 8
	for _, u := range links {
		binary.LittleEndian.PutUint32(buf[n:], u)
		n += 4
	}
	h := xxh3.Hash128(buf[:n])
	return digest{h.Hi, h.Lo}
}
