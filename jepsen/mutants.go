// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/harness"
)

// mutant is a deliberately broken build with the run that must catch it: a
// workload under nemeses, or a test of the simulation.
type mutant struct {
	name, breaks      string
	workload, nemesis string
	simulation        string
	args              []string
}

// mutantList names the faults that a build with the tag akidb_mutants can have
// (internal/mutants). No other build holds their code.
func mutantList() []mutant {
	return []mutant{
		{name: "stale-reads", breaks: "a linearizable read is served without asking anybody", workload: "register", nemesis: "partition-leader"},
		{name: "skip-fsync", breaks: "the log is not synced before an entry is acknowledged", workload: "set", nemesis: "power-all",
			args: []string{"--log-store", "bolt"}},
		{name: "dedupe-off", breaks: "request ids are not remembered", workload: "once", nemesis: "none"},
		{name: "readindex-old-term", breaks: "a new leader answers a read before it has committed an entry of its term", workload: "register", nemesis: "leader-storm,pause-leader"},
		// Only a leader at rest that hears of a newer term by a heartbeat, and by
		// nothing else, does harm. Chance does not lead there, the simulation does.
		{name: "heartbeat-fast-path", breaks: "heartbeats go around the consumer channel (hashicorp/raft issue 695)", simulation: "TestDeposedLeaderStampsNoEntry"},
	}
}

// mutants runs every mutant until it is caught, at most attempts times.
func mutants(ctx context.Context, args []string) (int, error) {
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	var o harness.Options
	runFlags(fs, &o)
	only := fs.String("only", "", "one mutant")
	attempts := fs.Int("attempts", 3, "runs that a mutant may survive")
	dir := fs.String("out", "jepsen-reports/mutants", "folder of the reports")
	if err := parse(fs, args); err != nil {
		return 2, err
	}
	o.Tags = "akidb_mutants"
	if o.Bin == "" {
		o.Bin = filepath.Join(*dir, "bin")
		if err := os.RemoveAll(o.Bin); err != nil { // of another state of the sources
			return 2, err
		}
	}
	status := 0
	fmt.Printf("| mutant | breaks | workload | nemesis | caught | by | seconds | seed |\n|---|---|---|---|---|---|---|---|\n")
	for _, m := range mutantList() {
		if *only != "" && m.name != *only {
			continue
		}
		began := time.Now()
		var by string
		var seed uint64
		if m.simulation != "" {
			by, seed = simulate(ctx, m, o.Seed, *attempts)
		} else {
			by, seed = hunt(ctx, m, o, *dir, *attempts)
		}
		caught := "yes"
		if by == "" {
			caught, status = "**no**", 1
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s | %.0f | %d |\n", m.name, m.breaks, cmp.Or(m.workload, "simulation"), cmp.Or(m.nemesis, m.simulation),
			caught, by, time.Since(began).Seconds(), seed)
	}
	return status, ctx.Err()
}

// hunt runs one mutant with other seeds until a checker objects, and returns the
// objection with its seed.
func hunt(ctx context.Context, m mutant, o harness.Options, dir string, attempts int) (by string, seed uint64) {
	o.Workload, o.Nemesis = m.workload, m.nemesis
	o.Env = append(append([]string(nil), o.Env...), "AKIDB_MUTANTS="+m.name)
	o.Args = append(append([]string(nil), o.Args...), m.args...)
	for i := range attempts {
		ro := o
		if o.Seed != 0 {
			ro.Seed = o.Seed + uint64(i)
		}
		ro.Out = filepath.Join(dir, fmt.Sprintf("%s-%d", m.name, i+1))
		out, _, err := runAndReport(ctx, &ro)
		if err != nil {
			fmt.Fprintf(os.Stderr, "jepsen: %s: %v\n", m.name, err)
			continue
		}
		if by := objection(out); by != "" {
			return by, ro.Seed
		}
	}
	return "", 0
}

// simulate runs one mutant in a test of the simulation, which must pass without
// the mutant: else its failure would show nothing.
func simulate(ctx context.Context, m mutant, seed uint64, attempts int) (by string, used uint64) {
	run := func(mutant string, seed uint64) (string, bool) {
		cmd := exec.CommandContext(ctx, "go", "test", "-tags", "akidb_mutants", "-count", "1", "./sim", "-run", "^"+m.simulation+"$",
			"-sim.first", strconv.FormatUint(seed, 10))
		cmd.Env = append(os.Environ(), "AKIDB_MUTANTS="+mutant)
		b, err := cmd.CombinedOutput()
		return string(b), err == nil
	}
	for i := range attempts {
		s := max(seed, 1) + uint64(i)
		if out, ok := run("", s); !ok {
			fmt.Fprintf(os.Stderr, "jepsen: %s fails without the mutant:\n%s\n", m.simulation, out)
			return "", 0
		}
		out, ok := run(m.name, s)
		if ok {
			continue
		}
		for line := range strings.Lines(out) {
			if what, found := strings.CutPrefix(strings.TrimSpace(line), "deposed_test.go:"); found {
				_, what, _ = strings.Cut(what, ": ")
				return fmt.Sprintf("%.80s", what), s
			}
		}
		fmt.Fprintf(os.Stderr, "jepsen: %s did not run:\n%s\n", m.simulation, out)
	}
	return "", 0
}

// objection is the first anomaly that is about the promise, not about processes.
func objection(out *harness.Outcome) string {
	for _, r := range out.Results {
		if r.Verdict == check.Invalid && r.Checker != "processes" && r.Checker != "recovers" {
			return r.Checker + ": " + r.Anomalies[0].Kind
		}
	}
	return ""
}
