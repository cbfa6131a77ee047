// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"math/rand/v2"
	"testing"
)

// The set against a map that counts. Hashes are drawn so that runs of used
// places meet, wrap around the end, and hold equal hashes.
func TestIDSetAgainstMap(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var s idSet
		count := map[uint64]int{}
		total := 0
		hash := func() uint64 {
			h := rng.Uint64N(40)<<32 | (60+rng.Uint64N(8))&63 // near the end of the smallest table
			if rng.IntN(4) == 0 {
				h = rng.Uint64()
			}
			return max(h, 1)
		}
		known := []uint64{}
		for range 600 {
			h := hash()
			if len(known) > 0 && rng.IntN(2) == 0 {
				h = known[rng.IntN(len(known))]
			}
			if rng.IntN(5) < 2 {
				if count[h] > 0 {
					count[h]--
					total--
				}
				s.removeHash(h)
			} else {
				s.addHash(h)
				count[h]++
				total++
				known = append(known, h)
			}
			for h, n := range count {
				if _, ok := s.find(h); ok != (n > 0) {
					t.Fatalf("seed %d: %x counted %d times, found %v", seed, h, n, ok)
				}
			}
			if s.n != total {
				t.Fatalf("seed %d: %d entries, want %d", seed, s.n, total)
			}
		}
	}
}
