// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// Node RPC: requests are pipelined over one connection a peer and lane, and
// answered in any order. A frame is
//
//	length uint32  of what follows
//	id     uint64  chosen by the caller
//	method uint8   of a request; 0 in a reply that is an ErrorReply, 1 in another
//	millis uint32  request only: time the caller waits; 0 for ever
//	body           a protobuf message
type method uint8

const (
	methodHello method = iota + 1
	methodPropose
	methodReadIndex
	methodTerm
	methodStats
	methodHash
	methodJoin
	methodMember
	methodVerify
)

const (
	requestHead = 4 + 8 + 1 + 4
	replyHead   = 4 + 8 + 1
)

// errNotSent marks a call that failed before any byte left: surely not done.
var errNotSent = errors.New("request not sent")

// lane keeps small urgent messages from waiting behind large ones.
type lane uint8

const (
	laneControl lane = iota
	laneBulk
)

// rpcServer serves the node RPC connections of one group.
type rpcServer struct {
	log    *slog.Logger
	serve  func(ctx context.Context, from preamble, m method, body []byte) (proto.Message, error)
	ctx    context.Context // ends when the node closes
	leader func() *nodev1.NodeInfo
}

// handle runs until the connection ends and its requests are answered.
func (s *rpcServer) handle(from preamble, c net.Conn) {
	f := newFrameConn(c)
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer c.Close()
	slots := make(chan struct{}, maxInFlightPerConn)
	var head [requestHead]byte
	for {
		if _, err := io.ReadFull(f.r, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(head[:])) - (requestHead - 4)
		if n < 0 || n > maxFrameBytes {
			s.log.Warn("node RPC: bad frame", "remote", c.RemoteAddr().String(), "bytes", n)
			return
		}
		id := binary.BigEndian.Uint64(head[4:])
		m := method(head[12])
		millis := binary.BigEndian.Uint32(head[13:])
		body := make([]byte, n)
		if _, err := io.ReadFull(f.r, body); err != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.answer(ctx, f, from, id, m, millis, body)
		})
	}
}

func (s *rpcServer) answer(ctx context.Context, f *frameConn, from preamble, id uint64, m method, millis uint32, body []byte) {
	if millis > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(millis)*time.Millisecond)
		defer cancel()
	}
	reply, err := s.serve(ctx, from, m, body)
	ok := byte(1)
	if err != nil {
		reply, ok = encodeError(err, s.leader()), 0
	}
	out, err := proto.Marshal(reply)
	if err != nil {
		s.log.Error("node RPC: encode reply", "err", err)
		return
	}
	var head [replyHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(replyHead-4+len(out)))
	binary.BigEndian.PutUint64(head[4:], id)
	head[12] = ok
	if err := f.write(head[:], out); err != nil {
		f.Close()
	}
}

// rpcClient calls peers. Connections are opened when needed and kept.
type rpcClient struct {
	dial    func(ctx context.Context, addr string) (net.Conn, error)
	dialing context.Context // ends at close, as every dial does
	hangUp  context.CancelFunc
	ofNow   func(*nodev1.NodeInfo) error // see addressBook; nil takes everybody

	mu     sync.Mutex // guards the fields below
	conns  map[rpcKey]*rpcConn
	closed bool
	wg     sync.WaitGroup
}

type rpcKey struct {
	addr string
	lane lane
}

func newRPCClient(dial func(ctx context.Context, addr string) (net.Conn, error)) *rpcClient {
	ctx, cancel := context.WithCancel(context.Background())
	return &rpcClient{dial: dial, dialing: ctx, hangUp: cancel, conns: make(map[rpcKey]*rpcConn)}
}

// rpcConn is one connection with the calls that wait for replies on it.
type rpcConn struct {
	ready chan struct{} // closed once f or err is set by the dialer
	f     *frameConn
	err   error
	peer  atomic.Pointer[string] // the id of the node at its end, once that was asked

	mu      sync.Mutex // guards the fields below
	nextID  uint64
	calls   map[uint64]chan rpcReply
	deadErr error
}

type rpcReply struct {
	ok   bool
	body []byte
	err  error
}

// call sends a request and waits. Errors before anything was sent wrap
// errNotSent; those decoded from the peer keep their class; the rest (the
// connection broke, time ran out) leave open whether the peer acted.
func (c *rpcClient) call(ctx context.Context, addr string, l lane, m method, req, reply proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("%w: encode: %w", errNotSent, err)
	}
	return c.callRaw(ctx, addr, l, m, body, reply)
}

// callNode is call, if the node of an id is what answers at the address; else nothing
// was sent to it.
func (c *rpcClient) callNode(ctx context.Context, id, addr string, l lane, m method, req, reply proto.Message) error {
	conn, err := c.conn(ctx, rpcKey{addr, l})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	// Who answers on a connection stays who it is.
	who := conn.peer.Load()
	if who == nil {
		var r nodev1.StatsReply
		if err := conn.exchange(ctx, addr, methodStats, nil, &r); err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
		if c.ofNow != nil {
			if err := c.ofNow(r.Node); err != nil {
				return fmt.Errorf("%w: %w", errNotSent, err)
			}
		}
		who = new(r.Node.GetNodeId())
		conn.peer.Store(who)
	}
	if *who != id {
		return fmt.Errorf("%w: %w: %q, not %q", errNotSent, errOtherNode, *who, id)
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("%w: encode: %w", errNotSent, err)
	}
	return conn.exchange(ctx, addr, m, body, reply)
}

