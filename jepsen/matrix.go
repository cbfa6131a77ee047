// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/harness"
	"github.com/akidb/akidb/jepsen/nemesis"
	"github.com/akidb/akidb/jepsen/report"
	"github.com/akidb/akidb/jepsen/workload"
)

// matrixFlags are the flags of matrix beside those of a run.
type matrixFlags struct {
	workloads, nemeses, dir string
	apart, keep, again      bool
	budget                  time.Duration
}

// matrix runs every workload under every nemesis, all workloads together on one
// cluster, until the budget is used up. It goes on where an earlier one ended:
// what is done is in matrix.jsonl, from which matrix.md is written.
func matrix(ctx context.Context, args []string) (int, error) {
	fs := flag.NewFlagSet("matrix", flag.ContinueOnError)
	var o harness.Options
	var m matrixFlags
	runFlags(fs, &o)
	fs.StringVar(&m.workloads, "workloads", "all", "names with commas, or all")
	fs.StringVar(&m.nemeses, "nemeses", "", "names with commas, combinations joined by + (default: all)")
	fs.BoolVar(&m.apart, "apart", false, "a run for each workload, instead of one for all")
	fs.DurationVar(&m.budget, "budget", 2*time.Hour, "begin no run after this long")
	fs.StringVar(&m.dir, "out", "jepsen-reports/matrix", "folder of the reports, matrix.jsonl and matrix.md")
	fs.BoolVar(&m.keep, "keep", false, "keep the data of runs that were valid")
	fs.BoolVar(&m.again, "again", false, "run also what is done already; the newest run counts")
	if err := parse(fs, args); err != nil {
		return 2, err
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return 2, err
	}
	if o.Bin == "" {
		o.Bin = filepath.Join(m.dir, "bin")
	}
	rows, err := readRows(filepath.Join(m.dir, "matrix.jsonl"))
	if err != nil {
		return 2, err
	}
	list := []string{m.workloads}
	if m.apart {
		if list, err = workloadNames(m.workloads); err != nil {
			return 2, err
		}
	}
	began, worst, seed := time.Now(), check.Valid, o.Seed
	for _, n := range nemesisNames(m.nemeses) {
		for _, w := range list {
			if ctx.Err() != nil {
				continue
			}
			if r := done(rows, w, n); r != nil && !m.again {
				worst = check.Worse(worst, r.Verdict)
				continue
			}
			if time.Since(began) > m.budget {
				fmt.Println("the budget is used up; the same command goes on from here")
				return statusOf(check.Worse(worst, check.Unknown)), nil
			}
			ro := o
			ro.Workload, ro.Nemesis, ro.Seed = w, strings.ReplaceAll(n, "+", ","), seed
			if seed != 0 {
				seed++
			}
			r := matrixRun(ctx, ro, &m)
			worst = check.Worse(worst, r.Verdict)
			if ctx.Err() != nil {
				break // a run that was interrupted is no row
			}
			rows = append(rows, r)
			if err := writeRows(m.dir, rows); err != nil {
				return 2, err
			}
		}
	}
	return statusOf(worst), ctx.Err()
}

func statusOf(v check.Verdict) int { return (&harness.Outcome{Verdict: v}).Status() }

// matrixRow is a line of matrix.jsonl: one run.
type matrixRow struct {
	Workloads string           `json:"workloads"` // as asked for
	Nemesis   string           `json:"nemesis"`
	Nodes     int              `json:"nodes"`
	Seed      uint64           `json:"seed"`
	Time      string           `json:"time"`
	Began     time.Time        `json:"began"`
	Verdict   check.Verdict    `json:"verdict"`
	Error     string           `json:"error,omitempty"` // of the harness; nothing else is set then
	Outcome   *harness.Outcome `json:"outcome,omitempty"`
	Figures   *report.Figures  `json:"figures,omitempty"`
	Replay    string           `json:"replay"`
}

// parts are the outcomes of the workloads, of one or of several.
func (r *matrixRow) parts() []*harness.Outcome {
	switch {
	case r.Outcome == nil:
		return nil
	case len(r.Outcome.Parts) > 0:
		return r.Outcome.Parts
	}
	one := *r.Outcome
	one.Workload = r.Workloads
	return []*harness.Outcome{&one}
}

// matrixRun does one run.
func matrixRun(ctx context.Context, o harness.Options, m *matrixFlags) *matrixRow {
	o.Out = filepath.Join(m.dir, strings.ReplaceAll(o.Workload, ",", "+")+"-"+strings.ReplaceAll(o.Nemesis, ",", "+"))
	r := &matrixRow{Workloads: o.Workload, Nemesis: strings.ReplaceAll(o.Nemesis, ",", "+"), Nodes: o.Nodes, Time: o.Time.String(), Began: time.Now()}
	out, figures, err := runAndReport(ctx, &o)
	r.Seed, r.Replay = o.Seed, o.Replay()
	if err != nil {
		r.Verdict, r.Error = check.Unknown, err.Error()
		fmt.Printf("%s under %s: %v\n", o.Workload, o.Nemesis, err)
		return r
	}
	r.Verdict, r.Outcome, r.Figures = out.Verdict, out, figures
	for _, p := range out.Parts {
		fmt.Println(p.PartLine())
	}
	fmt.Printf("%s under %s: %s\n", o.Workload, o.Nemesis, out.Line(o.Seed))
	if out.Verdict == check.Valid && !m.keep {
		for _, sub := range []string{"data", "backing"} {
			if err := os.RemoveAll(filepath.Join(o.Out, sub)); err != nil {
				fmt.Println(err)
			}
		}
	}
	return r
}

