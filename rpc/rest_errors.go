// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gatewayError answers an error of the gateway or of a handler.
func (r *rest) gatewayError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, err error) {
	if x := exchangeOf(ctx); x != nil {
		if pattern, ok := runtime.HTTPPathPattern(ctx); ok {
			x.route = pattern
		}
		if x.body.err != nil {
			err = x.body.err // what the gateway has put into words
		}
	}
	if st := status.Convert(err); st.Code() == codes.InvalidArgument && len(st.Details()) == 0 {
		err = invalid(blamed(req, st.Message()), st.Message())
	}
	writeError(w, err, 0)
}

// blamed is the query parameter that an error of the gateway is about: it only
// names it in its text.
func blamed(req *http.Request, text string) string {
	for name := range req.URL.Query() {
		if strings.Contains(text, strconv.Quote(name)) {
			return name
		}
	}
	return ""
}

// routingError answers a request that no route takes.
func (r *rest) routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, code int) {
	switch code {
	case http.StatusMethodNotAllowed:
		writeError(w, withReason(codes.Unimplemented, reasonNoMethod, classPermanent,
			"%s does not take %s", req.URL.Path, req.Method), code)
	case http.StatusNotFound:
		writeError(w, withReason(codes.NotFound, reasonNoRoute, classPermanent,
			"no such route: %s; /openapi.json lists all", req.URL.Path), code)
	default:
		writeError(w, withReason(codes.InvalidArgument, reasonInvalid, classPermanent, "%s", http.StatusText(code)), code)
	}
}

// httpStatus is the HTTP status of a gRPC code; reason splits the codes that
// HTTP tells apart.
func httpStatus(code codes.Code, reason string) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.FailedPrecondition:
		return http.StatusPreconditionFailed
	case codes.ResourceExhausted:
		if reason == reasonTooLarge {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusTooManyRequests
	case codes.Canceled:
		return 499 // the caller is gone; what its proxy logs
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// codeName is a gRPC code as error bodies spell it.
func codeName(c codes.Code) string {
	names := [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
		"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
		"OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}
	if int(c) < len(names) {
		return names[c]
	}
	return "UNKNOWN"
}

// writeError is the one writer of error bodies. forced overrides the status.
func writeError(w http.ResponseWriter, err error, forced int) {
	st := statusOf(err)
	details := errorDetails{}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			details.info = d
		case *errdetails.BadRequest:
			details.violations = d.GetFieldViolations()
		case *errdetails.RetryInfo:
			details.retry = d
		}
	}
	code := forced
	if code == 0 {
		code = httpStatus(st.Code(), details.info.GetReason())
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Length")
	if details.retry != nil {
		seconds := math.Ceil(details.retry.GetRetryDelay().AsDuration().Seconds())
		h.Set("Retry-After", strconv.Itoa(max(1, int(seconds))))
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	meta := details.info.GetMetadata()
	for _, hint := range [][2]string{{"leader_id", "X-Akidb-Leader-Id"}, {"leader_grpc", "X-Akidb-Leader-Grpc"}, {"leader_rest", "X-Akidb-Leader-Rest"}} {
		if v := meta[hint[0]]; v != "" {
			h.Set(hint[1], v)
		}
	}
	w.WriteHeader(code)
	_, _ = w.Write(details.body(st)) // the caller may be gone
}

// errorDetails are the parts of a status' details that REST shows.
type errorDetails struct {
	info       *errdetails.ErrorInfo
	violations []*errdetails.BadRequest_FieldViolation
	retry      *errdetails.RetryInfo
}

func (d errorDetails) body(st *status.Status) []byte {
	b := append([]byte(nil), `{"error":{"code":`...)
	b = appendString(b, codeName(st.Code()))
	b = append(b, `,"message":`...)
	b = appendString(b, st.Message())
	b = append(b, `,"details":{`...)
	first := true
	key := func(k string) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, k), ':')
	}
	if r := d.info.GetReason(); r != "" {
		key("reason")
		b = appendString(b, r)
	}
	for _, k := range slices.Sorted(maps.Keys(d.info.GetMetadata())) {
		key(k)
		b = appendString(b, d.info.GetMetadata()[k])
	}
	if d.retry != nil {
		key("retry_after_ms")
		b = strconv.AppendInt(b, d.retry.GetRetryDelay().AsDuration().Milliseconds(), 10)
	}
	if len(d.violations) > 0 {
		key("violations")
		for i, v := range d.violations {
			if i == 0 {
				b = append(b, '[')
			} else {
				b = append(b, ',')
			}
			b = append(append(b, `{"field":`...), appendString(nil, v.GetField())...)
			b = append(append(b, `,"description":`...), appendString(nil, v.GetDescription())...)
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, "}}}\n"...)
}
