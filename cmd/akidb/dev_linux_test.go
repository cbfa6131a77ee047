// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os/exec"
	"strings"
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
