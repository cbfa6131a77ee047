// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// SignMiddle is what SignTable adds to an entry.
const SignMiddle = segmentDims * signLargest

const (
	signLargest = 31 // elements of a query are whole numbers from -31 to 31
	signBlock   = 16 // elements
)

// SignTable makes FastScan's table of a query for codes whose bits are signs: with
// elements e[i] = int(v[i]*inverse + 31.5) - 31, each operation rounded by itself,
//
//	lut[16*s+m] = SignMiddle + sum of e[4*s+i] over the bits i set in m
//
// It returns the sum of all e. No v[i]*inverse is above 31 or below -31, but for
// rounding; len(v) is a multiple of 16 and len(lut) four times it.
func SignTable(lut []byte, v []float32, inverse float32) (sum int) {
	if len(v)%signBlock != 0 || len(lut) != 4*len(v) {
		panic(fmt.Sprintf("distance: table of %d bytes for a query of %d", len(lut), len(v)))
	}
	if len(v) == 0 {
		return 0
	}
	return int(signTable(lut, v, inverse)) - signLargest*len(v)
}

// signTableGeneric returns the sum of elements that are 31 more.
func signTableGeneric(lut []byte, v []float32, inverse float32) (sum uint32) {
	for ; len(v) >= segmentDims; v, lut = v[segmentDims:], lut[segmentBytes:] {
		var four uint64 // elements, the first in the low byte
		for i, x := range v[:segmentDims] {
			e := uint32(int32(float32(x*inverse)+(signLargest+0.5))) & 63
			sum += e
			four |= uint64(e) << (8 * i)
		}
		// Eight entries at once: byte m of a factor is bit i of m. What elements were
		// made more by is taken out again, of SignMiddle 31 for each.
		const less, more = 0x1f_3e_3e_5d_3e_5d_5d_7c, 0x00_1f_1f_3e_1f_3e_3e_5d
		low := four&0xff*0x0100_0100_0100_0100 + four>>8&0xff*0x0101_0000_0101_0000 + four>>16&0xff*0x0101_0101_0000_0000
		binary.LittleEndian.PutUint64(lut, low+less)
		binary.LittleEndian.PutUint64(lut[8:], low+four>>24*0x0101_0101_0101_0101+more)
	}
	return sum
}

// Largest is the largest absolute value of v, none of which is NaN.
func Largest(v []float32) float32 {
	n := len(v) &^ 7
	top := uint32(0)
	if n > 0 {
		top = largest(v[:n])
	}
	return math.Float32frombits(max(top, largestGeneric(v[n:])))
}

// largestGeneric is the bits of it: positive numbers are in the order of their bits.
func largestGeneric(v []float32) (top uint32) {
	for _, x := range v {
		top = max(top, math.Float32bits(x)&^(1<<31))
	}
	return top
}

// Centre writes codes minus a centre of whole numbers from 0 to 255, and returns the
// square of its length. The three are as long, up to 65,535.
func Centre(dst []float32, codes []byte, centre []float32) (squares uint32) {
	checkLen(len(dst), len(codes))
	checkLen(len(dst), len(centre))
	n := len(dst) &^ 7
	if n > 0 {
		squares = centred(dst[:n], codes[:n], centre[:n])
	}
	return squares + centredGeneric(dst[n:], codes[n:], centre[n:])
}

func centredGeneric(dst []float32, codes []byte, centre []float32) (squares uint32) {
	for i, m := range centre {
		d := float32(codes[i]) - m
		dst[i] = d
		n := int32(d)
		squares += uint32(n * n)
	}
	return squares
}

// FlipSigns inverts the signs of v where those of flips are set, of two elements in
// each word. len(v) is twice len(flips).
func FlipSigns(v []float32, flips []uint64) {
	checkLen(len(v), 2*len(flips))
	n := len(v) &^ 7
	if n > 0 {
		flipSigns(v[:n], flips[:n/2])
	}
	flipSignsGeneric(v[n:], flips[n/2:])
}

func flipSignsGeneric(v []float32, flips []uint64) {
	if len(flips) == 0 {
		return
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&v[0])), len(flips))
	for i, s := range flips {
		words[i] ^= s
	}
}
