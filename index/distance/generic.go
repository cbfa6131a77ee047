// SPDX-License-Identifier: Apache-2.0

package distance

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
	for i, id := range ids {
		out[i] = dotU8S8Generic(base[int(id)*stride:][:len(query)], query)
	}
}
