// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Net is how a node reaches the network; the zero value is the real one. A
// simulation puts its own functions here.
type Net struct {
	Listen func(network, addr string) (net.Listener, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	// LookupHost resolves the one DNS name that Config.Peers may hold.
	LookupHost func(ctx context.Context, host string) ([]string, error)
}

func (n Net) withDefaults() Net {
	if n.Listen == nil {
		n.Listen = net.Listen
	}
	if n.Dial == nil {
		d := &net.Dialer{KeepAlive: 15 * time.Second}
		n.Dial = d.DialContext
	}
	if n.LookupHost == nil {
		n.LookupHost = net.DefaultResolver.LookupHost
	}
	return n
}

// preamble opens a connection, after the TLS handshake: a byte for the kind, one
// for the length of what follows, then the group id and, behind an "@", the id of
// the dialler's cluster if that was recovered (see group.sameCluster).
type preamble struct {
	kind           streamKind
	group, cluster string
}

type streamKind byte

const (
	streamRaft  streamKind = 'R' // hashicorp/raft's messages of one group
	streamRPC   streamKind = 'N' // node RPC, see rpc.go
	streamFetch streamKind = 'F' // one file of a snapshot, see transfer.go
)

func (k streamKind) valid() bool { return k == streamRaft || k == streamRPC || k == streamFetch }

// mux owns the one port between nodes: it accepts, does the TLS handshake,
// reads the stream's kind and hands the connection to the kind's handler. It
// also dials, so that every open connection is known and can be cut on Close.
type mux struct {
	net       Net
	ln        net.Listener
	serverTLS *tls.Config
	clientTLS *tls.Config
	peerRoots func() *x509.CertPool // see Config.PeerRoots; set before the first dial
	log       *slog.Logger

	// handlers are set before serve and not changed.
	handlers map[streamKind]func(p preamble, c net.Conn)
	// announced is what dial says of this node's cluster; set as handlers are.
	announced func() string

	wg     sync.WaitGroup
	mu     sync.Mutex // guards the fields below
	conns  map[net.Conn]struct{}
	closed bool
}

func newMux(n Net, addr string, serverTLS, clientTLS *tls.Config, log *slog.Logger) (*mux, error) {
	ln, err := n.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("node: listen on raft address %q: %w", addr, err)
	}
	return &mux{
		net: n, ln: ln, serverTLS: serverTLS, clientTLS: clientTLS, log: log,
		handlers: make(map[streamKind]func(preamble, net.Conn)),
		conns:    make(map[net.Conn]struct{}),
	}, nil
}

// serve accepts until Close. A failing accept is retried with a pause: running
// out of file descriptors must not end the node.
func (m *mux) serve() {
	m.wg.Go(func() {
		for {
			c, err := m.ln.Accept()
			if err != nil {
				if m.isClosed() || errors.Is(err, net.ErrClosed) {
					return
				}
				m.log.Warn("accept failed", "err", err)
				pause(context.Background(), 50*time.Millisecond)
				continue
			}
			m.wg.Go(func() { m.accept(c) })
		}
	})
}

func (m *mux) accept(c net.Conn) {
	if !m.track(c) {
		c.Close()
		return
	}
	_ = c.SetDeadline(time.Now().Add(handshakeTimeout))
	conn := c
	if m.serverTLS != nil {
		conn = tls.Server(c, m.serverTLS)
	}
	p, err := readPreamble(conn)
	if err != nil {
		m.untrack(c)
		if !errors.Is(err, io.EOF) {
			m.log.Warn("connection refused", "remote", c.RemoteAddr().String(), "err", err)
		}
		c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	h := m.handlers[p.kind]
	if h == nil {
		m.untrack(c)
		c.Close()
		return
	}
	// Handlers close the connection when they are done with it.
	h(p, &trackedConn{Conn: conn, m: m, key: c})
}

func readPreamble(c net.Conn) (preamble, error) {
	var head [2]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return preamble{}, err
	}
	p := preamble{kind: streamKind(head[0])}
	if !p.kind.valid() {
		return p, fmt.Errorf("node: unknown stream kind %q: not a node of this cluster?", head[0])
	}
	rest := make([]byte, head[1])
	if _, err := io.ReadFull(c, rest); err != nil {
		return p, err
	}
	p.group, p.cluster, _ = strings.Cut(string(rest), "@")
	return p, nil
}

