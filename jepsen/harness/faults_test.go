// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"testing"
	"time"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/cluster"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/nemesis"
	"github.com/akidb/akidb/jepsen/workload"
)

// A run in which a nemesis could do nothing shows nothing of its fault.
func TestNemesisThatDidNothingIsNoProof(t *testing.T) {
	for _, tt := range []struct {
		nemeses string
		notes   map[string][]string // what the nemeses noted
		want    check.Verdict
	}{
		{"none", nil, check.Valid},
		{"memory", map[string][]string{"memory": {"failed: no such file", "failed: no such file"}}, check.Unknown},
		{"memory", map[string][]string{"memory": {"failed: no such file", "start: n1 may use 1 MiB more than it did", "heal: n1"}}, check.Valid},
		{"memory,kill-one", map[string][]string{"memory": {"failed: no such file"}, "kill-one": {"start: killed n1"}}, check.Unknown},
	} {
		c, err := cluster.New(cluster.Config{Nodes: 3, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := &runner{c: c, o: Options{CheckTimeout: time.Minute}}
		if r.nemeses, err = nemesis.Find(tt.nemeses); err != nil {
			t.Fatal(err)
		}
		w, err := workload.Find("set")
		if err != nil {
			t.Fatal(err)
		}
		l := &lane{w: w, dir: t.TempDir(), rec: history.NewRecorder(nil)}
		r.lanes = []*lane{l}
		for _, e := range []history.Event{
			{Type: history.Invoke, Process: 1, F: "add", Value: history.Value{N: 1}}, {Type: history.OK, Process: 1, F: "add"},
			{Type: history.Invoke, Process: 1, F: "scan"}, {Type: history.OK, Process: 1, F: "scan", Value: history.Value{Docs: []history.Doc{{ID: "a", N: 1}}}},
		} {
			l.rec.Add(e)
		}
		for name, notes := range tt.notes {
			for _, note := range notes {
				l.rec.Add(history.Event{Type: history.Info, Process: history.NemesisProcess, F: name, Value: history.Value{Note: note}})
			}
		}
		out, err := r.judge()
		if err != nil || out.Verdict != tt.want {
			t.Errorf("%s, %v: %s, %v, want %s", tt.nemeses, tt.notes, out.Verdict, err, tt.want)
		}
	}
}

// A binary that somebody else built has no clock that can be moved.
func TestClocksNeedABinaryOfTheirOwn(t *testing.T) {
	r := &runner{o: Options{Out: t.TempDir(), Binary: "/bin/true", Nemesis: "clock-skew"}, needs: nemesis.Needs{Clock: true}}
	if err := r.build(t.Context()); err == nil {
		t.Error("clocks were moved that nobody looks at")
	}
}
