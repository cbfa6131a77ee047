// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/mutants"
)

// streamLayer gives hashicorp/raft the connections of one group that the mux
// accepted, and dials through the mux.
type streamLayer struct {
	m         *mux
	groupID   string
	advertise string
	accepted  chan net.Conn
	closed    chan struct{}
	once      sync.Once

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

var _ raft.StreamLayer = (*streamLayer)(nil)

func newStreamLayer(m *mux, groupID, advertise string) *streamLayer {
	return &streamLayer{
		m: m, groupID: groupID, advertise: advertise,
		accepted: make(chan net.Conn), closed: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
}

// offer hands an accepted connection over; it blocks no longer than Raft runs.
func (s *streamLayer) offer(c net.Conn) {
	select {
	case s.accepted <- s.keep(c):
	case <-s.closed:
		c.Close()
	}
}

func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the layer and every connection of it: Raft's replication may sit
// in a long InstallSnapshot call, and its Shutdown waits for that.
func (s *streamLayer) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.mu.Lock()
		conns := make([]net.Conn, 0, len(s.conns))
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
	})
	return nil
}

func (s *streamLayer) Addr() net.Addr { return dnsAddr(s.advertise) }

func (s *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.m.dial(ctx, string(addr), streamRaft, s.groupID)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.closed:
		c.Close()
		return nil, net.ErrClosed
	default:
	}
	return s.keep(c), nil
}

func (s *streamLayer) keep(c net.Conn) net.Conn {
	k := &keptConn{Conn: c, s: s}
	s.mu.Lock()
	s.conns[k] = struct{}{}
	s.mu.Unlock()
	return k
}

type keptConn struct {
	net.Conn
	s *streamLayer
}

func (k *keptConn) Close() error {
	k.s.mu.Lock()
	delete(k.s.conns, k)
	k.s.mu.Unlock()
	return k.Conn.Close()
}

// dnsAddr is an advertised "host:port", which need not be an IP address.
type dnsAddr string

func (dnsAddr) Network() string  { return "tcp" }
func (a dnsAddr) String() string { return string(a) }

// groupTransport is hashicorp/raft's network transport with four changes.
//
// SetHeartbeatHandler does nothing, so that heartbeats take the same way as
// every other message: the fast path runs them beside the main loop, where one
// of a newer term can raise the term under a leader that then stores a client's
// entry with it. Two logs then hold different entries of equal index and term
// (hashicorp/raft issue 695).
//
// AppendEntries are cut to a number of bytes, and tell of no commit that this
// node has not flushed (see ahead).
//
// AppendEntries to a member that is away wait until a heartbeat gets through to
// it; see reach.
//
// Incoming messages pass admit before Raft sees them: a node that has not been
// admitted neither votes nor stores, and a snapshot's files are fetched before
// the installation reaches Raft's main loop, which answers heartbeats meanwhile.
type groupTransport struct {
	*raft.NetworkTransport
	stream *streamLayer
	out    chan raft.RPC
	admit  func(rpc raft.RPC, forward func(raft.RPC)) bool
	// commitLimit is the highest commit index that followers may be told.
	commitLimit func() uint64
	reach       *reach
	done        chan struct{}
	wg          sync.WaitGroup

	mu    sync.Mutex // guards pipes
	pipes map[*trimmedPipeline]struct{}
}

var (
	_ raft.Transport   = (*groupTransport)(nil)
	_ raft.WithPreVote = (*groupTransport)(nil)
	_ raft.WithClose   = (*groupTransport)(nil)
)

// newGroupTransport starts the transport. admit returns true if the message
// goes on to Raft at once; otherwise admit answers it or forwards it later.
func newGroupTransport(s *streamLayer, addrs raft.ServerAddressProvider, log hclog.Logger,
	admit func(rpc raft.RPC, forward func(raft.RPC)) bool, commitLimit func() uint64, reach *reach) *groupTransport {
	nt := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: addrs,
		Logger:                log,
		Stream:                s,
		MaxPool:               3,
		Timeout:               raftRPCTimeout,
		// 2, the default: 16 was measured 21 to 29 % slower.
		MaxRPCsInFlight: raft.DefaultMaxRPCsInFlight,
	})
	// The time-out of InstallSnapshot grows with the bytes of the stream, which
	// is only the list of files here.
	nt.TimeoutScale = 1
	t := &groupTransport{
		NetworkTransport: nt, stream: s, out: make(chan raft.RPC), admit: admit, commitLimit: commitLimit, reach: reach,
		done: make(chan struct{}), pipes: make(map[*trimmedPipeline]struct{}),
	}
	t.wg.Go(t.forward)
	return t
}

