// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/spf13/cobra"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// A load that was interrupted has no figures: they would be of a time that it did not
// have.
func TestInterruptedLoadReportsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	var out bytes.Buffer
	cmd.SetOut(&out)
	time.AfterFunc(100*time.Millisecond, cancel)
	l := &load{benchCluster: benchCluster{asJSON: true}}
	res := closedLoop(ctx, 1, 0, time.Hour, func(context.Context, int, int) error { runtime.Gosched(); return nil })
	if err := l.report(cmd, res, "writes"); !errors.Is(err, context.Canceled) || out.Len() > 0 {
		t.Errorf("%v: %s", err, out.String())
	}
}

// A client without TLS reaches only nodes without: each load makes the cluster
// that it asks for.
func TestBenchWithAndWithoutTLS(t *testing.T) {
	akidb := akidbBinary(t.TempDir())
	for _, args := range [][]string{{"write"}, {"write", "--plaintext"}, {"read", "--plaintext"}} {
		args := append([]string{"bench"}, append(args, "--clients", "4", "--warmup", "0s", "--duration", "300ms", "--json")...)
		var out loadResult
		stdout, stderr, status := akidbProcess(t, akidb, args...)
		if err := json.Unmarshal([]byte(stdout), &out); err != nil || status != 0 || out.Ops == 0 || out.Errors > 0 || out.Clients != 4 {
			t.Errorf("%v: status %d, %v: %s%s", args, status, err, stdout, stderr)
		}
	}
}

// A cluster that is not ours is left as it was, also by a benchmark that fails.
func TestFailedBenchmarkLeavesNoCollection(t *testing.T) {
	_, cl := startTestCluster(t, 1)
	var file []byte
	for i := range 100 {
		file = binary.LittleEndian.AppendUint32(file, 1)
		file = binary.LittleEndian.AppendUint32(file, math.Float32bits(float32(i)))
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"base.fvecs": file, "meta.json": []byte(`{"metric":"l2"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	// The replicas never come together: one of them is not there.
	_, _, err := fillScratch(ctx, &benchTarget{cl: cl, endpoints: []string{"127.0.0.1:1"}}, &importJob{path: dir})
	if err == nil {
		t.Fatal("no error")
	}
	out, err := cl.ListCollections(t.Context(), &collectionv1.ListCollectionsRequest{})
	if err != nil || len(out.Collections) > 0 {
		t.Errorf("left behind: %v, %v", out.GetCollections(), err)
	}
}
