// SPDX-License-Identifier: Apache-2.0

//go:build purego || !(amd64 || arm64)

package distance

func variant() string { return "generic" }

func l2SquaredRows(query, base []float32, stride int, ids []uint32, out []float32) {
	l2SquaredRowsGeneric(query, base, stride, ids, out)
}

func innerProductRows(query, base []float32, stride int, ids []uint32, out []float32) {
	innerProductRowsGeneric(query, base, stride, ids, out)
}

func l2U8Rows(query, base []byte, stride int, ids []uint32, out []int32) {
	l2U8RowsGeneric(query, base, stride, ids, out)
}

func dotU8S8Rows(query []int8, base []byte, stride int, ids []uint32, out []int32) {
	dotU8S8RowsGeneric(query, base, stride, ids, out)
}
