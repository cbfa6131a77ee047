// SPDX-License-Identifier: Apache-2.0

package index

import (
	"slices"
	"testing"
)

// Goal: a range of numbers selects the slots it should however its ends lie to
// the sums. Method: runs of lengths around multiples of the step, ends anywhere
// and near the sums, against adding one by one.
func TestRangesAroundSums(t *testing.T) {
	const step = 800
	r := seeded(t, 78)
	for _, n := range []int{1, 2000, step - 1, step, step + 1, 2*step + 1500, 3 * step} {
		for _, single := range []bool{true, false} {
			slots := r.Perm(sumParts * step)[:n]
			var leaves []leaf
			for i, o := range slots {
				leaves = append(leaves, leaf{kind: leafNumber, off: uint16(o), num: number{f: float64(i)}})
			}
			if !single {
				leaves = append(leaves, leaf{kind: leafNumber, off: uint16(slots[0]), num: number{f: -1}})
			}
			slices.SortFunc(leaves, func(a, b leaf) int { return int(a.off) - int(b.off) })
			s := freezeNumbers(leaves, sumParts*step)
			if s.single != single {
				t.Fatalf("%d numbers: single is %t, want %t", len(leaves), s.single, single)
			}
			end := func() int {
				if r.IntN(2) == 0 {
					return r.IntN(len(s.posts) + 1)
				}
				return max(0, min(len(s.posts), r.IntN(4)*step+r.IntN(5)-2))
			}
			for range 500 {
				i, j := end(), end()
				got, want := make([]uint64, 200), make([]uint64, 200)
				s.fill(got, i, j)
				if i < j {
					orList(want, s.posts[i:j])
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%d numbers, single %t: [%d, %d) selects other slots than one by one", len(leaves), single, i, j)
				}
			}
		}
	}
}
