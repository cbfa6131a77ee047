// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"fmt"

	"github.com/akidb/akidb/index"
)

// keyspaceFormat is the version of the keys and records of this file and of
// records.go; docs/formats/keyspace.md has the tables.
const keyspaceFormat = 1

// The first byte of a key says what it is of. Integers in keys are big endian,
// so that the order of keys is the order of numbers.
const (
	prefixAlarm      = 'A' // kind, 0, node id
	prefixCollection = 'C' // collection number
	prefixDocument   = 'D' // collection number, document id
	prefixCounters   = 'K' // collection number
	prefixMeta       = 'M' // one letter
	prefixNode       = 'N' // node id
	prefixRequestSeq = 'Q' // sequence number
	prefixRequest    = 'R' // request id
	prefixSlot       = 'S' // collection number, slot
	prefixTombstone  = 'T' // collection number, slot
	prefixVector     = 'V' // collection number, slot
	prefixDropped    = 'X' // collection number
)

// The two meta keys. keyApplied is written by every batch and is the only key
// that is not part of the state hash, since it holds it.
const (
	keyApplied = "Ma"
	keyState   = "Ms"
)

func appendNumberKey(dst []byte, prefix byte, number uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, prefix), number)
}

func appendSlotKey(dst []byte, prefix byte, number uint32, slot index.Slot) []byte {
	return binary.BigEndian.AppendUint32(appendNumberKey(dst, prefix, number), uint32(slot))
}

func appendDocKey(dst []byte, number uint32, id string) []byte {
	return append(appendNumberKey(dst, prefixDocument, number), id...)
}

func appendRequestKey(dst []byte, id string) []byte {
	return append(append(dst, prefixRequest), id...)
}

func appendRequestSeqKey(dst []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, prefixRequestSeq), seq)
}

func appendAlarmKey(dst []byte, kind, nodeID string) []byte {
	return append(append(append(append(dst, prefixAlarm), kind...), 0), nodeID...)
}

func appendNodeKey(dst []byte, nodeID string) []byte {
	return append(append(dst, prefixNode), nodeID...)
}

const slotKeyLen = 1 + 4 + 4

func slotOfKey(key []byte) (index.Slot, error) {
	if len(key) != slotKeyLen {
		return 0, fmt.Errorf("%w: slot key of %d bytes", ErrCorrupt, len(key))
	}
	return index.Slot(binary.BigEndian.Uint32(key[5:])), nil
}

func numberOfKey(key []byte) (uint32, error) {
	if len(key) != 1+4 {
		return 0, fmt.Errorf("%w: key %q of %d bytes", ErrCorrupt, key[:1], len(key))
	}
	return binary.BigEndian.Uint32(key[1:]), nil
}

// prefixRange is the range of keys that begin with prefix.
func prefixRange(prefix []byte) (lower, upper []byte) {
	upper = append([]byte(nil), prefix...)
	for i := len(upper) - 1; i >= 0; i-- {
		upper[i]++
		if upper[i] != 0 {
			return prefix, upper[:i+1]
		}
	}
	return prefix, nil
}

func numberRange(prefix byte, number uint32) (lower, upper []byte) {
	return prefixRange(appendNumberKey(nil, prefix, number))
}
