// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// kind says how a method may be retried and where it goes.
type kind uint8

const (
	read    kind = iota // any replica; always safe to try again
	write               // leader; safe to try again with its request id
	operate             // leader; has no request id: only if it was not applied
	settle              // leader; has the same outcome however often it is done
	inspect             // leader; changes nothing
)

// changes is false if the method only looks.
func (k kind) changes() bool { return k != read && k != inspect }

// slow is true for what may take long on the server.
func (k kind) slow() bool { return k == operate || k == settle || k == inspect }

// method is one unary rpc.
type method struct {
	name string // full, "/package.Service/Method"
	kind kind
}

// ofCluster is true for the operations API: rare calls, often the first and only
// one of a client that knows no node yet.
func (m method) ofCluster() bool { return strings.HasPrefix(m.name, "/akidb.cluster.") }

// done is true if a refusal for this reason means that an attempt before it did what
// was asked, where one may have been applied.
func (m method) done(reason string) bool {
	return m.name == clusterv1.ClusterService_RemoveMember_FullMethodName && reason == reasonNoMember
}

func (m method) short() string { return m.name[strings.LastIndexByte(m.name, '/')+1:] }

// message is a pointer to a generated struct.
type message[T any] interface {
	*T
	proto.Message
}

// call carries one logical call through its attempts.
type call struct {
	k         *core
	m         method
	req       proto.Message
	requestID string
	began     time.Time
	deadline  time.Time
	attempts  int
	odd       int
	maybe     bool // an attempt may have been applied
	not       tried
	last      *endpoint
	wait      time.Duration
}

// do runs the call until it succeeds, is refused for good, or its time is up.
// Reads may be hedged.
func do[T any, P message[T]](ctx context.Context, k *core, m method, req proto.Message, requestID string) (P, error) {
	if k.sent != nil {
		k.sent(req)
	}
	c := call{k: k, m: m, req: req, requestID: requestID, began: time.Now()}
	if d, ok := ctx.Deadline(); ok {
		c.deadline = d
	} else {
		c.deadline = c.began.Add(k.cfg.Timeout)
	}
	if err := c.waitResolved(ctx); err != nil {
		return nil, err
	}
	if m.ofCluster() {
		k.awaitReady(ctx)
	}
	for {
		e := k.pick(m.kind != read, c.not)
		if e == nil || k.ctx.Err() != nil {
			return nil, c.fail(verdict{code: codes.Canceled, class: contextClass(c.maybe)}, ErrClosed)
		}
		c.last = e
		c.attempts++
		var out P
		var err error
		var sent bool
		if m.kind == read && k.cfg.HedgeAfter > 0 {
			out, sent, err = hedge[T, P](ctx, &c, e)
		} else {
			out = P(new(T))
			sent, err = c.attempt(ctx, e, out)
		}
		if err == nil || c.maybe && m.done(judge(err, sent).reason) {
			return out, nil
		}
		if err := c.next(ctx, e, err, sent); err != nil {
			return nil, err
		}
	}
}

// waitResolved waits for the first look-up of DNS endpoints.
func (c *call) waitResolved(ctx context.Context) error {
	select {
	case <-c.k.resolved:
		return nil
	default:
	}
	t := time.NewTimer(time.Until(c.deadline))
	defer t.Stop()
	select {
	case <-c.k.resolved:
		return nil
	case <-ctx.Done():
		return c.failContext(ctx.Err())
	case <-t.C:
		return c.fail(verdict{code: codes.Unavailable, class: NotApplied},
			fmt.Errorf("no address for %s", strings.Join(c.k.cfg.Endpoints, ",")))
	case <-c.k.ctx.Done():
		return c.fail(verdict{code: codes.Canceled, class: NotApplied}, ErrClosed)
	}
}

// attempt sends the request once. sent is false if it certainly never left. It is
// given up before its time if its endpoint turns out to be silent, or no longer to
// lead, and the request may be sent again.
func (c *call) attempt(ctx context.Context, e *endpoint, out proto.Message) (sent bool, err error) {
	ctx, cancel := context.WithDeadline(ctx, c.attemptDeadline())
	defer cancel()
	e.inflight.Add(1)
	defer e.inflight.Add(-1)
	var lost atomic.Bool
	if c.abandons() {
		gone := e.gone.Load()
		defer context.AfterFunc(gone.ctx, func() {
			lost.Store(true)
			cancel()
		})()
	}
	if c.m.kind == read {
		err = e.invoke(ctx, c.m.name, c.req, out)
		return true, givenUp(err, &lost)
	}
	defer time.AfterFunc(slowAttempt, c.k.checkAll).Stop()
	var p peer.Peer // set once a connection carries the request
	var trailer metadata.MD
	err = e.invoke(ctx, c.m.name, c.req, out, grpc.Peer(&p), grpc.Trailer(&trailer))
	c.k.noteTrailer(e, trailer)
	return p.Addr != nil, givenUp(err, &lost)
}

