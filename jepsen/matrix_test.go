// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/harness"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/report"
)

// What matrix wrote it reads again: runs that ended in an error are not done, and
// of two runs of a pair the table shows the newer.
func TestMatrixGoesOnWhereItEnded(t *testing.T) {
	dir := t.TempDir()
	run := func(nemesis string, v check.Verdict, ops int) *matrixRow {
		c := history.Counts{Ops: ops, OK: ops}
		return &matrixRow{Workloads: "all", Nemesis: nemesis, Nodes: 3, Seed: 7, Verdict: v, Replay: "replay " + nemesis, Figures: &report.Figures{},
			Outcome: &harness.Outcome{Verdict: v, Counts: c, Parts: []*harness.Outcome{
				{Workload: "set", Verdict: v, Counts: c}, {Workload: "bank", Verdict: check.Valid, Counts: c}}}}
	}
	rows := []*matrixRow{
		run("kill-one", check.Invalid, 123),
		{Workloads: "all", Nemesis: "slow+lossy", Verdict: check.Unknown, Error: "no\nroot", Replay: "replay"},
		run("kill-one", check.Valid, 456),
		run("power", check.Unknown, 789),
	}
	if err := writeRows(dir, rows); err != nil {
		t.Fatal(err)
	}
	got, err := readRows(filepath.Join(dir, "matrix.jsonl"))
	if err != nil || len(got) != len(rows) {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	for nemesis, want := range map[string]bool{"kill-one": true, "power": true, "slow+lossy": false, "none": false} {
		if (done(got, "all", nemesis) != nil) != want {
			t.Errorf("%s: done is %v", nemesis, !want)
		}
	}
	md := table(got)
	for _, want := range []string{"456/0/0", "789/0/0 **unknown**", "error: no root", "replay power"} {
		if !strings.Contains(md, want) {
			t.Errorf("the table lacks %q:\n%s", want, md)
		}
	}
	if strings.Contains(md, "123") {
		t.Errorf("the table shows a run that was done again:\n%s", md)
	}
	if rows, err := readRows(filepath.Join(dir, "nothing")); err != nil || rows != nil {
		t.Errorf("no file: %v, %v", rows, err)
	}
}

func TestHistoriesOfARunAreFound(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one/history.jsonl", "several/set/history.jsonl", "several/bank/history.jsonl", "several/logs/n1.log"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]int{"one": 1, "one/history.jsonl": 1, "several": 2, "several/logs": 0, "missing": 0} {
		files, err := historiesIn(filepath.Join(dir, path))
		if len(files) != want && err == nil || (err == nil) != (want > 0) {
			t.Errorf("%s: %v, %v, want %d", path, files, err, want)
		}
	}
}

// The status of a matrix is that of all its runs, also of those that were done before
// it was interrupted; of several runs of a pair the newest counts.
func TestMatrixRemembersWhatWasInvalid(t *testing.T) {
	for _, tt := range []struct {
		verdicts []check.Verdict
		status   int
	}{
		{[]check.Verdict{check.Valid}, 0},
		{[]check.Verdict{check.Invalid}, 1},
		{[]check.Verdict{check.Unknown}, 2},
		{[]check.Verdict{check.Invalid, check.Valid}, 0},
	} {
		dir := t.TempDir()
		var rows []*matrixRow
		for _, v := range tt.verdicts {
			rows = append(rows, &matrixRow{Workloads: "set", Nemesis: "kill-one", Verdict: v, Figures: &report.Figures{}, Outcome: &harness.Outcome{Verdict: v}})
		}
		rows = append(rows, &matrixRow{Workloads: "set", Nemesis: "none", Verdict: check.Invalid, Figures: &report.Figures{}, Outcome: &harness.Outcome{}}) // not asked for
		if err := writeRows(dir, rows); err != nil {
			t.Fatal(err)
		}
		status, err := matrix(t.Context(), []string{"-workloads", "set", "-nemeses", "kill-one", "-out", dir})
		if err != nil || status != tt.status {
			t.Errorf("%v: status %d, %v, want %d", tt.verdicts, status, err, tt.status)
		}
	}
}
