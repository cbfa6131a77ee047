// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

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
	switch Info(err).GetMetadata()["class"] {
	case classNotApplied, classPermanent:
		return history.Fail
	}
	return history.Info
}

// answer turns the errors that are answers of the state into a result; ok is
// false for all other errors.
func answer(err error) (result string, ok bool) {
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
