// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "akidb"

// The three classes of errors, in the metadata "class" of an ErrorInfo.
const (
	classNotApplied = "not_applied" // nothing happened; safe to retry
	classUnknown    = "unknown"     // may have happened, or may yet
	classPermanent  = "permanent"   // nothing happened and a retry will not help
)

// Reasons that are found here; docs/errors.md lists all of them.
const (
	reasonInvalid       = "INVALID_ARGUMENT"
	reasonMalformedJSON = "MALFORMED_JSON"
	reasonBadToken      = "BAD_SESSION_TOKEN"
	reasonTooLarge      = "REQUEST_TOO_LARGE"
	reasonBusy          = "TOO_MANY_REQUESTS"
	reasonPanic         = "PANIC"
	reasonRetired       = "NOT_SUPPORTED"
	reasonNoRoute       = "ROUTE_NOT_FOUND"
	reasonNoMethod      = "METHOD_NOT_ALLOWED"
	reasonForeign       = "CROSS_ORIGIN"
)

// Errors detected by the API itself.
var (
	// ErrTooManyRequests: the bound on requests in flight is reached.
	ErrTooManyRequests = errors.New("too many requests in flight")
	// ErrBodyTooLarge: the body of an HTTP request, or a gRPC message, exceeds its bound.
	ErrBodyTooLarge = errors.New("request too large")
)

// rule says what an error means on the wire.
type rule struct {
	err    error
	code   codes.Code
	reason string
	class  string
}

// errorRules is searched in order with errors.Is; the first match counts.
// UNKNOWN_OUTCOME comes first because such an error may also wrap the reason why
// the wait ended. Its code is UNKNOWN: no common retry policy repeats that, and
// a repeat without the request id could apply the write twice.
var errorRules = [...]rule{
	{node.ErrUnknownOutcome, codes.Unknown, "UNKNOWN_OUTCOME", classUnknown},
	{node.ErrNotLeader, codes.Unavailable, "NOT_LEADER", classNotApplied},
	{node.ErrNoLeader, codes.Unavailable, "NO_LEADER", classNotApplied},
	{node.ErrOverloaded, codes.ResourceExhausted, "OVERLOADED", classNotApplied},
	{node.ErrFenced, codes.Unavailable, "FENCED", classNotApplied},
	{node.ErrTooStale, codes.Unavailable, "TOO_STALE", classNotApplied},
	{node.ErrBadToken, codes.InvalidArgument, reasonBadToken, classPermanent},
	{node.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", classNotApplied},
	{node.ErrInvalid, codes.InvalidArgument, reasonInvalid, classPermanent},
	{node.ErrUnsafeChange, codes.FailedPrecondition, "UNSAFE_CHANGE", classPermanent},

	{raftfsm.ErrCollectionNotFound, codes.NotFound, "COLLECTION_NOT_FOUND", classPermanent},
	{raftfsm.ErrCollectionExists, codes.AlreadyExists, "COLLECTION_EXISTS", classPermanent},
	{raftfsm.ErrDocumentNotFound, codes.NotFound, "DOCUMENT_NOT_FOUND", classPermanent},
	{raftfsm.ErrDocumentExists, codes.AlreadyExists, "DOCUMENT_EXISTS", classPermanent},
	{raftfsm.ErrVersionMismatch, codes.FailedPrecondition, "VERSION_MISMATCH", classPermanent},
	{raftfsm.ErrRequestIDReused, codes.InvalidArgument, "REQUEST_ID_REUSED", classPermanent},
	{raftfsm.ErrInvalid, codes.InvalidArgument, reasonInvalid, classPermanent},
	{raftfsm.ErrEntryConflict, codes.Aborted, "ENTRY_CONFLICT", classNotApplied},
	{raftfsm.ErrStale, codes.Aborted, "STALE_PROPOSAL", classNotApplied},
	{raftfsm.ErrDiverged, codes.Unavailable, "FENCED", classNotApplied},
	{raftfsm.ErrClosed, codes.Unavailable, "SHUTTING_DOWN", classNotApplied},
	{raftfsm.ErrCorrupt, codes.Unavailable, "CORRUPT", classNotApplied},

	{index.ErrBadQuery, codes.InvalidArgument, "BAD_QUERY", classPermanent},
	{index.ErrBadFilter, codes.InvalidArgument, "BAD_FILTER", classPermanent},
	{index.ErrViewTooOld, codes.Unavailable, "VIEW_TOO_OLD", classNotApplied},

	{ErrTooManyRequests, codes.ResourceExhausted, reasonBusy, classNotApplied},
	{ErrBodyTooLarge, codes.ResourceExhausted, reasonTooLarge, classPermanent},

	// The node says UNKNOWN_OUTCOME once a write is enqueued, but a deadline may
	// also pass on the way to the leader, so a bare one promises nothing.
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED", classUnknown},
	{context.Canceled, codes.Canceled, "CANCELLED", classUnknown},
}

// violation is what is wrong with one field.
type violation struct {
	field, description string
}

// invalidError refuses a request before anything was proposed.
type invalidError struct {
	reason     string
	violations []violation
	offset     int // into the JSON text, if hasOffset
	hasOffset  bool
}

func (e *invalidError) Error() string {
	parts := make([]string, 0, len(e.violations))
	for _, v := range e.violations {
		if v.field == "" {
			parts = append(parts, v.description)
			continue
		}
		parts = append(parts, v.field+": "+v.description)
	}
	return strings.Join(parts, "; ")
}

// invalid refuses field.
func invalid(field, description string) *invalidError {
	return &invalidError{reason: reasonInvalid, violations: []violation{{field, description}}}
}

func invalidf(field, format string, args ...any) *invalidError {
	return invalid(field, fmt.Sprintf(format, args...))
}

// carriedError refuses a request that an attempt before it, on a collection that is
// gone, may be the same as: that nothing happened is not known.
type carriedError struct {
	err      error
	logIndex uint64
}

func (e *carriedError) Error() string {
	return fmt.Sprintf("%v; a request with this id was carried out at log index %d, on a collection that has been dropped since", e.err, e.logIndex)
}

func (e *carriedError) Unwrap() error { return e.err }

// noted is an error with a line of metadata for its ErrorInfo.
type noted struct {
	err        error
	key, value string
}

func (e *noted) Error() string { return e.err.Error() }
func (e *noted) Unwrap() error { return e.err }

func note(err error, key, value string) error {
	if err == nil {
		return nil
	}
	return &noted{err, key, value}
}

// statusOf is the one place where an error becomes a gRPC status. A status
// passes as it is, so that an interceptor may answer with one of its own.
func statusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		return st
	}
	meta := map[string]string{}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if n, ok := e.(*noted); ok {
			meta[n.key] = n.value
		}
	}
	var details []protoadapt.MessageV1
	r := rule{code: codes.Internal, reason: "INTERNAL", class: classUnknown}
	var iv *invalidError
	switch {
	case errors.As(err, &iv):
		r = rule{code: codes.InvalidArgument, reason: iv.reason, class: classPermanent}
		br := &errdetails.BadRequest{}
		for _, v := range iv.violations {
			br.FieldViolations = append(br.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: cut(v.field, maxErrorPart), Description: cut(v.description, maxErrorPart)})
		}
		details = append(details, br)
		if iv.hasOffset {
			meta["offset"] = strconv.Itoa(iv.offset)
		}
	default:
		for _, candidate := range errorRules {
			if errors.Is(err, candidate.err) {
				r = candidate
				break
			}
		}
	}
	var carried *carriedError
	if errors.As(err, &carried) {
		r.class = classUnknown
		meta["carried_out_at"] = strconv.FormatUint(carried.logIndex, 10)
	}
	meta["class"] = r.class
	maps.Copy(meta, hints(err))
	if d := retryAfter(r, err); d > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
	}
	info := &errdetails.ErrorInfo{Reason: r.reason, Domain: errorDomain, Metadata: meta}
	st := status.New(r.code, cut(err.Error(), maxErrorText))
	full, derr := st.WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if derr != nil {
		return st // details that cannot be encoded are not worth losing the code
	}
	return full
}

