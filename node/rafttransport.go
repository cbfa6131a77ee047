// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
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
	// livesAt returns an error unless the node of an id is what answers at an address.
	livesAt  func(ctx context.Context, id, addr string) error
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
	dialing  context.Context // ends at Close, as every dial does
	hangUp   context.CancelFunc

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

var _ raft.StreamLayer = (*streamLayer)(nil)

func newStreamLayer(m *mux, groupID, advertise string, livesAt func(ctx context.Context, id, addr string) error) *streamLayer {
	ctx, cancel := context.WithCancel(context.Background())
	return &streamLayer{
		m: m, groupID: groupID, advertise: advertise, livesAt: livesAt, dialing: ctx, hangUp: cancel,
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
		s.hangUp()
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

// Dial connects to a member, given as groupTransport.target has it. Raft's messages
// do not say whom they are for, and whoever gets one answers in the name of the member
// that was asked: a node that came back at another's address would be asked for its own
// vote in the other's name, and have two.
func (s *streamLayer) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.dialing, timeout)
	defer cancel()
	id, addr, _ := strings.Cut(string(target), "/")
	if err := s.livesAt(ctx, id, addr); err != nil {
		return nil, fmt.Errorf("node: %s is not known to be at %s: %w", id, addr, err)
	}
	c, err := s.m.dial(ctx, addr, streamRaft, s.groupID)
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

// groupTransport is hashicorp/raft's network transport with five changes.
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
// A connection is opened to a member and not to an address; see streamLayer.Dial.
//
// Incoming messages pass admit before Raft sees them: a node that has not been
// admitted neither votes nor stores, and a snapshot's files are fetched before
// the installation reaches Raft's main loop, which answers heartbeats meanwhile.
type groupTransport struct {
	*raft.NetworkTransport
	stream *streamLayer
	addrs  raft.ServerAddressProvider
	out    chan raft.RPC
	admit  func(rpc raft.RPC, forward func(raft.RPC)) bool
	// commitLimit is the highest commit index that followers may be told.
	commitLimit func() uint64
	reach       *reach
	// stands, if not nil, returns an error while this node must ask nobody for votes.
	// It is set before Raft starts.
	stands func() error
	done   chan struct{}
	wg     sync.WaitGroup

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
		Logger:  log,
		Stream:  s,
		MaxPool: 3,
		Timeout: raftRPCTimeout,
		// 2, the default: 16 was measured 21 to 29 % slower.
		MaxRPCsInFlight: raft.DefaultMaxRPCsInFlight,
	})
	// The time-out of InstallSnapshot grows with the bytes of the stream, which
	// is only the list of files here.
	nt.TimeoutScale = 1
	t := &groupTransport{
		NetworkTransport: nt, stream: s, addrs: addrs, out: make(chan raft.RPC), admit: admit, commitLimit: commitLimit, reach: reach,
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

// addrOf is where a node is, as far as is known.
func (t *groupTransport) addrOf(id raft.ServerID, configured raft.ServerAddress) raft.ServerAddress {
	if a, err := t.addrs.ServerAddr(id); err == nil {
		return a
	}
	return configured
}

// target is the address of a member with its id in front, which has no slash.
func (t *groupTransport) target(id raft.ServerID, configured raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "/" + t.addrOf(id, configured)
}

// EncodePeer, RequestVote, RequestPreVote, InstallSnapshot and TimeoutNow are those of
// NetworkTransport, of a member where it is.
func (t *groupTransport) EncodePeer(id raft.ServerID, addr raft.ServerAddress) []byte {
	return []byte(t.addrOf(id, addr))
}

func (t *groupTransport) mayStand() error {
	if t.stands == nil {
		return nil
	}
	return t.stands()
}

// RequestVote is described at EncodePeer.
func (t *groupTransport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.mayStand(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestVote(id, t.target(id, addr), args, resp)
}

// RequestPreVote is described at EncodePeer.
func (t *groupTransport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.mayStand(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, t.target(id, addr), args, resp)
}

// InstallSnapshot is described at EncodePeer.
func (t *groupTransport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, t.target(id, addr), args, resp, data)
}

// TimeoutNow is described at EncodePeer.
func (t *groupTransport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, t.target(id, addr), args, resp)
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
	err := t.NetworkTransport.AppendEntries(id, t.target(id, target), args, resp)
	t.reach.note(id, heartbeat, err)
	return err
}

// AppendEntriesPipeline cuts the requests as AppendEntries does.
func (t *groupTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.NetworkTransport.AppendEntriesPipeline(id, t.target(id, target))
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
