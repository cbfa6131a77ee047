// SPDX-License-Identifier: Apache-2.0

package distance

import (
	"slices"
	"testing"
)

// Goal: Unmarked does what its comment says, with ids repeated, beyond the limit
// and behind the end.
func TestUnmarkedIsASetOperation(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for range 3000 {
			limit := uint32(r.IntN(300))
			count := r.IntN(70)
			ids, checkIDs := guarded[uint32](count, r.IntN(4), 77)
			shift := uint32(r.IntN(7))
			marks, checkMarks := guarded[uint64](int((limit+1<<shift-1)>>shift), r.IntN(4), wordGuard)
			out, checkOut := guarded[uint32](count, r.IntN(4), 77)
			set := map[uint32]bool{}
			for i := range marks {
				marks[i] = r.Uint64() & r.Uint64()
			}
			for id := range limit {
				set[id] = marks[id>>shift]>>(id%64)&1 != 0
			}
			var want []uint32
			ended := false
			for i := range ids {
				ids[i] = uint32(r.IntN(320))
				if r.IntN(60) == 0 {
					ids[i] = ^uint32(0)
				}
				ended = ended || ids[i] == ^uint32(0)
				if !ended && ids[i] < limit && !set[ids[i]] {
					set[ids[i]] = true
					want = append(want, ids[i])
				}
			}
			n := Unmarked(ids, marks, shift, limit, out)
			if !slices.Equal(out[:n], want) {
				t.Fatalf("of %v below %d: %v, want %v", ids, limit, out[:n], want)
			}
			for id := range limit {
				if got := marks[id>>shift]>>(id%64)&1 != 0; got != set[id] {
					t.Fatalf("%d is in the set: %t, want %t", id, got, set[id])
				}
			}
			for _, check := range []func() error{checkIDs, checkMarks, checkOut} {
				if err := check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// Goal: InsertSorted is what sorting gives, for lengths around the kernels' own.
func TestInsertSortedSorts(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for range 5000 {
			items, check := guarded[uint64](1+r.IntN(120), r.IntN(4), wordGuard)
			n := len(items) - 1
			for i := range items {
				items[i] = uint64(r.IntN(50)) << r.IntN(64) // repeated, up to the largest
			}
			slices.Sort(items[:n])
			x := uint64(r.IntN(50)) << r.IntN(64)
			want := append(slices.Clone(items[:n]), x)
			slices.Sort(want)
			at := InsertSorted(items, x)
			if !slices.Equal(items, want) || items[at] != x || at < n && items[at+1] == x {
				t.Fatalf("%d at %d of %v, want %v", x, at, items, want)
			}
			if err := check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Goal: InsertAll is what sorting gives, for lists of any length, with and without the
// room that Short lists like, and writes nothing outside. Method: beside sorting, with
// numbers that repeat and go up to the largest.
func TestInsertAllSorts(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for range 20000 {
			limit := r.IntN(80)
			if r.IntN(4) == 0 {
				limit = 1 + r.IntN(1600)
				if r.IntN(8) == 0 {
					limit += long
				}
			}
			more := r.IntN(3) * r.IntN(Short+1)
			room, check := guarded[uint64](Margin+limit+more, r.IntN(4), wordGuard)
			clear(room[:Margin])
			shift := r.IntN(64)
			number := func() uint64 { return uint64(r.IntN(50)) << shift }
			for i := range room[Margin:] {
				room[Margin+i] = number()
			}
			n := r.IntN(limit + 1)
			slices.Sort(room[Margin:][:n])
			before := slices.Clone(room[Margin:][:n])
			xs := make([]uint64, r.IntN(10)*r.IntN(8))
			for i := range xs {
				xs[i] = number()
			}
			want := append(slices.Clone(before), xs...)
			slices.Sort(want)
			want = want[:min(limit, len(want))]

			length, first := InsertAll(room, n, limit, xs)
			if !slices.Equal(room[Margin:][:length], want) {
				t.Fatalf("%d into %d of %d: %d, want %d", xs, before, limit, room[Margin:][:length], want)
			}
			// Nothing below first is new, and what is there is, but for its equals.
			if first < limit && (first >= length || !slices.Equal(want[:first], before[:min(first, n)]) || !slices.Contains(xs, want[first])) ||
				first == limit && !slices.Equal(want[:min(n, length)], before) || first > limit {
				t.Fatalf("%d into %d of %d: first at %d of %d", xs, before, limit, first, want)
			}
			if slices.ContainsFunc(room[:Margin], func(x uint64) bool { return x != 0 }) {
				t.Fatalf("%d into %d of %d: margin %d", xs, before, limit, room[:Margin])
			}
			if err := check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Goal: an id that is not there does no harm.
func TestPrefetchRowsReadsNothing(t *testing.T) {
	base := make([]byte, 256)
	PrefetchRows(base, 64, 64, []uint32{0, 3, 1 << 30, ^uint32(0)})
	PrefetchRows(nil, 64, 64, []uint32{0})
	PrefetchRows(base, 64, 0, []uint32{0})
}

// Goal: Members gives the bits that are set, in order, ends where there may be no room
// for more, and writes nothing outside.
func TestMembersAreTheBitsSet(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		r := random(t)
		for range 5000 {
			words, checkWords := guarded[uint64](r.IntN(40), r.IntN(4), wordGuard)
			for i := range words {
				words[i] = r.Uint64()
				for range r.IntN(8) {
					words[i] &= r.Uint64()
				}
				if r.IntN(10) == 0 {
					words[i] = []uint64{0, ^uint64(0)}[r.IntN(2)]
				}
			}
			first := 64 * uint32(r.IntN(1<<20))
			out, checkOut := guarded[uint32](r.IntN(600), r.IntN(4), 77)
			n, done := Members(words, first, out)
			var want []uint32
			for i := range 64 * done {
				if words[i/64]>>(i%64)&1 == 1 {
					want = append(want, first+uint32(i))
				}
			}
			if !slices.Equal(out[:n], want) {
				t.Fatalf("%x from %d, room for %d: %d of %d words, want %d", words, first, len(out), out[:n], done, want)
			}
			if n+MembersRoom <= len(out) && done < len(words) {
				t.Fatalf("%d words, room for %d: ended after %d with %d", len(words), len(out), done, n)
			}
			for _, check := range []func() error{checkWords, checkOut} {
				if err := check(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
