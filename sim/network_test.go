// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/akidb/akidb/node"
)

// Latency says how long a link takes: Base, plus up to Jitter drawn per write.
type Latency struct{ Base, Jitter time.Duration }

// Network connects hosts by streams that behave as TCP does where it matters
// to a database: bytes of one connection arrive in order or not at all, a cut
// link stalls a connection and delivers what was under way after it heals, and
// a host that dies at once tells nobody.
//
// Everything blocks on channels made inside the bubble, so that synctest takes
// a waiting connection for idle and moves the clock.
type Network struct {
	mu        sync.Mutex // guards the fields below, and every conn and half
	rng       *rand.Rand
	normal    Latency
	listeners map[string]*listener
	links     map[link]*linkState
	hosts     map[string]*hostState
	conns     map[*conn]struct{}
	changed   chan struct{} // closed and replaced when a link changes
	nextPort  int
	stats     NetStats
}

// NetStats counts what happened on a network.
type NetStats struct{ Dials, Resets, Bytes, Writes int64 }

// link is one direction between two hosts.
type link struct{ from, to string }

type linkState struct {
	cut     bool
	latency *Latency
	// lossPermille is the chance of a write to break its connection.
	lossPermille int
	// largest is the longest write that arrives, 0 for no limit.
	largest int
	// dialled stalls the connections that from has opened to to, both ways.
	dialled bool
}

type hostState struct{ down bool }

// NewNetwork returns a network without faults; every draw comes from rng.
func NewNetwork(rng *rand.Rand, normal Latency) *Network {
	return &Network{
		rng: rng, normal: normal,
		listeners: make(map[string]*listener), links: make(map[link]*linkState),
		hosts: make(map[string]*hostState), conns: make(map[*conn]struct{}),
		changed: make(chan struct{}),
	}
}

// Host is the network as the named host sees it. Addresses are "host:port".
func (n *Network) Host(name string) node.Net {
	return node.Net{
		Listen: func(_, addr string) (net.Listener, error) { return n.listen(name, addr) },
		Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return n.dial(ctx, name, addr)
		},
		LookupHost: func(_ context.Context, host string) ([]string, error) { return []string{host}, nil },
	}
}

func (n *Network) linkLocked(from, to string) *linkState {
	k := link{from, to}
	l := n.links[k]
	if l == nil {
		l = &linkState{}
		n.links[k] = l
	}
	return l
}

func (n *Network) hostLocked(name string) *hostState {
	h := n.hosts[name]
	if h == nil {
		h = &hostState{}
		n.hosts[name] = h
	}
	return h
}

// broadcastLocked wakes everybody who waits for a link or a host.
func (n *Network) broadcastLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		c.in.wakeLocked()
	}
}

// Cut stops what one host sends to another; the other direction stays.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).cut = true
	n.broadcastLocked()
}

// Partition cuts every pair of hosts, both ways, for which apart says so.
func (n *Network) Partition(hosts []string, apart func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range hosts {
		for _, b := range hosts {
			if a != b && apart(a, b) {
				n.linkLocked(a, b).cut = true
			}
		}
	}
	n.broadcastLocked()
}

// SetLatency makes one direction slow.
func (n *Network) SetLatency(from, to string, l Latency) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).latency = &l
}

// SetLoss breaks a connection at a write with the given chance.
func (n *Network) SetLoss(from, to string, permille int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).lossPermille = permille
}

// SetLargest lets no longer write pass in one direction, as where packets of full
// size are dropped and nobody is told: the connection stalls there until Heal.
func (n *Network) SetLargest(from, to string, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).largest = bytes
}

// Firewall stalls every connection that one host has opened to another, and lets
// it open none; what the other opens stays.
func (n *Network) Firewall(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(from, to).dialled = true
	n.broadcastLocked()
}

// Mend undoes Cut in both directions between two hosts, and nothing else.
func (n *Network) Mend(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linkLocked(a, b).cut, n.linkLocked(b, a).cut = false, false
	n.broadcastLocked()
}

