// SPDX-License-Identifier: Apache-2.0

//go:build !akidb_mutants

package raftfsm

// Deliberate faults which show that the checkers can fail. They exist only in
// builds with the tag akidb_mutants (see mutants_on.go); here they are constant
// false, and the compiler removes the code behind them.
const mutantDedupeOff = false
