// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// rest is the REST API: the generated gateway calling the handlers in process,
// and the few endpoints that are not gRPC methods.
type rest struct {
	guard   *guard
	gateway *runtime.ServeMux
	fixed   map[string]http.HandlerFunc // by exact path; GET and HEAD
	// foreign refuses what a page of another site makes a browser send: bodies are read
	// whatever their type, so that none of it would be asked about beforehand.
	foreign http.CrossOriginProtection
}

func newREST(cfg Config, g *guard, svc *service, ops *cluster) (http.Handler, error) {
	r := &rest{guard: g}
	r.gateway = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, jsonMarshaler{}),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllCharacters),
		runtime.WithStrictDeepWildcardMatching(),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithIncomingHeaderMatcher(incomingHeader),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithForwardResponseOption(replyHeaders),
		runtime.WithErrorHandler(r.gatewayError),
		runtime.WithRoutingErrorHandler(r.routingError),
	)
	ctx := context.Background() // the in-process registration starts nothing
	err := errors.Join(
		collectionv1.RegisterCollectionServiceHandlerServer(ctx, r.gateway, &restCollections{r: r, s: svc}),
		collectionv1.RegisterCollectionManagementServiceHandlerServer(ctx, r.gateway, &restManagement{r: r, s: svc}),
		clusterv1.RegisterClusterServiceHandlerServer(ctx, r.gateway, &restCluster{r: r, s: ops}),
		r.retire(),
	)
	if err != nil {
		return nil, fmt.Errorf("rpc: register routes: %w", err)
	}
	r.fixed = fixedEndpoints(cfg, ops)
	return r, nil
}

// incomingHeader says which headers of a request the handlers see as metadata;
// the gateway passes Authorization by itself.
func incomingHeader(name string) (string, bool) {
	switch name {
	case "X-Api-Key", "Traceparent", "Tracestate":
		return strings.ToLower(name), true
	case "X-Akidb-No-Forward":
		return noForwardKey, true
	}
	return "", false
}

// exchange is what this layer knows of one request beside the request itself.
type exchange struct {
	http.ResponseWriter
	request *http.Request
	body    *restBody
	route   string // the pattern that matched, for metrics
	status  int
}

// WriteHeader notes the status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// restBody is a bounded request body. It keeps the error that the gateway would
// flatten into text.
type restBody struct {
	io.ReadCloser
	length int64 // as announced; -1 if unknown
	err    error
	// What the body itself said of the fields that a path may hold; the gateway
	// writes those of the path over them.
	collectionID, docID, nodeID string
}

// note keeps what the body said.
func (b *restBody) note(m any) {
	b.collectionID, b.docID, b.nodeID = pathFields(m)
}

// pathFields are the fields of a request that stand in a path.
func pathFields(m any) (collectionID, docID, nodeID string) {
	if r, ok := m.(interface{ GetCollectionId() string }); ok {
		collectionID = r.GetCollectionId()
	}
	if r, ok := m.(interface{ GetDocId() string }); ok {
		docID = r.GetDocId()
	}
	if r, ok := m.(interface{ GetNodeId() string }); ok {
		nodeID = r.GetNodeId()
	}
	return collectionID, docID, nodeID
}

// contradicts refuses a body that means something else than its path.
func (b *restBody) contradicts(m any) error {
	collectionID, docID, nodeID := pathFields(m)
	for _, f := range [...]struct{ name, body, path string }{
		{"collection_id", b.collectionID, collectionID}, {"doc_id", b.docID, docID}, {"node_id", b.nodeID, nodeID}} {
		if f.body != "" && f.body != f.path {
			return invalidf(f.name, "the body says %q and the path %q; leave it out of the body", f.body, f.path)
		}
	}
	return nil
}

func (b *restBody) readAll() ([]byte, error) {
	if b.length > maxMessageBytes {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrBodyTooLarge, b.length, maxMessageBytes)
	}
	// What is announced takes memory only as it comes.
	buf := make([]byte, 0, max(512, min(b.length+1, firstBodyBytes)))
	for {
		n, err := b.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > maxMessageBytes:
			return nil, fmt.Errorf("%w: more than %d bytes", ErrBodyTooLarge, maxMessageBytes)
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return nil, invalidf("", "the request body ends early: %v", err)
		}
		if len(buf) == cap(buf) {
			more := make([]byte, len(buf), max(2*len(buf), min(4*len(buf), int(b.length)+1)))
			copy(more, buf)
			buf = more
		}
	}
}

// ServeHTTP implements http.Handler.
func (r *rest) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	start := time.Now()
	x := &exchange{ResponseWriter: w, route: "other"}
	x.body = &restBody{ReadCloser: req.Body, length: req.ContentLength}
	req = req.WithContext(context.WithValue(req.Context(), exchangeKey{}, x))
	req.Body = x.body
	x.request = req
	defer func() {
		r.guard.metrics.answeredHTTP(method(req.Method), x.route, x.status, time.Since(start))
	}()
	defer r.recovered(x)
	handler, ok := r.fixed[req.URL.Path]
	foreign := r.foreign.Check(req)
	switch {
	case foreign != nil:
		writeError(x, withReason(codes.PermissionDenied, reasonForeign, classPermanent,
			"a page of another origin may not write or search here: %v", foreign), 0)
	case !ok:
		r.gateway.ServeHTTP(x, req)
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		x.route = req.URL.Path
		x.Header().Set("Allow", "GET, HEAD")
		r.routingError(req.Context(), nil, nil, x, req, http.StatusMethodNotAllowed)
	default:
		x.route = req.URL.Path
		handler(x, req)
	}
}

