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
	"strings"
	"time"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/certs"
	"github.com/akidb/akidb/internal/localport"
)

// maxNodes bounds what a single machine is asked to run.
const maxNodes = 15

// Options say what to run.
type Options struct {
	Binary string   // of akidb
	Dir    string   // keeps everything; made if it is not there
	Nodes  int      // of a new cluster; one kept in Dir has its own number
	Flags  []string // further flags of `akidb serve`
}

// Cluster is a running cluster.
type Cluster struct {
	Nodes  []*Node
	CACert string
	// Resumed is true if Dir held a cluster already.
	Resumed bool

	opt     Options
	layout  layout
	ports   *localport.Reservation // of a new cluster; nil for a resumed one
	spawner *spawner
}

// layout is what a directory remembers of its cluster.
type layout struct {
	GossipKey string  `json:"gossip_key"`
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
	ca, err := certs.OpenAuthority(dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{CACert: ca.Path, opt: o}
	if err := c.plan(); err != nil {
		return nil, err
	}
	c.Nodes = c.layout.Nodes
	c.spawner = newSpawner()
	for _, n := range c.Nodes {
		n.cluster = c
		if err := os.MkdirAll(n.home(), 0o700); err != nil {
			return nil, errors.Join(err, c.Close(context.Background()))
		}
		if _, _, err := ca.Issue(n.home(), n.ID); err != nil {
			return nil, errors.Join(err, c.Close(context.Background()))
		}
		if err := n.Start(); err != nil {
			return nil, errors.Join(err, c.Close(context.Background()))
		}
	}
	return c, nil
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
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.opt.Nodes < 1 || c.opt.Nodes > maxNodes {
		return fmt.Errorf("--nodes %d: want 1 to %d", c.opt.Nodes, maxNodes)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // does not fail
	c.layout.GossipKey = base64.StdEncoding.EncodeToString(key)
	if c.ports, err = localport.Reserve(5 * c.opt.Nodes); err != nil {
		return err
	}
	for i := range c.opt.Nodes {
		addr := func(k int) string { return c.ports.Addr(5*i + k) }
		c.layout.Nodes = append(c.layout.Nodes, &Node{ID: fmt.Sprintf("n%d", i+1),
			REST: addr(0), GRPC: addr(1), Raft: addr(2), Gossip: addr(3), Metrics: addr(4)})
	}
	if text, err = json.MarshalIndent(c.layout, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
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
			st, err := cl.Status(ctx, n.GRPC)
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
	if c.ports != nil {
		c.ports.Close()
	}
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

// AddFlags gives further flags of `akidb serve` to nodes that are started from
// now on.
func (c *Cluster) AddFlags(flags ...string) { c.opt.Flags = append(c.opt.Flags, flags...) }
