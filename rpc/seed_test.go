// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"os"
	"strconv"
	"testing"
)

// testSeed is the seed of a replay, 0 without one.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("AKIDB_SEED")
	if text == "" {
		return 0
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("AKIDB_SEED: %v", err)
	}
	return seed
}
