// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/akidb/akidb/internal/storage"
)

// spoil flips a bit in every KiB of the tables of a store, but for their ends, in
// the files that are open.
func spoil(t *testing.T, fs storage.FS, dir string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		f, err := fs.OpenReadWrite(path.Join(dir, name), "test")
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(16); at < st.Size()-2048; at += 1024 {
			var b [1]byte
			if _, err := f.ReadAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			b[0] ^= 4
			if _, err := f.WriteAt(b[:], at); err != nil {
				t.Fatal(err)
			}
			spoilt++
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if spoilt == 0 {
		t.Fatal("no table to spoil")
	}
}

// Goal: damage that is met while a replica runs is told from everything else.
// Method: spoil its tables under it, then read and write: a read says ErrCorrupt, a
// write is not applied, nothing after it is either, and the process goes on. A
// snapshot of another replica ends that.
func TestDamageMetWhileRunning(t *testing.T) {
	const docs = 400
	fs := storage.NewMemFS()
	h := newHarness(t, Config{FS: fs, Dir: "fsm", CacheBytes: 64 << 10, Fatal: func(i uint64, err error) { t.Errorf("fatal at %d: %v", i, err) }})
	h.must(createCmd("c1", "docs", 2))
	text := fmt.Sprintf(`{"text":%q}`, strings.Repeat("words ", 40))
	for i := range docs {
		h.must(writeCmd("c1", upsert(fmt.Sprint("d", i), text, float32(i), 1)))
	}
	if _, err := h.f.Export("export"); err != nil {
		t.Fatal(err)
	}
	healthy := storage.NewMemFS()
	copyDir(t, fs, healthy, "export")
	h.reopen() // into tables
	applied := h.f.Applied()
	spoil(t, fs, "fsm/store-000001")

	h.collection("c1", func(c *Collection) {
		var err error
		for i := 0; i < docs && err == nil; i++ {
			_, err = c.Get(fmt.Sprint("d", i), Projection{Vector: true, Metadata: true})
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("reading what is damaged: %v", err)
		}
	})
	if err := h.f.Damaged(); err != nil {
		t.Fatalf("reading ended applying: %v", err)
	}

	// A batch of which one entry cannot be applied is not applied at all.
	next := applied + 1
	for i := 0; h.f.Damaged() == nil; i++ {
		if i == docs {
			t.Fatal("no write met the damage")
		}
		h.f.Apply(entryLog(t, next, writeCmd("c1", upsert(fmt.Sprint("d", i), text, 0, 0))))
		if h.f.Damaged() == nil {
			applied, next = next, next+1
		}
	}
	if err := h.f.Damaged(); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), fmt.Sprintf("log index %d ", next)) {
		t.Errorf("damaged: %v", err)
	}
	h.f.Apply(entryLog(t, next+1, writeCmd("c1", upsert("new", text, 0, 0))))
	if got := h.f.Applied(); got != applied {
		t.Errorf("applied %d after the damage, %d before", got, applied)
	}
	if _, err := h.f.Snapshot(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a snapshot of it: %v", err)
	}

	copyDir(t, healthy, fs, "export") // which shared the tables that were spoilt
	if err := h.f.RestoreDir(context.Background(), "export"); err != nil {
		t.Fatal(err)
	}
	if err := h.f.Damaged(); err != nil {
		t.Errorf("after a snapshot was restored: %v", err)
	}
	h.f.Apply(entryLog(t, next, writeCmd("c1", upsert("new", text, 0, 0))))
	if got := h.f.Applied(); got != next {
		t.Errorf("applied %d after a snapshot was restored, want %d", got, next)
	}
	h.verify()
}
