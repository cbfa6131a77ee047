// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/akidb/akidb/jepsen/harness"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/nemesis"
	"github.com/akidb/akidb/jepsen/report"
	"github.com/akidb/akidb/jepsen/workload"
)

// runFlags are the flags that run, matrix and mutants share.
func runFlags(fs *flag.FlagSet, o *harness.Options) {
	fs.DurationVar(&o.Time, "time", 60*time.Second, "how long a workload runs")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of workload and schedule (0: drawn)")
	fs.IntVar(&o.Nodes, "nodes", 3, "nodes of the cluster: 3 or 5")
	fs.IntVar(&o.Workers, "workers", 0, "concurrent clients of each workload (0: 8, or 4 where several run together)")
	fs.IntVar(&o.Rate, "rate", 0, "operations a second of all clients together (0: 150, or 20 for each of several workloads)")
	fs.DurationVar(&o.OpTimeout, "op-timeout", 5*time.Second, "deadline of an operation")
	fs.StringVar(&o.Bin, "bin", "", "folder to keep built binaries in for other runs (remove it after changes)")
	fs.StringVar(&o.Binary, "binary", "", "server to run instead of building one")
	fs.StringVar(&o.Upgraded, "upgraded", "", "server to upgrade to (default: built from the working tree)")
	fs.StringVar(&o.From, "from", "", "revision to upgrade from (default: the working tree too)")
	fs.StringVar(&o.Tags, "tags", "", "build tags of the server")
	fs.StringVar(&o.APIKey, "api-key", "", "credential of the clients, where the server wants one")
	fs.StringVar(&o.LogStore, "log-store", "", "wal or bolt (default: the server's)")
	fs.BoolVar(&o.Loopback, "loopback", false, "no namespaces, even as root")
	fs.DurationVar(&o.CheckTimeout, "check-timeout", 2*time.Minute, "bound of the search for an order")
	fs.Func("env", "NAME=VALUE for every server, may be repeated", func(s string) error {
		o.Env = append(o.Env, s)
		return nil
	})
	fs.Func("arg", "a further argument of every server, may be repeated", func(s string) error {
		o.Args = append(o.Args, s)
		return nil
	})
}

func parse(fs *flag.FlagSet, args []string) error {
	if err := fs.Parse(args); err != nil {
		return err
	}
	return nil
}

func list(context.Context, []string) (int, error) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "workloads:")
	for _, x := range workload.All() {
		fmt.Fprintf(w, "  %s\t%s\n", x.Name, x.About)
	}
	fmt.Fprintln(w, "nemeses (several with commas):")
	for _, n := range nemesis.All() {
		fmt.Fprintf(w, "  %s\t%s\n", n.Name, n.About)
	}
	return 0, w.Flush()
}

func runOne(ctx context.Context, args []string) (int, error) {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	o := harness.Options{Log: os.Stderr}
	runFlags(fs, &o)
	fs.StringVar(&o.Workload, "workload", "register", "what the clients do: several with commas, or all")
	fs.StringVar(&o.Nemesis, "nemesis", "none", "what goes wrong, several with commas")
	fs.StringVar(&o.Out, "out", "", "report folder (default jepsen-reports/WORKLOAD-NEMESIS-SEED)")
	if err := parse(fs, args); err != nil {
		return 2, err
	}
	out, _, err := runAndReport(ctx, &o)
	if err != nil {
		return 2, err
	}
	printOutcome(out)
	fmt.Println("report:", o.Out)
	fmt.Println("replay:", o.Replay())
	fmt.Println(out.Line(o.Seed))
	return out.Status(), nil
}

// printOutcome shows every result with its first anomalies.
func printOutcome(out *harness.Outcome) {
	for _, p := range out.Parts {
		fmt.Println(p.PartLine())
		printOutcome(p)
	}
	for _, r := range out.Results {
		fmt.Printf("  %-14s %-8s anomalies=%d %v %s\n", r.Checker, r.Verdict, r.Total, r.Stats, r.Note)
		for i, a := range r.Anomalies {
			if i == 3 {
				break
			}
			fmt.Printf("    %s: %s\n", a.Kind, a.Detail)
			for _, op := range a.Ops {
				fmt.Printf("      %.300s\n", op)
			}
		}
	}
}

