// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
)

// The trailers of an error that knows the leader, and the first also of an answer
// to a write, so that the next one needs no forwarding; REST sends them as headers
// X-Akidb-Leader-Id and so on.
const (
	leaderIDKey   = "akidb-leader-id"
	leaderGRPCKey = "akidb-leader-grpc"
	leaderRESTKey = "akidb-leader-rest"
)

// guard is what surrounds every handler, of gRPC and of REST.
type guard struct {
	log         *slog.Logger
	metrics     *metrics
	inFlight    atomic.Int64
	maxInFlight int64
	leader      func() string // its node id; empty if none is known
	suspect     func(error)   // is told of damage that a handler met
	unary       []grpc.UnaryServerInterceptor
	stream      []grpc.StreamServerInterceptor
}

// exempt methods are answered however busy the server is: operators and load
// balancers ask them to find out.
func exempt(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, "/grpc.") || strings.HasPrefix(fullMethod, "/akidb.cluster.")
}

// enter counts a request. What is exempt takes no room from the others: a client
// may watch our health on every connection for as long as it lives.
func (g *guard) enter(fullMethod string) error {
	g.metrics.inFlight.Inc()
	if exempt(fullMethod) {
		return nil
	}
	if g.inFlight.Add(1) > g.maxInFlight {
		g.leave(fullMethod)
		return fmt.Errorf("%w: bound is %d", ErrTooManyRequests, g.maxInFlight)
	}
	return nil
}

func (g *guard) leave(fullMethod string) {
	g.metrics.inFlight.Dec()
	if !exempt(fullMethod) {
		g.inFlight.Add(-1)
	}
}

// call runs a unary handler: bound, deadline, recovery, then the interceptors
// of Config (authentication), then the handler. The error is a status.
func (g *guard) call(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	if err := g.enter(info.FullMethod); err != nil {
		return nil, statusOf(err).Err()
	}
	defer g.leave(info.FullMethod)
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline)
		defer cancel()
	}
	defer g.recovered(info.FullMethod, &err)
	if err := checkDecoded(req); err != nil {
		return nil, statusOf(err).Err()
	}
	resp, err = chained(g.unary, info, handler)(ctx, req)
	if err == nil {
		g.hintWriter(ctx, info.FullMethod)
		return resp, nil
	}
	g.hint(ctx, err)
	return nil, g.report(info.FullMethod, err)
}

// chained wraps handler in the interceptors, the first outermost.
func chained(list []grpc.UnaryServerInterceptor, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) grpc.UnaryHandler {
	for i := len(list) - 1; i >= 0; i-- {
		next, one := handler, list[i]
		handler = func(ctx context.Context, req any) (any, error) { return one(ctx, req, info, next) }
	}
	return handler
}

// report turns err into a status and logs what an operator should see.
func (g *guard) report(fullMethod string, err error) error {
	st := statusOf(err)
	if errors.Is(err, raftfsm.ErrCorrupt) {
		g.suspect(err)
	}
	if st.Code() == codes.Internal {
		g.log.Error("request failed", "method", fullMethod, "error", err)
	}
	return st.Err()
}

// recovered turns a panic into INTERNAL with an id that the log repeats.
func (g *guard) recovered(fullMethod string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	id := rand.Text()
	g.metrics.panics.Inc()
	g.log.Error("panic in a request", "method", fullMethod, "id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	*err = withReason(codes.Internal, reasonPanic, classUnknown, "internal error %s; the server's log says more", id)
}

// carried is a panic of a goroutine that works for a request. It would end the process
// there; the request's own goroutine throws it again.
type carried struct {
	value any
	stack []byte
}

// Error implements error.
func (c *carried) Error() string { return fmt.Sprintf("%v\n%s", c.value, c.stack) }

// carry is deferred by such a goroutine; throw is what its error goes through.
func carry(err *error) {
	if p := recover(); p != nil {
		*err = &carried{p, debug.Stack()}
	}
}

func throw(err error) error {
	var c *carried
	if errors.As(err, &c) {
		panic(c)
	}
	return err
}

func (g *guard) hint(ctx context.Context, err error) {
	var nl *node.NotLeaderError
	if !errors.As(err, &nl) || nl.Leader.NodeID == "" {
		return
	}
	// Fails only if the call is over, and then nobody reads it.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(leaderIDKey, nl.Leader.NodeID,
		leaderGRPCKey, nl.Leader.GRPCAddr, leaderRESTKey, nl.Leader.RESTAddr))
}

// hintWriter names the leader with the answer to a write.
func (g *guard) hintWriter(ctx context.Context, fullMethod string) {
	switch _, method := splitMethod(fullMethod); method {
	case "Insert", "Upsert", "PatchPayload", "Delete", "DeleteMany", "Batch", "CreateCollection", "DeleteCollection":
		if id := g.leader(); id != "" {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(leaderIDKey, id)) // as above
		}
	}
}

// intercept is call for a gRPC server, counted.
func (g *guard) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := g.call(ctx, req, info, handler)
	g.metrics.answeredGRPC(info.FullMethod, status.Code(err), time.Since(start))
	return resp, err
}

// interceptStream is the same for streams, which have no default deadline.
func (g *guard) interceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	start := time.Now()
	defer func() { g.metrics.answeredGRPC(info.FullMethod, status.Code(err), time.Since(start)) }()
	if err := g.enter(info.FullMethod); err != nil {
		return statusOf(err).Err()
	}
	defer g.leave(info.FullMethod)
	defer g.recovered(info.FullMethod, &err)
	for i := len(g.stream) - 1; i >= 0; i-- {
		next, one := handler, g.stream[i]
		handler = func(srv any, stream grpc.ServerStream) error { return one(srv, stream, info, next) }
	}
	if err = handler(srv, decodedStream{stream}); err == nil {
		return nil
	}
	g.hint(stream.Context(), err)
	return g.report(info.FullMethod, err)
}

// splitMethod takes "/package.Service/Method" apart.
func splitMethod(fullMethod string) (service, method string) {
	service, method, ok := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	if !ok {
		return "unknown", "unknown"
	}
	return service, method
}
