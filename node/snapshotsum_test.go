// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/storage"
)

// Any bit of a snapshot's metadata flips. It is refused, or says what it said: with
// another log index the node took its log for one from before the snapshot, removed it,
// and started.
func TestFlippedBitInSnapshotMetadataIsNoticed(t *testing.T) {
	s, err := newSnapshotStore(storage.Disk(), t.TempDir(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := snapshotFile{Applied: 40, Meta: raft.SnapshotMeta{
		Version: 1, ID: "00000000000000000036-00000000000000000003", Index: 36, Term: 3, ConfigurationIndex: 1,
		Configuration: raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "a:1"}, {Suffrage: raft.Nonvoter, ID: "n2", Address: "b:1"}}},
	}}
	if err := s.writeMeta(want); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.dir, want.Meta.ID+".json")
	sound, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := range sound {
		for bit := range 8 {
			b := append([]byte(nil), sound...)
			b[at] ^= 1 << bit
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			switch files, err := s.list(); {
			case err != nil && !strings.Contains(err.Error(), name):
				t.Fatalf("refused without naming the file: %v", err)
			case err == nil && (len(files) != 1 || !reflect.DeepEqual(files[0], want)):
				t.Fatalf("bit %d of byte %d: %+v", bit, at, files)
			}
		}
	}
	// A file of before there were sums.
	if err := os.WriteFile(name, []byte(`{"Meta":{"Version":1,"ID":"`+want.Meta.ID+`","Index":36,"Term":3}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if files, err := s.list(); err != nil || len(files) != 1 || files[0].Meta.Index != 36 {
		t.Errorf("without a sum: %+v, %v", files, err)
	}
}

// The node that holds it does not start, and its log stays.
func TestDamagedSnapshotMetadataDoesNotCostTheLog(t *testing.T) {
	c := startCluster(t, 1, nil)
	for range 3 {
		c.put(c.leader(), "x")
	}
	index, _, err := c.leader().Snapshot(c.ctx())
	if err != nil {
		t.Fatal(err)
	}
	last := c.put(c.leader(), "y")
	c.stop("n1")
	names, err := filepath.Glob(filepath.Join(c.dir, "n1", "groups", groupID, "snapshots", "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	name := names[len(names)-1]
	sound, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	damaged := strings.Replace(string(sound), fmt.Sprintf(`"Index": %d,`, index), fmt.Sprintf(`"Index": %d,`, index+64), 1)
	if err := os.WriteFile(name, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := Open(t.Context(), c.config("n1")); err == nil {
		c.nodes["n1"] = n
		t.Fatalf("it started: %+v", n.Status())
	} else if !strings.Contains(err.Error(), name) {
		t.Errorf("refused without naming the file: %v", err)
	}
	if err := os.WriteFile(name, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	n := c.start("n1")
	c.wait("it to serve again", func() bool { return n.Ready() == nil && n.g.ad.applied() >= last })
}
