// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"errors"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// What Apply can refuse because of the state; nothing was changed.
var (
	ErrCollectionNotFound = errors.New("collection not found")
	ErrCollectionExists   = errors.New("collection exists")
	ErrDocumentNotFound   = errors.New("document not found")
	ErrDocumentExists     = errors.New("document exists")
	ErrVersionMismatch    = errors.New("version mismatch")
	ErrRequestIDReused    = errors.New("request id used for another request")
	ErrInvalid            = errors.New("invalid command")
	ErrEntryConflict      = errors.New("two writes of one document in one entry")
	ErrStale              = errors.New("proposal made on an older state")
)

// ErrCorrupt marks stored bytes that do not hold what they should.
var ErrCorrupt = errors.New("corrupt")

// ResultError turns the status of a result into an error wrapping one of the
// sentinels above, with the result's message; nil for STATUS_OK.
func ResultError(r *fsmv1.Result) error { panic("to be built") }
