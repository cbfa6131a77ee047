// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"errors"

	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/internal/storage"
)

// idSet tells which ids are surely not in storage, so that the many lookups of
// new documents and new requests need not be made there. It holds the hash of
// every id that is, once for each: ids of equal hash are both there, and taking
// one away leaves the other. It is derived from storage and no part of the
// state: what a replica answers does not depend on it.
//
// It is an open-addressing table with linear probing and no deletion marks
// (Knuth, The Art of Computer Programming, volume 3, 6.4, algorithm R), which
// costs 11 to 21 bytes an id.
type idSet struct {
	slots []uint64 // 0 is empty; a power of two of them, or none
	n     int
}

const minIDSlots = 64

func hashID(id string) uint64 {
	if h := xxh3.HashString(id); h != 0 {
		return h
	}
	return 1
}

// add puts an id in once more.
func (s *idSet) add(id string) { s.addHash(hashID(id)) }

func (s *idSet) addHash(h uint64) {
	if 4*(s.n+1) > 3*len(s.slots) {
		s.resize(max(minIDSlots, 2*len(s.slots)))
	}
	s.slots[s.empty(h)] = h
	s.n++
}

// empty is where a hash that is added goes.
func (s *idSet) empty(h uint64) uint64 {
	mask := uint64(len(s.slots) - 1)
	i := h & mask
	for s.slots[i] != 0 {
		i = (i + 1) & mask
	}
	return i
}

func (s *idSet) resize(n int) {
	old := s.slots
	s.slots = make([]uint64, n)
	for _, h := range old {
		if h != 0 {
			s.slots[s.empty(h)] = h
		}
	}
}

// may reports whether an id may be there; false is certain.
func (s *idSet) may(id string) bool {
	_, ok := s.find(hashID(id))
	return ok
}

func (s *idSet) find(h uint64) (uint64, bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; s.slots[i] != 0; i = (i + 1) & mask {
		if s.slots[i] == h {
			return i, true
		}
	}
	return 0, false
}

// remove takes an id out once.
func (s *idSet) remove(id string) { s.removeHash(hashID(id)) }

func (s *idSet) removeHash(h uint64) {
	i, ok := s.find(h)
	if !ok {
		return
	}
	mask := uint64(len(s.slots) - 1)
	for j := i; ; {
		s.slots[i] = 0
		for {
			j = (j + 1) & mask
			if s.slots[j] == 0 {
				s.n--
				if len(s.slots) > minIDSlots && 8*s.n < len(s.slots) {
					s.resize(len(s.slots) / 2)
				}
				return
			}
			// An id stays if its own place lies cyclically in (i, j].
			if home := s.slots[j] & mask; (j-home)&mask >= (j-i)&mask {
				break
			}
		}
		s.slots[i] = s.slots[j]
		i = j
	}
}

// bytes is what the set takes of RAM.
func (s *idSet) bytes() int64 { return int64(len(s.slots)) * 8 }

// loadRequestIDs reads the ids of the remembered requests.
func loadRequestIDs(db storage.Reader, into *idSet) (err error) {
	it, err := db.Iterate(prefixRange([]byte{prefixRequestSeq}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		v, err := it.Value()
		if err != nil {
			return err
		}
		s, err := decodeRequestSeq(v)
		if err != nil {
			return err
		}
		into.add(s.id)
	}
	return nil
}
