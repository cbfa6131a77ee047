// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/akidb/akidb/internal/localport"
)

// network is what the nodes are connected by: namespaces with nftables, or
// loopback with proxies.
type network interface {
	// place gives a new node its addresses.
	place(n *Node) error
	// command makes the command that runs a node's process in its place.
	command(n *Node, bin string, args []string) *exec.Cmd
	// cut stops the traffic from one node to another; slow delays it.
	cut(f *Fault, from, to *Node) error
	slow(f *Fault, from, to *Node, delay, jitter time.Duration, bytesPerSec int) error
	// lose drops a share of the packets that reach a node.
	lose(f *Fault, n *Node, percent int) error
	// lift undoes one fault, heal all of them.
	lift(f *Fault) error
	heal() error
	close() error
}

// Ports of a node in a namespace of its own.
const (
	restPort    = 8443
	grpcPort    = 9443
	metricsPort = 9090
	raftPort    = 9444
	gossipPort  = 7946
)

// namespaces gives every node a network namespace on a bridge. Clients sit
// outside, on the bridge's own address, and always get through.
type namespaces struct {
	tag    string // short and unique: names of links have 15 characters
	subnet string // "10.200.7."
	pairs  *pairs // what the proxies do
	cuts   *pairs // what the packet filters do

	mu      sync.Mutex // guards the fields below
	nodes   []*Node
	proxies []*proxy
	loss    map[string]map[*Fault]int
	proxied bool
}

const clientHost = 254 // the bridge's own address: where the clients are

// newNamespaces makes the bridge. With proxied, traffic between the raft ports
// goes through user-space proxies, so that it can be delayed.
func newNamespaces(tag string, subnet int, proxied bool) (*namespaces, error) {
	x := &namespaces{tag: tag, subnet: fmt.Sprintf("10.213.%d.", subnet), pairs: newPairs(), cuts: newPairs(), proxied: proxied,
		loss: make(map[string]map[*Fault]int)}
	for _, args := range []string{
		"link add " + x.bridge() + " type bridge",
		fmt.Sprintf("addr add %s%d/24 dev %s", x.subnet, clientHost, x.bridge()),
		"link set " + x.bridge() + " up",
	} {
		if err := ip(args); err != nil {
			return nil, errors.Join(err, x.close())
		}
	}
	return x, nil
}

func (x *namespaces) bridge() string { return "akj" + x.tag }

func (x *namespaces) ns(n *Node) string { return fmt.Sprintf("akj%s-%d", x.tag, n.Num) }

func (x *namespaces) addr(num int) string { return fmt.Sprintf("%s%d", x.subnet, num) }

// alias is the address that proxies use on behalf of a node.
func (x *namespaces) alias(num int) string { return fmt.Sprintf("%s%d", x.subnet, 100+num) }

func ip(args string) error { return run(nil, "ip", strings.Fields(args)...) }

// run runs a tool to its end.
func run(stdin []byte, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func (x *namespaces) place(n *Node) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nodes = append(x.nodes, n) // from here on close takes away what there is of it
	inner, outer := fmt.Sprintf("akj%s.v%d", x.tag, n.Num), fmt.Sprintf("akj%s.h%d", x.tag, n.Num)
	for _, args := range []string{
		"netns add " + x.ns(n),
		"link add " + outer + " type veth peer name " + inner,
		"link set " + outer + " master " + x.bridge(),
		"link set " + outer + " up",
		"link set " + inner + " netns " + x.ns(n),
		fmt.Sprintf("-n %s addr add %s/24 dev %s", x.ns(n), x.addr(n.Num), inner),
		fmt.Sprintf("-n %s link set %s up", x.ns(n), inner),
		fmt.Sprintf("-n %s link set lo up", x.ns(n)),
	} {
		if err := ip(args); err != nil {
			return err
		}
	}
	a := x.addr(n.Num)
	n.RESTAddr, n.GRPCAddr = fmt.Sprintf("%s:%d", a, restPort), fmt.Sprintf("%s:%d", a, grpcPort)
	n.MetricsAddr, n.GossipAddr = fmt.Sprintf("%s:%d", a, metricsPort), fmt.Sprintf("%s:%d", a, gossipPort)
	n.RaftAddr = fmt.Sprintf("%s:%d", a, raftPort)
	n.AdvertiseAddr = n.RaftAddr
	if x.proxied {
		if err := x.addProxies(n); err != nil {
			return err
		}
	}
	return x.applyLocked()
}

// proxyPort is where the proxy from one node to another listens.
func proxyPort(from, to int) int { return 20000 + from*100 + to }

// addProxies puts proxies between n and every node placed before.
func (x *namespaces) addProxies(n *Node) error {
	if err := ip(fmt.Sprintf("addr add %s/24 dev %s", x.alias(n.Num), x.bridge())); err != nil {
		return err
	}
	for _, other := range x.nodes {
		if other == n {
			continue
		}
		for _, p := range [][2]*Node{{n, other}, {other, n}} {
			from, to := p[0], p[1]
			px, err := newProxy(fmt.Sprintf("%s:%d", x.alias(to.Num), proxyPort(from.Num, to.Num)), to.ID, to.RaftAddr, x.pairs,
				func(net.Conn) string { return from.ID }, &net.TCPAddr{IP: net.ParseIP(x.alias(from.Num))})
			if err != nil {
				return err
			}
			x.proxies = append(x.proxies, px)
		}
	}
	return nil
}

// command enters the network namespace alone: "ip netns exec" would also copy the
// mounts, and a copy keeps a disk alive that was unmounted.
func (x *namespaces) command(n *Node, bin string, args []string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/var/run/netns/" + x.ns(n), bin}, args...)...)
}

