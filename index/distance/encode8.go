// SPDX-License-Identifier: Apache-2.0

package distance

// clipMargin is how many codes out of range a value must be to count as far out.
const clipMargin = 4

// Encode8 writes the 8-bit codes of x, which has the length of dst and offset:
//
//	for i, f := range x { dst[i] = trunc(clamp((f-offset[i])*inverse + 0.5, 0, 255)) }
//
// each operation rounded; what is no number gets 0. It reports whether a code,
// with the offset added, is always the value itself again, and whether a value
// is more than four codes out of range.
func Encode8(dst []byte, x, offset []float32, inverse float32) (same, far bool) {
	checkLen(len(dst), len(x))
	checkLen(len(offset), len(x))
	if len(x) == 0 {
		return true, false
	}
	return encode8(dst, x, offset, inverse)
}

func encode8Generic(dst []byte, x, offset []float32, inverse float32) (same, far bool) {
	offset = offset[:len(x)]
	dst = dst[:len(x)]
	same = true
	for i, f := range x {
		t := float32((f-offset[i])*inverse) + 0.5
		var b byte
		if t >= 255 {
			b = 255
			far = far || t >= 256+clipMargin
		} else if t > 0 {
			b = byte(int32(t))
		} else {
			far = far || t < -clipMargin
		}
		dst[i] = b
		if float32(b)+offset[i] != f {
			same = false
		}
	}
	return same, far
}
