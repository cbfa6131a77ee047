// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"
	"unsafe"

	"github.com/akidb/akidb/index/distance"
)

// measure is one query (or one vertex under construction) ready to be compared
// with rows. Keys are uint32 whose order is the order of distances.
type measure struct {
	kind   measureKind
	stride int
	base32 []float32
	query  []float32 // dim
	norms  *arena    // kindBuildDot
	radius float32   // kindBuildDot: the largest squared norm
	lift   float32   // kindBuildDot: the query's extra coordinate
	base8  []byte
	signed []int8     // the query on codes, padded
	term   int32      // kindCode and kindCodePadded: of the query
	terms  [][2]int32 // kindCode: of the rows, to be indexed below what has codes only
	codes  []byte     // of the query
	query8 []byte     // kindCodeDirect: the query, in codes or in a row; not to be written
	// What a key on codes means as a distance.
	factor, constant float32
	// noise is what rounding does to a length (see length) at most, but for one in
	// some hundreds.
	noise float64
}

type measureKind uint8

const (
	kindL2 measureKind = iota
	kindCosine
	kindDot
	// kindBuildDot is squared L2 after every vector got one more coordinate that
	// brings it to the length of the longest. For queries, whose extra coordinate
	// is zero, that order is the order of inner products, and unlike the inner
	// product it is a metric, which the choice of links needs.
	kindBuildDot
	// The squared distance of codes, the rows' terms apart, in their padding, or
	// not needed.
	kindCode
	kindCodePadded
	kindCodeDirect
	kindCodeDot
)

// expand makes e compare with the vertices below limit, if it can by this measure.
func (m *measure) expand(e *distance.Expansion, limit uint32) bool {
	switch m.kind {
	case kindCodePadded:
		e.SetL2Term(m.signed, m.term, m.base8, m.stride, m.stride-4, limit)
	case kindCode:
		e.SetL2Apart(m.signed, m.term, m.base8, m.stride, m.terms, limit)
	case kindCodeDirect:
		e.SetL2(m.query8, m.base8, m.stride, limit)
	case kindCodeDot:
		e.SetDot(m.signed, m.base8, m.stride, limit)
	default:
		return false
	}
	return true
}

// onCodes reports whether codes are compared.
func (m *measure) onCodes() bool {
	switch m.kind {
	case kindCodePadded, kindCode, kindCodeDirect, kindCodeDot:
		return true
	}
	return false
}

// prefetch asks for the rows that keys will be asked for next.
func (m *measure) prefetch(ids []uint32) {
	base, stride := m.base8, m.stride
	if !m.onCodes() {
		base, stride = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(m.base32))), 4*len(m.base32)), 4*m.stride
	}
	distance.PrefetchRows(base, stride, stride, ids[:min(len(ids), max(1, distance.PrefetchBytes/stride))])
}

// keysAhead is keys for many ascending rows that nobody asked for yet.
func (m *measure) keysAhead(ids, out []uint32) {
	m.inPieces(ids, func(piece []uint32) {
		m.keys(piece, out)
		out = out[len(piece):]
	})
}

// inPieces calls do for one piece of ascending rows after the other, rowsBlock of
// them at most. Each is asked for while the one before is worked on, unless they lie so
// close together that the CPU sees what comes.
func (m *measure) inPieces(ids []uint32, do func(piece []uint32)) {
	n := len(ids)
	if n == 0 {
		return
	}
	piece := rowsBlock
	ask := int(ids[n-1]-ids[0]) >= 2*n
	if ask {
		piece = max(1, min(piece, distance.PrefetchBytes/2/m.stride))
		m.prefetch(ids[:min(piece, n)])
	}
	for len(ids) > piece {
		if ask {
			m.prefetch(ids[piece:min(2*piece, len(ids))])
		}
		do(ids[:piece])
		ids = ids[piece:]
	}
	do(ids)
}

