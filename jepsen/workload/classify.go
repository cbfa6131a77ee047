// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/jepsen/history"
)

// Reasons of errors that are answers of the state, from docs/errors.md.
const (
	reasonDocumentExists     = "DOCUMENT_EXISTS"
	reasonDocumentNotFound   = "DOCUMENT_NOT_FOUND"
	reasonVersionMismatch    = "VERSION_MISMATCH"
	reasonCollectionExists   = "COLLECTION_EXISTS"
	reasonCollectionNotFound = "COLLECTION_NOT_FOUND"
	reasonRequestIDReused    = "REQUEST_ID_REUSED"
)

// Classes of errors, in the metadata "class" of an ErrorInfo.
const (
	classNotApplied = "not_applied"
	classPermanent  = "permanent"
)

// definiteError is an error of a workload itself, raised before anything was sent.
type definiteError struct{ err error }

func (e definiteError) Error() string { return e.err.Error() }
func (e definiteError) Unwrap() error { return e.err }

// notSent marks an error of something that was never sent.
func notSent(err error) error { return definiteError{err} }

// Info returns the ErrorInfo of an error, nil if it has none. An error may carry
// it as a gRPC status or by a method of its own (the REST client's does).
func Info(err error) *errdetails.ErrorInfo {
	var own interface{ ErrorInfo() *errdetails.ErrorInfo }
	if errors.As(err, &own) {
		return own.ErrorInfo()
	}
	st, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

// Reason is the reason in an error's ErrorInfo, or "".
func Reason(err error) string { return Info(err).GetReason() }

// Classify says what became of an operation. Only a server that says so, or a
// request that was never sent, makes a write fail; whatever is unclear (a lost
// connection, a deadline, an error without a class) leaves it unknown. A read
// that got no answer taught nobody anything, so it fails.
func Classify(read bool, err error) history.Type {
	if err == nil {
		return history.OK
	}
	var definite definiteError
	if read || errors.As(err, &definite) {
		return history.Fail
	}
	// The Go client's own class covers all attempts of a call; the server's, in
	// the ErrorInfo of the last attempt, speaks of that one alone.
	if e, ok := errors.AsType[*client.Error](err); ok {
		if e.Class == client.NotApplied || e.Class == client.Permanent {
			return history.Fail
		}
		return history.Info
	}
	switch Info(err).GetMetadata()["class"] {
	case classNotApplied, classPermanent:
		return history.Fail
	}
	return history.Info
}

// Served says whether the database answered, if only with a refusal: what the
// availability of a run is counted by.
func Served(err error) bool {
	if err == nil {
		return true
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Class == client.Permanent
	}
	if info := Info(err); info != nil {
		return info.GetMetadata()["class"] == classPermanent
	}
	// A workload's own reason not to send something is no failure of the database.
	var definite definiteError
	return errors.As(err, &definite) && status.Code(definite.err) == codes.Unknown
}

// answer turns the errors that are answers of the state into a result; ok is
// false for all other errors.
func answer(err error) (result string, ok bool) {
	if Classify(false, err) != history.Fail {
		return "", false
	}
	switch Reason(err) {
	case reasonDocumentExists, reasonCollectionExists:
		return "exists", true
	case reasonDocumentNotFound, reasonCollectionNotFound:
		return "absent", true
	case reasonVersionMismatch:
		return "mismatch", true
	}
	return "", false
}

// outcome completes a write: an answer of the state is no error.
func outcome(out history.Value, err error) (history.Value, error) {
	if err == nil {
		return out, nil
	}
	if res, ok := answer(err); ok {
		return history.Value{Result: res}, nil
	}
	return history.Value{}, err
}
