// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/internal/storage"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// fullMachine has no room for another state.
type fullMachine struct {
	*memMachine
	full bool
}

func (m *fullMachine) Import(dir string) error {
	if m.full {
		return errors.New("no space left on device")
	}
	return m.memMachine.Import(dir)
}

// A state that could not be installed leaves nothing behind: Raft goes on as before it
// came, and another leader may send one that covers less.
func TestInstallationThatFailedIsForgotten(t *testing.T) {
	disk := storage.Disk()
	src, err := openMem(filepath.Join(t.TempDir(), "src"))
	if err != nil {
		t.Fatal(err)
	}
	from, err := newSnapshotStore(disk, filepath.Join(t.TempDir(), "from"), src, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	own, err := openMem(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	dst, dir := &fullMachine{memMachine: own}, filepath.Join(t.TempDir(), "to")
	to, err := newSnapshotStore(disk, dir, dst, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ad := &adapter{m: dst, snaps: to}
	var wg sync.WaitGroup
	defer wg.Wait()
	// receive is what Raft does with a snapshot.
	receive := func(index uint64) error {
		t.Helper()
		src.st.Applied = index
		man, release, err := from.export(index)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if err := to.stage(t.Context(), man, func(context.Context, string) (net.Conn, error) {
			a, b := net.Pipe()
			wg.Go(func() { from.serveFetch(b) })
			return a, nil
		}); err != nil {
			t.Fatal(err)
		}
		sink, err := to.Create(1, index, 1, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := proto.Marshal(man)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		_, r, err := to.Open(sink.ID())
		if err != nil {
			t.Fatal(err)
		}
		return ad.Restore(r)
	}
	dst.full = true
	if receive(50) == nil {
		t.Fatal("installed where there is no room")
	}
	if metas, err := to.List(); err != nil || len(metas) > 0 {
		t.Errorf("snapshots after it failed: %d (%v), and the newest is one that this node does not have", len(metas), err)
	}
	dst.full = false
	if err := receive(40); err != nil {
		t.Fatal(err)
	}
	// Raft sends the newest to members that lag: it must be of this node's own state.
	metas, err := to.List()
	if err != nil || len(metas) == 0 {
		t.Fatal(metas, err)
	}
	if _, r, err := to.Open(metas[0].ID); err != nil {
		t.Error(err)
	} else {
		b, _ := io.ReadAll(r)
		r.Close()
		var man nodev1.Manifest
		if err := proto.Unmarshal(b, &man); err != nil || metas[0].Index != 40 {
			t.Errorf("the newest snapshot is at %d, its files at %q (%v)", metas[0].Index, man.SourceAddr, err)
		}
	}
	if to, err = newSnapshotStore(disk, dir, dst, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := to.finishInstall(dst); err != nil {
		t.Errorf("the next start: %v", err)
	}
}
