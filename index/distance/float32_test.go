// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// poison is the guard of float32 vectors; a kernel that reads it gets it or a
// NaN for a result. It is not a NaN itself, so that it compares.
const poison = float32(math.MaxFloat32)

// floatKernels are the float32 kernels, their generic version, and the exact
// value of one term.
var floatKernels = []struct {
	name    string
	one     func(a, b []float32) float32
	rows    func(query, base []float32, stride int, ids []uint32, out []float32)
	generic func(a, b []float32) float32
	term    func(a, b float64) float64
}{
	{"L2Squared", L2Squared, L2SquaredRows, l2SquaredGeneric, func(a, b float64) float64 { return (a - b) * (a - b) }},
	{"InnerProduct", InnerProduct, InnerProductRows, innerProductGeneric, func(a, b float64) float64 { return a * b }},
}

// fillings are kinds of vectors a kernel may meet.
var fillings = []struct {
	name string
	fill func(r *rand.Rand, v []float32)
}{
	{"normal", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}},
	{"wide", func(r *rand.Rand, v []float32) { // exponents all over, results may overflow
		for i := range v {
			v[i] = float32(r.NormFloat64() * math.Exp2(float64(r.IntN(250)-125)))
		}
	}},
	{"denormal", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = math.Float32frombits(r.Uint32()&0x807fffff) * float32(1+r.IntN(4))
		}
	}},
	{"special", func(r *rand.Rand, v []float32) {
		specials := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)),
			float32(math.NaN()), math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32}
		for i := range v {
			v[i] = float32(r.NormFloat64())
			if r.IntN(len(v)) < 2 {
				v[i] = specials[r.IntN(len(specials))]
			}
		}
	}},
	{"bits", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = math.Float32frombits(r.Uint32())
		}
	}},
}

// Goal: every variant gives the bits of the generic kernel, whatever the
// length, the alignment of either side and the values, and touches nothing
// outside its arguments.
func TestFloat32KernelsGiveTheBitsOfGeneric(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, k := range floatKernels {
			for _, f := range fillings {
				for _, n := range lengths() {
					for align := range 16 {
						a, checkA := guarded(n, align%4, poison)
						b, checkB := guarded(n, align/4, poison)
						f.fill(r, a)
						f.fill(r, b)
						got, want := k.one(a, b), k.generic(a, b)
						if !sameBits(got, want) {
							t.Fatalf("%s of %d %s elements, offsets %d and %d: %v (%#x), generic %v (%#x)", k.name, n, f.name,
								align%4, align/4, got, math.Float32bits(got), want, math.Float32bits(want))
						}
						if err := checkA(); err != nil {
							t.Fatal(k.name, err)
						}
						if err := checkB(); err != nil {
							t.Fatal(k.name, err)
						}
					}
				}
			}
		}
	})
}

// Goal: the Rows kernels give the bits of the single ones for any number of
// rows, in any order, repeated, with rows longer than the query.
func TestFloat32RowsEqualSingles(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, k := range floatKernels {
			for _, n := range lengths() {
				rows, stride := 1+r.IntN(40), n+r.IntN(3)*r.IntN(20)
				// The last row ends where the query does: the arena need not be padded.
				base, checkBase := guarded((rows-1)*stride+n, r.IntN(4), poison)
				query, _ := guarded(n, r.IntN(4), poison)
				fillings[0].fill(r, base)
				fillings[0].fill(r, query)
				ids := make([]uint32, r.IntN(20))
				for i := range ids {
					ids[i] = uint32(r.IntN(rows))
				}
				out, checkOut := guarded(len(ids), r.IntN(4), poison)
				k.rows(query, base, stride, ids, out)
				for i, id := range ids {
					want := k.generic(query, base[int(id)*stride:][:n])
					if !sameBits(out[i], want) {
						t.Fatalf("%s: row %d of %d elements, result %d of %d: %v, want %v", k.name, id, n, i, len(ids), out[i], want)
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
	})
}

// Goal: the generic kernel, and with it all of them, is right. Against float64,
// the error of a sum of n rounded terms in 64 lanes is at most
// (ceil(n/64) + 6 + roundings of a term) * eps * sum|term|: a lane takes
// ceil(n/64) adds and the tree six more; a term has one rounding for a product
// and three (difference, counted twice by the square, and square) for L2.
func TestFloat32KernelsKeepTheErrorBound(t *testing.T) {
	const eps = 1.0 / (1 << 24)
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for _, k := range floatKernels {
			for _, n := range lengths() {
				a, b := make([]float32, n), make([]float32, n)
				fillings[0].fill(r, a)
				fillings[0].fill(r, b)
				var want, size float64
				for i := range a {
					term := k.term(float64(a[i]), float64(b[i]))
					want += term
					size += math.Abs(term)
				}
				bound := float64((n+lanes-1)/lanes+6+3) * eps * size * (1 + 1e-5)
				if got := float64(k.one(a, b)); math.Abs(got-want) > bound {
					t.Fatalf("%s of %d elements: %v, exactly %v, off by more than %g", k.name, n, got, want, bound)
				}
			}
		}
	})
}

