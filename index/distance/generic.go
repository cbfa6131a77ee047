// SPDX-License-Identifier: Apache-2.0

package distance

import "math/bits"

// lanes is the number of partial sums of a float32 kernel. 64 were chosen since
// they hide the latency of an add on AVX-512 (four registers), leave AVX2 eight
// registers for data and NEON sixteen. See ADR 0010.
const lanes = 64

func l2SquaredGeneric(a, b []float32) float32 {
	var sum [lanes]float32
	b = b[:len(a)]
	for len(a) >= lanes && len(b) >= lanes {
		for i := range sum {
			d := a[i] - b[i]
			sum[i] += float32(d * d)
		}
		a, b = a[lanes:], b[lanes:]
	}
	for i := range a {
		d := a[i] - b[i]
		sum[i] += float32(d * d)
	}
	return reduce(&sum)
}

func innerProductGeneric(a, b []float32) float32 {
	var sum [lanes]float32
	b = b[:len(a)]
	for len(a) >= lanes && len(b) >= lanes {
		for i := range sum {
			sum[i] += float32(a[i] * b[i])
		}
		a, b = a[lanes:], b[lanes:]
	}
	for i := range a {
		sum[i] += float32(a[i] * b[i])
	}
	return reduce(&sum)
}

// reduce sums the lanes: the four groups of sixteen as (0+1)+(2+3), then the
// upper half on the lower until one is left.
func reduce(sum *[lanes]float32) float32 {
	for i := range 16 {
		sum[i] = (sum[i] + sum[i+16]) + (sum[i+32] + sum[i+48])
	}
	for half := 8; half > 0; half /= 2 {
		for i := range half {
			sum[i] += sum[i+half]
		}
	}
	return sum[0]
}

func l2SquaredRowsGeneric(query, base []float32, stride int, ids []uint32, out []float32) {
	for i, id := range ids {
		out[i] = l2SquaredGeneric(query, base[int(id)*stride:][:len(query)])
	}
}

func innerProductRowsGeneric(query, base []float32, stride int, ids []uint32, out []float32) {
	for i, id := range ids {
		out[i] = innerProductGeneric(query, base[int(id)*stride:][:len(query)])
	}
}

func l2U8Generic(a, b []byte) int32 {
	var sum int32
	b = b[:len(a)]
	for i, x := range a {
		d := int32(x) - int32(b[i])
		sum += d * d
	}
	return sum
}

func dotU8S8Generic(a []byte, b []int8) int32 {
	var sum int32
	b = b[:len(a)]
	for i, x := range a {
		sum += int32(x) * int32(b[i])
	}
	return sum
}

func l2U8RowsGeneric(query, base []byte, stride int, ids []uint32, out []int32) {
	for i, id := range ids {
		out[i] = l2U8Generic(query, base[int(id)*stride:][:len(query)])
	}
}

func dotU8S8RowsGeneric(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	for len(query) > 0 && query[len(query)-1] == 0 {
		query = query[:len(query)-1] // nor read what is another row's
	}
	for i, id := range ids {
		out[i] = dotU8S8Generic(base[int(id)*stride:][:len(query)], query)
	}
}

func hammingGeneric(a, b []uint64) int32 {
	var sum int
	b = b[:len(a)]
	for i, x := range a {
		sum += bits.OnesCount64(x ^ b[i])
	}
	return int32(sum)
}

func dotBits4Generic(query, row []uint64) int32 {
	n := len(row)
	q0, q1, q2, q3 := query[:n], query[n:][:n], query[2*n:][:n], query[3*n:][:n]
	var s0, s1, s2, s3 int
	for i, x := range row {
		s0 += bits.OnesCount64(x & q0[i])
		s1 += bits.OnesCount64(x & q1[i])
		s2 += bits.OnesCount64(x & q2[i])
		s3 += bits.OnesCount64(x & q3[i])
	}
	return int32(s0 + s1<<1 + s2<<2 + s3<<3)
}

func hammingRowsGeneric(query, base []uint64, stride int, ids []uint32, out []int32) {
	for i, id := range ids {
		out[i] = hammingGeneric(query, base[int(id)*stride:][:len(query)])
	}
}

func dotBits4RowsGeneric(query, base []uint64, stride int, ids []uint32, out []int32) {
	for i, id := range ids {
		out[i] = dotBits4Generic(query, base[int(id)*stride:][:len(query)/planes])
	}
}

// fastScanGeneric sets sums; len(lut) == len(block) is a multiple of 64, at most
// pieceBytes.
func fastScanGeneric(lut, block []byte, sums *[FastScanLanes]uint32) {
	clear(sums[:])
	for len(lut) >= segmentBytes && len(block) >= segmentBytes {
		table := (*[segmentBytes]byte)(lut)
		for j, b := range (*[segmentBytes]byte)(block) {
			sums[j] += uint32(table[b&15])
			sums[j+16] += uint32(table[b>>4])
		}
		lut, block = lut[segmentBytes:], block[segmentBytes:]
	}
}
