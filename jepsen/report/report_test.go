// SPDX-License-Identifier: Apache-2.0

//go:build linux

package report

import (
	"testing"

	"github.com/akidb/akidb/jepsen/history"
)

// One fault from 10 s to 20 s, and operations around it, over two histories: a
// failure counts against availability unless a change is at most 2 s old, or it
// struck while the operation was under way.
func TestAvailabilityLeavesOutOnlyTheFailover(t *testing.T) {
	const s = int64(1e9)
	process := 0
	op := func(call, end int64, ok bool) []history.Event {
		process++
		done := history.Event{Type: history.Info, Process: process, F: "write", TimeNs: end}
		if ok {
			done.Type = history.OK
		}
		return []history.Event{{Type: history.Invoke, Process: process, F: "write", TimeNs: call}, done}
	}
	fault := func(note string, at int64) history.Event {
		return history.Event{Type: history.Info, Process: history.NemesisProcess, F: "kill-one", TimeNs: at, Value: history.Value{Note: note}}
	}
	history1 := append([]history.Event{fault("start: killed n1", 10*s), fault("heal: killed n1", 20*s)}, op(5*s, 5*s+1, true)...)
	history2 := []history.Event{fault("start: killed n1", 10*s), fault("heal: killed n1", 20*s)}
	for _, o := range [][]history.Event{
		op(9*s, 14*s, false),     // under way when the fault struck
		op(11*s, 12*s, false),    // failover
		op(13*s, 14*s, true),     // under the fault
		op(14*s, 15*s, false),    // under the fault, and failed
		op(18*s, 23*s, false),    // under the fault: its heal is no excuse
		op(21*s, 21*s+s/2, true), // failover, and the first write after the heal
		op(30*s, 31*s, true),
	} {
		history2 = append(history2, o...)
	}
	f, ops, err := Measure(history1, history2)
	if err != nil {
		t.Fatal(err)
	}
	a := f.Availability
	if len(ops) != 8 || a.Ops != 8 || a.Served != 4 {
		t.Errorf("%d operations, %+v: want 8, of them 4 served", len(ops), a)
	}
	if a.OutsideOps != 5 || a.OutsideServed != 3 || a.UnderOps != 3 || a.UnderServed != 1 {
		t.Errorf("%+v: want 3 of 5 served outside of failovers, 1 of 3 under the fault", a)
	}
	if len(f.Faults) != 1 || f.Faults[0].WriteMs != 1500 {
		t.Errorf("%+v: want one fault, and a write 1500 ms after its heal", f.Faults)
	}
}
