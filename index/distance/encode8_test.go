// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"math"
	"testing"
)

// Goal: every variant of Encode8 gives the codes of the generic one and says the
// same of them, for 0 to 70 values, among them whole numbers, values out of range
// and none at all.
func TestEncode8IsTheSameEverywhere(t *testing.T) {
	const guard = 0xa5
	var seen [4]int
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for range 5000 {
			n := r.IntN(71)
			x, _ := guarded[float32](n, r.IntN(4), 1e9)
			offset, _ := guarded[float32](n, r.IntN(4), 1e9)
			dst, check := guarded[byte](n, r.IntN(4), guard)
			want := make([]byte, n)
			inverse := float32(1)
			whole, rare := r.IntN(2) == 0, r.IntN(3) > 0
			if !whole {
				inverse = float32(math.Exp(r.NormFloat64()))
			}
			for i := range x {
				offset[i] = float32(r.IntN(9) - 4)
				x[i] = offset[i] + float32(r.IntN(256))
				if !whole {
					x[i] = offset[i] + float32(r.NormFloat64()*100+120)/inverse
				}
				if rare {
					continue
				}
				switch r.IntN(40) {
				case 0:
					x[i] = offset[i] + float32(254+r.IntN(8))/inverse
				case 1:
					x[i] = offset[i] - float32(r.IntN(8))/inverse
				case 2:
					x[i] = float32(math.NaN())
				case 3:
					x[i] = float32(math.Inf(r.IntN(2)*2 - 1))
				}
			}
			wantSame, wantFar := encode8Generic(want, x, offset, inverse)
			same, far := Encode8(dst, x, offset, inverse)
			if same != wantSame || far != wantFar || string(dst) != string(want) {
				t.Fatalf("Encode8(%v - %v, %v): %v, %t, %t; want %v, %t, %t", x, offset, inverse, dst, same, far, want, wantSame, wantFar)
			}
			if err := check(); err != nil {
				t.Fatal(err)
			}
			outcome := 0
			if same {
				outcome |= 1
			}
			if far {
				outcome |= 2
			}
			seen[outcome]++
		}
	})
	if seen[0] == 0 || seen[1] == 0 || seen[2] == 0 {
		t.Errorf("outcomes met: %v", seen)
	}
}
