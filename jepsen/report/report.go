// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package report writes what a run showed: plots, figures and a page.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/akidb/akidb/jepsen/harness"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/workload"
)

// Fault is one fault as the history shows it.
type Fault struct {
	Nemesis string `json:"nemesis"`
	Did     string `json:"did"`
	StartMs int64  `json:"start_ms"`
	HealMs  int64  `json:"heal_ms"` // 0: never healed
	// WriteMs is how long after the heal the next write succeeded that was begun
	// after it, over a connection that fails over.
	WriteMs int64 `json:"write_after_heal_ms,omitempty"`
	// AllMs is how long after the heal every node had served its clients again.
	AllMs int64 `json:"all_nodes_after_heal_ms,omitempty"`
}

// Availability is the share of operations that the database answered, of those
// over connections that fail over.
type Availability struct {
	Ops    int `json:"ops"`
	Served int `json:"served"`
	// Outside are those that began more than FailoverMs after each change and
	// were not under way when a fault struck.
	OutsideOps    int `json:"outside_failover_ops"`
	OutsideServed int `json:"outside_failover_served"`
	// Under are those of Outside that began while a fault was there.
	UnderOps     int     `json:"under_fault_ops"`
	UnderServed  int     `json:"under_fault_served"`
	Share        float64 `json:"share"`
	OutsideShare float64 `json:"outside_failover_share"`
	UnderShare   float64 `json:"under_fault_share"`
	FailoverMs   int64   `json:"failover_window_ms"`
	// GapMs is the longest time without a successful write, of the whole run.
	GapMs int64 `json:"longest_write_gap_ms"`
}

// Figures are the numbers of a report.
type Figures struct {
	Availability Availability `json:"availability"`
	Faults       []Fault      `json:"faults"`
	P50ms        float64      `json:"p50_ms"`
	P99ms        float64      `json:"p99_ms"`
	MaxMs        float64      `json:"max_ms"`
}

// WorstRecovery is the longest time from a heal to the next write, and to the
// moment when every node had served its clients again; 0 if it was not seen.
func (f *Figures) WorstRecovery() (writeMs, allMs int64) {
	for i := range f.Faults {
		writeMs, allMs = max(writeMs, f.Faults[i].WriteMs), max(allMs, f.Faults[i].AllMs)
	}
	return writeMs, allMs
}

// failoverWindow is the time after a fault or a heal in which an election may
// take place.
const failoverWindow = 2 * time.Second

// Measure takes the figures from the histories of one run. The faults are in
// each of them.
func Measure(histories ...[]history.Event) (*Figures, []history.Op, error) {
	f := &Figures{}
	var ops []history.Op
	for _, events := range histories {
		some, err := history.Ops(events)
		if err != nil {
			return nil, nil, err
		}
		ops = append(ops, some...)
		f.Faults = faults(events)
	}
	f.recover(ops)
	f.availability(ops)
	f.latency(ops)
	return f, ops, nil
}

// faults pairs the starts and heals of each nemesis.
func faults(events []history.Event) []Fault {
	var out []Fault
	open := make(map[string]int)
	for _, e := range events {
		if e.Process != history.NemesisProcess {
			continue
		}
		ms := e.TimeNs / 1e6
		if did, ok := strings.CutPrefix(e.Value.Note, "start: "); ok {
			open[e.F] = len(out)
			out = append(out, Fault{Nemesis: e.F, Did: did, StartMs: ms})
		} else if strings.HasPrefix(e.Value.Note, "heal: ") {
			if at, ok := open[e.F]; ok {
				out[at].HealMs = ms
				delete(open, e.F)
			}
		}
	}
	return out
}

// isWrite tells writes by name: everything that is not known to be a read.
func isWrite(op *history.Op) bool {
	switch op.F {
	case "read", "scan", "search", "get", "list", "peek", "resend":
		return false
	case "txn":
		return slices.ContainsFunc(op.In.Txn, func(m history.Mop) bool { return m.F == "append" })
	}
	return true
}

