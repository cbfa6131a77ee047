// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/akidb/akidb/client"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// akidb runs one command in this process.
func akidb(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	status = run(args, strings.NewReader(""), &out, &errOut)
	return out.String(), errOut.String(), status
}

// Goal: what the manual says about a lost quorum and about the log store holds.
// Method: write to three nodes, stop all, lose two for good, follow the manual.
func TestLostQuorumByTheManual(t *testing.T) {
	c, cl := startTestCluster(t, 3)
	if _, err := cl.CreateCollection(t.Context(), &collectionv1.CreateCollectionRequest{Name: "c", Dimension: 2, Metric: "l2"}); err != nil {
		t.Fatal(err)
	}
	in := cl.Ingest(t.Context(), "c", client.IngestOptions{BatchDocs: 5})
	for i := range 50 {
		if err := in.Add(&collectionv1.UpsertRequest{DocId: string(rune('A' + i)), Vector: []float32{float32(i), 1}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := converge(t.Context(), cl, c.Endpoints(), convergeLimit, c.Alive); err != nil {
		t.Fatal(err)
	}
	survivor := c.Nodes[1]
	name := []string{"--data-dir", survivor.DataDir()}
	home := filepath.Dir(survivor.LogPath())
	tls := []string{"--tls-cert", filepath.Join(home, survivor.ID+".crt"), "--tls-key", filepath.Join(home, survivor.ID+".key"), "--tls-ca", c.CACert}
	survivor.Kill()
	out, stderr, status := akidb(t, append([]string{"raft", "inspect", "--json"}, name...)...)
	var lives inspection
	if err := json.Unmarshal([]byte(out), &lives); status != 0 || err != nil || lives.NodeID != survivor.ID {
		t.Fatalf("%d: %s%s", status, out, stderr)
	}
	// As long as the others live it is refused, and what to do is said.
	early := append([]string{"cluster", "recover", "--cluster-id", lives.ClusterID, "--yes"}, name...)
	if _, stderr, status := akidb(t, append(early, tls...)...); status == 0 || !strings.Contains(stderr, "n1 answers at "+c.Nodes[0].Raft) || !strings.Contains(stderr, "nothing was changed") {
		t.Fatalf("recovered while the others live: %d, %s", status, stderr)
	}
	if _, stderr, status := akidb(t, early...); status == 0 || !strings.Contains(stderr, "give the TLS settings") {
		t.Fatalf("recovered while the others live, asked without certificates: %d, %s", status, stderr)
	}
	for _, n := range c.Nodes {
		n.Kill()
	}

	out, stderr, status = akidb(t, append([]string{"raft", "inspect", "--json"}, name...)...)
	var seen inspection
	if err := json.Unmarshal([]byte(out), &seen); status != 0 || err != nil || len(seen.Members) != 3 || seen.ClusterID == "" {
		t.Fatalf("%d: %s%s", status, out, stderr)
	}
	recover := append([]string{"cluster", "recover"}, name...)
	if _, stderr, status := akidb(t, append(recover, "--cluster-id", seen.ClusterID)...); status == 0 || !strings.Contains(stderr, "say --yes") {
		t.Fatalf("recover by accident: %d, %s", status, stderr)
	}
	if _, stderr, status := akidb(t, append(recover, "--cluster-id", "another", "--yes")...); status == 0 || !strings.Contains(stderr, "nothing was changed") {
		t.Fatalf("recover of another cluster: %d, %s", status, stderr)
	}
	if out, stderr, status := akidb(t, append(recover, "--cluster-id", seen.ClusterID, "--yes")...); status != 0 || !strings.Contains(out, "not alive: n1, n3\nn2 is the only member of the new cluster") {
		t.Fatalf("%d: %s%s", status, out, stderr)
	}
	if out, stderr, status := akidb(t, "raft", "migrate-log", "--data-dir", survivor.DataDir(), "--to", "bolt"); status != 0 {
		t.Fatalf("%d: %s%s", status, out, stderr)
	}
	c.AddFlags("--log-store", "bolt")
	if err := survivor.Start(); err != nil {
		t.Fatal(err)
	}
	if err := survivor.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	alone, err := c.Client(survivor)
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	n, err := alone.Count(t.Context(), &collectionv1.CountRequest{CollectionId: "c"})
	if err != nil || n.Count != 50 {
		t.Fatalf("%v, %v", n, err)
	}
	if _, err := alone.Upsert(t.Context(), &collectionv1.UpsertRequest{CollectionId: "c", DocId: "new", Vector: []float32{1, 2}}); err != nil {
		t.Fatal(err)
	}
	now, err := alone.Status(t.Context(), survivor.GRPC)
	if err != nil || now.ClusterId == seen.ClusterID || !strings.HasSuffix(now.ClusterId, seen.ClusterID) {
		t.Fatalf("%v, %v", now, err)
	}
	// A running node is not touched.
	if _, stderr, status := akidb(t, append(recover, "--cluster-id", now.ClusterId, "--yes")...); status == 0 {
		t.Fatalf("recovered a running node: %s", stderr)
	}
	// The others with their old data are none of the new cluster, and say why.
	c.AddFlags("--log-store", "wal") // as theirs is
	for _, n := range c.Nodes {
		if n != survivor {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	x := &trial{t: t, c: c, cl: cl}
	for _, n := range c.Nodes {
		if n == survivor {
			continue
		}
		x.wait(n.ID+" to be out of service", func() (bool, string) {
			st := x.status(n)
			return st != nil && !st.Ready && strings.Contains(st.NotReadyReason, "recovered as "+now.ClusterId), fmt.Sprint(st)
		})
		n.Kill()
	}
	// The others come back empty, and all three are one again.
	for _, n := range c.Nodes {
		if n == survivor {
			continue
		}
		if err := errors.Join(n.Wipe(), n.Start(), n.WaitReady(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	all, err := converge(t.Context(), cl, c.Endpoints(), convergeLimit, c.Alive)
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.ClusterId != now.ClusterId || st.StateHash != all[0].StateHash {
			t.Errorf("%s: cluster %s, state %s", st.NodeId, st.ClusterId, st.StateHash)
		}
	}
	if out, stderr, status := akidb(t, "cluster", "verify", "--endpoints", strings.Join(c.Endpoints(), ","), "--ca-cert", c.CACert); status != 0 || strings.Count(out, "\nn") != 3 {
		t.Errorf("verify: %d: %s%s", status, out, stderr)
	}
}

// akidbProcess runs one command in a process of its own: commands that start
// nodes start their own binary.
func akidbProcess(t *testing.T, binary string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}