// abandons is true if an attempt may be given up for another one. The first few
// only: a node that is merely slow must get its time in the end.
func (c *call) abandons() bool {
	switch c.m.kind {
	case write:
		if c.requestID == "" {
			return false
		}
	case operate:
		return false
	}
	return c.attempts <= maxAbandoned && len(c.k.set.Load().list) > 1
}

// givenUp is what the caller of an attempt sees that ended because of lost.
func givenUp(err error, lost *atomic.Bool) error {
	if err == nil || !lost.Load() {
		return err
	}
	return status.Error(codes.Unavailable, "given up: the node does not answer, or no longer leads")
}

// attemptDeadline gives every attempt more time than the one before, so that a
// slow answer comes through in the end, and a silent node is left soon. Operations
// of the cluster get a share of what is left, since some of them take long.
func (c *call) attemptDeadline() time.Time {
	if c.k.cfg.Pin && c.k.cfg.MaxAttempts == 1 {
		return c.deadline
	}
	d := c.k.cfg.AttemptTimeout
	if c.m.kind.changes() {
		d += time.Duration(proto.Size(c.req)) * perMiB >> 20
	}
	d <<= min(c.attempts-1, maxAttemptDoubles)
	if c.m.kind.slow() {
		d = max(d, time.Until(c.deadline)/clusterShare)
	}
	if t := time.Now().Add(d); t.Before(c.deadline) {
		return t
	}
	return c.deadline
}

// next decides what follows a failed attempt: nil to try again (after a wait),
// or what the caller gets.
func (c *call) next(ctx context.Context, e *endpoint, err error, sent bool) error {
	v := judge(err, sent)
	if !c.m.kind.changes() && v.class == Unknown {
		v.class = NotApplied // a read changes nothing
	}
	c.maybe = c.maybe || v.class == Unknown
	if ctx.Err() != nil {
		return c.failContext(ctx.Err())
	}
	if !time.Now().Before(c.deadline) {
		v.class = contextClass(c.maybe)
		return c.fail(v, err)
	}
	c.learn(e, &v)
	if !c.again(&v) {
		if c.maybe && !v.settles(c.m) {
			v.class = Unknown
		}
		return c.fail(v, err)
	}
	d := c.backoff(&v)
	if time.Until(c.deadline) <= d {
		if c.maybe {
			v.class = Unknown
		}
		return c.fail(v, err)
	}
	if c.k.sleep(ctx, d) != nil {
		return c.failContext(ctx.Err())
	}
	return nil
}

// failContext is what a call returns that its own context ended.
func (c *call) failContext(err error) error {
	code := codes.DeadlineExceeded
	if errors.Is(err, context.Canceled) {
		code = codes.Canceled
	}
	return c.fail(verdict{code: code, class: contextClass(c.maybe)}, err)
}

// learn notes what the failure says about endpoints and the leader.
func (c *call) learn(e *endpoint, v *verdict) {
	k := c.k
	timedOut := v.code == codes.DeadlineExceeded && v.reason == ""
	if v.down || timedOut {
		k.markDown(e)
	}
	if v.election {
		k.leader.CompareAndSwap(e, nil)
		if v.hint != (leaderHint{}) {
			if l := k.follow(v.hint); l != nil {
				c.not = without(c.not, l)
			}
		}
		k.checkAll()
	}
	if !v.moveOn {
		return
	}
	c.not = append(without(c.not, e), e)
	if len(c.not) >= len(k.set.Load().list) {
		c.not = nil // everybody was asked: begin anew, after the backoff
	}
}

func without(t tried, e *endpoint) tried {
	for i := range t {
		if t[i] == e {
			return append(t[:i:i], t[i+1:]...)
		}
	}
	return t
}

// again is true if another attempt is safe and may help.
func (c *call) again(v *verdict) bool {
	if !v.retry || c.k.cfg.MaxAttempts > 0 && c.attempts >= c.k.cfg.MaxAttempts {
		return false
	}
	if v.odd {
		if c.odd++; c.odd >= maxOddRetries {
			return false
		}
	}
	switch c.m.kind {
	case read, inspect, settle:
		return true
	case write:
		return v.class == NotApplied || c.requestID != ""
	}
	return v.class == NotApplied && !c.maybe
}

// backoff grows by half with full jitter in its upper half. The first move to
// an endpoint that was not tried yet does not wait: that is the fail-over.
func (c *call) backoff(v *verdict) time.Duration {
	if v.after > 0 {
		return v.after + rand.N(v.after/4+1)
	}
	if v.moveOn && len(c.not) > 0 {
		return 0
	}
	limit := maxBackoff
	if (v.election || v.down) && time.Since(c.began) < electionTime {
		limit = maxLeaderBackoff
	}
	c.wait = min(max(c.wait*3/2, minBackoff), limit)
	return c.wait/2 + rand.N(c.wait/2+1)
}

// fail makes the error that the caller gets.
func (c *call) fail(v verdict, err error) error {
	e := &Error{Method: c.m.short(), Code: v.code, Reason: v.reason, Class: v.class,
		RequestID: c.requestID, Attempts: c.attempts, Err: err}
	if c.last != nil {
		e.Endpoint = c.last.addr
	}
	return e
}
