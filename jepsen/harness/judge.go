// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/cluster"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/workload"
)

// Outcome of a run, or of one workload of it.
type Outcome struct {
	// Workload is what the outcome is of, if it is a part.
	Workload string          `json:"part,omitempty"`
	Verdict  check.Verdict   `json:"verdict"`
	Counts   history.Counts  `json:"counts"`
	Results  []*check.Result `json:"results"`
	Events   []history.Event `json:"-"`
	Exits    []cluster.Exit  `json:"exits,omitempty"`
	// Parts are the outcomes of the workloads, if several ran. Results holds then
	// what was seen of the cluster as a whole, Counts the sum and Verdict the worst.
	Parts []*Outcome `json:"parts,omitempty"`
}

// judge checks the histories and what else was seen.
func (r *runner) judge() (*Outcome, error) {
	var parts []*Outcome
	for _, l := range r.lanes {
		part, err := Judge(l.w, l.rec.Events(), Options{CheckTimeout: r.o.CheckTimeout, Out: l.dir})
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return Combine(parts, append(r.extra, r.processes(), r.faults()), r.exits()), nil
}

// faults is unknown if one of the nemeses did nothing: the run shows nothing then of
// how its fault is stood.
func (r *runner) faults() *check.Result {
	res := &check.Result{Checker: "faults", Verdict: check.Valid, Stats: map[string]int{}}
	for _, n := range r.nemeses {
		if n.Inject == nil {
			continue
		}
		res.Stats[n.Name] = 0
		for _, e := range r.lanes[0].rec.Events() { // the faults are in every history
			if e.Process == history.NemesisProcess && e.F == n.Name && strings.HasPrefix(e.Value.Note, "start: ") {
				res.Stats[n.Name]++
			}
		}
		if res.Stats[n.Name] == 0 {
			res.Verdict, res.Note = check.Unknown, n.Name+" did nothing"
		}
	}
	return res
}

func (r *runner) exits() []cluster.Exit {
	var exits []cluster.Exit
	for _, n := range r.c.Nodes() {
		exits = append(exits, n.Exits()...)
	}
	return exits
}

// processes objects to processes that ended by themselves, where no fault
// makes them.
func (r *runner) processes() *check.Result {
	exits := r.exits()
	res := &check.Result{Checker: "processes", Verdict: check.Valid, Stats: map[string]int{"unexpected ends": len(exits)}}
	for _, e := range exits {
		if !r.needs.Crashes {
			res.Verdict = check.Invalid
			res.Total++
			res.Anomalies = append(res.Anomalies, check.Anomaly{Kind: "process ended by itself", Detail: fmt.Sprintf("%s: %s", e.Node, e.How)})
		}
	}
	return res
}

// Combine makes one outcome of those of the workloads of a run and of what was
// seen of the cluster. One workload alone is no part: its results come first.
func Combine(parts []*Outcome, extra []*check.Result, exits []cluster.Exit) *Outcome {
	if len(parts) == 1 {
		out := *parts[0]
		out.Workload, out.Exits = "", exits
		out.Results = append(out.Results, extra...)
		out.Verdict = check.Merge(out.Results)
		return &out
	}
	out := &Outcome{Results: extra, Exits: exits, Parts: parts}
	verdicts := append([]*check.Result(nil), extra...)
	for _, p := range parts {
		verdicts = append(verdicts, &check.Result{Verdict: p.Verdict})
		out.Counts = out.Counts.Plus(p.Counts)
	}
	out.Verdict = check.Merge(verdicts)
	return out
}

// Judge checks the history of one workload, of a run or from a file.
func Judge(w *workload.Workload, events []history.Event, o Options) (*Outcome, error) {
	ops, err := history.Ops(events)
	if err != nil {
		return nil, err
	}
	out := &Outcome{Workload: w.Name, Counts: history.Count(ops), Events: events}
	copts := workload.CheckOptions{Timeout: o.CheckTimeout}
	if o.Out != "" {
		html, err := os.Create(filepath.Join(o.Out, "timeline.html"))
		if err != nil {
			return nil, err
		}
		defer html.Close()
		copts.HTML = html
	}
	out.Results = w.Check(ops, copts)
	out.Verdict = check.Merge(out.Results)
	return out, nil
}

// Line is the last line of a run.
func (o *Outcome) Line(seed uint64) string {
	return fmt.Sprintf("verdict: %s ops=%d ok=%d failed=%d unknown=%d seed=%d",
		o.Verdict, o.Counts.Ops, o.Counts.OK, o.Counts.Failed, o.Counts.Unknown, seed)
}

// PartLine is the line of one workload of a run.
func (o *Outcome) PartLine() string {
	return fmt.Sprintf("%-14s %-8s ops=%d ok=%d failed=%d unknown=%d",
		o.Workload, o.Verdict, o.Counts.Ops, o.Counts.OK, o.Counts.Failed, o.Counts.Unknown)
}

// Status is the exit status that belongs to the verdict.
func (o *Outcome) Status() int {
	switch o.Verdict {
	case check.Valid:
		return 0
	case check.Invalid:
		return 1
	}
	return 2
}

// Replay is the command that runs the same schedule again.
func (o Options) Replay() string {
	s := fmt.Sprintf("go run ./jepsen run -workload %s -nemesis %s -time %v -seed %d -nodes %d -workers %d -rate %d",
		o.Workload, o.Nemesis, o.Time, o.Seed, o.Nodes, o.Workers, o.Rate)
	if o.LogStore != "" {
		s += " -log-store " + o.LogStore
	}
	if o.Tags != "" {
		s += " -tags " + o.Tags
	}
	if len(o.Env) > 0 {
		s += " -env " + strings.Join(o.Env, ",")
	}
	if o.From != "" {
		s += " -from " + o.From
	}
	if o.Loopback {
		s += " -loopback"
	}
	return s
}
