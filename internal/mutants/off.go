// SPDX-License-Identifier: Apache-2.0

//go:build !akidb_mutants

// Package mutants names the deliberate faults which show that the checkers can
// fail. They exist only in builds with the tag akidb_mutants (on.go); in every
// other build they are constant false, and the compiler removes the code behind
// them.
package mutants

// The faults; on.go says what each breaks.
const (
	StaleReads        = false
	SkipFsync         = false
	ReadIndexOldTerm  = false
	HeartbeatFastPath = false
	DedupeOff         = false
)
