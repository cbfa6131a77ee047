// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Goal: nodes do not outlive the command that made them, however it ends.
// Method: kill `akidb dev` with SIGKILL, then wait until nobody listens.
func TestNodesDieWithTheirParent(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(akidbBinary(dir), "dev", "--json", "--nodes", "2", "--dir", dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var d devJSON
	if err := json.Unmarshal(line, &d); err != nil || len(d.Nodes) != 2 || d.Nodes[0].PID == 0 || d.CACert == "" || !strings.HasPrefix(d.Nodes[0].REST, "https://") {
		t.Fatalf("%s: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, n := range d.Nodes {
		for {
			c, err := net.Dial("tcp", n.GRPC)
			if err != nil {
				break
			}
			c.Close()
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("%s still listens", n.ID)
			}
		}
	}
}

// Goal: `akidb dev` knows what runs from its directory. Method: a cluster of one
// is started twice, loses its node, is left behind by a kill, and started again.
func TestDevKnowsItsDirectory(t *testing.T) {
	dir := t.TempDir()
	binary := akidbBinary(dir)
	home := filepath.Join(dir, "cluster")
	start := func(args ...string) (*exec.Cmd, devJSON, *bufio.Reader) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 2*startLimit)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, binary, append([]string{"dev", "--json", "--dir", home}, args...)...)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err != nil {
			said, _ := io.ReadAll(stderr)
			t.Fatalf("%v: %s", err, said)
		}
		var d devJSON
		if err := json.Unmarshal(line, &d); err != nil || len(d.Nodes) != 1 {
			t.Fatalf("%s: %v", line, err)
		}
		return cmd, d, bufio.NewReader(stderr)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), binary, append([]string{"dev", "--json", "--dir", home}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), home) {
			t.Errorf("dev %v: %v, want %q: %s", args, err, want, out)
		}
	}
	first, d, stderr := start("--nodes", "1")
	refused("in use: process " + strconv.Itoa(first.Process.Pid))

	layout, err := os.ReadFile(filepath.Join(home, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		GossipKey string `json:"gossip_key"`
	}
	if err := json.Unmarshal(layout, &kept); err != nil || kept.GossipKey == "" {
		t.Fatalf("%s: %v", layout, err)
	}
	proc := "/proc/" + strconv.Itoa(d.Nodes[0].PID)
	line, err := os.ReadFile(proc + "/cmdline")
	if err != nil || !bytes.Contains(line, []byte("serve")) || bytes.Contains(line, []byte(kept.GossipKey)) {
		t.Errorf("command line of the node: %q, %v", line, err)
	}

	if err := syscall.Kill(d.Nodes[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	said, err := stderr.ReadString('\n')
	if want := "node n1 (pid " + strconv.Itoa(d.Nodes[0].PID) + ") ended by itself: signal: killed; its log is " +
		filepath.Join(home, "n1", "node.log"); err != nil || !strings.Contains(said, want) {
		t.Errorf("said %q, %v, want %q", said, err, want)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // killed

	refused("1 instead of 2", "--nodes", "2")
	again, _, _ := start()
	if err := again.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := again.Wait(); err != nil {
		t.Error(err)
	}
}
