// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func open(t *testing.T, dir string, o Options) *DB {
	t.Helper()
	db, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// put commits pairs "key=value"; "key" alone deletes.
func put(t *testing.T, db *DB, pairs ...string) {
	t.Helper()
	b := db.NewBatch()
	defer b.Discard()
	for _, p := range pairs {
		k, v, set := strings.Cut(p, "=")
		var err error
		if set {
			err = b.Set([]byte(k), []byte(v))
		} else {
			err = b.Delete([]byte(k))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.Empty() || b.Bytes() == 0 {
		t.Fatal("a batch with changes is empty")
	}
	if err := b.Commit(); err != nil || !b.Empty() {
		t.Fatal(err, b.Empty())
	}
}

func dump(t *testing.T, r Reader, lower, upper string) string {
	t.Helper()
	it, err := r.Iterate([]byte(lower), []byte(upper))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for it.Next() {
		v, err := it.Value()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s=%s", it.Key(), v))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestBatchesSnapshotsAndBounds(t *testing.T) {
	db := open(t, "s", Options{FS: NewMemFS()})
	put(t, db, "a=1", "b=2", "c=3", "d=4")
	snap := db.NewSnapshot()
	put(t, db, "b", "c=33", "e=5")
	if got := dump(t, db, "b", "e"); got != "c=33 d=4" {
		t.Fatal(got)
	}
	if got := dump(t, snap, "b", "e"); got != "b=2 c=3 d=4" {
		t.Fatal(got)
	}
	if v, ok, err := snap.Get([]byte("b"), []byte("x")); err != nil || !ok || string(v) != "x2" {
		t.Fatal(v, ok, err)
	}
	if v, ok, err := db.Get([]byte("b"), []byte("x")); err != nil || ok || string(v) != "x" {
		t.Fatal(v, ok, err)
	}
	it, err := db.Iterate(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !it.Seek([]byte("bb")) || string(it.Key()) != "c" || !it.Next() || string(it.Key()) != "d" {
		t.Fatal(it.Key())
	}
	if err := errors.Join(it.Close(), snap.Close(), db.Flush()); err != nil {
		t.Fatal(err)
	}
	if s := db.Stats(); s.DiskBytes == 0 || s.Flushes == 0 {
		t.Fatalf("%+v", s)
	}
}

func TestOnlyWhatWasFlushedSurvives(t *testing.T) {
	disk := NewCrashFS()
	db := open(t, "s", Options{FS: disk})
	if err := SyncDir(disk, "/"); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a=1", "b=1")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a=2", "c=2")
	after := open(t, "s", Options{FS: disk.CrashClone(CrashConfig{}), MustExist: true})
	if got := dump(t, after, "a", "z"); got != "a=1 b=1" {
		t.Fatal(got)
	}
}

func TestCheckpointIsACopy(t *testing.T) {
	mem := NewMemFS()
	db := open(t, "s", Options{FS: mem})
	put(t, db, "a=1")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	put(t, db, "b=2") // not flushed
	if err := db.Checkpoint("copy"); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", "c=3")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	c := open(t, "copy", Options{FS: mem, MustExist: true, ReadOnly: true})
	if got := dump(t, c, "a", "z"); got != "a=1" {
		t.Fatal(got)
	}
	if err := db.Checkpoint("copy"); err == nil {
		t.Fatal("a checkpoint into a directory that exists")
	}
}

func TestMissingOrDamagedFilesAreCorrupt(t *testing.T) {
	build := func() *MemFS {
		mem := NewMemFS()
		db, err := Open("s", Options{FS: mem})
		if err != nil {
			t.Fatal(err)
		}
		put(t, db, "a="+strings.Repeat("x", 1000), "b=2")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	read := func(mem *MemFS) error {
		db, err := Open("s", Options{FS: mem, MustExist: true})
		if err != nil {
			return err
		}
		_, _, err = db.Get([]byte("a"), nil)
		return errors.Join(err, db.Abandon())
	}
	if err := read(build()); err != nil {
		t.Fatal(err)
	}
	if err := read(NewMemFS()); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("no store at all: %v", err)
	}
	names, err := build().List("s")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		mem := build()
		if err := mem.Remove("s/" + name); err != nil {
			t.Fatal(err)
		}
		if err := read(mem); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), strings.TrimSuffix(name, ".sst")) {
			t.Fatalf("%s missing: %v", name, err)
		}
		mem = build()
		data, err := ReadFile(mem, "s/"+name, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		data[10] ^= 1
		if err := WriteFile(mem, "s/"+name, bytes.Clone(data)); err != nil {
			t.Fatal(err)
		}
		if err := read(mem); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Fatalf("%s with a bit changed: %v", name, err)
		}
		if err := WriteFile(mem, "s/"+name, data[:len(data)/2]); err != nil {
			t.Fatal(err)
		}
		if err := read(mem); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s cut off: %v", name, err)
		}
	}
}