func (f *Figures) recover(ops []history.Op) {
	nodes := make(map[string]bool)
	for i := range ops {
		if ops[i].Node != "" {
			nodes[ops[i].Node] = true
		}
	}
	for i := range f.Faults {
		fault := &f.Faults[i]
		if fault.HealMs == 0 {
			continue
		}
		heal := fault.HealMs * 1e6
		served := make(map[string]int64)
		for j := range ops {
			op := &ops[j]
			if op.Type != history.OK || op.Call < heal || op.Phase != "" {
				continue
			}
			after := (op.Return - heal) / 1e6
			if op.Node == "" && isWrite(op) && (fault.WriteMs == 0 || after < fault.WriteMs) {
				fault.WriteMs = max(after, 1)
			}
			if at, ok := served[op.Node]; op.Node != "" && (!ok || after < at) {
				served[op.Node] = after
			}
		}
		if len(served) == len(nodes) {
			for _, at := range served {
				fault.AllMs = max(fault.AllMs, at)
			}
		}
	}
}

func (f *Figures) availability(ops []history.Op) {
	a := &f.Availability
	a.FailoverMs = failoverWindow.Milliseconds()
	var acked []int64
	for i := range ops {
		op := &ops[i]
		if op.Type == history.OK && isWrite(op) && op.Phase == "" {
			acked = append(acked, op.Return)
		}
		if op.Node != "" || op.Phase != "" {
			continue
		}
		a.Ops++
		ok := op.Type == history.OK || op.Served
		if ok {
			a.Served++
		}
		quiet, under := f.place(op)
		if !quiet {
			continue
		}
		a.OutsideOps++
		if ok {
			a.OutsideServed++
		}
		if under {
			a.UnderOps++
			if ok {
				a.UnderServed++
			}
		}
	}
	a.Share, a.OutsideShare, a.UnderShare = share(a.Served, a.Ops), share(a.OutsideServed, a.OutsideOps), share(a.UnderServed, a.UnderOps)
	slices.Sort(acked)
	for i := 1; i < len(acked); i++ {
		a.GapMs = max(a.GapMs, (acked[i]-acked[i-1])/1e6)
	}
}

