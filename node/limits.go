// SPDX-License-Identifier: Apache-2.0

package node

import "time"

// Every queue and message of this package is bounded by one of these.
const (
	// maxQueuedProposals and maxQueuedBytes bound what waits for a place in an
	// entry; beyond it proposals are refused at once.
	maxQueuedProposals = 16384
	maxQueuedBytes     = 256 << 20
	// maxEntryCommands and maxEntryBytes bound what shares one entry. A single
	// command may be larger (the API admits batches of 32 MiB).
	maxEntryCommands = 256
	maxEntryBytes    = 512 << 10
	// leastWriteBytes is what a write counts for at least: a patch of 13 bytes makes the
	// state write a whole document anew, vector and all, up to 128 KiB of it, in one
	// storage batch for the entry, which has room for 4 GiB.
	leastWriteBytes = 512
	// maxEntriesInFlight bounds the entries appended but not yet applied. While
	// one is, another leaves only with worthCommands or worthBytes: each entry
	// costs a round of messages and flushes, so few large ones are cheaper.
	maxEntriesInFlight = 4
	worthCommands      = 64
	worthBytes         = maxEntryBytes / 2
	// maxQueueScan bounds the look for commands that do not conflict.
	maxQueueScan = 4 * maxEntryCommands
	// maxCommandBytes is the largest command taken: 32 MiB of documents and
	// their framing, below the 64 MiB record limit of raft-wal.
	maxCommandBytes = 40 << 20

	// maxAppendEntries is Raft's batch; maxAppendBytes cuts it by size, since
	// 64 entries of 32 MiB would not travel within a time-out.
	maxAppendEntries = 64
	maxAppendBytes   = 4 << 20

	// maxFrameBytes bounds a node RPC message, maxInFlightPerConn the requests
	// of one connection that are being served.
	maxFrameBytes      = 48 << 20
	maxInFlightPerConn = 4096

	// maxManifestBytes bounds the list of files of a snapshot.
	maxManifestBytes = 16 << 20

	// logCacheBytes and logCacheEntries bound the newest entries kept in RAM,
	// which followers that keep up are served from.
	logCacheBytes   = 32 << 20
	logCacheEntries = 1024
)

// Time-outs between nodes.
const (
	dialTimeout      = 2 * time.Second
	handshakeTimeout = 5 * time.Second
	raftRPCTimeout   = 3 * time.Second
	rpcWriteTimeout  = 5 * time.Second
	termRoundTimeout = 500 * time.Millisecond
	// retryPause is waited between tries to find a leader.
	retryPause = 10 * time.Millisecond
	// drainTimeout bounds the wait for Raft's answers before it is shut down,
	// answerGrace for those that are on their way after it.
	drainTimeout = 5 * time.Second
	drainStep    = 5 * time.Millisecond
	answerGrace  = 50 * time.Millisecond
	// defaultOpTimeout bounds proposals and reads whose context has no deadline.
	defaultOpTimeout = 30 * time.Second
)