// Heal mends every link. What was stalled arrives after one more latency.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if !n.passesLocked(c.in) {
			c.in.notBefore = time.Now().Add(n.drawLocked(n.normal))
		}
	}
	clear(n.links)
	n.broadcastLocked()
}

// ResetHost breaks the connections of a host, as a killed process does.
func (n *Network) ResetHost(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.host == name || c.peer.host == name {
			n.breakLocked(c)
		}
	}
}

// Down takes a host off the network. silent is a power failure: peers learn of
// it only when the host is back and does not know their connections. From the
// return of Down on, nothing the host sends arrives.
func (n *Network) Down(name string, silent bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hostLocked(name).down = true
	for addr, l := range n.listeners {
		if l.host == name {
			l.closeLocked()
			delete(n.listeners, addr)
		}
	}
	for c := range n.conns {
		if c.host != name {
			continue
		}
		if silent {
			c.closed, c.in.err = true, net.ErrClosed
			c.peer.orphan = true
			c.in.wakeLocked()
			c.out().wakeLocked()
			delete(n.conns, c)
		} else {
			n.breakLocked(c)
		}
	}
	n.broadcastLocked()
}

// Up brings a host back.
func (n *Network) Up(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hostLocked(name).down = false
	for c := range n.conns {
		if c.orphan && c.peer.host == name {
			n.breakLocked(c)
		}
	}
	n.broadcastLocked()
}

// Stats is what happened so far.
func (n *Network) Stats() NetStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

func (n *Network) drawLocked(l Latency) time.Duration {
	d := l.Base
	if l.Jitter > 0 {
		d += time.Duration(n.rng.Int64N(int64(l.Jitter)))
	}
	return d
}

func (n *Network) latencyLocked(from, to string) time.Duration {
	if from == to {
		return 0
	}
	if l := n.linkLocked(from, to).latency; l != nil {
		return n.drawLocked(*l)
	}
	return n.drawLocked(n.normal)
}

// reachableLocked reports whether bytes pass from one host to another.
func (n *Network) reachableLocked(from, to string) bool {
	return from == to || !n.linkLocked(from, to).cut
}

// dialsLocked reports whether one host can open a connection to another.
func (n *Network) dialsLocked(from, to string) bool {
	return n.reachableLocked(from, to) && n.reachableLocked(to, from) && (from == to || !n.linkLocked(from, to).dialled)
}

// passesLocked reports whether the next bytes of one direction of a connection
// arrive.
func (n *Network) passesLocked(h *half) bool {
	if !n.reachableLocked(h.from, h.to) {
		return false
	}
	if h.from == h.to {
		return true
	}
	other := h.from
	if h.dialler == h.from {
		other = h.to
	}
	largest := n.linkLocked(h.from, h.to).largest
	return !n.linkLocked(h.dialler, other).dialled && (largest == 0 || len(h.segs) == 0 || h.segs[0].size <= largest)
}

// breakLocked resets both ends.
func (n *Network) breakLocked(c *conn) {
	n.stats.Resets++
	for _, e := range []*conn{c, c.peer} {
		e.closed = true
		if e.in.err == nil {
			e.in.err = syscall.ECONNRESET
		}
		e.in.segs = nil
		e.in.wakeLocked()
		delete(n.conns, e)
	}
}

