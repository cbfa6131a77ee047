// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"
)

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
