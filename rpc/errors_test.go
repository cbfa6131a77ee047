// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// details takes the details of an error's status apart.
func details(t *testing.T, err error) (code codes.Code, info *errdetails.ErrorInfo, violations []string, retry time.Duration) {
	t.Helper()
	st := statusOf(err)
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				violations = append(violations, v.GetField())
			}
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration()
		}
	}
	if info == nil {
		t.Fatalf("%v: no ErrorInfo", err)
	}
	return st.Code(), info, violations, retry
}

func TestEverySentinelHasItsStatus(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   codes.Code
		http   int
		reason string
		class  string
	}{
		{node.ErrNotLeader, codes.Unavailable, 503, "NOT_LEADER", "not_applied"},
		{node.ErrNoLeader, codes.Unavailable, 503, "NO_LEADER", "not_applied"},
		{node.ErrUnknownOutcome, codes.Unknown, 500, "UNKNOWN_OUTCOME", "unknown"},
		{node.ErrOverloaded, codes.ResourceExhausted, 429, "OVERLOADED", "not_applied"},
		{node.ErrFenced, codes.Unavailable, 503, "FENCED", "not_applied"},
		{node.ErrTooStale, codes.Unavailable, 503, "TOO_STALE", "not_applied"},
		{index.ErrViewTooOld, codes.Unavailable, 503, "VIEW_TOO_OLD", "not_applied"},
		{node.ErrBadToken, codes.InvalidArgument, 400, "BAD_SESSION_TOKEN", "permanent"},
		{node.ErrClosed, codes.Unavailable, 503, "SHUTTING_DOWN", "not_applied"},
		{node.ErrInvalid, codes.InvalidArgument, 400, "INVALID_ARGUMENT", "permanent"},
		{node.ErrUnsafeChange, codes.FailedPrecondition, 412, "UNSAFE_CHANGE", "permanent"},
		{raftfsm.ErrCollectionNotFound, codes.NotFound, 404, "COLLECTION_NOT_FOUND", "permanent"},
		{raftfsm.ErrCollectionExists, codes.AlreadyExists, 409, "COLLECTION_EXISTS", "permanent"},
		{raftfsm.ErrDocumentNotFound, codes.NotFound, 404, "DOCUMENT_NOT_FOUND", "permanent"},
		{raftfsm.ErrDocumentExists, codes.AlreadyExists, 409, "DOCUMENT_EXISTS", "permanent"},
		{raftfsm.ErrVersionMismatch, codes.FailedPrecondition, 412, "VERSION_MISMATCH", "permanent"},
		{raftfsm.ErrRequestIDReused, codes.InvalidArgument, 400, "REQUEST_ID_REUSED", "permanent"},
		{raftfsm.ErrInvalid, codes.InvalidArgument, 400, "INVALID_ARGUMENT", "permanent"},
		{raftfsm.ErrEntryConflict, codes.Aborted, 409, "ENTRY_CONFLICT", "not_applied"},
		{raftfsm.ErrStale, codes.Aborted, 409, "STALE_PROPOSAL", "not_applied"},
		{raftfsm.ErrDiverged, codes.Unavailable, 503, "FENCED", "not_applied"},
		{raftfsm.ErrClosed, codes.Unavailable, 503, "SHUTTING_DOWN", "not_applied"},
		{raftfsm.ErrCorrupt, codes.Unavailable, 503, "CORRUPT", "not_applied"},
		{index.ErrBadQuery, codes.InvalidArgument, 400, "BAD_QUERY", "permanent"},
		{index.ErrBadFilter, codes.InvalidArgument, 400, "BAD_FILTER", "permanent"},
		{ErrTooManyRequests, codes.ResourceExhausted, 429, "TOO_MANY_REQUESTS", "not_applied"},
		{ErrBodyTooLarge, codes.ResourceExhausted, 413, "REQUEST_TOO_LARGE", "permanent"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, 504, "DEADLINE_EXCEEDED", "unknown"},
		{context.Canceled, codes.Canceled, 499, "CANCELLED", "unknown"},
		{errors.New("something else"), codes.Internal, 500, "INTERNAL", "unknown"},
	} {
		for _, err := range []error{c.err, fmt.Errorf("a: %w", fmt.Errorf("b: %w", c.err)), errors.Join(errors.New("x"), c.err),
			note(c.err, "field", "ops[1]")} {
			code, info, _, retry := details(t, err)
			if code != c.code || info.GetReason() != c.reason || info.GetMetadata()["class"] != c.class || info.GetDomain() != "akidb" {
				t.Errorf("%v: %v %v, want %v %s %s", err, code, info, c.code, c.reason, c.class)
			}
			if got := httpStatus(code, info.GetReason()); got != c.http {
				t.Errorf("%v: HTTP %d, want %d", err, got, c.http)
			}
			if wait := c.http == http.StatusTooManyRequests; (retry > 0) != wait {
				t.Errorf("%v: retry after %v, want advice: %v", err, retry, wait)
			}
			if statusOf(err).Message() != err.Error() {
				t.Errorf("message is %q, want the error's text %q", statusOf(err).Message(), err)
			}
		}
	}
}

