// SPDX-License-Identifier: Apache-2.0

package distance

import "fmt"

// FastScanLanes is how many codes a block holds side by side.
const FastScanLanes = 32

const (
	segmentBytes = 16                 // of a table and of a block, per segment of 4 dimensions
	segmentDims  = 4                  // bits of a code that index one table
	pieceBytes   = 256 * segmentBytes // what a kernel sums in 16 bits: 256*255 < 1<<16
)

// FastScanBytes is the length of a table and of a block for 1-bit codes of dims
// dimensions: 16 bytes per 4 dimensions, padded to 64 bytes.
func FastScanBytes(dims int) int { return (dims + 15) / 16 * 64 }

// FastScan is, for each block of 32 codes laid out by FastScanPut,
//
//	for s := range len(lut)/16 { for j := range 16 {
//		out[j]    += lut[16*s + block[16*s+j]&15]
//		out[j+16] += lut[16*s + block[16*s+j]>>4]
//	} }
//
// starting from zero, out having 32 results per block. That is: each 4 bits of a
// code choose one of 16 bytes of a table made for the query, and the chosen
// bytes are summed; a shuffle instruction does 16 to 64 of these at once. The
// method is FastScan of André et al. (VLDB 2015), as RaBitQ and SymphonyQG use
// it. len(lut) is a multiple of 64, len(blocks) a multiple of len(lut).
//
// A block from memory takes ten times as long as one in cache. A search that
// calls Prefetch for the block of the vertex it will probably expand next, and
// only then scans this one, hides nearly half of that.
func FastScan(lut, blocks []byte, out []uint32) {
	n := len(lut)
	if n == 0 || n%64 != 0 || len(blocks)%n != 0 || len(out) < len(blocks)/n*FastScanLanes {
		panic(fmt.Sprintf("distance: table of %d bytes, blocks of %d, %d results", n, len(blocks), len(out)))
	}
	for ; len(blocks) > 0; blocks, out = blocks[n:], out[FastScanLanes:] {
		sums := (*[FastScanLanes]uint32)(out)
		fastScan(lut[:min(n, pieceBytes)], blocks[:min(n, pieceBytes)], sums)
		for at := pieceBytes; at < n; at += pieceBytes {
			var more [FastScanLanes]uint32
			end := min(n, at+pieceBytes)
			fastScan(lut[at:end], blocks[at:end], &more)
			for i, x := range more {
				sums[i] += x
			}
		}
	}
}

// FastScanPut writes a 1-bit code into a lane (0 to 31) of a block of
// FastScanBytes: bit i of the code, code[i/64]>>(i%64)&1, is dimension i. Bits
// that code does not have are zeros.
//
// Byte j of segment s holds dimensions 4s..4s+3 of lane j in its low half and of
// lane j+16 in its high half.
func FastScanPut(block []byte, lane int, code []uint64) {
	if len(block)%64 != 0 || uint(lane) >= FastScanLanes {
		panic(fmt.Sprintf("distance: lane %d of a block of %d bytes", lane, len(block)))
	}
	shift := uint(lane / 16 * 4)
	for s := range len(block) / segmentBytes {
		var nibble byte
		if word := s / 16; word < len(code) {
			nibble = byte(code[word]>>(s%16*segmentDims)) & 15
		}
		b := &block[s*segmentBytes+lane%16]
		*b = *b&^(15<<shift) | nibble<<shift
	}
}