func (t *groupTransport) forward() {
	in := t.NetworkTransport.Consumer()
	for {
		select {
		case rpc := <-in:
			if t.admit(rpc, t.deliver) {
				t.deliver(rpc)
			}
		case <-t.done:
			return
		}
	}
}

func (t *groupTransport) deliver(rpc raft.RPC) {
	select {
	case t.out <- rpc:
	case <-t.done:
		rpc.Respond(nil, raft.ErrTransportShutdown)
	}
}

// Consumer returns the admitted messages.
func (t *groupTransport) Consumer() <-chan raft.RPC { return t.out }

// SetHeartbeatHandler does nothing; see the type.
func (t *groupTransport) SetHeartbeatHandler(cb func(rpc raft.RPC)) {
	if mutants.HeartbeatFastPath {
		t.NetworkTransport.SetHeartbeatHandler(cb)
	}
}

// AppendEntries cuts the request; Raft goes on from the last entry it holds
// after the call.
func (t *groupTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
	args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	heartbeat := isHeartbeat(args)
	if !heartbeat {
		if err := t.reach.await(id, args.Term); err != nil {
			return err
		}
	}
	t.prepare(args)
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	t.reach.note(id, heartbeat, err)
	return err
}

// AppendEntriesPipeline cuts the requests as AppendEntries does.
func (t *groupTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	tp := &trimmedPipeline{AppendPipeline: p, t: t}
	t.mu.Lock()
	t.pipes[tp] = struct{}{}
	t.mu.Unlock()
	return tp, nil
}

// cut ends what replication waits for; see trimmedPipeline and reach.
func (t *groupTransport) cut() {
	t.reach.end()
	t.mu.Lock()
	pipes := make([]*trimmedPipeline, 0, len(t.pipes))
	for p := range t.pipes {
		pipes = append(pipes, p)
	}
	t.mu.Unlock()
	for _, p := range pipes {
		_ = p.Close()
	}
}

// Close ends the transport and its connections. It is called by Raft too.
func (t *groupTransport) Close() error {
	select {
	case <-t.done:
		return nil
	default:
	}
	close(t.done)
	t.reach.end()
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	t.wg.Wait()
	return err
}

// trimmedPipeline cuts requests, and ends when a request finds no room for
// longer than any answer may take: when hashicorp/raft stops reading answers (a
// newer term, a refusal) while it is sending, the sender waits for room that
// nobody will make, replication to that member stands still, and a shutdown
// waits for it for ever.
type trimmedPipeline struct {
	raft.AppendPipeline
	t *groupTransport
}

// pipelineTimeout is more than the responses under way may take.
const pipelineTimeout = 2 * raftRPCTimeout

// AppendEntries gives up by closing the pipeline, which makes Raft go on with
// single requests.
func (p *trimmedPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.t.prepare(args)
	t := time.AfterFunc(pipelineTimeout, func() { _ = p.AppendPipeline.Close() })
	defer t.Stop()
	return p.AppendPipeline.AppendEntries(args, resp)
}

func (p *trimmedPipeline) Close() error {
	p.t.mu.Lock()
	delete(p.t.pipes, p)
	p.t.mu.Unlock()
	return p.AppendPipeline.Close()
}

// prepare makes a request fit to be sent.
func (t *groupTransport) prepare(args *raft.AppendEntriesRequest) {
	args.LeaderCommitIndex = min(args.LeaderCommitIndex, t.commitLimit())
	trimEntries(args)
}

// trimEntries keeps at least one entry and at most maxAppendBytes of them.
func trimEntries(args *raft.AppendEntriesRequest) {
	bytes := 0
	for i, e := range args.Entries {
		bytes += len(e.Data)
		if i > 0 && bytes > maxAppendBytes {
			args.Entries = args.Entries[:i]
			return
		}
	}
}