// place says where an operation is among the faults: quiet is outside of all
// failover windows, under a fault that was there when it began. One that was
// under way at a heal counts, however long it had waited by then.
func (f *Figures) place(op *history.Op) (quiet, under bool) {
	since := func(ms int64) time.Duration { return time.Duration(op.Call - ms*1e6) }
	within := func(ms int64) bool { return ms > 0 && since(ms) >= 0 && since(ms) < failoverWindow }
	quiet = true
	for _, fault := range f.Faults {
		struck := since(fault.StartMs) < 0 && (op.Ended == 0 || op.Ended > fault.StartMs*1e6)
		if struck || within(fault.StartMs) || within(fault.HealMs) {
			quiet = false
		}
		if since(fault.StartMs) >= 0 && (fault.HealMs == 0 || since(fault.HealMs) < 0) {
			under = true
		}
	}
	return quiet, under
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

func (f *Figures) latency(ops []history.Op) {
	var ms []float64
	for i := range ops {
		if ops[i].Type == history.OK {
			ms = append(ms, float64(ops[i].Return-ops[i].Call)/1e6)
		}
	}
	if len(ms) == 0 {
		return
	}
	slices.SortFunc(ms, cmp.Compare[float64])
	f.P50ms, f.P99ms, f.MaxMs = ms[len(ms)/2], ms[len(ms)*99/100], ms[len(ms)-1]
}

// Verdict is the content of verdict.json.
type Verdict struct {
	*harness.Outcome
	Workload string   `json:"workload"`
	Nemesis  string   `json:"nemesis"`
	Seed     uint64   `json:"seed"`
	Replay   string   `json:"replay"`
	Figures  *Figures `json:"figures"`
}

// Write writes verdict.json, the plots, REPORT.md and replay.txt to o.Out, and
// for each of several workloads the same to a folder below it.
func Write(o harness.Options, out *harness.Outcome) (*Figures, error) {
	if len(out.Parts) == 0 {
		return writeOne(o, out, out.Events)
	}
	var histories [][]history.Event
	for _, part := range out.Parts {
		po := o
		po.Out = filepath.Join(o.Out, part.Workload)
		if _, err := writeOne(po, part, part.Events); err != nil {
			return nil, err
		}
		// The client of the REST contract tries another node only with its next
		// request: it says nothing of what a client that fails over sees.
		if w, err := workload.Find(part.Workload); err != nil || !w.REST {
			histories = append(histories, part.Events)
		}
	}
	return writeOne(o, out, histories...)
}

func writeOne(o harness.Options, out *harness.Outcome, histories ...[]history.Event) (*Figures, error) {
	f, ops, err := Measure(histories...)
	if err != nil {
		return nil, err
	}
	v := Verdict{Outcome: out, Workload: cmp.Or(out.Workload, o.Workload), Nemesis: o.Nemesis, Seed: o.Seed, Replay: o.Replay(), Figures: f}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{
		"verdict.json": append(b, '\n'),
		"replay.txt":   []byte(o.Replay() + "\n"),
		"REPORT.md":    page(&v),
	} {
		if err := os.WriteFile(filepath.Join(o.Out, name), content, 0o644); err != nil {
			return nil, err
		}
	}
	return f, plots(o.Out, f, ops)
}

// page is the report for people.
func page(v *Verdict) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s under %s: %s\n\n`%s`\n\n", v.Workload, v.Nemesis, v.Outcome.Verdict, v.Replay)
	fmt.Fprintf(&b, "%s\n\n", v.Line(v.Seed))
	if len(v.Parts) > 0 {
		b.WriteString("| workload | verdict | ops | ok | failed | unknown |\n|---|---|---|---|---|---|\n")
		for _, p := range v.Parts {
			fmt.Fprintf(&b, "| [%s](%s/REPORT.md) | %s | %d | %d | %d | %d |\n", p.Workload, p.Workload, p.Verdict,
				p.Counts.Ops, p.Counts.OK, p.Counts.Failed, p.Counts.Unknown)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "| checker | verdict | anomalies | figures |\n|---|---|---|---|\n")
	for _, r := range v.Results {
		var stats []string
		for k, n := range r.Stats {
			stats = append(stats, fmt.Sprintf("%s %d", k, n))
		}
		slices.Sort(stats)
		fmt.Fprintf(&b, "| %s | %s | %d | %s %s |\n", r.Checker, r.Verdict, r.Total, strings.Join(stats, ", "), r.Note)
	}
	for _, r := range v.Results {
		for _, a := range r.Anomalies {
			fmt.Fprintf(&b, "\n## %s: %s\n\n%s\n\n", r.Checker, a.Kind, a.Detail)
			for _, op := range a.Ops {
				fmt.Fprintf(&b, "    %s\n", op)
			}
		}
	}
	a := v.Figures.Availability
	fmt.Fprintf(&b, "\n## Availability\n\nOver connections that fail over: %.3f %% of %d operations served; outside of the %d ms after each change %.3f %% of %d; of those while a fault was there %.3f %% of %d. "+
		"Longest time without a successful write: %d ms. Latency p50 %.1f ms, p99 %.1f ms, max %.1f ms.\n\n",
		100*a.Share, a.Ops, a.FailoverMs, 100*a.OutsideShare, a.OutsideOps, 100*a.UnderShare, a.UnderOps, a.GapMs, v.Figures.P50ms, v.Figures.P99ms, v.Figures.MaxMs)
	b.WriteString("| fault | from s | to s | write after heal ms | all nodes after heal ms |\n|---|---|---|---|---|\n")
	for _, f := range v.Figures.Faults {
		fmt.Fprintf(&b, "| %s: %s | %.1f | %.1f | %d | %d |\n", f.Nemesis, f.Did, float64(f.StartMs)/1e3, float64(f.HealMs)/1e3, f.WriteMs, f.AllMs)
	}
	b.WriteString("\n![latency](latency.svg)\n\n![availability](availability.svg)\n")
	return []byte(b.String())
}