// dial connects to a peer and announces the stream.
func (m *mux) dial(ctx context.Context, addr string, kind streamKind, groupID string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := m.net.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if !m.track(c) {
		c.Close()
		return nil, ErrClosed
	}
	conn := c
	fail := func(err error) (net.Conn, error) {
		m.untrack(c)
		c.Close()
		return nil, err
	}
	if m.clientTLS != nil {
		cfg := m.clientTLS
		if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
			cfg = cfg.Clone()
			if host, _, err := net.SplitHostPort(addr); err == nil {
				cfg.ServerName = host
			}
		}
		if m.peerRoots != nil {
			cfg = cfg.Clone()
			cfg.RootCAs = m.peerRoots()
		}
		tc := tls.Client(c, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return fail(fmt.Errorf("node: TLS handshake with %s: %w", addr, err))
		}
		conn = tc
	}
	if d, ok := ctx.Deadline(); ok {
		_ = c.SetWriteDeadline(d)
	}
	who := groupID
	if m.announced != nil {
		if cluster := m.announced(); cluster != "" {
			who += "@" + cluster
		}
	}
	head := append([]byte{byte(kind), byte(len(who))}, who...)
	if _, err := conn.Write(head); err != nil {
		return fail(err)
	}
	_ = c.SetWriteDeadline(time.Time{})
	return &trackedConn{Conn: conn, m: m, key: c}, nil
}

// dialRPC opens a node RPC connection.
func (m *mux) dialRPC(ctx context.Context, addr string) (net.Conn, error) {
	return m.dial(ctx, addr, streamRPC, groupID)
}

func (m *mux) track(c net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.conns[c] = struct{}{}
	return true
}

func (m *mux) untrack(c net.Conn) {
	m.mu.Lock()
	delete(m.conns, c)
	m.mu.Unlock()
}

func (m *mux) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// cut closes every connection and refuses new ones; wait ends the goroutines.
func (m *mux) cut() {
	m.mu.Lock()
	m.closed = true
	conns := make([]net.Conn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	m.mu.Unlock()
	m.ln.Close()
	for _, c := range conns {
		c.Close()
	}
}

func (m *mux) wait() { m.wg.Wait() }

// trackedConn takes itself off the mux's list when closed.
type trackedConn struct {
	net.Conn
	m    *mux
	key  net.Conn
	once sync.Once
}

func (c *trackedConn) Close() error {
	c.once.Do(func() { c.m.untrack(c.key) })
	// Closing the raw connection, not the TLS one: tls.Conn.Close may wait for
	// a write that will never end.
	return c.key.Close()
}

// pause waits for d or the context.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// frameConn writes frames of several goroutines to one connection. Whoever is
// last in line flushes, so frames of a busy moment share a system call and a
// lone one leaves at once.
type frameConn struct {
	net.Conn
	r *bufio.Reader

	waiting atomic.Int64
	mu      sync.Mutex // guards w
	w       *bufio.Writer
}

func newFrameConn(c net.Conn) *frameConn {
	return &frameConn{Conn: c, r: bufio.NewReaderSize(c, 64<<10), w: bufio.NewWriterSize(c, 64<<10)}
}

// write sends head and body as one frame.
func (f *frameConn) write(head, body []byte) error {
	f.waiting.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.SetWriteDeadline(time.Now().Add(rpcWriteTimeout))
	_, err := f.w.Write(head)
	if err == nil {
		_, err = f.w.Write(body)
	}
	if f.waiting.Add(-1) == 0 && err == nil {
		err = f.w.Flush()
	}
	return err
}