// cut takes out the middle of a text that repeats a long value of the request. A status
// travels in headers: many clients take no more than 8 KiB of them, and what even HTTP/2
// has no room for ends the connection.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit/2], "") + " […] " + strings.ToValidUTF8(s[len(s)-limit/2:], "")
}

// hints is where to go and what is used up, as far as the error knows.
func hints(err error) map[string]string {
	meta := map[string]string{}
	var nl *node.NotLeaderError
	if errors.As(err, &nl) && nl.Leader.NodeID != "" {
		meta["leader_id"] = nl.Leader.NodeID
		meta["leader_grpc"] = nl.Leader.GRPCAddr
		meta["leader_rest"] = nl.Leader.RESTAddr
	}
	var ov *node.OverloadedError
	if errors.As(err, &ov) {
		meta["budget"] = ov.Budget
		if ov.NodeID != "" {
			meta["node_id"] = ov.NodeID
		}
	}
	return meta
}

// retryAfter is how long to wait before a retry; 0 gives no advice.
func retryAfter(r rule, err error) time.Duration {
	if r.code != codes.ResourceExhausted || r.class != classNotApplied {
		return 0
	}
	var ov *node.OverloadedError
	if errors.As(err, &ov) && ov.RetryAfter > 0 {
		return ov.RetryAfter
	}
	return busyRetryAfter
}

// notApplied reports whether the class of err is that nothing happened and a
// retry may help.
func notApplied(err error) bool {
	for _, r := range errorRules {
		if errors.Is(err, r.err) {
			return r.class == classNotApplied
		}
	}
	return false
}

// withReason makes a status that has no sentinel behind it.
func withReason(code codes.Code, reason, class, format string, args ...any) error {
	st := status.Newf(code, format, args...)
	full, err := st.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain,
		Metadata: map[string]string{"class": class}})
	if err != nil {
		return st.Err()
	}
	return full.Err()
}
