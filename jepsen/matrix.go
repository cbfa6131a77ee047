// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/harness"
	"github.com/akidb/akidb/jepsen/nemesis"
	"github.com/akidb/akidb/jepsen/report"
	"github.com/akidb/akidb/jepsen/workload"
)

// matrix runs all pairs of workloads and nemeses, until the budget is used up;
// with -resume it goes on where an earlier one ended.
func matrix(ctx context.Context, args []string) (int, error) {
	fs := flag.NewFlagSet("matrix", flag.ContinueOnError)
	var o harness.Options
	runFlags(fs, &o)
	workloads := fs.String("workloads", "", "names with commas (default: all)")
	nemeses := fs.String("nemeses", "", "names with commas, combinations joined by + (default: all)")
	budget := fs.Duration("budget", 2*time.Hour, "begin no run after this long")
	dir := fs.String("out", "jepsen-reports/matrix", "folder of the reports and of matrix.md")
	keep := fs.Bool("keep", false, "keep the data of runs that were valid")
	if err := parse(fs, args); err != nil {
		return 2, err
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return 2, err
	}
	if o.Bin == "" {
		o.Bin = filepath.Join(*dir, "bin")
	}
	table, err := os.OpenFile(filepath.Join(*dir, "matrix.md"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return 2, err
	}
	defer table.Close()
	done, err := rowsDone(table)
	if err != nil {
		return 2, err
	}
	began, worst, seed := time.Now(), 0, o.Seed
	for _, n := range names(*nemeses, allNemeses()) {
		for _, w := range names(*workloads, allWorkloads()) {
			if done[w+" "+n] || ctx.Err() != nil {
				continue
			}
			if time.Since(began) > *budget {
				fmt.Println("the budget is used up; the same command goes on from here")
				return max(worst, 2), nil
			}
			ro := o
			ro.Workload, ro.Nemesis, ro.Out = w, strings.ReplaceAll(n, "+", ","), filepath.Join(*dir, w+"-"+n)
			if ro.Seed = seed; seed != 0 {
				seed++
			}
			worst = max(worst, matrixRow(ctx, ro, n, table, *keep))
		}
	}
	return worst, ctx.Err()
}

const matrixHead = "| workload | nemesis | verdict | ops | ok | failed | unknown | seed | served % | outside failover % | longest write gap ms | write after heal ms (worst) | faults |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"

// rowsDone reads which pairs an earlier matrix has finished.
func rowsDone(f *os.File) (map[string]bool, error) {
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		_, err = io.WriteString(f, matrixHead)
		return nil, err
	}
	done := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		if c := strings.Split(line, "|"); len(c) > 4 && !strings.Contains(c[3], "error") {
			done[strings.TrimSpace(c[1])+" "+strings.TrimSpace(c[2])] = true
		}
	}
	return done, nil
}

// matrixRow does one run and adds its row; the status is that of the run.
func matrixRow(ctx context.Context, o harness.Options, nemeses string, table io.Writer, keep bool) int {
	out, figures, err := runAndReport(ctx, &o)
	if err != nil {
		fmt.Printf("%s %s: %v\n", o.Workload, nemeses, err)
		if ctx.Err() == nil {
			fmt.Fprintf(table, "| %s | %s | error: %.200s | | | | | %d | | | | | |\n", o.Workload, nemeses, strings.ReplaceAll(err.Error(), "\n", " "), o.Seed)
		}
		return 2
	}
	fmt.Fprint(table, row(o, nemeses, out, figures))
	fmt.Printf("%s %s: %s\n", o.Workload, nemeses, out.Line(o.Seed))
	if out.Verdict == check.Valid && !keep {
		for _, sub := range []string{"data", "backing"} {
			if err := os.RemoveAll(filepath.Join(o.Out, sub)); err != nil {
				fmt.Println(err)
			}
		}
	}
	return out.Status()
}

func row(o harness.Options, nemeses string, out *harness.Outcome, f *report.Figures) string {
	var worst int64
	for _, fault := range f.Faults {
		worst = max(worst, fault.WriteMs)
	}
	c, a := out.Counts, f.Availability
	return fmt.Sprintf("| %s | %s | %s | %d | %d | %d | %d | %d | %.2f | %.2f | %d | %d | %d |\n",
		o.Workload, nemeses, out.Verdict, c.Ops, c.OK, c.Failed, c.Unknown, o.Seed,
		100*a.Share, 100*a.OutsideShare, a.GapMs, worst, len(f.Faults))
}

func names(given string, all []string) []string {
	if given == "" {
		return all
	}
	return strings.Split(given, ",")
}

func allWorkloads() []string {
	var s []string
	for _, w := range workload.All() {
		s = append(s, w.Name)
	}
	return s
}

func allNemeses() []string {
	var s []string
	for _, n := range nemesis.All() {
		s = append(s, n.Name)
	}
	return s
}
