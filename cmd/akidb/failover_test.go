// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"
)

// Goal: no way for a leader to end costs a write or shows a client an error.
// Method: the benchmark of failovers, run short; it reads every acknowledged write
// back from each replica. How long the gaps may be is measured, not tested: the
// machine of a test is busy.
func TestFailoversLoseNothing(t *testing.T) {
	for name, args := range map[string][]string{"killed": {"--runs", "3"}, "rolling": {"--runs", "3", "--rolling"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			binary := akidbBinary(dir)
			var out failoverResult
			stdout, stderr, status := akidbProcess(t, binary, append([]string{"bench", "failover", "--json", "--clients", "8"}, args...)...)
			if err := json.Unmarshal([]byte(stdout), &out); err != nil || status != 0 {
				t.Fatalf("status %d, %v: %s%s", status, err, stdout, stderr)
			}
			if out.Runs != 3 || len(out.GapMS) != 3 || out.ClientErrors+out.Lost+out.Duplicated > 0 || out.Acknowledged == 0 || out.P99ms != out.MaxMS {
				t.Fatalf("%s%s", stdout, stderr)
			}
			t.Logf("gaps %v ms, %d acknowledged", out.GapMS, out.Acknowledged)
		})
	}
}
