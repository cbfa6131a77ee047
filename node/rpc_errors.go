// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// Errors only nodes tell each other.
var (
	errNotMember    = errors.New("node is not a member of a cluster yet")
	errWrongCluster = errors.New("node belongs to another cluster")
	errInvalid      = ErrInvalid // which the API knows too
)

// errorCodes pairs sentinels with their wire codes, most specific first.
func errorCodes() []struct {
	err  error
	code nodev1.ErrorReply_Code
} {
	return []struct {
		err  error
		code nodev1.ErrorReply_Code
	}{
		{ErrUnknownOutcome, nodev1.ErrorReply_CODE_UNKNOWN_OUTCOME},
		{ErrNotLeader, nodev1.ErrorReply_CODE_NOT_LEADER},
		{ErrNoLeader, nodev1.ErrorReply_CODE_NO_LEADER},
		{ErrOverloaded, nodev1.ErrorReply_CODE_OVERLOADED},
		{ErrFenced, nodev1.ErrorReply_CODE_FENCED},
		{ErrClosed, nodev1.ErrorReply_CODE_CLOSED},
		{ErrTooStale, nodev1.ErrorReply_CODE_TOO_STALE},
		{errNotMember, nodev1.ErrorReply_CODE_NOT_MEMBER},
		{errWrongCluster, nodev1.ErrorReply_CODE_WRONG_CLUSTER},
		{errInvalid, nodev1.ErrorReply_CODE_INVALID},
		{ErrUnsafeChange, nodev1.ErrorReply_CODE_UNSAFE_CHANGE},
		{context.DeadlineExceeded, nodev1.ErrorReply_CODE_DEADLINE},
		{context.Canceled, nodev1.ErrorReply_CODE_DEADLINE},
	}
}

// encodeError keeps an error's class. An error of no known class is sent as
// such and comes out as a plain error, whose outcome the caller must not assume.
func encodeError(err error, leader *nodev1.NodeInfo) *nodev1.ErrorReply {
	r := &nodev1.ErrorReply{Message: err.Error()}
	for _, c := range errorCodes() {
		if errors.Is(err, c.err) {
			r.Code = c.code
			break
		}
	}
	switch r.Code {
	case nodev1.ErrorReply_CODE_NOT_LEADER:
		r.Leader = leader
	case nodev1.ErrorReply_CODE_OVERLOADED:
		var o *OverloadedError
		if errors.As(err, &o) {
			r.Budget, r.BudgetNodeId, r.RetryAfterMs = o.Budget, o.NodeID, o.RetryAfter.Milliseconds()
		}
	}
	return r
}

// remoteError is an error of a peer with its text and its sentinel.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }

func decodeError(body []byte) error {
	var r nodev1.ErrorReply
	if err := proto.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("node RPC: decode error reply: %w", err)
	}
	switch r.Code {
	case nodev1.ErrorReply_CODE_NOT_LEADER:
		return &NotLeaderError{Leader: memberOf(r.Leader)}
	case nodev1.ErrorReply_CODE_OVERLOADED:
		return &OverloadedError{Budget: r.Budget, NodeID: r.BudgetNodeId, RetryAfter: time.Duration(r.RetryAfterMs) * time.Millisecond}
	}
	for _, c := range errorCodes() {
		if c.code == r.Code {
			return &remoteError{text: r.Message, is: c.err}
		}
	}
	return errors.New(r.Message)
}

func memberOf(i *nodev1.NodeInfo) Member {
	if i == nil {
		return Member{}
	}
	return Member{NodeID: i.NodeId, RaftAddr: i.RaftAddr, GRPCAddr: i.GrpcAddr, RESTAddr: i.RestAddr, Zone: i.Zone, Version: i.Version}
}
