// SPDX-License-Identifier: Apache-2.0

package index

import (
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: a graph that lags can be compared with one that is further. Method: one
// index gets its vectors little by little, the other all at once; whatever the
// first says of itself on the way, the second remembers as its own past.
func TestMarksAreTheSameForAnyTiming(t *testing.T) {
	for _, quantization := range quantizations {
		t.Run(string(quantization), func(t *testing.T) {
			vectors := clustered(seeded(t, 12), 6000, 24, 10, 0.5)
			src := &memory{}
			for i, v := range vectors {
				src.add(Entry{Slot: Slot(i), Vector: v})
			}
			conf := Config{Dimension: 24, Metric: distance.L2, Quantization: quantization, Workers: 3}
			whole := open(t, conf, src)
			waitIdle(t, whole)
			want := map[uint32]Mark{0: {}}
			for _, m := range whole.Progress(maxMarks).Marks {
				want[m.Graphed] = m
			}
			if p := whole.Progress(1); len(p.Marks) != 1 || p.Marks[0].Graphed != uint32(p.Graphed) || !p.Idle || len(want) < 16 {
				t.Fatalf("%+v of %d", p, len(want))
			}
			conf.Workers = 1
			slow := open(t, conf, &memory{})
			for i, v := range vectors {
				slow.Append(Slot(i), v, nil)
				if i%977 == 0 {
					waitIdle(t, slow)
				}
				if i%97 == 0 {
					p := slow.Progress(4)
					for _, m := range p.Marks {
						if want[m.Graphed] != m {
							t.Fatalf("after %d vectors the graph of %d has hash %x, later it is said to have had %x", i, m.Graphed, m.Hash, want[m.Graphed].Hash)
						}
					}
				}
			}
		})
	}
}

// The ring keeps the newest marks, in order.
func TestMarksKeepTheNewest(t *testing.T) {
	var m markRing
	if got := m.newest(3); len(got) != 1 || got[0] != (Mark{}) {
		t.Errorf("of nothing: %v", got)
	}
	for i := range uint32(maxMarks + 10) {
		m.add(i, digest{hi: uint64(i)})
	}
	for _, most := range []int{0, 1, 3, maxMarks, 2 * maxMarks} {
		got := m.newest(most)
		if len(got) != min(max(most, 1), maxMarks) || got[len(got)-1].Graphed != maxMarks+9 {
			t.Fatalf("newest %d: %d marks up to %d", most, len(got), got[len(got)-1].Graphed)
		}
		for i := range got[1:] {
			if got[i+1].Graphed != got[i].Graphed+1 {
				t.Fatalf("newest %d: %d after %d", most, got[i+1].Graphed, got[i].Graphed)
			}
		}
	}
}