func TestWriteFileLeavesOldOrNew(t *testing.T) {
	disk := NewCrashFS()
	if err := WriteFile(disk, "f", []byte("old")); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		seen, failed := 0, false
		var images []*MemFS
		failing := FailingFS(disk, func(write bool, op, path string) bool {
			if !write {
				return false
			}
			images = append(images, disk.CrashClone(CrashConfig{}))
			seen++
			failed = failed || seen == n+1
			return seen == n+1
		})
		err := WriteFile(failing, "f", []byte("new"))
		if failed && !errors.Is(err, ErrInjected()) {
			t.Fatalf("operation %d failed: %v", n, err)
		}
		for _, im := range append(images, disk.CrashClone(CrashConfig{})) {
			got, err := ReadFile(im, "f", 10)
			if err != nil || string(got) != "old" && string(got) != "new" {
				t.Fatalf("operation %d: %q %v", n, got, err)
			}
		}
		if !failed {
			if got, err := ReadFile(disk.CrashClone(CrashConfig{}), "f", 10); err != nil || string(got) != "new" {
				t.Fatalf("%q %v", got, err)
			}
			return
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	mem := NewMemFS()
	if err := WriteFile(mem, "f", []byte("12345")); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(mem, "f", 5); err != nil || string(b) != "12345" {
		t.Fatal(b, err)
	}
	if _, err := ReadFile(mem, "f", 4); err == nil {
		t.Fatal("too large, but read")
	}
	if _, err := ReadFile(mem, "g", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestFullDiskIsReported lets table writes fail for a while. The store says so, to
// who waits for a flush too, keeps what it has, and recovers by itself.
func TestFullDiskIsReported(t *testing.T) {
	var full atomic.Bool
	db := open(t, "s", Options{FS: FailingFS(NewMemFS(), func(write bool, op, path string) bool {
		return full.Load() && op == "create" && strings.HasSuffix(path, ".sst")
	})})
	put(t, db, "a=1")
	full.Store(true)
	done := make(chan error)
	go func() { done <- db.Flush() }()
	for db.Err() == nil {
		runtime.Gosched()
	}
	if err := db.Err(); !errors.Is(err, ErrInjected()) {
		t.Fatal(err)
	}
	put(t, db, "b=2") // commits go on in RAM
	if err := <-done; !errors.Is(err, ErrInjected()) {
		t.Fatal(err)
	}
	full.Store(false)
	for db.Err() != nil {
		runtime.Gosched()
	}
	if err := errors.Join(db.Flush(), db.Err()); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, db, "a", "z"); got != "a=1 b=2" {
		t.Fatal(got)
	}
}

// A finder sees what was committed before it, in tables of every level and in
// RAM, and nothing later; misses and deletions are misses.
func TestFinderSeesItsMoment(t *testing.T) {
	db := open(t, t.TempDir(), Options{})
	put(t, db, "a=1", "b=2", "c=3")
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	put(t, db, "b=4", "d=5", "c")
	f, err := db.NewFinder()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	put(t, db, "a=late", "e=late")
	// The empty key first: an iterator that is new knows no prefix yet.
	for _, want := range []struct{ key, value string }{
		{"", ""}, {"a", "1"}, {"b", "4"}, {"c", ""}, {"d", "5"}, {"e", ""}, {"", ""}, {"aa", ""}, {"z", ""},
	} {
		v, ok, err := f.Get([]byte(want.key), []byte(">"))
		if err != nil || ok != (want.value != "") || string(v) != ">"+want.value {
			t.Errorf("%q: %q, %v, %v; want %q", want.key, v, ok, err, want.value)
		}
	}
}

// A store is closed though its disk is full: what is lost is in the log.
func TestFullDiskDoesNotHoldUpClose(t *testing.T) {
	db, err := Open("s", Options{FS: FailingFS(NewMemFS(), func(write bool, op, path string) bool {
		return op == "create" && strings.HasSuffix(path, ".sst")
	})})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "a=1")
	done := make(chan error, 1)
	go func() { done <- db.Close() }()
	select {
	case err := <-done:
		if !errors.Is(err, ErrInjected()) {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for room")
	}
}
