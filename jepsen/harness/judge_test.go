// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"strings"
	"testing"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
)

// The verdict of several workloads is the worst of theirs and of what was seen of
// the cluster, whatever their order, and the counts are the sums.
func TestCombinedVerdictIsTheWorst(t *testing.T) {
	part := func(v check.Verdict) *Outcome {
		return &Outcome{Workload: "w-" + string(v), Verdict: v, Counts: history.Counts{Ops: 10, OK: 7, Failed: 2, Unknown: 1}}
	}
	extra := func(v check.Verdict) []*check.Result { return []*check.Result{{Checker: "replicas", Verdict: v}} }
	for _, tt := range []struct {
		parts  []*Outcome
		extra  []*check.Result
		want   check.Verdict
		status int
	}{
		{[]*Outcome{part(check.Valid), part(check.Valid)}, extra(check.Valid), check.Valid, 0},
		{[]*Outcome{part(check.Unknown), part(check.Valid)}, extra(check.Valid), check.Unknown, 2},
		{[]*Outcome{part(check.Invalid), part(check.Unknown)}, extra(check.Valid), check.Invalid, 1},
		{[]*Outcome{part(check.Unknown), part(check.Invalid)}, extra(check.Valid), check.Invalid, 1},
		{[]*Outcome{part(check.Valid), part(check.Unknown)}, extra(check.Invalid), check.Invalid, 1},
	} {
		out := Combine(tt.parts, tt.extra, nil)
		if out.Verdict != tt.want || out.Status() != tt.status {
			t.Errorf("%v: %s, status %d, want %s, %d", tt.parts, out.Verdict, out.Status(), tt.want, tt.status)
		}
		if want := "ops=20 ok=14 failed=4 unknown=2 seed=9"; !strings.HasSuffix(out.Line(9), want) {
			t.Errorf("%s, want %s", out.Line(9), want)
		}
	}
	one := Combine([]*Outcome{part(check.Valid)}, extra(check.Invalid), nil)
	if one.Verdict != check.Invalid || len(one.Parts) != 0 || one.Counts.Ops != 10 {
		t.Errorf("one workload: %+v", one)
	}
}

func TestDefaultsDependOnTheNumberOfWorkloads(t *testing.T) {
	for _, tt := range []struct {
		o             Options
		workers, rate int
	}{
		{Options{Workload: "set"}, 8, 150},
		{Options{Workload: "set,bank,once"}, 4, 60},
		{Options{Workload: "all", Workers: 2, Rate: 7}, 2, 7},
	} {
		if err := tt.o.Complete(); err != nil || tt.o.Workers != tt.workers || tt.o.Rate != tt.rate {
			t.Errorf("%s: %d workers, rate %d, %v; want %d and %d", tt.o.Workload, tt.o.Workers, tt.o.Rate, err, tt.workers, tt.rate)
		}
	}
}
