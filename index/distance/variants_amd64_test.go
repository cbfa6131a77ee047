// SPDX-License-Identifier: Apache-2.0

//go:build amd64 && !purego

package distance

// variants are the ways the kernels can run on this machine; the first is
// generic. Each sets the dispatch variables and says whether the CPU has it.
func variants() []kernelVariant {
	avx512, avx2 := useAVX512, useAVX2
	set := func(use512, use2 bool) func() {
		return func() { useAVX512, useAVX2 = use512, use2 }
	}
	return []kernelVariant{
		{"generic", true, set(false, false), set(avx512, avx2)},
		{"avx2", avx2, set(false, true), set(avx512, avx2)},
		{"avx512", avx512, set(true, avx2), set(avx512, avx2)},
	}
}