// runAndReport runs once and writes the report.
func runAndReport(ctx context.Context, o *harness.Options) (*harness.Outcome, *report.Figures, error) {
	if err := o.Complete(); err != nil {
		return nil, nil, err
	}
	if o.Seed == 0 {
		o.Seed = 1 + rand.Uint64N(1<<31)
	}
	if o.Out == "" {
		o.Out = filepath.Join("jepsen-reports", fmt.Sprintf("%s-%s-%d", strings.ReplaceAll(o.Workload, ",", "+"), strings.ReplaceAll(o.Nemesis, ",", "+"), o.Seed))
	}
	abs, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, nil, err
	}
	o.Out = abs
	// Data of an earlier run must not found this one's cluster.
	for _, sub := range []string{"data", "backing", "logs"} {
		if err := os.RemoveAll(filepath.Join(o.Out, sub)); err != nil {
			return nil, nil, err
		}
	}
	out, err := harness.Run(ctx, *o)
	if err != nil {
		return nil, nil, err
	}
	figures, err := report.Write(*o, out)
	return out, figures, err
}

func show(_ context.Context, args []string) (int, error) {
	if len(args) != 1 {
		return 2, errors.New("report: give one report folder")
	}
	b, err := os.ReadFile(filepath.Join(args[0], "REPORT.md"))
	if err != nil {
		return 2, err
	}
	_, err = os.Stdout.Write(b)
	return 0, err
}

// recheck judges histories from files: the checkers may have become better.
func recheck(_ context.Context, args []string) (int, error) {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	name := fs.String("workload", "", "what the clients did (default: from verdict.json beside the history)")
	timeout := fs.Duration("check-timeout", 2*time.Minute, "bound of the search for an order")
	if err := parse(fs, args); err != nil {
		return 2, err
	}
	if fs.NArg() != 1 {
		return 2, errors.New("check: give one history, or the folder of one or of several workloads")
	}
	files, err := historiesIn(fs.Arg(0))
	if err != nil {
		return 2, err
	}
	var parts []*harness.Outcome
	var seed uint64
	for _, file := range files {
		var part *harness.Outcome
		if part, seed, err = recheckFile(file, *name, *timeout); err != nil {
			return 2, fmt.Errorf("check %s: %w", file, err)
		}
		parts = append(parts, part)
	}
	out := harness.Combine(parts, nil, nil)
	printOutcome(out)
	fmt.Println(out.Line(seed))
	return out.Status(), nil
}

// historiesIn finds the histories of a run: of one workload in the folder itself,
// of several one folder below.
func historiesIn(path string) ([]string, error) {
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		return []string{path}, err
	}
	const name = "history.jsonl"
	if _, err := os.Stat(filepath.Join(path, name)); err == nil {
		return []string{filepath.Join(path, name)}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "*", name))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("check: neither %s nor a folder in it holds a %s", path, name)
	}
	return files, err
}

// recheckFile judges one history; the seed is that of its run, if it is known.
func recheckFile(file, name string, timeout time.Duration) (*harness.Outcome, uint64, error) {
	var old struct {
		Workload string
		Seed     uint64
	}
	if b, err := os.ReadFile(filepath.Join(filepath.Dir(file), "verdict.json")); err == nil {
		if err := json.Unmarshal(b, &old); err != nil {
			return nil, 0, err
		}
	}
	w, err := workload.Find(cmp.Or(name, old.Workload))
	if err != nil {
		return nil, 0, err
	}
	events, err := history.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	out, err := harness.Judge(w, events, harness.Options{CheckTimeout: timeout})
	return out, old.Seed, err
}