func (c *rpcClient) callRaw(ctx context.Context, addr string, l lane, m method, body []byte, reply proto.Message) error {
	if addr == "" {
		return fmt.Errorf("%w: no address", errNotSent)
	}
	conn, err := c.conn(ctx, rpcKey{addr, l})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	return conn.exchange(ctx, addr, m, body, reply)
}

// exchange sends a request and waits for its reply.
func (conn *rpcConn) exchange(ctx context.Context, addr string, m method, body []byte, reply proto.Message) error {
	id, ch, err := conn.begin()
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	var head [requestHead]byte
	binary.BigEndian.PutUint32(head[:], uint32(requestHead-4+len(body)))
	binary.BigEndian.PutUint64(head[4:], id)
	head[12] = byte(m)
	if d, ok := ctx.Deadline(); ok {
		ms := max(time.Until(d).Milliseconds(), 1)
		binary.BigEndian.PutUint32(head[13:], uint32(min(ms, 1<<31)))
	}
	if err := conn.f.write(head[:], body); err != nil {
		conn.fail(err)
		conn.forget(id)
		return fmt.Errorf("node: send to %s: %w", addr, err)
	}
	select {
	case r := <-ch:
		switch {
		case r.err != nil:
			return fmt.Errorf("node: connection to %s lost: %w", addr, r.err)
		case !r.ok:
			return decodeError(r.body)
		}
		return proto.Unmarshal(r.body, reply)
	case <-ctx.Done():
		conn.forget(id)
		return ctx.Err()
	}
}

func (c *rpcClient) conn(ctx context.Context, k rpcKey) (*rpcConn, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	conn := c.conns[k]
	if conn == nil {
		conn = &rpcConn{ready: make(chan struct{}), calls: make(map[uint64]chan rpcReply)}
		c.conns[k] = conn
		c.wg.Go(func() { c.run(k, conn) })
	}
	c.mu.Unlock()
	select {
	case <-conn.ready:
		return conn, conn.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run dials, then reads replies until the connection ends.
func (c *rpcClient) run(k rpcKey, conn *rpcConn) {
	raw, err := c.dial(c.dialing, k.addr)
	if err == nil {
		conn.f = newFrameConn(raw)
	}
	conn.err = err
	if err == nil {
		close(conn.ready)
		err = conn.readReplies()
		raw.Close()
	}
	c.mu.Lock()
	if c.conns[k] == conn {
		delete(c.conns, k)
	}
	c.mu.Unlock()
	if conn.f == nil {
		close(conn.ready)
	}
	conn.fail(err)
}

func (conn *rpcConn) readReplies() error {
	var head [replyHead]byte
	for {
		if _, err := io.ReadFull(conn.f.r, head[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(head[:])) - (replyHead - 4)
		if n < 0 || n > maxFrameBytes {
			return fmt.Errorf("node RPC: bad frame of %d bytes", n)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(conn.f.r, body); err != nil {
			return err
		}
		id := binary.BigEndian.Uint64(head[4:])
		conn.mu.Lock()
		ch := conn.calls[id]
		delete(conn.calls, id)
		conn.mu.Unlock()
		if ch != nil {
			ch <- rpcReply{ok: head[12] == 1, body: body}
		}
	}
}

func (conn *rpcConn) begin() (uint64, chan rpcReply, error) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if conn.deadErr != nil {
		return 0, nil, conn.deadErr
	}
	conn.nextID++
	ch := make(chan rpcReply, 1)
	conn.calls[conn.nextID] = ch
	return conn.nextID, ch, nil
}

func (conn *rpcConn) forget(id uint64) {
	conn.mu.Lock()
	delete(conn.calls, id)
	conn.mu.Unlock()
}

// fail ends every waiting call.
func (conn *rpcConn) fail(err error) {
	conn.mu.Lock()
	if conn.deadErr == nil {
		conn.deadErr = err
	}
	calls := conn.calls
	conn.calls = make(map[uint64]chan rpcReply)
	conn.mu.Unlock()
	if conn.f != nil {
		conn.f.Close()
	}
	for _, ch := range calls {
		ch <- rpcReply{err: err}
	}
}

// reset ends all connections, so that the next calls open others: this node has
// something else to announce.
func (c *rpcClient) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	for k, conn := range c.conns {
		delete(c.conns, k)
		c.wg.Go(func() {
			<-conn.ready
			if conn.f != nil {
				conn.f.Close()
			}
		})
	}
}

// close ends all connections; their calls return.
func (c *rpcClient) close() {
	c.hangUp()
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = make(map[rpcKey]*rpcConn)
	c.mu.Unlock()
	for _, conn := range conns {
		go func() {
			<-conn.ready
			if conn.f != nil {
				conn.f.Close()
			}
		}()
	}
	c.wg.Wait()
}
