// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/akidb/akidb/internal/localport"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is several nodes in this process, over loopback connections that can
// be cut one by one.
type cluster struct {
	t     *testing.T
	dir   string
	conf  func(*Config)
	net   *partNet
	nodes map[string]*Node
	mem   map[string]*memMachine
	addrs map[string]string
	names []string
	puts  atomic.Int64
}

func newCluster(t *testing.T, names []string, conf func(*Config)) *cluster {
	t.Helper()
	c := &cluster{
		t: t, dir: t.TempDir(), conf: conf, net: newPartNet(), nodes: map[string]*Node{},
		mem: map[string]*memMachine{}, addrs: map[string]string{}, names: names,
	}
	for _, n := range names {
		c.addrs[n] = freeAddr(t)
		c.net.name(c.addrs[n], n)
	}
	t.Cleanup(c.stopAll)
	return c
}

func startCluster(t *testing.T, size int, conf func(*Config)) *cluster {
	t.Helper()
	c := newCluster(t, []string{"n1", "n2", "n3", "n4", "n5"}[:size], conf)
	for _, n := range c.names {
		c.start(n)
	}
	c.leader()
	return c
}

func freeAddr(t *testing.T) string {
	t.Helper()
	r, err := localport.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r.Addr(0)
}

func (c *cluster) config(name string) Config {
	cfg := Config{
		NodeID: name, DataDir: filepath.Join(c.dir, name), RaftAddr: c.addrs[name],
		BootstrapExpect: len(c.names), HeartbeatTimeout: 400 * time.Millisecond,
		StabilizationTime: 200 * time.Millisecond,
		GRPCAddr:          "grpc-" + name, RESTAddr: "rest-" + name, Version: "test",
		Net: c.net.of(name),
	}
	for _, p := range c.names {
		cfg.Peers = append(cfg.Peers, c.addrs[p])
	}
	if os.Getenv("AKIDB_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	cfg.openMachine = func(_ context.Context, dir string) (machine, error) {
		m, err := openMem(dir)
		c.mem[name] = m
		return m, err
	}
	if c.conf != nil {
		c.conf(&cfg)
	}
	return cfg
}

func (c *cluster) start(name string) *Node {
	c.t.Helper()
	n, err := Open(c.t.Context(), c.config(name))
	if err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	c.nodes[name] = n
	return n
}

func (c *cluster) stop(name string) {
	c.t.Helper()
	n := c.nodes[name]
	delete(c.nodes, name)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		c.t.Errorf("close %s: %v", name, err)
	}
}

// crash stops a node without its saying good-bye.
func (c *cluster) crash(name string) {
	c.t.Helper()
	n := c.nodes[name]
	delete(c.nodes, name)
	c.net.isolate(name, true)
	if err := n.shutdown(context.Background()); err != nil {
		c.t.Errorf("crash %s: %v", name, err)
	}
	c.net.isolate(name, false)
}

func (c *cluster) stopAll() {
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		wg.Go(func() { _ = n.shutdown(context.Background()) })
	}
	wg.Wait()
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

// leader waits for a node that leads and is established.
func (c *cluster) leader() *Node {
	c.t.Helper()
	var found *Node
	c.wait("a leader", func() bool {
		for _, n := range c.nodes {
			if _, _, ok := n.g.leading(); ok && n.g.clusterID() != "" {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// nextLeader waits for another node than old that leads.
func (c *cluster) nextLeader(old *Node) (next *Node) {
	c.t.Helper()
	c.wait("another leader", func() bool {
		for _, n := range c.nodes {
			if _, _, ok := n.g.leading(); ok && n != old {
				next = n
				return true
			}
		}
		return false
	})
	return next
}

func (c *cluster) follower() *Node {
	c.t.Helper()
	l := c.leader()
	for _, name := range c.names {
		if n := c.nodes[name]; n != nil && n != l {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func (c *cluster) wait(what string, ok func() bool) {
	c.t.Helper()
	eventually(c.t, what, ok)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain for %s", what)
		}
		pause(ctx, 5*time.Millisecond)
	}
}

func put(id string) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_Write{Write: &fsmv1.WriteBatch{
		CollectionId: "c", Writes: []*fsmv1.Write{{Kind: fsmv1.Write_KIND_UPSERT, DocId: id, Vector: []byte(id)}},
	}}}
}

func (c *cluster) put(n *Node, id string) uint64 {
	c.t.Helper()
	// With a request id, since a busy machine may lose a leader at any time.
	cmd := put(id)
	cmd.RequestId = fmt.Sprintf("put %d", c.puts.Add(1))
	res, err := n.Propose(c.ctx(), cmd)
	if err != nil {
		c.t.Fatalf("put %s through %s: %v", id, n.ID(), err)
	}
	return res.LogIndex
}

// partNet is loopback TCP whose links can be cut: nothing gets through a cut
// link in either direction, and what was open on it breaks.
type partNet struct {
	mu    sync.Mutex        // guards the fields below
	names map[string]string // address to node
	cut   map[[2]string]bool
	conns map[*partConn]struct{}
}

func newPartNet() *partNet {
	return &partNet{names: map[string]string{}, cut: map[[2]string]bool{}, conns: map[*partConn]struct{}{}}
}

func (p *partNet) name(addr, node string) {
	p.mu.Lock()
	p.names[addr] = node
	p.mu.Unlock()
}

type partConn struct {
	net.Conn
	p    *partNet
	link [2]string
}

func (c *partConn) Close() error {
	c.p.mu.Lock()
	delete(c.p.conns, c)
	c.p.mu.Unlock()
	return c.Conn.Close()
}

var errCut = errors.New("link is cut")

func (p *partNet) of(from string) Net {
	return Net{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.mu.Lock()
		link := [2]string{from, p.names[addr]}
		cut := p.cut[link]
		p.mu.Unlock()
		if cut {
			return nil, fmt.Errorf("dial %s: %w", link[1], errCut)
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		pc := &partConn{c, p, link}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cut[link] { // since the look above: set has not seen this one
			c.Close()
			return nil, fmt.Errorf("dial %s: %w", link[1], errCut)
		}
		p.conns[pc] = struct{}{}
		return pc, nil
	}}
}

// set cuts or mends the link between two nodes, both ways.
func (p *partNet) set(a, b string, cut bool) {
	p.mu.Lock()
	p.cut[[2]string{a, b}], p.cut[[2]string{b, a}] = cut, cut
	var broken []*partConn
	for c := range p.conns {
		if cut && (c.link == [2]string{a, b} || c.link == [2]string{b, a}) {
			broken = append(broken, c)
		}
	}
	p.mu.Unlock()
	for _, c := range broken {
		c.Close()
	}
}

func (p *partNet) isolate(node string, cut bool) {
	p.mu.Lock()
	var others []string
	for _, n := range p.names {
		if n != node {
			others = append(others, n)
		}
	}
	p.mu.Unlock()
	for _, o := range others {
		p.set(node, o, cut)
	}
}
