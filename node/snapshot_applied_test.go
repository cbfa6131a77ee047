// SPDX-License-Identifier: Apache-2.0

package node

import (
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/storage"
)

// A member may be given a state that is ahead of the snapshot's index. A local
// snapshot before the log has caught up must not forget that, or the next start
// takes the log for cut short and refuses.
func TestLocalSnapshotRemembersHowFarTheStateIs(t *testing.T) {
	s, err := newSnapshotStore(storage.NewMemFS(), "/snapshots", nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	installed := snapshotFile{Meta: raft.SnapshotMeta{ID: "00000000000000000010-00000000000000000002", Index: 10, Term: 2}, Applied: 25}
	if err := s.writeMeta(installed); err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{10, 12, 14} {
		sink, err := s.Create(1, index, 2, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		files, err := s.list()
		if err != nil || files[0].Meta.Index != index || files[0].Applied != 25 {
			t.Errorf("newest snapshot is %+v (%v), want index %d of a state at 25", files[0], err, index)
		}
	}
}
