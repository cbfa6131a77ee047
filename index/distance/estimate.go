// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"
)

// factorBytes is what a block of Estimate has behind the codes: two float32 of
// every lane.
const factorBytes = 2 * 4 * FastScanLanes

// Estimator is what Estimate knows of a query, and of the place it stands at.
type Estimator struct {
	Scale, Shift float32 // from a sum of table entries to an inner product
	Base         float32 // added to every estimate
	Limit        float32 // estimates below it are wanted
	Low          float32 // estimates below it are raised to it
	Flip         uint32  // bits of a key that are inverted
}

// MaxEstimate is what estimates above it are lowered to.
const MaxEstimate = 1 << 30

// EstimateBytes is how many bytes of a block Estimate reads for 1-bit codes of
// dims dimensions: codes as FastScan has them, then Add and Times of each lane.
func EstimateBytes(dims int) int { return FastScanBytes(dims) + factorBytes }

// EstimateFactors is where a block keeps the factors of its lanes.
func EstimateFactors(dims int, block []byte) (add, times *[FastScanLanes]float32) {
	at := FastScanBytes(dims)
	_ = block[at+factorBytes-1]
	add = (*[FastScanLanes]float32)(unsafe.Pointer(&block[at]))
	times = (*[FastScanLanes]float32)(unsafe.Pointer(&block[at+factorBytes/2]))
	return add, times
}

// Estimate turns a block of 32 codes into the keys of 32 estimates: with sums as
// FastScan makes them of table and codes, and the block's factors,
//
//	for j := range keys {
//		x := add[j] + times[j]*(float32(sums[j])*e.Scale + e.Shift) + e.Base
//		if x < e.Limit { mask |= 1 << j }
//		keys[j] = uint32(int32(min(max(x, e.Low), MaxEstimate))) ^ e.Flip
//	}
//
// every operation rounded by itself. len(lut) is a multiple of 64; the block has
// EstimateBytes, aligned to four bytes. This is the inner loop of a walk on codes
// beside edges, so that it is one call.
func Estimate(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) (mask uint32) {
	n := len(lut)
	if n == 0 || n%64 != 0 || len(block) < n+factorBytes {
		panic(fmt.Sprintf("distance: table of %d bytes, block of %d", n, len(block)))
	}
	if n > pieceBytes {
		return estimateLong(lut, block, e, keys)
	}
	return estimate(lut, block, e, keys)
}

// estimateLong is Estimate for more segments than 16-bit sums hold.
func estimateLong(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32 {
	var sums [FastScanLanes]uint32
	n := len(lut)
	FastScan(lut, block[:n], sums[:])
	return estimateSums(&sums, block[n:], e, keys)
}

// estimateGeneric has its sums from whatever FastScan kernel there is.
func estimateGeneric(lut, block []byte, e *Estimator, keys *[FastScanLanes]uint32) uint32 {
	var sums [FastScanLanes]uint32
	n := len(lut)
	fastScan(lut, block[:n], &sums)
	return estimateSums(&sums, block[n:], e, keys)
}

func estimateSums(sums *[FastScanLanes]uint32, factors []byte, e *Estimator, keys *[FastScanLanes]uint32) (mask uint32) {
	_ = factors[factorBytes-1]
	// Atomic, since an index rewrites blocks that searches are reading.
	add := (*[FastScanLanes]uint32)(unsafe.Pointer(&factors[0]))
	times := (*[FastScanLanes]uint32)(unsafe.Pointer(&factors[factorBytes/2]))
	for j, sum := range sums {
		add, times := math.Float32frombits(atomic.LoadUint32(&add[j])), math.Float32frombits(atomic.LoadUint32(&times[j]))
		inner := float32(float32(sum)*e.Scale) + e.Shift
		x := float32(add+float32(times*inner)) + e.Base
		if x < e.Limit {
			mask |= 1 << j
		}
		// As the instructions do it with what is not a number.
		if !(x > e.Low) {
			x = e.Low
		}
		if !(x < MaxEstimate) {
			x = MaxEstimate
		}
		keys[j] = uint32(int32(x)) ^ e.Flip
	}
	return mask
}
