// SPDX-License-Identifier: Apache-2.0

//go:build purego || !(amd64 || arm64)

package distance

func variants() []kernelVariant {
	return []kernelVariant{{"generic", true, func() {}, func() {}}}
}
