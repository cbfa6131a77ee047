// SPDX-License-Identifier: Apache-2.0

// Package localcluster runs a cluster of real processes of this binary on the
// loopback interface, for `akidb dev`, `demo` and `bench`.
package localcluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/certs"
	"github.com/akidb/akidb/internal/localport"
)

// defaultNodes survive the loss of one; maxNodes bounds what a single machine is
// asked to run.
const (
	defaultNodes = 3
	maxNodes     = 15
)

// Options say what to run.
type Options struct {
	Binary string   // of akidb
	Dir    string   // keeps everything; made if it is not there
	Nodes  int      // 0: as many as Dir holds, or three
	Flags  []string // further flags of `akidb serve`
	// Plaintext leaves out TLS, between nodes and to clients: to measure what it
	// costs, or beside a database that runs without.
	Plaintext bool
	// Prepare, if not nil, is called before each node's first start.
	Prepare func(*Node) error
	// Ended, if not nil, is called when a node ends without being asked to, from a
	// goroutine of that node.
	Ended func(Ending)
}

// Ending is how a process of a node ended by itself.
type Ending struct {
	Node *Node
	PID  int
	Err  error // nil: with status 0
}

// Cluster is a running cluster.
type Cluster struct {
	Nodes  []*Node
	CACert string
	// Resumed is true if Dir held a cluster already.
	Resumed bool

	opt     Options
	layout  layout
	ca      *certs.Authority
	ports   []*localport.Reservation // none of a resumed cluster
	spawner *spawner
	lock    *os.File // held while the cluster runs
}

// layout is what a directory remembers of its cluster.
type layout struct {
	GossipKey string  `json:"gossip_key"`
	Founders  int     `json:"founders,omitempty"` // 0: all nodes
	Nodes     []*Node `json:"nodes"`
}

const layoutFile = "cluster.json"

// Start starts all nodes; WaitReady waits until they serve. A cluster that Dir
// holds is started again with its data and addresses.
func Start(o Options) (*Cluster, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	held, err := lock(dir)
	if err != nil {
		return nil, err
	}
	ca, err := certs.OpenAuthority(dir)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	c := &Cluster{CACert: ca.Path, opt: o, ca: ca, lock: held}
	if err := c.plan(); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	c.Nodes = c.layout.Nodes
	for _, n := range c.Nodes {
		n.cluster = c
	}
	c.spawner = newSpawner()
	for _, n := range c.Nodes {
		if err := c.first(n); err != nil {
			return nil, errors.Join(err, c.Close(context.Background()))
		}
	}
	return c, nil
}

// first prepares a node and starts it.
func (c *Cluster) first(n *Node) error {
	n.cluster = c
	if err := os.MkdirAll(n.home(), 0o700); err != nil {
		return err
	}
	if _, _, err := c.ca.Issue(n.home(), n.ID); err != nil {
		return err
	}
	if c.opt.Prepare != nil {
		if err := c.opt.Prepare(n); err != nil {
			return err
		}
	}
	return n.Start()
}

// Add starts one more node, which joins the cluster; flags are for it alone. Not
// to be called while other methods run.
func (c *Cluster) Add(flags ...string) (*Node, error) {
	if c.layout.Founders == 0 {
		c.layout.Founders = len(c.Nodes)
	}
	last := 0
	for _, n := range c.Nodes {
		var i int
		if _, err := fmt.Sscanf(n.ID, "n%d", &i); err == nil {
			last = max(last, i)
		}
	}
	n := &Node{ID: fmt.Sprintf("n%d", last+1), cluster: c, flags: flags}
	if err := n.Readdress(); err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	if err := c.save(); err != nil {
		return nil, err
	}
	return n, c.first(n)
}

// Forget takes a node that was stopped for good out of the list. Not to be called
// while other methods run.
func (c *Cluster) Forget(n *Node) error {
	c.Nodes = slices.DeleteFunc(c.Nodes, func(m *Node) bool { return m == n })
	return c.save()
}

// save keeps the layout in Dir.
func (c *Cluster) save() error {
	c.layout.Nodes = c.Nodes
	text, err := json.MarshalIndent(c.layout, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.opt.Dir, layoutFile), text, 0o600)
}

