// SPDX-License-Identifier: Apache-2.0

package index

import (
	"runtime"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: a graph that is being replaced, since codes turned out to tell its vectors
// apart badly, is the same everywhere in the end, also where a checkpoint was
// asked for and the index closed meanwhile; and the graph that goes is never
// called the last one. Method: few columns of many rows, which a byte per row
// blurs once there are enough; fewer vectors than at which codes are tried next.
func TestPoorCodesAndCheckpoints(t *testing.T) {
	const n = 3000
	r := seeded(t, 77)
	var rows [4]int
	vectors := repeat(n, func(int) []float32 {
		v := make([]float32, 8)
		w := r.IntN(len(rows))
		v[0], v[1] = float32(w), float32(rows[w])
		rows[w]++
		return v
	})
	cfg := Config{Dimension: 8, Metric: distance.L2}
	want := open(t, cfg, stored(vectors))
	waitIdle(t, want)
	if !want.Progress(1).Plain {
		t.Fatal("codes were good enough for these vectors")
	}
	met := false
	for range 10 {
		cfg.Dir = t.TempDir()
		x, err := Open(t.Context(), cfg, 1, stored(vectors))
		if err != nil {
			t.Fatal(err)
		}
		replaced := func() bool { return x.successor() != nil }
		for !replaced() {
			if st := x.Status(); st.Idle && !x.Progress(1).Plain {
				t.Fatalf("the graph that is to be replaced is called the last one: %+v", st)
			} else if st.Idle {
				break // too late
			}
			runtime.Gosched()
		}
		if err := x.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		met = met || replaced()
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, cfg, stored(vectors))
		waitIdle(t, again)
		if got, want := again.Status().GraphHash, want.Status().GraphHash; got != want {
			t.Fatalf("graph %s, want %s", got, want)
		}
		if met {
			return
		}
	}
	t.Error("no checkpoint was written while a graph was being replaced")
}
