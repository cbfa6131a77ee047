// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/akidb/akidb/index"
)

// TestSlotTableAgreesWithMap puts, purges and reads slots, in views of every age,
// beside a plain map.
func TestSlotTableAgreesWithMap(t *testing.T) {
	forSeeds(t, 3, func(t *testing.T, rng *rand.Rand) {
		var table slotTable
		want := map[index.Slot]Document{}
		type aged struct {
			v    slotView
			want map[index.Slot]Document
		}
		var views []aged
		next := index.Slot(rng.IntN(3000))
		peak := int64(0)
		for range 40 {
			for range rng.IntN(400) {
				d := Document{ID: fmt.Sprintf("%0*d", 1+rng.IntN(256), next), Version: rng.Uint64() >> rng.IntN(64)}
				if rng.IntN(3) == 0 {
					ext := fmt.Sprintf("%0*d", rng.IntN(MaxExternalIDBytes), 7)
					d.ExternalID = &ext
				}
				table.put(next, d.ID, d.ExternalID, d.Version)
				want[next] = d
				next += 1 + index.Slot(rng.IntN(3)) // holes
			}
			peak = max(peak, table.view().bytes())
			old := map[index.Slot]Document{}
			for s, d := range want {
				old[s] = d
			}
			views = append(views, aged{table.view(), old})
			var dead []index.Slot
			for s := range want {
				if rng.IntN(4) > 0 {
					dead = append(dead, s)
					delete(want, s)
				}
			}
			table.purge(append(dead, next+5)) // one that never was
		}
		views = append(views, aged{table.view(), want})
		for _, view := range views {
			for s, d := range view.want {
				var got Document
				if !view.v.fill(s, &got) || fmt.Sprint(show(&got)) != fmt.Sprint(show(&d)) || string(view.v.idBytes(s)) != d.ID {
					t.Fatalf("slot %d: got %v, want %v", s, show(&got), show(&d))
				}
			}
			var d Document
			if view.v.fill(next+5000, &d) || view.v.idBytes(next+5000) != nil {
				t.Fatal("a slot that never was")
			}
		}
		var dead []index.Slot
		for s := range want {
			dead = append(dead, s)
		}
		table.purge(dead)
		sum := int64(0)
		for _, chunk := range table.data {
			sum += int64(len(chunk))
		}
		for _, chunk := range table.refs {
			sum += 4 * int64(len(chunk))
		}
		if sum != table.view().bytes() {
			t.Fatalf("%d bytes, counted as %d", sum, table.view().bytes())
		}
		if left := table.view().bytes(); left > peak/4 || left > 2*(chunkBytes+4*slotsPerChunk) {
			t.Fatalf("%d bytes left of %d after everything was purged", left, peak)
		}
	})
}

// What was purged leaves its place to what comes: there are not places without end, and
// an entry behind the last would be taken for the first.
func TestPlacesOfSlotsAreTakenAgain(t *testing.T) {
	var table slotTable
	const each = 5000
	next, most := index.Slot(0), 0
	for round := range 50 {
		var dead []index.Slot
		for range each {
			table.put(next, fmt.Sprintf("%06d", next), nil, 1)
			dead = append(dead, next)
			next++
		}
		view := table.view()
		for _, s := range dead {
			if got := string(view.idBytes(s)); got != fmt.Sprintf("%06d", s) {
				t.Fatalf("slot %d is %q", s, got)
			}
		}
		table.purge(dead)
		if round == 1 {
			most = len(table.data)
		}
	}
	if len(table.data) > most+1 {
		t.Errorf("%d chunks, %d after two of 50 equal rounds", len(table.data), most)
	}
	defer func() {
		if recover() == nil {
			t.Error("an entry behind the last place was put")
		}
	}()
	table.free, table.used = nil, chunkBytes
	table.data = append(table.data, make([][]byte, maxChunks-len(table.data))...)
	table.put(next, "one too many", nil, 1)
}
