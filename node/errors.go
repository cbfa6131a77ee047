// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"time"
)

// Errors of proposals and reads. All but ErrUnknownOutcome mean: not applied.
var (
	ErrNotLeader = errors.New("not the leader")
	ErrNoLeader  = errors.New("no leader known")
	// ErrUnknownOutcome: leadership or time was lost after the proposal was
	// enqueued. It may have been applied, or may be later.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrOverloaded: a budget is used up; see OverloadedError.
	ErrOverloaded = errors.New("overloaded")
	// ErrFenced: this replica's state is not to be trusted.
	ErrFenced   = errors.New("replica fenced")
	ErrTooStale = errors.New("replica too stale")
	ErrBadToken = errors.New("bad session token")
	ErrClosed   = errors.New("node closed")
	// ErrInvalid: the request makes no sense here, and will not later.
	ErrInvalid = errors.New("invalid request")
	// ErrUnsafeChange: the change of members could end the cluster.
	ErrUnsafeChange = errors.New("unsafe change of members")
)

// OverloadedError wraps ErrOverloaded with the budget that is used up.
type OverloadedError struct {
	Budget     string // "proposals", "memory", "disk", "apply lag", "index backlog"
	NodeID     string // whose; empty if it is the leader's and that is not known
	RetryAfter time.Duration
}

func (e *OverloadedError) Error() string {
	if e.NodeID == "" {
		return "overloaded: " + e.Budget + " budget used up"
	}
	return "overloaded: " + e.Budget + " budget of " + e.NodeID + " used up"
}

// Unwrap returns ErrOverloaded.
func (e *OverloadedError) Unwrap() error { return ErrOverloaded }

// NotLeaderError wraps ErrNotLeader with the leader, as far as it is known.
type NotLeaderError struct {
	Leader Member
}

func (e *NotLeaderError) Error() string {
	if e.Leader.NodeID == "" {
		return "not the leader; no leader known"
	}
	return "not the leader; leader is " + e.Leader.NodeID
}

// Unwrap returns ErrNotLeader.
func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }
