// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/akidb/akidb/index/distance"
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

// Goal: however the appender gets ahead of the one who merges, few runs are left
// in the end and no document was merged often. Method: runs of memtables appended
// a random number at a time between merges.
func TestRunsStayFew(t *testing.T) {
	r := seeded(t, 79)
	for _, burst := range []int{1, 3, 9, 40, 300} {
		const docs = 1 << 20
		var runs []*run
		merged := 0
		merge := func() bool {
			from, to := mergeable(runs)
			if from == to {
				return false
			}
			sum := 0
			for _, x := range runs[from:to] {
				sum += x.docs
			}
			merged += sum
			runs = slices.Replace(runs, from, to, &run{lo: runs[from].lo, hi: runs[to-1].hi, docs: sum})
			return true
		}
		for at := Slot(0); at < docs; {
			for range 1 + r.IntN(burst) {
				runs = append(runs, &run{lo: at, hi: at + memtableDocs, docs: memtableDocs})
				at += memtableDocs
			}
			for n := 1 + r.IntN(3); n > 0 && merge(); {
				n--
			}
		}
		for merge() {
		}
		// A quarter of a full run at least, and what is not enough for one.
		if limit := 4*docs/maxRunSlots + 16; len(runs) > limit {
			t.Errorf("bursts of %d: %d documents are left in %d runs, want %d at most", burst, docs, len(runs), limit)
		}
		if times := float64(merged) / docs; times > 4.5 {
			t.Errorf("bursts of %d: a document was merged %.1f times", burst, times)
		}
		t.Logf("bursts of %d: %d runs, each document merged %.1f times", burst, len(runs), float64(merged)/docs)
	}
}

// Goal: names of fields are forgotten with the last document that has them, and not
// before. Method: a new one in each document; most of these are deleted.
func TestNamesOfFieldsAreForgotten(t *testing.T) {
	const n, last = 3000, 2990
	x := open(t, Config{Dimension: 1, Metric: distance.L2}, &memory{})
	for i := range n {
		x.Append(Slot(i), []float32{1}, fmt.Appendf(nil, `{"all":1,"f":{"n%d":true}}`, i))
	}
	for i := range last {
		x.Delete(Slot(i), n)
	}
	x.Seal(2, n+1)
	waitIdle(t, x)
	deadline := time.Now().Add(10 * time.Second)
	for {
		x.payload.mu.Lock()
		names := len(x.payload.paths)
		x.payload.mu.Unlock()
		if names <= 2+n-last+memtableDocs { // what is not frozen yet is not purged
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d names, want %d at most", names, 2+n-last+memtableDocs)
		}
		runtime.Gosched()
	}
	x.Append(n, []float32{1}, []byte(`{"f":{"n0":true}}`))
	for key, want := range map[string]int{"f.n0": 1, "f.n1": 0, "f.n2999": 1, "f": n - last + 1, "all": n - last} {
		missing := false
		f := &Filter{Must: []Condition{{Key: key, IsMissing: &missing}}}
		if got, err := x.Count(t.Context(), f, View{Slots: n + 1, Applied: n + 1}); err != nil || got != want {
			t.Errorf("%d documents have %s, %v; want %d", got, key, err, want)
		}
	}
}