// done is the newest row that has the run, nil if there is none; one that ended in an
// error is not done.
func done(rows []*matrixRow, workloads, nemesis string) *matrixRow {
	for _, r := range slices.Backward(rows) {
		if r.Workloads == workloads && r.Nemesis == nemesis && r.Error == "" {
			return r
		}
	}
	return nil
}

func readRows(name string) ([]*matrixRow, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rows []*matrixRow
	for dec := json.NewDecoder(f); ; {
		r := new(matrixRow)
		if err := dec.Decode(r); err == io.EOF {
			return rows, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: row %d: %w", name, len(rows)+1, err)
		}
		rows = append(rows, r)
	}
}

// writeRows writes matrix.jsonl and matrix.md anew; a run of the harness that is
// killed meanwhile leaves the old ones.
func writeRows(dir string, rows []*matrixRow) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{"matrix.jsonl": b.String(), "matrix.md": table(rows)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

// table shows two tables: the runs, and workload by nemesis the counts of
// operations. Of several runs of a pair the newest counts.
func table(rows []*matrixRow) string {
	type pair struct{ workload, nemesis string }
	cells := make(map[pair]string)
	newest := make(map[pair]*matrixRow)
	var nemeses []string
	for _, r := range rows {
		p := pair{r.Workloads, r.Nemesis}
		if newest[p] == nil && !slices.Contains(nemeses, r.Nemesis) {
			nemeses = append(nemeses, r.Nemesis)
		}
		newest[p] = r
		for _, part := range r.parts() {
			c := part.Counts
			cell := fmt.Sprintf("%d/%d/%d", c.OK, c.Failed, c.Unknown)
			if part.Verdict != check.Valid {
				cell += " **" + string(part.Verdict) + "**"
			}
			cells[pair{part.Workload, r.Nemesis}] = cell
		}
	}
	var b strings.Builder
	b.WriteString("| nemesis | workloads | nodes | verdict | ops | ok | failed | unknown | seed | served % | outside failover % | under fault % | longest write gap ms | write after heal ms | all nodes after heal ms | faults |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		if newest[pair{r.Workloads, r.Nemesis}] == r {
			b.WriteString(r.line())
		}
	}
	b.WriteString("\n| ok/failed/unknown |")
	for _, w := range workload.All() {
		b.WriteString(" " + w.Name + " |")
	}
	b.WriteString("\n|" + strings.Repeat("---|", 1+len(workload.All())) + "\n")
	for _, n := range nemeses {
		fmt.Fprintf(&b, "| %s |", n)
		for _, w := range workload.All() {
			fmt.Fprintf(&b, " %s |", cells[pair{w.Name, n}])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, r := range rows {
		if newest[pair{r.Workloads, r.Nemesis}] == r {
			fmt.Fprintf(&b, "    %s\n", r.Replay)
		}
	}
	return b.String()
}

func (r *matrixRow) line() string {
	if r.Error != "" {
		return fmt.Sprintf("| %s | %s | %d | error: %.200s | | | | | %d | | | | | | | |\n", r.Nemesis, r.Workloads, r.Nodes,
			strings.ReplaceAll(r.Error, "\n", " "), r.Seed)
	}
	percent := func(share float64, of int) string {
		if of == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f", 100*share)
	}
	c, a := r.Outcome.Counts, r.Figures.Availability
	writeMs, allMs := r.Figures.WorstRecovery()
	return fmt.Sprintf("| %s | %s | %d | %s | %d | %d | %d | %d | %d | %s | %s | %s | %d | %d | %d | %d |\n",
		r.Nemesis, r.Workloads, r.Nodes, r.Verdict, c.Ops, c.OK, c.Failed, c.Unknown, r.Seed,
		percent(a.Share, a.Ops), percent(a.OutsideShare, a.OutsideOps), percent(a.UnderShare, a.UnderOps), a.GapMs, writeMs, allMs, len(r.Figures.Faults))
}

func workloadNames(given string) ([]string, error) {
	list, err := workload.FindAll(given)
	var s []string
	for _, w := range list {
		s = append(s, w.Name)
	}
	return s, err
}

func nemesisNames(given string) []string {
	if given != "" {
		return strings.Split(given, ",")
	}
	var s []string
	for _, n := range nemesis.All() {
		s = append(s, n.Name)
	}
	return s
}
