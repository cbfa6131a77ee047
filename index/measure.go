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
}

type measureKind uint8

const (
	kindL2 measureKind = iota
	kindDot
	// kindBuildDot is squared L2 after every vector got one more coordinate that
	// brings it to the length of the longest. For queries, whose extra coordinate
	// is zero, that order is the order of inner products, and unlike the inner
	// product it is a metric, which the choice of links needs.
	kindBuildDot
)

// keys writes the key of ids[i] to out[i].
func (m *measure) keys(ids, out []uint32) {
	if len(ids) == 0 {
		return
	}
	out = out[:len(ids)]
	f := unsafe.Slice((*float32)(unsafe.Pointer(&out[0])), len(out))
	switch m.kind {
	case kindL2:
		// Squared distances are not negative: their bits are in order already.
		distance.L2SquaredRows(m.query, m.base32, m.stride, ids, f)
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

// lift is the coordinate that completes a vector to squared length radius.
func lift(radius, norm float32) float32 {
	return float32(math.Sqrt(float64(max(0, radius-norm))))
}