// applyLocked loads the rules of every namespace anew.
func (x *namespaces) applyLocked() error {
	for _, n := range x.nodes {
		var b strings.Builder
		b.WriteString("table inet jepsen\ndelete table inet jepsen\ntable inet jepsen {\n chain in {\n  type filter hook input priority 0\n")
		for _, from := range x.nodes {
			if r, _ := x.cuts.get(from.ID, n.ID); r.cut {
				fmt.Fprintf(&b, "  ip saddr { %s, %s } drop\n", x.addr(from.Num), x.alias(from.Num))
			}
		}
		p := 0
		for _, percent := range x.loss[n.ID] {
			p = max(p, percent)
		}
		if p > 0 {
			fmt.Fprintf(&b, "  ip saddr != %s numgen random mod 100 < %d drop\n", x.addr(clientHost), p)
		}
		b.WriteString(" }\n}\n")
		if x.proxied {
			b.WriteString("table ip jepsennat\ndelete table ip jepsennat\ntable ip jepsennat {\n chain out {\n  type nat hook output priority -100\n")
			for _, to := range x.nodes {
				if to != n {
					fmt.Fprintf(&b, "  ip daddr %s tcp dport %d dnat to %s:%d\n", x.addr(to.Num), raftPort, x.alias(to.Num), proxyPort(n.Num, to.Num))
				}
			}
			b.WriteString(" }\n}\n")
		}
		if err := run([]byte(b.String()), "nsenter", "--net=/var/run/netns/"+x.ns(n), "nft", "-f", "-"); err != nil {
			return err
		}
	}
	return nil
}

func (x *namespaces) cut(f *Fault, from, to *Node) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cuts.update(f, from.ID, to.ID, func(r *rules) { r.cut = true })
	return x.applyLocked()
}

func (x *namespaces) slow(f *Fault, from, to *Node, delay, jitter time.Duration, bytesPerSec int) error {
	if !x.proxied {
		return errors.New("cluster: this network was made without proxies, it cannot delay")
	}
	x.pairs.update(f, from.ID, to.ID, func(r *rules) { r.delay, r.jitter, r.bytesPerSec = delay, jitter, bytesPerSec })
	return nil
}

func (x *namespaces) lose(f *Fault, n *Node, percent int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.loss[n.ID] == nil {
		x.loss[n.ID] = make(map[*Fault]int)
	}
	x.loss[n.ID][f] = percent
	return x.applyLocked()
}

func (x *namespaces) lift(f *Fault) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cuts.lift(f)
	for _, of := range x.loss {
		delete(of, f)
	}
	x.pairs.lift(f)
	return x.applyLocked()
}

func (x *namespaces) heal() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cuts.reset()
	clear(x.loss)
	x.pairs.reset()
	return x.applyLocked()
}

// close takes away everything that was made; what is not there is passed over.
func (x *namespaces) close() error {
	for _, p := range x.proxies {
		p.Close()
	}
	var errs []error
	for _, n := range x.nodes {
		// The link first: with the namespace alone it goes at some later time, and
		// the next cluster could not have its name.
		errs = append(errs, ip(fmt.Sprintf("link del akj%s.h%d", x.tag, n.Num)), ip("netns del "+x.ns(n)))
	}
	return errors.Join(append(errs, ip("link del "+x.bridge()))...)
}

// loopback puts all nodes on 127.0.0.1, each behind a proxy on its advertised
// raft address. It needs no privileges. Gossip is left out: it would get around
// the proxies.
type loopback struct {
	pairs *pairs
	pids  func() map[int]string

	mu      sync.Mutex // guards the following
	proxies []*proxy
	ports   []*localport.Reservation
}

func newLoopback(pids func() map[int]string) *loopback {
	return &loopback{pairs: newPairs(), pids: pids}
}

func (x *loopback) place(n *Node) error {
	p, err := localport.Reserve(4)
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.ports = append(x.ports, p)
	x.mu.Unlock()
	n.RESTAddr, n.GRPCAddr, n.MetricsAddr, n.RaftAddr = p.Addr(0), p.Addr(1), p.Addr(2), p.Addr(3)
	px, err := newProxy("127.0.0.1:0", n.ID, n.RaftAddr, x.pairs, func(c net.Conn) string { return ownerOf(c, x.pids()) }, nil)
	if err != nil {
		return err
	}
	n.AdvertiseAddr = px.ln.Addr().String()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.proxies = append(x.proxies, px)
	return nil
}

func (x *loopback) command(_ *Node, bin string, args []string) *exec.Cmd {
	return exec.Command(bin, args...)
}

func (x *loopback) cut(f *Fault, from, to *Node) error {
	x.pairs.update(f, from.ID, to.ID, func(r *rules) { r.cut = true })
	return nil
}

func (x *loopback) slow(f *Fault, from, to *Node, delay, jitter time.Duration, bytesPerSec int) error {
	x.pairs.update(f, from.ID, to.ID, func(r *rules) { r.delay, r.jitter, r.bytesPerSec = delay, jitter, bytesPerSec })
	return nil
}

// lose stands in for lost packets by the delay of their retransmission.
func (x *loopback) lose(*Fault, *Node, int) error {
	return errors.New("cluster: packets can be lost only in namespaces")
}

func (x *loopback) lift(f *Fault) error {
	x.pairs.lift(f)
	return nil
}

func (x *loopback) heal() error {
	x.pairs.reset()
	return nil
}

func (x *loopback) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.proxies {
		p.Close()
	}
	for _, p := range x.ports {
		p.Close()
	}
	return nil
}
