// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// StateHash is the order-independent hash of the keyspace: the sum mod 2^128 of
// a 128-bit hash of every key with its value. It finds accidents, not attacks.
type StateHash [16]byte

// String returns 32 hex digits.
func (h StateHash) String() string { return hex.EncodeToString(h[:]) }

// sum is a StateHash to which keys are added and from which they are taken.
type sum struct{ hi, lo uint64 }

// pairHash hashes the value with the hash of the key as seed: no bytes are
// copied, and no key can run into its value.
func pairHash(key, value []byte) xxh3.Uint128 {
	return xxh3.Hash128Seed(value, xxh3.Hash(key))
}

func (s *sum) add(key, value []byte) {
	h := pairHash(key, value)
	var c uint64
	s.lo, c = bits.Add64(s.lo, h.Lo, 0)
	s.hi, _ = bits.Add64(s.hi, h.Hi, c)
}

func (s *sum) remove(key, value []byte) {
	h := pairHash(key, value)
	var b uint64
	s.lo, b = bits.Sub64(s.lo, h.Lo, 0)
	s.hi, _ = bits.Sub64(s.hi, h.Hi, b)
}

func (s sum) stateHash() (h StateHash) {
	binary.BigEndian.PutUint64(h[:8], s.hi)
	binary.BigEndian.PutUint64(h[8:], s.lo)
	return h
}

func sumOf(h StateHash) sum {
	return sum{hi: binary.BigEndian.Uint64(h[:8]), lo: binary.BigEndian.Uint64(h[8:])}
}
