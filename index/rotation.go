// SPDX-License-Identifier: Apache-2.0

package index

import "github.com/akidb/akidb/index/distance"

// rotations by random signs and a Hadamard transform: one leaves sparse vectors
// on a lattice.
const rotations = 2

// rotation is a random rotation of vectors, the same one for each length.
type rotation struct {
	turned int                 // elements of a rotated vector, a power of two
	flips  [rotations][]uint64 // sign bits of two float32 each
}

// newRotation is one of at least so many elements.
func newRotation(elements int) rotation {
	p := rotation{turned: 1}
	for p.turned < elements {
		p.turned *= 2
	}
	for r := range p.flips {
		p.flips[r] = make([]uint64, p.turned/2)
		for i := range p.flips[r] {
			p.flips[r][i] = mix(uint64(r)<<32|uint64(i)) & (1<<63 | 1<<31)
		}
	}
	return p
}

// rotate replaces v, of length turned, by P v times a constant.
func (p *rotation) rotate(v []float32) {
	for r := range p.flips {
		distance.FlipSigns(v, p.flips[r])
		distance.Hadamard(v)
	}
}

// turnFrom writes P(u - m) of codes, m being the centre, and returns |u - m|².
func (p *rotation) turnFrom(dst []float32, codes []byte, centre []float32) (squares float64) {
	n := len(centre)
	squares = float64(distance.Centre(dst[:n], codes[:n], centre))
	clear(dst[n:])
	p.rotate(dst)
	return squares
}
