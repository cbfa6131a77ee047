// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

func asInt8(b []byte) []int8 {
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*int8)(unsafe.Pointer(&b[0])), len(b))
}

// codeKernels take the bits of a signed side as bytes, for one test body.
var codeKernels = []struct {
	name    string
	one     func(query, row []byte) int32
	rows    func(query, base []byte, stride int, ids []uint32, out []int32)
	generic func(query, row []byte) int32
}{
	{"L2U8", L2U8, L2U8Rows, l2U8Generic},
	{"DotU8S8",
		func(q, r []byte) int32 { return DotU8S8(r, asInt8(q)) },
		func(q, base []byte, stride int, ids []uint32, out []int32) {
			DotU8S8Rows(asInt8(q), base, stride, ids, out)
		},
		func(q, r []byte) int32 { return dotU8S8Generic(r, asInt8(q)) }},
}

// codeFillings holds the extremes, where a kernel that saturates would fail.
var codeFillings = []struct {
	name string
	next func(r *rand.Rand) byte
}{
	{"random", func(r *rand.Rand) byte { return byte(r.Uint32()) }},
	{"extreme", func(r *rand.Rand) byte { return [...]byte{0, 127, 128, 255}[r.IntN(4)] }},
	{"all 255", func(*rand.Rand) byte { return 255 }},
	{"all 128", func(*rand.Rand) byte { return 128 }},
	{"all 0", func(*rand.Rand) byte { return 0 }},
}