func TestNormalizeGivesLengthOneAndRefusesWhatHasNone(t *testing.T) {
	r := random(t)
	for _, n := range lengths()[1:] {
		for _, scale := range []float64{1, 1e-40, 1e37, 1e-20} {
			src := make([]float32, n)
			for i := range src {
				src[i] = float32(r.NormFloat64() * scale)
			}
			src[0] = float32(scale)
			dst := make([]float32, n)
			if !Normalize(dst, src) {
				t.Fatalf("refused %d elements of scale %g", n, scale)
			}
			var sum float64
			for i, x := range dst {
				sum += float64(x) * float64(x)
				if (x > 0) != (src[i] > 0) && math.Abs(float64(src[i])) > 1e-3*scale {
					t.Fatalf("element %d changed its sign", i)
				}
			}
			// Every element is off by half an ulp at most, and so is the length.
			if math.Abs(math.Sqrt(sum)-1) > 1.0/(1<<23) {
				t.Fatalf("%d elements of scale %g: length %v", n, scale, math.Sqrt(sum))
			}
			if !Normalize(src, src) || !sameBits(src[n-1], dst[n-1]) {
				t.Fatal("in place differs")
			}
		}
	}
	inf := float32(math.Inf(1))
	for _, src := range [][]float32{{}, {0}, {0, 0, 0}, {1, inf}, {-inf}, {float32(math.NaN()), 1}} {
		dst := make([]float32, len(src))
		for i := range dst {
			dst[i] = 7
		}
		if Normalize(dst, src) {
			t.Errorf("accepted %v", src)
		}
		for _, x := range dst {
			if x != 7 {
				t.Errorf("%v: wrote to dst", src)
			}
		}
	}
}

// Bits fixed once: a change of lanes or tree changes every graph hash, and
// should not happen unnoticed.
func TestFloat32BitsAreFixed(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		a, b := make([]float32, 1000), make([]float32, 1000)
		for i := range a {
			a[i], b[i] = r.Float32()-0.5, r.Float32()-0.5
		}
		if got := math.Float32bits(L2Squared(a, b)); got != 0x4327f38c {
			t.Errorf("L2Squared: %#x", got)
		}
		if got := math.Float32bits(InnerProduct(a, b)); got != 0x3fd06a5c {
			t.Errorf("InnerProduct: %#x", got)
		}
		if !Normalize(a, a) {
			t.Fatal("refused")
		}
		if got := math.Float32bits(a[999]); got != 0xbc132f4a {
			t.Errorf("Normalize: %#x", got)
		}
	})
}

