// SPDX-License-Identifier: Apache-2.0

package index

import (
	"math"

	"github.com/akidb/akidb/index/distance"
)

// lanes is how many 1-bit codes lie side by side.
const lanes = distance.FastScanLanes

// signCode is how vectors become 1-bit codes: the signs of the first width elements
// of them, rotated; with two planes a second bit of each says more of it (RaBitQ,
// SIGMOD 2024, arXiv 2405.12497).
type signCode struct {
	rotation
	width  int // elements of a rotated vector that are coded
	planes int
	bits   int // of a code: planes * width
}

func newSignCode(dims, width, planes int) signCode {
	return signCode{rotation: newRotation(max(width, dims)), width: width, planes: planes, bits: planes * width}
}

// elementLargest is that of a query, in steps.
const elementLargest = distance.SignMiddle / 4

// estimator is a query ready to be compared with 1-bit codes.
type estimator struct {
	distance.Estimator
	turned []float32
	table  []byte
	keys   [lanes]uint32
	found  [lanes]uint64
}

// room is where the rotated query is to be.
func (e *estimator) room(c *signCode) []float32 {
	if cap(e.turned) < c.turned {
		e.turned = make([]float32, c.turned)
	}
	if n := distance.FastScanBytes(c.bits); cap(e.table) < n {
		e.table = make([]byte, n)
	}
	return e.turned[:c.turned]
}

// tabulate makes the table for v, the first width elements of the rotated query,
// and what makes inner products of its sums.
func (c *signCode) tabulate(e *estimator, v []float32) {
	step := distance.Largest(v) / elementLargest
	if step == 0 {
		step = 1
	}
	inverse := 1 / step
	n := distance.FastScanBytes(c.bits)
	e.table = e.table[:n]
	plane := n / c.planes
	sum := distance.SignTable(e.table[:plane], v, inverse)
	if c.planes == 2 {
		// The second bits count half, so the query does there.
		sum += distance.SignTable(e.table[plane:], v, inverse/2)
	}
	// <s, x> = 2 (sum of x where s is 1) - (sum of x).
	e.Scale = 2 * step
	e.Shift = -float32(step * float32(2*distance.SignMiddle*(n/16)+sum))
}

// estimateKey is a key on codes, of inner products or of squared distances, as what
// is estimated.
func estimateKey(inner bool, key uint32) float32 {
	if inner {
		return float32(int32(key ^ 1<<31))
	}
	return float32(key)
}

// coder is the memory of one who writes codes.
type coder struct {
	from, to []float32 // rotated; the code is that of their difference
	word     []uint64
	block    []uint64 // all blocks of a vertex
}

func (c *signCode) makeCoder(w *coder) {
	if len(w.from) != c.turned || len(w.word) != (c.bits+63)/64 {
		w.from, w.to = make([]float32, c.turned), make([]float32, c.turned)
		w.word = make([]uint64, (c.bits+63)/64)
	}
}

// encode makes the code of the difference w.to-w.from, two bits of an element
// standing for -3, -1, 1, 3 halves of its spread. It returns the inner products of
// the signs, those of the second bits counting half, with the difference and with
// w.from.
func (c *signCode) encode(w *coder) (length, along float32) {
	const sign = 1 << 31
	clear(w.word)
	from, to := w.from[:c.width], w.to[:c.width]
	var squares float32
	for i, x := range from {
		d := to[i] - x
		to[i] = d
		squares += float32(d * d)
		negative := math.Float32bits(d) & sign
		length += math.Float32frombits(math.Float32bits(d) ^ negative)
		along += math.Float32frombits(math.Float32bits(x) ^ negative)
		w.word[i>>6] |= uint64(negative>>31^1) << (i & 63)
	}
	if c.planes == 1 {
		return length, along
	}
	spread := math.Float32bits(float32(math.Sqrt(float64(squares) / float64(c.width))))
	for i, x := range from {
		d := math.Float32bits(to[i])
		rest := to[i] - math.Float32frombits(spread|d&sign)
		negative := math.Float32bits(rest) & sign
		length += float32(math.Float32frombits(d^negative) / 2)
		along += float32(math.Float32frombits(math.Float32bits(x)^negative) / 2)
		i += c.width
		w.word[i>>6] |= uint64(negative>>31^1) << (i & 63)
	}
	return length, along
}
