// SPDX-License-Identifier: Apache-2.0

package distance

import "fmt"

// Hadamard replaces v by its Walsh-Hadamard transform, not scaled:
//
//	for h := 1; h < len(v); h *= 2 { for i := range v { if i&h == 0 {
//		v[i], v[i+h] = v[i]+v[i+h], v[i]-v[i+h]
//	} } }
//
// It turns sign flips into a random rotation in n log n additions, as 1-bit
// codes need. The additions are the same on every CPU, and so are the bits. len(v)
// is a power of two.
func Hadamard(v []float32) {
	if n := len(v); n == 0 || n&(n-1) != 0 {
		panic(fmt.Sprintf("distance: Hadamard transform of %d elements", n))
	}
	if len(v) < hadamardBlock {
		hadamardGeneric(v)
		return
	}
	hadamard(v)
}

// hadamardBlock is the fewest elements the assembly takes: an AVX-512 register.
const hadamardBlock = 16

func hadamardGeneric(v []float32) {
	for h := 1; h < len(v); h *= 2 {
		for i := 0; i < len(v); i += 2 * h {
			a, b := v[i:i+h], v[i+h:][:h]
			for j, x := range a {
				a[j], b[j] = x+b[j], x-b[j]
			}
		}
	}
}
