// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"time"

	"github.com/akidb/akidb/raftfsm"
)

// Bounds of the API. docs/rest.md and docs/errors.md repeat what callers meet.
const (
	maxTopK         = 10_000
	maxEf           = 10_000
	maxScrollLimit  = 10_000
	maxFetchIDs     = 10_000
	maxQueries      = 1_000 // of one QueryBatch
	maxBatchWrites  = raftfsm.MaxBatchWrites
	maxBatchBytes   = raftfsm.MaxBatchBytes
	maxDocIDBytes   = raftfsm.MaxDocIDBytes
	maxExternalID   = raftfsm.MaxExternalIDBytes
	maxPayloadBytes = raftfsm.MaxMetadataBytes
	maxDimension    = raftfsm.MaxDimension
	maxNameBytes    = 4 * raftfsm.MaxNameRunes
	maxNameRunes    = raftfsm.MaxNameRunes
	maxModelBytes   = raftfsm.MaxEmbeddingModel
	// maxRequestIDBytes leaves room for what derived request ids append within
	// the bytes the state machine remembers.
	maxRequestIDBytes = raftfsm.MaxRequestIDBytes - 28
	maxTokenBytes     = 256
	maxFilterTests    = 1_024
	maxFilterDepth    = 16
	maxFilterValues   = 10_000
	maxPayloadIndexes = raftfsm.MaxPayloadIndexes
	maxPathBytes      = 256 // a payload field's path
	maxMetadataFields = 1_024

	// maxReplyVectorBytes bounds the vectors of one reply.
	maxReplyVectorBytes = 64 << 20
	// maxReplyBytes bounds the documents of one reply.
	maxReplyBytes = 2 * maxReplyVectorBytes
	// pageBytes ends a page of a scroll before its limit.
	pageBytes = 16 << 20

	// What an error says, in bytes: its text, and each part of a violation.
	maxErrorText = 1_024
	maxErrorPart = 512

	// A batch of an ingest ends at a fixed function of the stream, so that a
	// stream sent again is cut at the same places.
	ingestBatchDocs  = 1_000
	ingestBatchBytes = 4 << 20

	maxJSONDepth    = 100                          // of a request
	maxObjects      = 1 << 20                      // of a request, at all levels; an empty one takes 2 bytes on the wire and 200 of memory
	maxPayloadDepth = raftfsm.MaxMetadataDepth - 1 // the scalars within count there
	maxMessageBytes = 40 << 20
	maxFrameBytes   = 2 * maxMessageBytes // gRPC reads so much, so that the codec refuses what is above maxMessageBytes and says so
	maxSendBytes    = 256 << 20
	firstBodyBytes  = 256 << 10 // of a body are made room for before any has come
	maxHeaderBytes  = 64 << 10
	maxStreams      = 4_096 // of one connection
	// What may be under way to the server before it has read it, of one call and of
	// one connection.
	streamWindow  = 4 << 20
	connWindow    = 8 << 20
	streamWorkers = 256 // beyond them a call gets a goroutine of its own

	defaultScrollLimit  = 100
	defaultMaxInFlight  = 4_096
	defaultDeadline     = 30 * time.Second
	maxStalenessCeiling = time.Hour
	busyRetryAfter      = 200 * time.Millisecond
	healthPoll          = 250 * time.Millisecond
	transferWait        = 3 * time.Second
	transferPoll        = 10 * time.Millisecond
	leaderPoll          = 50 * time.Millisecond
	scrapeDeadline      = 2 * time.Second
	readHeaderTimeout   = 10 * time.Second
	readTimeout         = 2 * time.Minute
	writeTimeout        = 2 * time.Minute
	idleTimeout         = 2 * time.Minute
)
