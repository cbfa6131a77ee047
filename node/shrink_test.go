// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"github.com/akidb/akidb/internal/storage"
)

// sizeOf is -1 for a file that is not there.
func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if os.IsNotExist(err) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func largeFile(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Goal: files are given back step by step with a pause after each, one after the
// other; many at once, and those of a shrinker that is closed, go at once.
func TestFilesShrinkBeforeTheyGo(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newShrinker(hclog.NewNullLogger())
		name := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
		const size = 3*shrinkStep + 5
		for i := range 2 {
			largeFile(t, name(i), size)
			if err := s.remove(name(i)); err != nil {
				t.Fatal(err)
			}
		}
		var got []int64
		time.Sleep(shrinkPause / 2)
		for range 7 {
			got = append(got, sizeOf(t, name(0)), sizeOf(t, name(1)))
			time.Sleep(shrinkPause)
		}
		const m = shrinkStep
		want := fmt.Sprint([]int64{2*m + 5, size, m + 5, size, 5, size, -1, 2*m + 5, -1, m + 5, -1, 5, -1, -1})
		if fmt.Sprint(got) != want {
			t.Fatalf("sizes %v, want %v", got, want)
		}
		for i := range shrinkBacklog + 2 {
			largeFile(t, name(i), size)
			if err := s.remove(name(i)); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				synctest.Wait() // it is being shrunk, and waits no more
			}
		}
		if got := sizeOf(t, name(shrinkBacklog+1)); got != -1 {
			t.Fatalf("with %d waiting another file has still %d bytes", shrinkBacklog, got)
		}
		s.close()
		largeFile(t, name(0), size)
		if err := s.remove(name(0)); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v %v", left, err)
		}
	})
}

// Goal: a crash while a segment shrinks costs no entry, and the next open removes
// what is left of it.
func TestCrashWhileASegmentShrinks(t *testing.T) {
	const segmentBytes = 4 << 20
	dir := t.TempDir()
	open := func(s *shrinker) walStore {
		meta := &metadb.BoltMetaDB{}
		filer := segment.NewFiler(dir, walFS{fs: storage.Disk(), segmentBytes: segmentBytes, shrinker: s})
		w, err := openWAL(storage.Disk(), dir, filer, meta, segmentBytes, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return walStore{w, meta, s}
	}
	segments := func() (names []string) {
		names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	atOnce := newShrinker(hclog.NewNullLogger())
	atOnce.close()
	w := open(atOnce)
	const n = 100
	for i := uint64(1); i <= n; i++ {
		if err := w.StoreLog(&raft.Log{Index: i, Data: make([]byte, 100<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	first := segments()[0]
	whole, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	before := len(segments())
	if err := w.DeleteRange(1, n/2); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The disk as the crash left it.
	if err := os.WriteFile(first, whole[:len(whole)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	w = open(newShrinker(hclog.NewNullLogger()))
	for i := uint64(n/2 + 1); i <= n; i++ {
		var l raft.Log
		if err := w.GetLog(i, &l); err != nil || len(l.Data) != 100<<10 {
			t.Fatalf("entry %d of %d bytes: %v", i, len(l.Data), err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if after := len(segments()); sizeOf(t, first) != -1 || after >= before {
		t.Fatalf("%d segments of %d are left, the first with %d bytes", after, before, sizeOf(t, first))
	}
}
