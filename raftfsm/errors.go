// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"errors"
	"fmt"

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

// ErrDiverged is what View.Diverged returns once a state check disagreed.
var ErrDiverged = errors.New("state diverged")

// ErrClosed is returned after Close.
var ErrClosed = errors.New("state machine closed")

// ResultError turns the status of a result into an error wrapping one of the
// sentinels above, with the result's message; nil for STATUS_OK.
func ResultError(r *fsmv1.Result) error {
	var sentinel error
	switch r.GetStatus() {
	case fsmv1.Status_STATUS_OK:
		return nil
	case fsmv1.Status_STATUS_COLLECTION_NOT_FOUND:
		sentinel = ErrCollectionNotFound
	case fsmv1.Status_STATUS_COLLECTION_EXISTS:
		sentinel = ErrCollectionExists
	case fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND:
		sentinel = ErrDocumentNotFound
	case fsmv1.Status_STATUS_DOCUMENT_EXISTS:
		sentinel = ErrDocumentExists
	case fsmv1.Status_STATUS_VERSION_MISMATCH:
		sentinel = ErrVersionMismatch
	case fsmv1.Status_STATUS_REQUEST_ID_REUSED:
		sentinel = ErrRequestIDReused
	case fsmv1.Status_STATUS_ENTRY_CONFLICT:
		sentinel = ErrEntryConflict
	case fsmv1.Status_STATUS_STALE:
		sentinel = ErrStale
	default:
		sentinel = ErrInvalid
	}
	if r.GetMessage() == "" {
		return sentinel
	}
	return fmt.Errorf("%w: %s", sentinel, r.GetMessage())
}
