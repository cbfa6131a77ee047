// SPDX-License-Identifier: Apache-2.0

package history

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestHistorySurvivesTheFile(t *testing.T) {
	var buf bytes.Buffer
	r := NewRecorder(&buf)
	r.Add(Event{Type: Invoke, Process: 1, F: "write", Key: "a", Value: Value{N: 7}})
	r.Add(Event{Type: Info, Process: NemesisProcess, F: "partition"})
	r.Add(Event{Type: Invoke, Process: 2, F: "read", Key: "a"})
	r.Add(Event{Type: OK, Process: 1, F: "write", Key: "a", Value: Value{N: 7, Version: 12}})
	r.Add(Event{Type: Fail, Process: 2, F: "read", Key: "a", Error: "no leader"})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	whole := buf.String()
	got, err := Read(strings.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, r.Events()) {
		t.Fatalf("read back %+v, want %+v", got, r.Events())
	}
	// A run that was killed in the middle of a line still has a history.
	cut, err := Read(strings.NewReader(whole[:len(whole)-20]))
	if err != nil || len(cut) != len(got)-1 {
		t.Fatalf("a cut history has %d events (%v), want %d", len(cut), err, len(got)-1)
	}
}

func TestOpsPairsCompletionsAndKeepsTheRestOpen(t *testing.T) {
	ops, err := Ops([]Event{
		{Type: Invoke, Process: 1, TimeNs: 1, F: "write", Value: Value{N: 1}},
		{Type: Invoke, Process: 2, TimeNs: 2, F: "read"},
		{Type: OK, Process: 2, TimeNs: 3, F: "read", Value: Value{N: 1}},
		{Type: Invoke, Process: 2, TimeNs: 4, F: "write", Value: Value{N: 2}},
		{Type: Info, Process: 2, TimeNs: 5, F: "write", Error: "timeout"},
		{Type: Invoke, Process: 3, TimeNs: 6, F: "write", Value: Value{N: 3}},
		{Type: Fail, Process: 3, TimeNs: 7, F: "write", Error: "no leader"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := Count(ops); c != (Counts{Ops: 4, OK: 1, Failed: 1, Unknown: 2}) {
		t.Fatalf("counts are %+v", c)
	}
	if ops[0].Return != Forever || ops[2].Return != Forever || ops[1].Return != 3 {
		t.Fatalf("return times are wrong: %+v", ops)
	}
}

func TestOpsRefusesImpossibleHistories(t *testing.T) {
	for name, events := range map[string][]Event{
		"two at once":           {{Type: Invoke, Process: 1}, {Type: Invoke, Process: 1}},
		"completes nothing":     {{Type: OK, Process: 1}},
		"completes twice":       {{Type: Invoke, Process: 1}, {Type: OK, Process: 1}, {Type: OK, Process: 1}},
		"completes for another": {{Type: Invoke, Process: 1}, {Type: OK, Process: 2}},
	} {
		if _, err := Ops(events); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
