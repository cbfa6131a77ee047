// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package cluster runs akidb processes and does to them and to their network
// what machines and networks do. Only processes it started are ever signalled,
// and Close takes away everything it made.
package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Disk is what the data directories are on.
type Disk string

// The disks.
const (
	DiskPlain Disk = ""      // a directory
	DiskSmall Disk = "small" // a small tmpfs each, which can be filled
	DiskFuse  Disk = "fuse"  // a file system that can be slow, and forgets what was not synced
)

// Config of a cluster.
type Config struct {
	Binary string
	// Upgraded, if set, is the binary that Upgrade switches a node to.
	Upgraded string
	Nodes    int
	// Dir holds data, logs and certificates.
	Dir        string
	Namespaces bool
	// Delays asks for proxies between the nodes' namespaces.
	Delays bool
	Disk   Disk
	Args   []string // for every node, beyond the usual
	Env    []string
	// Tag names namespaces; two clusters at a time need two tags.
	Tag string
	// Subnet is the third number of the nodes' addresses.
	Subnet int
}

// Cluster is a running cluster.
type Cluster struct {
	cfg   Config
	net   network
	certs *certs

	mu    sync.Mutex // guards nodes and next
	nodes []*Node
	next  int
}

// maxNodes bounds the nodes a cluster ever has; certificates name all of them.
const maxNodes = 20

// New prepares a cluster; nothing runs yet. Close it even after an error of
// another method.
func New(cfg Config) (*Cluster, error) {
	if cfg.Nodes < 1 || cfg.Nodes > maxNodes {
		return nil, fmt.Errorf("cluster: %d nodes, want 1 to %d", cfg.Nodes, maxNodes)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "logs"), 0o755); err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, next: 1}
	ips := []net.IP{net.IPv4(127, 0, 0, 1)}
	if cfg.Namespaces {
		ns, err := newNamespaces(cfg.Tag, cfg.Subnet, cfg.Delays)
		if err != nil {
			return nil, err
		}
		c.net = ns
		for i := 1; i <= maxNodes; i++ {
			ips = append(ips, net.ParseIP(ns.addr(i)))
		}
	} else {
		c.net = newLoopback(c.pids)
	}
	var err error
	if c.certs, err = newCerts(cfg.Dir, ips, []string{"localhost", "akidb"}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for range cfg.Nodes {
		if _, err := c.add(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// add places a node with an empty data directory.
func (c *Cluster) add() (*Node, error) {
	c.mu.Lock()
	n := &Node{c: c, Num: c.next, ID: fmt.Sprintf("n%d", c.next), bin: c.cfg.Binary}
	c.next++
	c.mu.Unlock()
	if n.Num > maxNodes {
		return nil, fmt.Errorf("cluster: more than %d nodes", maxNodes)
	}
	if err := c.net.place(n); err != nil {
		return nil, err
	}
	n.DataDir = filepath.Join(c.cfg.Dir, "data", n.ID)
	if err := n.prepareDisk(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, n)
	return n, nil
}

// Nodes lists the nodes that are part of the cluster.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// TLS is what a client needs.
func (c *Cluster) TLS() *tls.Config { return c.certs.client.Clone() }

// pids maps the running processes to their nodes.
func (c *Cluster) pids() map[int]string {
	m := make(map[int]string)
	for _, n := range c.Nodes() {
		if pid := n.pid(); pid != 0 {
			m[pid] = n.ID
		}
	}
	return m
}

// peers are the raft addresses of all nodes.
func (c *Cluster) peers() string {
	var addrs []string
	for _, n := range c.Nodes() {
		addrs = append(addrs, n.AdvertiseAddr)
	}
	return strings.Join(addrs, ",")
}

// Start starts every node that does not run.
func (c *Cluster) Start() error {
	for _, n := range c.Nodes() {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return nil
}

// AddNode places one more node and starts it; it joins through the others.
func (c *Cluster) AddNode() (*Node, error) {
	n, err := c.add()
	if err != nil {
		return nil, err
	}
	return n, n.Start()
}

// Drop stops a node and forgets it. Its removal from the configuration is the
// business of whoever calls.
func (c *Cluster) Drop(n *Node) error {
	err := n.Kill()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(c.nodes, func(o *Node) bool { return o == n })
	return err
}

// Fault is what one cause does to the network. Faults of several may meet on a way
// between two nodes; each is lifted by itself.
type Fault struct {
	c *Cluster
}

// NewFault is a fault that does nothing yet.
func (c *Cluster) NewFault() *Fault { return &Fault{c: c} }

// Cut stops the traffic from a to b.
func (f *Fault) Cut(a, b *Node) error { return f.c.net.cut(f, a, b) }

// Slow delays the traffic from a to b by delay and up to jitter more. Where several
// faults do, the longest delay counts.
func (f *Fault) Slow(a, b *Node, delay, jitter time.Duration, bytesPerSec int) error {
	return f.c.net.slow(f, a, b, delay, jitter, bytesPerSec)
}

// Lose drops a share of the packets that other nodes send to n, the largest that a
// fault asks for.
func (f *Fault) Lose(n *Node, percent int) error { return f.c.net.lose(f, n, percent) }

// Lift undoes what this fault did and leaves the others.
func (f *Fault) Lift() error { return f.c.net.lift(f) }

// HealNetwork lifts every fault.
func (c *Cluster) HealNetwork() error { return c.net.heal() }

// Close kills every process and takes away namespaces and mounts. Data and logs
// stay. It may be called more than once.
func (c *Cluster) Close() error {
	var errs []error
	// All of them first: no process shall hold another node's disk.
	for _, n := range c.Nodes() {
		errs = append(errs, n.Kill())
	}
	for _, n := range c.Nodes() {
		errs = append(errs, n.removeDisk())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = nil
	if c.net != nil {
		errs = append(errs, c.net.close())
		c.net = nil
	}
	return errors.Join(errs...)
}

// WaitExit waits until n's process ended by itself.
func (n *Node) WaitExit(ctx context.Context) error {
	n.mu.Lock()
	p := n.proc
	n.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cluster: %s did not exit: %w", n.ID, ctx.Err())
	}
}
