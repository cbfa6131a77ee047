// SPDX-License-Identifier: Apache-2.0

//go:build purego || !amd64

package distance

func signTable(lut []byte, v []float32, inverse float32) (sum uint32) {
	return signTableGeneric(lut, v, inverse)
}

func largest(v []float32) uint32 { return largestGeneric(v) }

func centred(dst []float32, codes []byte, centre []float32) (squares uint32) {
	return centredGeneric(dst, codes, centre)
}

func flipSigns(v []float32, flips []uint64) { flipSignsGeneric(v, flips) }

func squares(src []float32) (s0, s1, s2, s3 float64) { return squaresGeneric(src) }

func scale(dst, src []float32, factor float64) { scaleGeneric(dst, src, factor) }