func TestCodeKernelsEqualGeneric(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, k := range codeKernels {
			for _, fa := range codeFillings {
				for _, fb := range codeFillings {
					for _, n := range append(lengths(), maxCodes) {
						a, checkA := guarded[byte](n, r.IntN(4), 0x55)
						b, checkB := guarded[byte](n, r.IntN(4), 0xaa)
						for i := range a {
							a[i], b[i] = fa.next(r), fb.next(r)
						}
						if got, want := k.one(a, b), k.generic(a, b); got != want {
							t.Fatalf("%s of %d codes, %s against %s: %d, want %d", k.name, n, fa.name, fb.name, got, want)
						}
						if err := checkA(); err != nil {
							t.Fatal(err)
						}
						if err := checkB(); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
	})
}

func TestCodeRowsEqualSingles(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, k := range codeKernels {
			for blocks := 1; blocks <= 18; blocks++ {
				for count := range 20 {
					n := 64 * blocks
					rows, stride := 1+r.IntN(40), n+r.IntN(2)*r.IntN(100)
					if k.name == "DotU8S8" && r.IntN(3) == 0 {
						stride = 1 + r.IntN(n) // rows that overlap
					}
					base, checkBase := guarded[byte]((rows-1)*stride+n, r.IntN(4), 0xaa)
					query, _ := guarded[byte](n, r.IntN(4), 0x55)
					for i := range base {
						base[i] = codeFillings[r.IntN(2)].next(r)
					}
					for i := range query {
						query[i] = codeFillings[r.IntN(2)].next(r)
					}
					clear(query[n-32*r.IntN(2*blocks+1):]) // padding is left out where it can be
					ids := make([]uint32, count)
					for i := range ids {
						ids[i] = uint32(r.IntN(rows))
					}
					out, checkOut := guarded[int32](count, r.IntN(4), -7)
					k.rows(query, base, stride, ids, out)
					for i, id := range ids {
						if want := k.generic(query, base[int(id)*stride:][:n]); out[i] != want {
							t.Fatalf("%s: row %d of %d codes, result %d of %d: %d, want %d", k.name, id, n, i, count, out[i], want)
						}
					}
					if err := checkBase(); err != nil {
						t.Fatal(err)
					}
					if err := checkOut(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// The identities the comment of DotU8S8Rows promises.
func TestDotU8S8GivesTheOtherDistancesOnCodes(t *testing.T) {
	r := random(t)
	const n = 200
	q, u := make([]byte, n), make([]byte, n)
	shifted, signed := make([]int8, n), make([]int8, n)
	var sumU, dot, dotSigned, sumSigned int32
	for i := range q {
		q[i], u[i] = byte(r.Uint32()), byte(r.Uint32())
		shifted[i], signed[i] = int8(int(q[i])-128), int8(r.Uint32())
		sumU += int32(u[i])
		dot += int32(q[i]) * int32(u[i])
		dotSigned += int32(signed[i]) * (int32(u[i]) - 128)
		sumSigned += int32(signed[i])
	}
	if got := DotU8S8(u, shifted) + 128*sumU; got != dot {
		t.Errorf("unsigned dot %d, want %d", got, dot)
	}
	if got := DotU8S8(u, signed) - 128*sumSigned; got != dotSigned {
		t.Errorf("signed dot %d, want %d", got, dotSigned)
	}
}

// Goal: L2 by terms kept in the rows is L2, with the term right behind the codes,
// at the end of the padding or in a block of its own.
func TestL2U8TermRowsIsL2(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, dims := range []int{1, 25, 32, 33, 60, 63, 64, 65, 96, 97, 100, 119, 128, 784, 4096, maxCodes} {
			padded := (dims + 63) &^ 63
			for _, termAt := range []int{dims, padded - 4, padded} {
				if termAt < dims {
					continue
				}
				rows := 1 + r.IntN(9) // in fours, with some left or not, or less than four
				stride := padded + 64
				base := make([]byte, rows*stride)
				q := make([]byte, dims)
				for i := range q {
					q[i] = codeFillings[1].next(r)
				}
				ids := make([]uint32, rows)
				for id := range ids {
					ids[id] = uint32(id)
					row := base[id*stride:][:dims]
					for i := range row {
						row[i] = codeFillings[id%len(codeFillings)].next(r)
					}
					binary.LittleEndian.PutUint32(base[id*stride+termAt:], uint32(L2Term(row)))
				}
				query, out := make([]int8, padded), make([]int32, rows)
				for i := range query {
					query[i] = 99
				}
				queryTerm := L2Query(query, q)
				L2U8TermRows(query, queryTerm, base, stride, termAt, ids, out)
				for id, got := range out {
					if want := l2U8Generic(q, base[id*stride:][:dims]); got != want {
						t.Fatalf("%d codes, term at %d, row %d: %d, want %d", dims, termAt, id, got, want)
					}
				}
			}
		}
	})
}

// FuzzCodeKernels: every variant agrees with generic on any bytes, as 8-bit
// codes, as bits and as blocks of FastScan; the input is split into a query and
// a row.
func FuzzCodeKernels(f *testing.F) {
	f.Add([]byte{0, 255, 128, 127})
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2*maxCodes {
			return
		}
		a, b := data[:len(data)/2], data[len(data)/2:][:len(data)/2]
		blocks := len(a) / 64 * 64
		words := func(v []byte) []uint64 {
			w := make([]uint64, len(v)/8)
			for i := range w {
				w[i] = binary.LittleEndian.Uint64(v[8*i:])
			}
			return w
		}
		wa, wb := words(a), words(b)
		wa = wa[:len(wa)/planes*planes]
		var wantSums [FastScanLanes]uint32
		fastScanGeneric(a[:blocks], b[:blocks], &wantSums)
		for _, v := range variants() {
			if !v.usable {
				continue
			}
			v.use()
			for _, k := range codeKernels {
				if got, want := k.one(a, b), k.generic(a, b); got != want {
					t.Errorf("%s %s: %d, generic %d", v.name, k.name, got, want)
				}
			}
			if got, want := Hamming(wa, wb[:len(wa)]), hammingGeneric(wa, wb[:len(wa)]); got != want {
				t.Errorf("%s Hamming: %d, generic %d", v.name, got, want)
			}
			row, out := wb[:len(wa)/planes], make([]int32, 1)
			DotBits4Rows(wa, row, len(row), []uint32{0}, out)
			if want := dotBits4Generic(wa, row); out[0] != want {
				t.Errorf("%s DotBits4: %d, generic %d", v.name, out[0], want)
			}
			if blocks > 0 {
				sums := make([]uint32, FastScanLanes)
				FastScan(a[:blocks], b[:blocks], sums)
				if [FastScanLanes]uint32(sums) != wantSums {
					t.Errorf("%s FastScan: %v, generic %v", v.name, sums, wantSums)
				}
			}
			v.restore()
		}
	})
}

// Goal: a query for L2U8TermRows is what a loop makes of its codes.
func TestL2QueryAgainstALoop(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for n := range 400 {
			codes, checkCodes := guarded[byte](n, r.IntN(8), 77)
			for i := range codes {
				codes[i] = byte(r.Uint32()) | byte(255*(n&1)) // the largest sum as well
			}
			dst, checkDst := guarded[int8](n+r.IntN(70), r.IntN(8), 77)
			want := make([]int8, len(dst))
			var sum int32
			for i, q := range codes {
				want[i] = int8(int(q) - 128)
				sum += int32(q) * int32(q)
			}
			if got := L2Query(dst, codes); got != sum || !slices.Equal(dst, want) {
				t.Fatalf("%v: %d, %v; want %d, %v", codes, got, dst, sum, want)
			}
			for _, check := range []func() error{checkCodes, checkDst} {
				if err := check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
