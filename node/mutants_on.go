// SPDX-License-Identifier: Apache-2.0

//go:build akidb_mutants

package node

import (
	"os"
	"slices"
	"strings"

	"github.com/akidb/akidb/internal/storage"
)

// Deliberate faults, chosen by AKIDB_MUTANTS, a comma separated list of
// stale-reads, skip-fsync, readindex-old-term, heartbeat-fast-path. Never
// build a binary for use with this tag. heartbeat-fast-path also takes away the
// look at Raft's state before a proposal, which closes most of the gap that the
// library leaves open.
var (
	mutantStaleReads        = mutantOn("stale-reads")
	mutantSkipFsync         = mutantOn("skip-fsync")
	mutantReadIndexOldTerm  = mutantOn("readindex-old-term")
	mutantHeartbeatFastPath = mutantOn("heartbeat-fast-path")
)

func mutantOn(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("AKIDB_MUTANTS"), ","), name)
}

// mutateFS forgets every sync under skip-fsync.
func mutateFS(fsys storage.FS) storage.FS {
	if !mutantSkipFsync {
		return fsys
	}
	return storage.ForgetSync(fsys)
}