// keys writes the key of ids[i] to out[i].
func (m *measure) keys(ids, out []uint32) {
	if len(ids) == 0 {
		return
	}
	out = out[:len(ids)]
	f := unsafe.Slice((*float32)(unsafe.Pointer(&out[0])), len(out))
	n := unsafe.Slice((*int32)(unsafe.Pointer(&out[0])), len(out))
	switch m.kind {
	case kindCodePadded:
		// Sums of squares are not negative: they are keys as they are.
		distance.L2U8TermRows(m.signed, m.term, m.base8, m.stride, m.stride-4, ids, n)
	case kindCodeDirect:
		distance.L2U8Rows(m.query8, m.base8, m.stride, ids, n)
	case kindCode:
		distance.DotU8S8Rows(m.signed, m.base8, m.stride, ids, n)
		for i, x := range n {
			n[i] = m.term + m.terms[ids[i]][1] - 2*x
		}
	case kindCodeDot:
		distance.DotU8S8Rows(m.signed, m.base8, m.stride, ids, n)
		for i, x := range n {
			out[i] = uint32(-x) ^ 1<<31
		}
	case kindL2:
		distance.L2SquaredRows(m.query, m.base32, m.stride, ids, f)
		for i, x := range f {
			out[i] = orderedBits(x)
		}
	case kindCosine:
		distance.InnerProductRows(m.query, m.base32, m.stride, ids, f)
		for i, x := range f {
			out[i] = orderedBits(1 - x)
		}
	case kindDot:
		distance.InnerProductRows(m.query, m.base32, m.stride, ids, f)
		for i, x := range f {
			out[i] = orderedBits(-x)
		}
	case kindBuildDot:
		distance.L2SquaredRows(m.query, m.base32, m.stride, ids, f)
		for i, x := range f {
			d := lift(m.radius, *(*float32)(m.norms.row(ids[i]))) - m.lift
			out[i] = math.Float32bits(x + float32(d*d))
		}
	}
}

// apart reports whether between, the key of two neighbours of a vertex, is not
// below key, that of one of them and the vertex; without strict, not much below.
func (m *measure) apart(between, key uint32, strict bool) bool {
	if m.squares() {
		a, b := tolerance(strict)
		return uint64(between)*a >= uint64(key)*b
	}
	if strict {
		return between >= key
	}
	switch m.kind {
	case kindBuildDot:
		return float64(math.Float32frombits(between))*5 >= float64(math.Float32frombits(key))*4
	default:
		return float64(fromOrderedBits(between))*5 >= float64(fromOrderedBits(key))*4
	}
}

// squares reports whether keys are squared distances of codes.
func (m *measure) squares() bool {
	return m.kind == kindCodePadded || m.kind == kindCodeDirect || m.kind == kindCode
}

// tolerance is what the two keys of apart are multiplied by.
func tolerance(strict bool) (between, key uint64) {
	if strict {
		return 1, 1
	}
	return 5, 4
}

// lift is the coordinate that completes a vector to squared length radius.
func lift(radius, norm float32) float32 {
	return float32(math.Sqrt(float64(max(0, radius-norm))))
}

// distance is what a key on codes means.
func (m *measure) distance(key uint32) float32 {
	if m.kind == kindCodeDot {
		return float32(m.factor*float32(int32(key^1<<31))) + m.constant
	}
	return m.factor * float32(key)
}

// length is a distance that is not squared, in which rounding to codes makes a
// difference that does not depend on it.
func (m *measure) length(distance float32) float64 {
	if m.kind == kindCodeDot {
		return float64(distance)
	}
	return math.Sqrt(max(0, float64(distance)))
}

// beyond reports whether a vertex of this key on codes is further than a distance, but
// for one in some hundreds. Rounding both to codes adds a sixth of a step, squared, in
// each dimension, with a variance of 1/15 - 1/36, and what it does in the direction of
// the distance. Where vectors are so near to each other that the former is all that
// there is, those nearest by codes are those of which rounding took something away, so
// they do not tell what it may have added to others.
func (m *measure) beyond(key uint32, distance float32) bool {
	if m.kind == kindCodeDot {
		return true // nothing is squared
	}
	dim, square := float64(len(m.codes)), max(0, float64(distance)/float64(m.factor))
	const variance = 1.0/15 - 1.0/36
	return float64(key) > square+dim/6+float64(deviations*math.Sqrt(float64(variance*dim)+4*square/6))
}