func (n *Network) listen(host, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, port, err := net.SplitHostPort(addr)
	if err != nil || h != host {
		return nil, fmt.Errorf("sim: host %s cannot listen on %q", host, addr)
	}
	if port == "0" {
		n.nextPort++
		addr = fmt.Sprintf("%s:%d", h, 50000+n.nextPort)
	}
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	l := &listener{n: n, host: host, addr: addr, accept: make(chan *conn, 128), done: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// dial takes a round trip. A cut link or a dead host swallows it until the
// context ends; a live host without a listener refuses.
func (n *Network) dial(ctx context.Context, from, addr string) (net.Conn, error) {
	to, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("sim: dial %q: %w", addr, err)
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: Addr(addr), Err: err}
	}
	for {
		n.mu.Lock()
		changed := n.changed
		if n.hostLocked(from).down {
			n.mu.Unlock()
			return fail(syscall.ENETDOWN)
		}
		if n.hostLocked(to).down || !n.dialsLocked(from, to) {
			n.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return fail(os.ErrDeadlineExceeded)
			}
		}
		d := n.latencyLocked(from, to) + n.latencyLocked(to, from)
		n.mu.Unlock()
		if !sleep(ctx, d) {
			return fail(os.ErrDeadlineExceeded)
		}
		n.mu.Lock()
		l := n.listeners[addr]
		switch {
		case n.hostLocked(from).down || n.hostLocked(to).down || !n.dialsLocked(from, to):
			n.mu.Unlock()
			continue
		case l == nil:
			n.mu.Unlock()
			return fail(syscall.ECONNREFUSED)
		}
		n.stats.Dials++
		a, b := n.pipeLocked(from, to, addr)
		select {
		case l.accept <- b:
			n.mu.Unlock()
			return a, nil
		default: // the backlog is full
			n.breakLocked(a)
			n.mu.Unlock()
			return fail(syscall.ECONNREFUSED)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (n *Network) pipeLocked(from, to, addr string) (a, b *conn) {
	n.nextPort++
	local := Addr(fmt.Sprintf("%s:%d", from, 50000+n.nextPort))
	a = &conn{n: n, host: from, local: local, remote: Addr(addr), in: &half{from: to, to: from, dialler: from}}
	b = &conn{n: n, host: to, local: Addr(addr), remote: local, in: &half{from: from, to: to, dialler: from}}
	a.peer, b.peer = b, a
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	return a, b
}

// Addr is a simulated address.
type Addr string

// Network is "tcp", since that is what it stands in for.
func (a Addr) Network() string { return "tcp" }
func (a Addr) String() string  { return string(a) }

type listener struct {
	n      *Network
	host   string
	addr   string
	accept chan *conn
	done   chan struct{}
	closed bool
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Addr() net.Addr { return Addr(l.addr) }

func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.listeners[l.addr] == l {
		delete(l.n.listeners, l.addr)
	}
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	if l.closed {
		return
	}
	l.closed = true
	close(l.done)
	for {
		select {
		case c := <-l.accept:
			l.n.breakLocked(c)
		default:
			return
		}
	}
}

// windowBytes is what a connection holds between writer and reader.
const windowBytes = 256 << 10

// parcel is what one Write sent, and when it arrives.
type parcel struct {
	data []byte // what is left of it
	size int    // what it was
	due  time.Time
}

// half is one direction of a connection; the reader's end owns it.
type half struct {
	from, to  string
	dialler   string // the host that opened the connection
	segs      []parcel
	bytes     int
	eof       bool  // the writer closed; what is under way still arrives
	err       error // for the reader, at once
	notBefore time.Time
	lastDue   time.Time
	wake      chan struct{} // closed when something changed; nil while nobody waits
}

func (h *half) wakeLocked() {
	if h.wake != nil {
		close(h.wake)
		h.wake = nil
	}
}

func (h *half) waitLocked() chan struct{} {
	if h.wake == nil {
		h.wake = make(chan struct{})
	}
	return h.wake
}

// conn is one end of a connection.
type conn struct {
	n             *Network
	host          string
	peer          *conn
	local, remote Addr
	in            *half

	closed bool
	// orphan means that the peer's host died silently.
	orphan                      bool
	readDeadline, writeDeadline time.Time
}

var _ net.Conn = (*conn)(nil)

func (c *conn) out() *half { return c.peer.in }

func (c *conn) opError(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Addr: c.remote, Err: err}
}

// block waits for h to change, but not beyond until or the deadline.
func (c *conn) block(h *half, until, deadline time.Time) {
	wake := h.waitLocked()
	c.n.mu.Unlock()
	defer c.n.mu.Lock()
	if until.IsZero() || !deadline.IsZero() && deadline.Before(until) {
		until = deadline
	}
	if until.IsZero() {
		<-wake
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	}
}

func (c *conn) Read(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		h := c.in
		now := time.Now()
		switch {
		case c.closed && h.err == nil:
			return 0, c.opError("read", net.ErrClosed)
		case h.err != nil:
			return 0, c.opError("read", h.err)
		case !c.readDeadline.IsZero() && !now.Before(c.readDeadline):
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		var until time.Time
		if c.n.passesLocked(h) && (len(h.segs) > 0 || h.eof) {
			until = h.lastDue
			if len(h.segs) > 0 {
				until = h.segs[0].due
			}
			if until.Before(h.notBefore) {
				until = h.notBefore
			}
			if !until.After(now) {
				if len(h.segs) == 0 {
					return 0, io.EOF
				}
				return h.takeLocked(p), nil
			}
		}
		c.block(h, until, c.readDeadline)
	}
}

func (h *half) takeLocked(p []byte) int {
	n := copy(p, h.segs[0].data)
	if h.segs[0].data = h.segs[0].data[n:]; len(h.segs[0].data) == 0 {
		h.segs[0] = parcel{}
		h.segs = h.segs[1:]
	}
	if h.bytes >= windowBytes && h.bytes-n < windowBytes {
		h.wakeLocked()
	}
	h.bytes -= n
	return n
}

func (c *conn) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	written := 0
	for {
		h := c.out()
		switch {
		case c.closed && c.in.err != nil && !errors.Is(c.in.err, net.ErrClosed):
			return written, c.opError("write", syscall.EPIPE)
		case c.closed:
			return written, c.opError("write", net.ErrClosed)
		case c.peer.closed && !c.orphan:
			return written, c.opError("write", syscall.EPIPE)
		case !c.writeDeadline.IsZero() && !time.Now().Before(c.writeDeadline):
			return written, c.opError("write", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return written, nil
		}
		if room := windowBytes - h.bytes; room > 0 {
			m := min(room, len(p))
			if c.n.rollLossLocked(h) {
				c.n.breakLocked(c)
				return written, c.opError("write", syscall.ECONNRESET)
			}
			c.sendLocked(h, p[:m])
			p, written = p[m:], written+m
			continue
		}
		c.block(h, time.Time{}, c.writeDeadline)
	}
}

func (n *Network) rollLossLocked(h *half) bool {
	if h.from == h.to {
		return false
	}
	l := n.linkLocked(h.from, h.to)
	return l.lossPermille > 0 && n.rng.IntN(1000) < l.lossPermille
}

func (c *conn) sendLocked(h *half, p []byte) {
	due := time.Now().Add(c.n.latencyLocked(h.from, h.to))
	if due.Before(h.lastDue) {
		due = h.lastDue
	}
	h.lastDue = due
	h.segs = append(h.segs, parcel{append([]byte(nil), p...), len(p), due})
	h.bytes += len(p)
	c.n.stats.Bytes += int64(len(p))
	c.n.stats.Writes++
	h.wakeLocked()
}

// Close lets what was written arrive, then the peer reads EOF.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.in.err == nil {
		c.in.err = net.ErrClosed
	}
	h := c.out()
	h.eof = true
	if due := time.Now().Add(c.n.latencyLocked(h.from, h.to)); due.After(h.lastDue) {
		h.lastDue = due
	}
	h.wakeLocked()
	c.in.wakeLocked()
	delete(c.n.conns, c)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	c.readDeadline = t
	c.in.wakeLocked()
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	c.writeDeadline = t
	c.out().wakeLocked()
	return nil
}
