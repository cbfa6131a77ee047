// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
)

// Goal: nodes that know one DNS name of all found one cluster and find each other
// after every address has changed, and so does a client that knows the name.
// Method: three nodes on loopback addresses of their own, each in a mount
// namespace in which /etc/hosts gives localhost those addresses, as a headless
// service does; then stop all, and start them on three others.
func TestOneDNSNameForAll(t *testing.T) {
	if _, err := exec.LookPath("unshare"); err != nil || os.Getuid() != 0 {
		t.Skip("gives processes an /etc/hosts of their own: needs root and unshare")
	}
	dir := t.TempDir()
	hosts, script := filepath.Join(dir, "hosts"), filepath.Join(dir, "akidb-with-hosts")
	text := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'mount --bind %s /etc/hosts && exec %s \"$@\"' akidb \"$@\"\n", hosts, akidbBinary(dir))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	var raftPort, grpcPort string
	move := func(n *localcluster.Node, ip string) {
		if raftPort == "" { // the ports of the first node are everybody's
			_, raftPort, _ = net.SplitHostPort(n.Raft)
			_, grpcPort, _ = net.SplitHostPort(n.GRPC)
		}
		n.Raft, n.GRPC = net.JoinHostPort(ip, raftPort), net.JoinHostPort(ip, grpcPort)
		n.SetFlags("--peers", "localhost:"+raftPort)
		n.SetBinary(script)
	}
	name := func(ips ...string) {
		t.Helper()
		if err := os.WriteFile(hosts, []byte(strings.Join(ips, " localhost\n")+" localhost\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name("127.0.0.2", "127.0.0.3", "127.0.0.4")
	started := 0
	c, cl := startTestClusterWith(t, localcluster.Options{Nodes: 3, Prepare: func(n *localcluster.Node) error {
		started++
		move(n, fmt.Sprintf("127.0.0.%d", 1+started))
		return nil
	}})
	x := watch(t, c, cl, 2)
	byName := func() {
		t.Helper()
		stdout, stderr, status := akidbProcess(t, script, "cluster", "status", "--endpoints", "dns:///localhost:"+grpcPort, "--ca-cert", c.CACert)
		if status != 0 || strings.Count(stdout, "127.0.0.") != 3 {
			t.Fatalf("%d: %s%s", status, stdout, stderr)
		}
	}
	byName()
	x.more(50)
	x.load.stop()
	before := x.status(x.leader()).ClusterId
	for _, n := range c.Nodes {
		x.must(n.Stop(x.ctx()))
	}
	for i, n := range c.Nodes {
		move(n, fmt.Sprintf("127.0.0.%d", 5+i))
	}
	name("127.0.0.5", "127.0.0.6", "127.0.0.7")
	for _, n := range c.Nodes {
		x.must(n.Start())
	}
	x.must(c.WaitReady(x.ctx()))
	byName()
	again, err := c.Client(nil)
	x.must(err)
	defer again.Close()
	x.cl = again
	if now := x.status(x.leader()).ClusterId; now != before {
		t.Fatalf("it is cluster %s, it was %s", now, before)
	}
	x.finish()
}
