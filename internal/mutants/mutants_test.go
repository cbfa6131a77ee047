// SPDX-License-Identifier: Apache-2.0

//go:build !akidb_mutants

package mutants

import "testing"

// A build without the tag has no fault, whatever the environment says: these are
// constants, or this would not compile.
func TestOrdinaryBuildsHaveNoFaults(t *testing.T) {
	const any = StaleReads || SkipFsync || ReadIndexOldTerm || HeartbeatFastPath || DedupeOff
	if any {
		t.Error("a deliberate fault is on")
	}
}
