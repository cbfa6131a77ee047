// SPDX-License-Identifier: Apache-2.0

//go:build akidb_mutants

// Package mutants names the deliberate faults which show that the checkers can
// fail. AKIDB_MUTANTS, a comma separated list of their names, turns them on.
// Never build a binary for use with the tag akidb_mutants.
package mutants

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The faults.
var (
	// StaleReads: a linearizable read asks nobody.
	StaleReads = on("stale-reads")
	// SkipFsync: the log is not synced before an entry is acknowledged.
	SkipFsync = on("skip-fsync")
	// ReadIndexOldTerm: a new leader confirms reads before it has committed an
	// entry of its own term.
	ReadIndexOldTerm = on("readindex-old-term")
	// HeartbeatFastPath: heartbeats go around Raft's main loop (hashicorp/raft
	// issue 695). It also takes away the look at Raft's state before a proposal,
	// which closes most of the gap that the library leaves open.
	HeartbeatFastPath = on("heartbeat-fast-path")
	// DedupeOff: request ids are not remembered.
	DedupeOff = on("dedupe-off")
)

// Checked last, when every name above has been asked for: a run with a fault
// that does not exist would show that nothing catches it.
var _ = allKnown()

var known = make(map[string]bool)

func chosen() []string {
	return slices.DeleteFunc(strings.Split(os.Getenv("AKIDB_MUTANTS"), ","), func(s string) bool { return s == "" })
}

func on(name string) bool {
	known[name] = true
	return slices.Contains(chosen(), name)
}

func allKnown() bool {
	for _, name := range chosen() {
		if !known[name] {
			panic(fmt.Sprintf("mutants: AKIDB_MUTANTS names %q, which does not exist", name))
		}
	}
	return true
}
