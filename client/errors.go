// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Class says what is known of a failed call; the table in the package comment
// says what follows from it.
type Class uint8

// The classes.
const (
	// NotApplied: nothing was changed and nothing will be; trying again is safe.
	NotApplied Class = iota + 1
	// Unknown: a write may have been applied, or may be later. Trying again is
	// safe with the same request id only.
	Unknown
	// Permanent: refused; the same call will be refused again.
	Permanent
)

func (c Class) String() string {
	switch c {
	case NotApplied:
		return "not applied"
	case Unknown:
		return "outcome unknown"
	case Permanent:
		return "permanent"
	}
	return "class?"
}

// Reasons in ErrorInfo that the client acts upon.
const (
	reasonNotLeader    = "NOT_LEADER"
	reasonNoLeader     = "NO_LEADER"
	reasonUnknown      = "UNKNOWN_OUTCOME"
	reasonFenced       = "FENCED"
	reasonCorrupt      = "CORRUPT"
	reasonTooStale     = "TOO_STALE"
	reasonShutdown     = "SHUTTING_DOWN"
	reasonNoMember     = "MEMBER_NOT_FOUND"
	reasonNoCollection = "COLLECTION_NOT_FOUND"
	reasonInternal     = "INTERNAL"
	reasonPanic        = "PANIC"
)

// The trailers that name the leader.
const (
	trailerLeaderID   = "akidb-leader-id"
	trailerLeaderGRPC = "akidb-leader-grpc"
)

// ErrClosed is returned by calls of a closed client.
var ErrClosed = errors.New("client: closed")

// Error is what every failed call returns. It unwraps to the gRPC status error
// of the last attempt, or to the context's error.
type Error struct {
	Method    string // "Upsert"
	Code      codes.Code
	Reason    string // ErrorInfo's; empty if there was none
	Class     Class
	RequestID string // of a write
	Endpoint  string // where the last attempt went
	Attempts  int
	Err       error
}

func (e *Error) Error() string {
	msg := e.Err.Error()
	if s, ok := status.FromError(e.Err); ok {
		msg = s.Message()
	}
	return fmt.Sprintf("client: %s at %s: %s (%s, %s, attempts: %d)", e.Method, e.Endpoint, msg, e.Code, e.Class, e.Attempts)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus lets status.Code and status.FromError read an Error.
func (e *Error) GRPCStatus() *status.Status {
	if s, ok := status.FromError(e.Err); ok {
		return s
	}
	return status.FromContextError(e.Err)
}

// IsRetryable is true if the call was not applied and may succeed later.
func IsRetryable(err error) bool { return classOf(err) == NotApplied }

// IsUnknown is true if a write may have been applied.
func IsUnknown(err error) bool { return classOf(err) == Unknown }

// IsPermanent is true if the call was refused for good.
func IsPermanent(err error) bool { return classOf(err) == Permanent }

func classOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return 0
}

// Code is the gRPC code of an error of this package; OK for nil.
func Code(err error) codes.Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return status.Code(err)
}

// Reason is the ErrorInfo reason of an error of this package, such as
// "NOT_LEADER"; empty if it has none.
func Reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// verdict is what one failed attempt means.
type verdict struct {
	code     codes.Code
	reason   string
	class    Class
	retry    bool          // another attempt may succeed
	odd      bool          // should not be; retried a few times only
	moveOn   bool          // not on this endpoint
	down     bool          // the endpoint did not answer
	election bool          // waiting for a leader
	after    time.Duration // RetryInfo
	hint     leaderHint
}

// leaderHint names the leader as far as a server said; matched by id first.
type leaderHint struct{ nodeID, addr string }

// judge reads an attempt's error. sent is false if the request never left.
func judge(err error, sent bool) verdict {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	v := verdict{code: s.Code()}
	var class string
	carried := false
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			v.reason, class = d.GetReason(), d.GetMetadata()["class"]
			v.hint = hintOf(d.GetMetadata())
			carried = d.GetMetadata()["carried_out_at"] != ""
		case *errdetails.RetryInfo:
			v.after = min(d.GetRetryDelay().AsDuration(), maxRetryInfo)
		}
	}
	v.byCode(sent)
	v.byReason()
	switch class { // the server's word beats our tables
	case "not_applied":
		v.class, v.retry = NotApplied, true
	case "unknown":
		// What was carried out on a collection that is gone is answered so for ever.
		v.class, v.retry = Unknown, !carried
	case "permanent":
		v.class, v.retry = Permanent, false
	}
	return v
}

// byCode is the fallback where there is no ErrorInfo.
func (v *verdict) byCode(sent bool) {
	switch v.code {
	case codes.Unavailable:
		v.class, v.retry, v.moveOn = Unknown, true, true
		v.down = v.reason == "" // a server that is there says why
	case codes.DeadlineExceeded, codes.Canceled:
		v.class, v.retry, v.moveOn = Unknown, true, true
	case codes.Internal, codes.Unknown, codes.DataLoss:
		v.class, v.retry, v.moveOn, v.odd = Unknown, true, true, true
	case codes.ResourceExhausted:
		// Without RetryInfo it is a size limit, which waiting does not change.
		v.class, v.retry = Permanent, false
		if v.after > 0 {
			v.class, v.retry = NotApplied, true
		}
	default:
		v.class = Permanent
	}
	if !sent && v.class == Unknown {
		v.class = NotApplied
	}
}

// byReason reads what the server says happened.
func (v *verdict) byReason() {
	switch v.reason {
	case "", reasonInternal, reasonPanic:
		return
	case reasonNotLeader, reasonNoLeader:
		v.class, v.retry, v.election, v.moveOn = NotApplied, true, true, true
	case reasonUnknown:
		v.class, v.retry, v.election, v.moveOn = Unknown, true, true, false
	case reasonFenced, reasonCorrupt, reasonTooStale, reasonShutdown:
		v.class, v.retry, v.moveOn = NotApplied, true, true
		v.down = v.reason != reasonTooStale
	}
	v.odd = false
}

// settles is true if a refusal also says that no earlier attempt of the same
// request was or will be applied: the state machine spoke, which knows the request
// by its id.
//
// What is refused before it is in the log says nothing of earlier attempts: the
// collection may have been dropped since, or made anew with another dimension, a
// member taken out. That a request id belongs to another command says the opposite:
// an earlier attempt got through, and resolved a name to what it then was.
func (v *verdict) settles(m method) bool {
	switch v.reason {
	case reasonNoMember:
		return false
	case reasonNoCollection:
		// Only a drop finds its collection when it is applied.
		return m.name == collectionv1.CollectionManagementService_DeleteCollection_FullMethodName
	}
	switch v.code {
	case codes.AlreadyExists, codes.NotFound, codes.FailedPrecondition, codes.Aborted, codes.OutOfRange:
		return v.class == Permanent
	}
	return false
}

// hintOf reads the leader from ErrorInfo's metadata.
func hintOf(md map[string]string) leaderHint {
	return leaderHint{nodeID: md["leader_id"], addr: md["leader_grpc"]}
}

// contextClass is the class of a call that its own context ended.
func contextClass(maybe bool) Class {
	if maybe {
		return Unknown
	}
	return NotApplied
}
