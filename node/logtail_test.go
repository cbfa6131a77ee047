// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/akidb/akidb/internal/storage"
)

// A bit flips in what tells the entries of a log from each other, ahead of entries
// that were flushed later. Those were acknowledged: the log is damaged, and not merely
// torn at its end.
func TestFlippedBitBetweenEntriesIsNoTornEnd(t *testing.T) {
	const entries = 20
	group := t.TempDir()
	store, err := openLogStore(nil, group, logStoreWAL, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= entries; i++ {
		if err := store.StoreLogs([]*raft.Log{{Index: i, Term: 3, Data: []byte(fmt.Sprintf("entry %d", i))}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(logDir(group, logStoreWAL), "*.wal"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	var frames []int64
	for at := int64(32); b[at] != 0; {
		frames = append(frames, at)
		if b[at] == 1 {
			at += (int64(binary.LittleEndian.Uint32(b[at+4:])) + 7) &^ 7
		}
		at += 8
	}
	if len(frames) != 2*entries {
		t.Fatalf("%d frames", len(frames))
	}
	for k, at := range frames {
		if k >= 2*(entries-1) {
			break // the last append: it may be torn
		}
		for _, off := range []int64{at, at + 1, at + 6} {
			flipBit(t, names[0], off)
			store, err := openLogStore(nil, group, logStoreWAL, hclog.NewNullLogger())
			if err == nil {
				var s *logStore
				if s, err = newLogStore(store, retention{entries: 1000, bytes: 1 << 20}); err == nil {
					if last, _ := s.LastIndex(); last < entries {
						t.Errorf("a bit at %d of frame %d: the log opens and ends at %d of %d", off-at, k, last, entries)
					}
				}
				store.Close()
			} else if !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), group) {
				t.Errorf("refused without a reason: %v", err)
			}
			if err := os.WriteFile(names[0], b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// syncLoser is a disk below a kernel such as Linux: when a sync fails, what it should
// have written is given up. It can be read until the machine stops, and a later sync
// that finds nothing to write succeeds.
type syncLoser struct {
	storage.FS

	mu   sync.Mutex // guards the fields below
	fail bool
	lost map[string]map[int64]bool // bytes that are in memory alone
}

type losingFile struct {
	storage.File
	d     *syncLoser
	path  string
	dirty map[int64]bool
}

func (d *syncLoser) file(f storage.File, path string, err error) (storage.File, error) {
	if err != nil {
		return nil, err
	}
	return &losingFile{f, d, path, map[int64]bool{}}, nil
}

func (d *syncLoser) Create(path string, c storage.WriteCategory) (storage.File, error) {
	f, err := d.FS.Create(path, c)
	return d.file(f, path, err)
}

func (d *syncLoser) OpenReadWrite(path string, c storage.WriteCategory, _ ...storage.OpenOption) (storage.File, error) {
	f, err := d.FS.OpenReadWrite(path, c)
	return d.file(f, path, err)
}

func (f *losingFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	for i := range b {
		f.dirty[off+int64(i)] = true
		delete(f.d.lost[f.path], off+int64(i))
	}
	f.d.mu.Unlock()
	return f.File.WriteAt(b, off)
}

func (f *losingFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.fail {
		f.d.fail = false
		f.d.lost[f.path], f.dirty = f.dirty, map[int64]bool{}
		return storage.ErrInjected()
	}
	f.dirty = map[int64]bool{}
	return f.File.Sync()
}

func (f *losingFile) SyncData() error { return f.Sync() }

// What a failed sync left in memory counts as lost until it was written again: the
// node would acknowledge it, for it reads it in its log.
func TestFailedSyncIsWrittenAgain(t *testing.T) {
	mem := storage.NewCrashFS()
	disk := &syncLoser{FS: mem, lost: map[string]map[int64]bool{}}
	open := func(fs storage.FS) closableLogStore {
		t.Helper()
		s, err := openLogStore(fs, "/group", logStoreWAL, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(disk)
	appendLogs(t, s, 1, 3, 10)
	disk.fail = true
	if err := s.StoreLogs([]*raft.Log{{Index: 4, Term: 1}, {Index: 5, Term: 1}}); err == nil {
		t.Fatal("the sync did not fail")
	}
	s.Close()
	s = open(disk) // as the group does, half a second later
	said, err := s.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	clone := mem.CrashClone(storage.CrashConfig{})
	for path, bytes := range disk.lost {
		f, err := clone.OpenReadWrite(path, "test")
		if err != nil {
			t.Fatal(err)
		}
		for off := range bytes {
			if _, err := f.WriteAt([]byte{0}, off); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
	s.Close()
	s = open(clone)
	defer s.Close()
	if last, err := s.LastIndex(); err != nil || last < said {
		t.Errorf("the log ended at %d, and after a power failure at %d (%v)", said, last, err)
	}
}

// Appends of all sizes are torn in every way, one behind what is left of the other, in
// segments that fill up. The log holds what it took, takes more at once, and never calls
// what is left of a torn append damage.
func TestTornAppendsAreTakenBack(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		mem, last := storage.NewCrashFS(), uint64(0)
		for round := range 40 {
			var failing atomic.Bool
			disk := storage.FailingFS(mem, func(_ bool, op, _ string) bool { return failing.Load() && op == "sync" })
			s, err := openLogStore(disk, "/group", logStoreWAL, hclog.NewNullLogger())
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if got, err := s.LastIndex(); err != nil || got < last {
				t.Fatalf("round %d: the log ends at %d (%v), it took %d", round, got, err, last)
			} else {
				last = got
			}
			put := func() error {
				var logs []*raft.Log
				for i := range 1 + rng.Uint64N(4) {
					data := make([]byte, rng.IntN(1<<(4+rng.IntN(14))))
					for k := range data {
						data[k] = byte(rng.IntN(5)) // some of it looks like frames
					}
					logs = append(logs, &raft.Log{Index: last + 1 + i, Term: 1, Data: data})
				}
				err := s.StoreLogs(logs)
				if err == nil {
					last = logs[len(logs)-1].Index
				}
				return err
			}
			for range rng.IntN(4) {
				if err := put(); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			failing.Store(true)
			if err := put(); err == nil {
				t.Fatal("the sync did not fail")
			}
			crashed := mem.CrashClone(storage.CrashConfig{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			s.Close()
			mem = crashed
		}
	}
}

// What is found of the list of segments may be there in memory only, since its last
// flush failed. Entries of a segment that the disk does not know of are lost with it.
func TestListOfSegmentsIsWrittenAnewByEachOpen(t *testing.T) {
	dir := t.TempDir()
	open := func() {
		t.Helper()
		log, err := openLogStore(nil, dir, logStoreWAL, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	open()
	path := filepath.Join(logDir(dir, logStoreWAL), metadb.FileName)
	before := boltRoot(t, path)
	open()
	if after := boltRoot(t, path); after == before {
		t.Errorf("the list is where it was, on page %d", before)
	}
}
