// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/spf13/cobra"
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
	binary := akidbBinary(t.TempDir())
	for _, args := range [][]string{{"write"}, {"write", "--plaintext"}, {"read", "--plaintext"}} {
		args := append([]string{"bench"}, append(args, "--clients", "4", "--warmup", "0s", "--duration", "300ms", "--json")...)
		var out loadResult
		stdout, stderr, status := akidbProcess(t, binary, args...)
		if err := json.Unmarshal([]byte(stdout), &out); err != nil || status != 0 || out.Ops == 0 || out.Errors > 0 || out.Clients != 4 {
			t.Errorf("%v: status %d, %v: %s%s", args, status, err, stdout, stderr)
		}
	}
}
