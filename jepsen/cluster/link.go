// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// rules are what happens to the traffic from one node to another.
type rules struct {
	cut           bool
	delay, jitter time.Duration
	bytesPerSec   int
}

// with is what both rules come to: the longer delay and the narrower way.
func (r rules) with(o rules) rules {
	r.cut = r.cut || o.cut
	if o.delay > r.delay {
		r.delay, r.jitter = o.delay, o.jitter
	}
	if r.bytesPerSec == 0 || o.bytesPerSec > 0 && o.bytesPerSec < r.bytesPerSec {
		r.bytesPerSec = o.bytesPerSec
	}
	return r
}

// pairs holds the rules of all pairs of nodes, of each fault its own; proxies ask it
// for each chunk.
type pairs struct {
	mu      sync.Mutex // guards the fields below
	rules   map[[2]string]map[*Fault]rules
	changed chan struct{} // closed and replaced at every change
}

func newPairs() *pairs {
	return &pairs{rules: make(map[[2]string]map[*Fault]rules), changed: make(chan struct{})}
}

func (p *pairs) get(from, to string) (rules, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all rules
	for _, r := range p.rules[[2]string{from, to}] {
		all = all.with(r)
	}
	return all, p.changed
}

func (p *pairs) update(by *Fault, from, to string, f func(*rules)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.rules[[2]string{from, to}]
	if of == nil {
		of = make(map[*Fault]rules)
		p.rules[[2]string{from, to}] = of
	}
	r := of[by]
	f(&r)
	of[by] = r
	p.tellLocked()
}

// lift takes the rules of one fault away.
func (p *pairs) lift(f *Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.rules {
		delete(of, f)
	}
	p.tellLocked()
}

func (p *pairs) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.rules)
	p.tellLocked()
}

func (p *pairs) tellLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// proxy forwards TCP connections to one node and applies the rules. A cut holds
// the bytes back, as a network that drops packets does: after the heal TCP
// delivers them late.
type proxy struct {
	ln     net.Listener
	to     string // the node behind it
	target string
	pairs  *pairs
	// from names the node that a connection comes from.
	from func(net.Conn) string
	// local, if set, is the address to dial from.
	local net.Addr

	mu     sync.Mutex // guards conns and closed
	conns  map[net.Conn]bool
	closed bool
	stop   chan struct{}
	wg     sync.WaitGroup
}

func newProxy(listen, to, target string, p *pairs, from func(net.Conn) string, local net.Addr) (*proxy, error) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	x := &proxy{ln: ln, to: to, target: target, pairs: p, from: from, local: local,
		conns: make(map[net.Conn]bool), stop: make(chan struct{})}
	x.wg.Go(x.accept)
	return x, nil
}

// Close ends the proxy with its connections and waits for them.
func (x *proxy) Close() {
	x.mu.Lock()
	if !x.closed {
		x.closed = true
		close(x.stop)
		x.ln.Close()
		for c := range x.conns {
			c.Close()
		}
	}
	x.mu.Unlock()
	x.wg.Wait()
}

func (x *proxy) accept() {
	for {
		c, err := x.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		x.wg.Go(func() { x.serve(c) })
	}
}

// track closes c with the proxy; false: it is closed already.
func (x *proxy) track(c net.Conn) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		c.Close()
		return false
	}
	x.conns[c] = true
	return true
}

func (x *proxy) untrack(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.conns, c)
	c.Close()
}

func (x *proxy) serve(in net.Conn) {
	if !x.track(in) {
		return
	}
	defer x.untrack(in)
	from := x.from(in)
	if !x.passable(from, x.to) { // the handshake would not get through either
		return
	}
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: x.local}
	out, err := d.Dial("tcp", x.target)
	if err != nil || !x.track(out) {
		return
	}
	defer x.untrack(out)
	var wg sync.WaitGroup
	wg.Go(func() { x.copy(out, in, from, x.to) })
	wg.Go(func() { x.copy(in, out, x.to, from) })
	wg.Wait()
}

// chunk is bytes on their way.
type chunk struct {
	data []byte
	due  time.Time
}

// copy moves bytes until either side closes. A reader stamps each chunk with the
// time it is due, a writer sends it then: delay does not limit the throughput.
func (x *proxy) copy(dst, src net.Conn, from, to string) {
	queue := make(chan chunk, 256)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(queue)
		for {
			buf := make([]byte, 16<<10)
			n, err := src.Read(buf)
			if n > 0 {
				r, _ := x.pairs.get(from, to)
				due := time.Now().Add(r.delay)
				if r.jitter > 0 {
					due = due.Add(rand.N(r.jitter))
				}
				select {
				case queue <- chunk{buf[:n], due}:
				case <-x.stop:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range queue {
		if !x.wait(time.Until(c.due)) || !x.passable(from, to) {
			break
		}
		if r, _ := x.pairs.get(from, to); r.bytesPerSec > 0 {
			x.wait(time.Duration(len(c.data)) * time.Second / time.Duration(r.bytesPerSec))
		}
		if _, err := dst.Write(c.data); err != nil {
			break
		}
	}
	// Either the source ended or the destination broke: both go down.
	if tc, ok := dst.(*net.TCPConn); ok {
		tc.CloseWrite()
	}
	src.Close()
	for range queue {
	}
	wg.Wait()
	_, _ = io.Copy(io.Discard, src)
}

// wait is false if the proxy closed meanwhile.
func (x *proxy) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-x.stop:
		return false
	}
}

// passable waits while the way from one node to another is cut.
func (x *proxy) passable(from, to string) bool {
	for {
		r, changed := x.pairs.get(from, to)
		if !r.cut {
			return true
		}
		select {
		case <-changed:
		case <-x.stop:
			return false
		}
	}
}