// Damage that a handler met is reported to the node, and nothing else is.
func TestDamageIsReported(t *testing.T) {
	var told []error
	g := &guard{log: slog.New(slog.DiscardHandler), suspect: func(err error) { told = append(told, err) }}
	damage := fmt.Errorf("read: %w", raftfsm.ErrCorrupt)
	for _, err := range []error{raftfsm.ErrDocumentNotFound, damage, errors.New("something else"), node.ErrFenced} {
		if status.Code(g.report("/akidb.collection.v1.CollectionService/Get", err)) == codes.OK {
			t.Errorf("%v became OK", err)
		}
	}
	if len(told) != 1 || told[0] != damage {
		t.Errorf("told %v", told)
	}
}

// TestNoSentinelIsForgotten reads the packages that define sentinels.
func TestNoSentinelIsForgotten(t *testing.T) {
	known := map[string]bool{}
	rules, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"node", "raftfsm", "index"} {
		paths, err := filepath.Glob("../" + pkg + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						if !strings.HasPrefix(name.Name, "Err") {
							continue
						}
						found++
						if full := pkg + "." + name.Name; !strings.Contains(string(rules), "{"+full+",") && !notOnTheWire[full] {
							t.Errorf("%s has no rule in errors.go", full)
						}
						known[pkg] = true
					}
				}
			}
		}
		if found == 0 {
			t.Errorf("no sentinel found in package %s; is this test looking in the right place?", pkg)
		}
	}
}

// notOnTheWire are errors of starting, stopping and recovering offline, which no
// request can meet.
var notOnTheWire = map[string]bool{"node.ErrMembersLive": true}

func TestUnknownOutcomeWinsOverItsCause(t *testing.T) {
	err := fmt.Errorf("wait: %w", errors.Join(node.ErrUnknownOutcome, context.DeadlineExceeded))
	if code, info, _, _ := details(t, err); code != codes.Unknown || info.GetReason() != "UNKNOWN_OUTCOME" {
		t.Errorf("%v %v; a caller would take it for a read that timed out", code, info)
	}
}

