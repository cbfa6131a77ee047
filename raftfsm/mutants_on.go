// SPDX-License-Identifier: Apache-2.0

//go:build akidb_mutants

package raftfsm

import (
	"os"
	"slices"
	"strings"
)

// mutantDedupeOff forgets request ids, if AKIDB_MUTANTS holds dedupe-off. Never
// build a binary for use with this tag.
var mutantDedupeOff = slices.Contains(strings.Split(os.Getenv("AKIDB_MUTANTS"), ","), "dedupe-off")