// plan reads the layout of Dir or makes one.
func (c *Cluster) plan() error {
	path := filepath.Join(c.opt.Dir, layoutFile)
	text, err := os.ReadFile(path)
	if err == nil {
		c.Resumed = true
		if err := json.Unmarshal(text, &c.layout); err != nil || len(c.layout.Nodes) == 0 {
			return fmt.Errorf("%s is damaged (%v); remove the directory to begin anew", path, err)
		}
		if n := len(c.layout.Nodes); c.opt.Nodes != 0 && c.opt.Nodes != n {
			return fmt.Errorf("%s holds a cluster with another number of nodes, %d instead of %d; ask for none, or take another directory",
				c.opt.Dir, n, c.opt.Nodes)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.opt.Nodes == 0 {
		c.opt.Nodes = defaultNodes
	}
	if c.opt.Nodes < 1 || c.opt.Nodes > maxNodes {
		return fmt.Errorf("--nodes %d: want 1 to %d", c.opt.Nodes, maxNodes)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // does not fail
	c.layout.GossipKey = base64.StdEncoding.EncodeToString(key)
	for i := range c.opt.Nodes {
		n := &Node{ID: fmt.Sprintf("n%d", i+1), cluster: c}
		if err := n.Readdress(); err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c.save()
}

// Peers is --peers for every node.
func (c *Cluster) peers() string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.Raft)
	}
	return strings.Join(out, ",")
}

// Endpoints are the gRPC addresses of all nodes.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.GRPC)
	}
	return out
}

// ClientConfig reaches the cluster; the caller changes what it needs.
func (c *Cluster) ClientConfig() (client.Config, error) {
	if c.opt.Plaintext {
		return client.Config{Endpoints: c.Endpoints()}, nil
	}
	conf, err := certs.ClientTLS(c.CACert)
	return client.Config{Endpoints: c.Endpoints(), TLS: conf}, err
}

// Client opens a client on all nodes, or on one only, pinned.
func (c *Cluster) Client(pin *Node) (*client.Client, error) {
	cfg, err := c.ClientConfig()
	if err != nil {
		return nil, err
	}
	if pin != nil {
		cfg.Endpoints, cfg.Pin = []string{pin.GRPC}, true
	}
	return client.Open(cfg)
}

// readyPoll is how often a node is asked whether it is ready.
const readyPoll = 20 * time.Millisecond

// WaitReady waits until every running node says that it is ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	cl, err := c.Client(nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, n := range c.Nodes {
		if err := n.waitReady(ctx, cl); err != nil {
			return err
		}
	}
	return nil
}

// Leader returns the node that leads, as it says itself.
func (c *Cluster) Leader(ctx context.Context, cl *client.Client) (*Node, error) {
	for {
		for _, n := range c.Nodes {
			if n.running() == nil {
				continue
			}
			attempt, cancel := context.WithTimeout(ctx, time.Second) // it may be paused
			st, err := cl.Status(attempt, n.GRPC)
			cancel()
			if err == nil && st.LeaderId == n.ID {
				return n, nil
			}
		}
		if err := pause(ctx, readyPoll); err != nil {
			return nil, fmt.Errorf("no leader: %w", err)
		}
	}
}

// Alive is an error naming the nodes that do not run, with the end of their logs.
func (c *Cluster) Alive() error {
	var errs []error
	for _, n := range c.Nodes {
		if n.running() == nil {
			errs = append(errs, fmt.Errorf("%s ended; the end of its log:\n%s", n.ID, n.logTail()))
		}
	}
	return errors.Join(errs...)
}

// Close stops all nodes gracefully, and by force what outlives ctx.
func (c *Cluster) Close(ctx context.Context) error {
	var errs []error
	for _, n := range c.Nodes {
		n.signal(stopSignal())
	}
	for _, n := range c.Nodes {
		errs = append(errs, n.wait(ctx))
	}
	c.spawner.close()
	for _, p := range c.ports {
		p.Close()
	}
	errs = append(errs, c.lock.Close())
	return errors.Join(errs...)
}

// pause is a named wait between polls.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// founders is --bootstrap-expect of every node.
func (c *Cluster) founders() int {
	if c.layout.Founders > 0 {
		return c.layout.Founders
	}
	return len(c.Nodes)
}

// AddFlags gives further flags of `akidb serve` to nodes that are started from
// now on.
func (c *Cluster) AddFlags(flags ...string) { c.opt.Flags = append(c.opt.Flags, flags...) }