func TestErrorsCarryHints(t *testing.T) {
	err := fmt.Errorf("write: %w", &node.NotLeaderError{Leader: node.Member{NodeID: "n2", GRPCAddr: "h:1", RESTAddr: "h:2"}})
	_, info, _, _ := details(t, err)
	if m := info.GetMetadata(); m["leader_id"] != "n2" || m["leader_grpc"] != "h:1" || m["leader_rest"] != "h:2" {
		t.Errorf("metadata %v has no leader hint", m)
	}
	w := httptest.NewRecorder()
	writeError(w, err, 0)
	if w.Code != 503 || w.Header().Get("X-Akidb-Leader-Rest") != "h:2" || !strings.Contains(w.Body.String(), `"leader_grpc":"h:1"`) {
		t.Errorf("REST: %d %v %s", w.Code, w.Header(), w.Body)
	}
	err = fmt.Errorf("write: %w", &node.OverloadedError{Budget: "disk", NodeID: "n2", RetryAfter: 1500 * time.Millisecond})
	_, info, _, retry := details(t, err)
	if info.GetMetadata()["budget"] != "disk" || info.GetMetadata()["node_id"] != "n2" || retry != 1500*time.Millisecond {
		t.Errorf("overload: %v, %v", info, retry)
	}
	w = httptest.NewRecorder()
	writeError(w, err, 0)
	if w.Code != 429 || w.Header().Get("Retry-After") != "2" || !strings.Contains(w.Body.String(), `"retry_after_ms":1500`) {
		t.Errorf("REST: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestValidationNamesItsFields(t *testing.T) {
	err := fmt.Errorf("x: %w", invalidf("ops[3].insert.vector[17]", "must be a finite number, not %v", "NaN"))
	code, info, fields, _ := details(t, err)
	if code != codes.InvalidArgument || info.GetReason() != reasonInvalid || len(fields) != 1 || fields[0] != "ops[3].insert.vector[17]" {
		t.Errorf("%v %v %v", code, info, fields)
	}
	w := httptest.NewRecorder()
	writeError(w, err, 0)
	want := `{"error":{"code":"INVALID_ARGUMENT","message":"x: ops[3].insert.vector[17]: must be a finite number, not NaN",` +
		`"details":{"reason":"INVALID_ARGUMENT","class":"permanent","violations":[{"field":"ops[3].insert.vector[17]","description":"must be a finite number, not NaN"}]}}}` + "\n"
	if w.Code != 400 || w.Body.String() != want {
		t.Errorf("%d\n%s\nwant\n%s", w.Code, w.Body, want)
	}
}

func TestAStatusPassesAsItIs(t *testing.T) {
	err := withReason(codes.PermissionDenied, "DENIED", classPermanent, "no")
	if got := statusOf(err); got.Code() != codes.PermissionDenied || got.Message() != "no" {
		t.Errorf("%v", got)
	}
	if status.Code(statusOf(fmt.Errorf("auth: %w", err)).Err()) != codes.PermissionDenied {
		t.Error("a wrapped status lost its code")
	}
}

// TestEveryReasonIsDocumented keeps docs/errors.md whole.
func TestEveryReasonIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := []string{reasonInvalid, reasonMalformedJSON, reasonTooLarge, reasonBusy, reasonPanic, reasonRetired, reasonNoRoute, reasonNoMethod, reasonNoMember, "INTERNAL"}
	for _, r := range errorRules {
		reasons = append(reasons, r.reason)
	}
	for _, r := range reasons {
		if !strings.Contains(string(doc), "`"+r+"`") {
			t.Errorf("docs/errors.md does not know the reason %s", r)
		}
	}
}

// What is wrong with a long value is said in few bytes: a status travels in headers,
// which clients bound, and one that is too long ends the connection with every call on it.
func TestErrorsOfLongValuesAreShort(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	_, err := b.docs.Count(t.Context(), &collectionv1.CountRequest{CollectionId: "c", Consistency: strings.Repeat("x", 17<<20)})
	long := strings.Repeat("é", 32<<10)
	_, created := b.manage.CreateCollection(t.Context(), &collectionv1.CreateCollectionRequest{Name: "d", Dimension: 1, Metric: long})
	for field, err := range map[string]error{"consistency": err, "metric": created} {
		st := status.Convert(err)
		if st.Code() != codes.InvalidArgument || !strings.HasPrefix(st.Message(), field+": ") || !strings.Contains(st.Message(), "is none of") ||
			!utf8.ValidString(st.Message()) || proto.Size(st.Proto()) > 4<<10 {
			t.Errorf("%s: %d bytes, %.200v", field, proto.Size(st.Proto()), err)
		}
	}
	r := b.do("POST", "/api/v1/collections/c/count", `{"`+long+`":1}`)
	if r.status != 400 || len(r.text) > 8<<10 || !strings.Contains(r.text, "unknown field") {
		t.Errorf("unknown field: %d, %d bytes, %.200s", r.status, len(r.text), r.text)
	}
}
