// SPDX-License-Identifier: Apache-2.0

package index

import "testing"

// Goal: the vertices seen are a set, empty after each reset, though sets of few and of
// many vertices lie in the same memory in different ways. Method: searches on graphs of
// sizes on both sides of fewMarks, one after the other, beside a map.
func TestSeenIsASetForGraphsOfAnySize(t *testing.T) {
	r := seeded(t, 31)
	var m marks
	for range 400 {
		n := []int{1, 9, 700, fewMarks - 1, fewMarks, fewMarks + 1, 3 * fewMarks, 70_000}[r.IntN(8)]
		m.reset(n)
		want := map[uint32]bool{}
		for range r.IntN(60) {
			if v := uint32(r.IntN(n)); r.IntN(2) == 0 {
				if added := m.add(v); added == want[v] {
					t.Fatalf("%d vertices, %d added: %t, was there: %t", n, v, added, want[v])
				}
				want[v] = true
			}
			row := make([]uint32, r.IntN(33))
			for i := range row {
				row[i] = uint32(r.IntN(n))
			}
			for _, v := range m.gather(row, uint32(n)) {
				if want[v] {
					t.Fatalf("%d vertices: %d of %v was there", n, v, row)
				}
				want[v] = true
			}
			for _, v := range row {
				if m.bit(v) != 1 || !want[v] {
					t.Fatalf("%d vertices: %d of %v is not there", n, v, row)
				}
			}
		}
		if len(m.touched) != len(want) {
			t.Fatalf("%d vertices: %d seen, want %d", n, len(m.touched), len(want))
		}
		for range 20 {
			if v := uint32(r.IntN(n)); m.bit(v) == 1 != want[v] {
				t.Fatalf("%d vertices: %d is there: %t", n, v, !want[v])
			}
		}
	}
}
