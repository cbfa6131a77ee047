// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Every bound of this package.
const (
	defaultTimeout          = 30 * time.Second
	defaultAttemptTimeout   = 2500 * time.Millisecond
	defaultConnsPerEndpoint = 4

	// perMiB is added to the time of an attempt for each MiB of its request.
	perMiB            = time.Second
	maxAttemptDoubles = 5
	// clusterShare is how many attempts of an operation of the cluster the time
	// that is left is meant for, at least.
	clusterShare = 3
	// slowAttempt: a write without an answer for this long makes the client look
	// at all nodes, maxAbandoned of its attempts may end by what it sees.
	slowAttempt  = 500 * time.Millisecond
	maxAbandoned = 2
	// readyWait is how long the first operation of the cluster waits for a node
	// that is known to be ready.
	readyWait = 500 * time.Millisecond
	// maxMessageBytes is above the 32 MiB of a batch, with room for framing.
	maxMessageBytes = 64 << 20

	// What may be under way to the client before it has read it, of one call and of
	// one connection.
	streamWindow = 4 << 20
	connWindow   = 8 << 20

	// Backoff between attempts. While a new leader is being elected the wait
	// stays short, since it is the gap that callers see.
	minBackoff       = 4 * time.Millisecond
	maxBackoff       = 500 * time.Millisecond
	maxLeaderBackoff = 40 * time.Millisecond
	// After this long it is no election any more: the cluster is down.
	electionTime = 5 * time.Second
	maxRetryInfo = 10 * time.Second
	// maxOddRetries bounds retries of errors that should not be: INTERNAL and
	// code UNKNOWN.
	maxOddRetries = 3

	probeInterval    = time.Second
	probeMinInterval = 50 * time.Millisecond
	probeTimeout     = time.Second
	resolveInterval  = 15 * time.Second
	resolveTimeout   = 5 * time.Second
	// An endpoint that failed is passed over this long, unless a health check
	// succeeds earlier.
	downTime = 500 * time.Millisecond
	// nearSlack: replicas whose round trip is within twice the nearest's plus
	// this much count as equally near.
	nearSlack = 500 * time.Microsecond

	maxEndpoints = 256

	defaultIngestDocs     = 500
	maxIngestDocs         = 10_000
	defaultIngestBytes    = 8 << 20
	maxIngestBytes        = 24 << 20
	defaultIngestInFlight = 4
	maxIngestInFlight     = 64
)