// FuzzFloat32Kernels: every variant agrees with generic on any bits; the input
// is split into two vectors and an offset.
func FuzzFloat32Kernels(f *testing.F) {
	f.Add([]byte{0})
	f.Add(make([]byte, 1+8*65))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		offset, data := int(data[0]%8), data[1:]
		n := len(data) / 8
		a, _ := guarded(n, offset, poison)
		b, _ := guarded(n, offset/2, poison)
		for i := range n {
			a[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[8*i:]))
			b[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[8*i+4:]))
		}
		for _, v := range variants() {
			if !v.usable {
				continue
			}
			v.use()
			for _, k := range floatKernels {
				if got, want := k.one(a, b), k.generic(a, b); !sameBits(got, want) {
					t.Errorf("%s %s: %v, generic %v", v.name, k.name, got, want)
				}
			}
			v.restore()
		}
	})
}

func TestRowsOutsideTheArenaPanic(t *testing.T) {
	query, base, out := make([]float32, 8), make([]float32, 80), make([]float32, 2)
	codes, codeBase, codeOut := make([]byte, 64), make([]byte, 640), make([]int32, 2)
	for name, call := range map[string]func(){
		"id":           func() { L2SquaredRows(query, base, 8, []uint32{0, 10}, out) },
		"huge id":      func() { L2SquaredRows(query, base, 8, []uint32{math.MaxUint32}, out) },
		"stride":       func() { InnerProductRows(query, base, 7, []uint32{0}, out) },
		"out":          func() { InnerProductRows(query, base, 8, []uint32{0, 1, 2}, out) },
		"single":       func() { L2Squared(query, base) },
		"codes id":     func() { L2U8Rows(codes, codeBase, 64, []uint32{10}, codeOut) },
		"codes length": func() { L2U8Rows(codes[:63], codeBase, 64, []uint32{0}, codeOut) },
		"codes empty":  func() { DotU8S8Rows(nil, codeBase, 64, []uint32{0}, codeOut) },
		"bits":         func() { HammingRows([]uint64{1}, []uint64{1}, 1, []uint32{1}, codeOut) },
		"planes":       func() { DotBits4Rows([]uint64{1, 2, 3}, []uint64{1}, 1, []uint32{0}, codeOut) },
		"words":        func() { Hamming(make([]uint64, maxWords+1), make([]uint64, maxWords+1)) },
		"table":        func() { FastScan(codes[:63], codeBase[:63], make([]uint32, 32)) },
		"table query":  func() { SignTable(codes, make([]float32, 15), 1) },
		"centre":       func() { Centre(query, codes[:8], query[:7]) },
		"flips":        func() { FlipSigns(query, make([]uint64, 3)) },
		"lane":         func() { FastScanPut(codes, 32, nil) },
		"hadamard":     func() { Hadamard(make([]float32, 24)) },
		"term":         func() { L2U8TermRows(make([]int8, 64), 0, codeBase, 64, 61, []uint32{0}, codeOut) },
		"given":        func() { expansion(codes, codeBase).Given([]uint32{9, 10}, 1, make([]uint64, 9)) },
		"given room":   func() { expansion(codes, codeBase).Given([]uint32{9}, 1, make([]uint64, Slack)) },
		"terms apart":  func() { new(Expansion).SetL2Apart(make([]int8, 64), 0, codeBase, 64, make([][2]int32, 9), 10) },
		"too many":     func() { L2U8(make([]byte, maxCodes+1), make([]byte, maxCodes+1)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

// expansion compares codes with ten rows.
func expansion(codes, base []byte) *Expansion {
	e := new(Expansion)
	e.SetL2(codes, base, 64, 10)
	return e
}

func TestKernelsAllocateNothing(t *testing.T) {
	query, base, ids, out := make([]float32, 100), make([]float32, 1000), []uint32{1, 5, 2}, make([]float32, 3)
	codes, codeBase, codeOut := make([]byte, 128), make([]byte, 1280), make([]int32, 3)
	eachVariant(t, func(t *testing.T) {
		if n := testing.AllocsPerRun(10, func() {
			_ = L2Squared(query, base[:100])
			InnerProductRows(query, base, 100, ids, out)
			_ = L2U8(codes, codeBase[:128])
			L2U8Rows(codes, codeBase, 128, ids, codeOut)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
