// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/harness"
)

// mutant is a deliberately broken build with the run that must catch it.
type mutant struct {
	name, breaks      string
	workload, nemesis string
	args              []string
	// What a race needs more of than a run has by default; 0: the default.
	workers, rate int
}

// mutantList names the faults that a build with the tag akidb_mutants can have.
// Such a build says so; no other build holds their code.
func mutantList() []mutant {
	return []mutant{
		{name: "stale-reads", breaks: "a linearizable read is served without asking anybody", workload: "register", nemesis: "partition-leader"},
		{name: "skip-fsync", breaks: "the log is not synced before an entry is acknowledged", workload: "set", nemesis: "power-all",
			args: []string{"--log-store", "bolt"}},
		{name: "dedupe-off", breaks: "request ids are not remembered", workload: "once", nemesis: "none"},
		{name: "readindex-old-term", breaks: "a new leader answers a read before it has committed an entry of its term", workload: "register", nemesis: "leader-storm,pause-leader"},
		{name: "heartbeat-fast-path", breaks: "heartbeats go around the consumer channel (hashicorp/raft issue 695)", workload: "register", nemesis: "lossy,slow,leader-storm",
			workers: 24, rate: 800},
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
	}
	status := 0
	fmt.Printf("| mutant | breaks | workload | nemesis | caught | by | seconds | seed |\n|---|---|---|---|---|---|---|---|\n")
	for _, m := range mutantList() {
		if *only != "" && m.name != *only {
			continue
		}
		if !hunt(ctx, m, o, *dir, *attempts) {
			status = 1
		}
	}
	return status, ctx.Err()
}

// hunt runs one mutant with other seeds until a checker objects.
func hunt(ctx context.Context, m mutant, o harness.Options, dir string, attempts int) bool {
	o.Workload, o.Nemesis = m.workload, m.nemesis
	o.Env = append(append([]string(nil), o.Env...), "AKIDB_MUTANTS="+m.name)
	o.Args = append(append([]string(nil), o.Args...), m.args...)
	if m.workers > 0 {
		o.Workers, o.Rate = m.workers, m.rate
	}
	began := time.Now()
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
			fmt.Printf("| %s | %s | %s | %s | yes | %s | %.0f | %d |\n", m.name, m.breaks, m.workload, m.nemesis, by, time.Since(began).Seconds(), ro.Seed)
			return true
		}
	}
	fmt.Printf("| %s | %s | %s | %s | no | | %.0f | |\n", m.name, m.breaks, m.workload, m.nemesis, time.Since(began).Seconds())
	return false
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
