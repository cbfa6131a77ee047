// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
	"github.com/zeebo/xxh3"
)

// sealedLog gives every entry a checksum on its way to the disk and checks it on
// the way back. raft-wal checks its own only over the newest appends when it is
// opened, and bbolt has none for data: a bit that flipped in an older entry was
// applied after a restart, or sent to a follower. The checksum ends the entry's
// extensions, which nothing else here uses; it is never seen outside of this
// type. An entry without one was written by a version before it and passes.
type sealedLog struct {
	closableLogStore
	dir string
}

// sealMagic tells a checksum from extensions of another origin.
var sealMagic = [4]byte{'a', 'k', 's', '1'}

const sealBytes = len(sealMagic) + 8

// sealOf is the checksum of all of an entry that must not change.
func sealOf(l *raft.Log, ext []byte) uint64 {
	h := xxh3.New()
	var head [25]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	binary.LittleEndian.PutUint64(head[17:], uint64(len(l.Data)))
	_, _ = h.Write(head[:]) // a hash never fails
	_, _ = h.Write(l.Data)
	_, _ = h.Write(ext)
	return h.Sum64()
}

func (s sealedLog) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s sealedLog) StoreLogs(logs []*raft.Log) error {
	copies, sealed := make([]raft.Log, len(logs)), make([]*raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		ext := make([]byte, 0, len(l.Extensions)+sealBytes)
		ext = append(append(ext, l.Extensions...), sealMagic[:]...)
		copies[i].Extensions = binary.LittleEndian.AppendUint64(ext, sealOf(l, l.Extensions))
		sealed[i] = &copies[i]
	}
	return s.closableLogStore.StoreLogs(sealed)
}

func (s sealedLog) GetLog(index uint64, l *raft.Log) error {
	if err := s.closableLogStore.GetLog(index, l); err != nil {
		return err
	}
	n := len(l.Extensions) - sealBytes
	if n < 0 && len(l.Extensions) == 0 {
		return nil
	}
	if n < 0 || !bytes.Equal(l.Extensions[n:n+len(sealMagic)], sealMagic[:]) || l.Index != index ||
		binary.LittleEndian.Uint64(l.Extensions[n+len(sealMagic):]) != sealOf(l, l.Extensions[:n]) {
		return fmt.Errorf("the log in %s is damaged: entry %d does not match its checksum", s.dir, index)
	}
	if l.Extensions = l.Extensions[:n]; n == 0 {
		l.Extensions = nil
	}
	return nil
}

// seal wraps what opening a log returned.
func seal(s closableLogStore, err error) func(dir string) (closableLogStore, error) {
	return func(dir string) (closableLogStore, error) {
		if err != nil {
			return nil, err
		}
		return sealedLog{s, dir}, nil
	}
}