// method keeps made-up methods out of the metrics.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// recovered answers for a panic outside the handlers, which recover themselves.
func (r *rest) recovered(x *exchange) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	r.guard.metrics.panics.Inc()
	r.guard.log.Error("panic in the gateway", "path", x.request.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	if x.status == 0 {
		writeError(x, withReason(codes.Internal, reasonPanic, classUnknown, "internal error"), 0)
	}
}

// restCall is how a route reaches its handler: the query parameters are checked,
// the peer is made known, and the guard runs the interceptors.
func restCall[Req, Resp any](r *rest, ctx context.Context, fullMethod string, req *Req, handler func(context.Context, *Req) (*Resp, error)) (*Resp, error) {
	if x := exchangeOf(ctx); x != nil {
		if pattern, ok := runtime.HTTPPathPattern(ctx); ok {
			x.route = pattern
		}
		if err := checkParameters(x.request, any(req).(proto.Message)); err != nil {
			return nil, statusOf(err).Err()
		}
		if err := x.body.contradicts(req); err != nil {
			return nil, statusOf(err).Err()
		}
		if err := checkNoBody(x); err != nil {
			return nil, statusOf(err).Err()
		}
		if q, ok := any(req).(request); ok && isVisible(q.GetRequestId()) {
			x.Header().Set("X-Akidb-Request-Id", q.GetRequestId())
		}
		ctx = peer.NewContext(ctx, peerOf(x.request))
	}
	info := &grpc.UnaryServerInfo{FullMethod: fullMethod}
	resp, err := r.guard.call(ctx, req, info, func(ctx context.Context, req any) (any, error) {
		return handler(ctx, req.(*Req))
	})
	if err != nil {
		return nil, err
	}
	return resp.(*Resp), nil
}

// isVisible reports whether text can stand in a header as it is.
func isVisible(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return text != ""
}

// checkParameters refuses what the gateway would pass over: any query parameter
// of a POST, whose fields belong in the body, and elsewhere unknown ones and those
// that contradict the path.
func checkParameters(req *http.Request, m proto.Message) error {
	if req.URL.RawQuery == "" {
		return nil
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	for name, values := range req.URL.Query() {
		fd := fields.ByName(protoreflect.Name(name))
		switch {
		case req.Method == http.MethodPost:
			return invalid(name, "query parameters are for GET and DELETE; put the field into the body")
		case fd == nil:
			return invalid(name, "unknown query parameter")
		case fd.Kind() == protoreflect.StringKind && values[0] != "" && values[0] != m.ProtoReflect().Get(fd).String():
			return invalidf(name, "the query says %q and the path %q; leave it out of the query", values[0], m.ProtoReflect().Get(fd).String())
		}
	}
	return nil
}

// checkNoBody refuses the body of a DELETE, which the gateway does not look at: an
// if_version in it would be lost.
func checkNoBody(x *exchange) error {
	if x.request.Method != http.MethodDelete || x.body.length == 0 {
		return nil
	}
	body, err := x.body.readAll()
	if err != nil {
		return err
	}
	switch strings.TrimSpace(string(body)) {
	case "", "{}", "null":
		return nil
	}
	return invalid("", "a DELETE has no body; give the fields as query parameters")
}

func peerOf(req *http.Request) *peer.Peer {
	p := &peer.Peer{Addr: restAddr(req.RemoteAddr)}
	if local, ok := req.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		p.LocalAddr = local
	}
	if req.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{State: *req.TLS}
	}
	return p
}

// restAddr is the remote address of an HTTP request.
type restAddr string

func (a restAddr) Network() string { return "tcp" }
func (a restAddr) String() string  { return string(a) }

// replyHeaders sets the status of creations and deletions and repeats how the
// reply came about in headers, for callers that keep tokens without parsing.
func replyHeaders(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	if r, ok := m.(interface {
		GetAppliedIndex() uint64
		GetSessionToken() string
		GetServedBy() string
		GetConsistency() string
	}); ok {
		h := w.Header()
		h.Set("X-Akidb-Applied-Index", strconv.FormatUint(r.GetAppliedIndex(), 10))
		h.Set("X-Akidb-Session-Token", r.GetSessionToken())
		h.Set("X-Akidb-Served-By", r.GetServedBy())
		h.Set("X-Akidb-Consistency", r.GetConsistency())
	}
	switch m.(type) {
	case *collectionv1.CreateCollectionResponse:
		w.WriteHeader(http.StatusCreated)
	case *collectionv1.DeleteCollectionResponse:
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}
