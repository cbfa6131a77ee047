// SPDX-License-Identifier: Apache-2.0

//go:build arm64 && !purego

package distance

func variants() []kernelVariant {
	dotprod := useDotprod
	set := func(neon, dot bool) func() {
		return func() { useNEON, useDotprod = neon, dot }
	}
	return []kernelVariant{
		{"generic", true, set(false, dotprod), set(true, dotprod)},
		{"neon", true, set(true, false), set(true, dotprod)},
		{"neon+dotprod", dotprod, set(true, true), set(true, dotprod)},
	}
}
