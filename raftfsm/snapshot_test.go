// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// sink is a snapshot sink in RAM.
type sink struct {
	bytes.Buffer
	closed, canceled bool
}

func (s *sink) ID() string    { return "test" }
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.canceled = true; return nil }

// filled is a replica with some of everything in it.
func filled(t testing.TB, cfg Config) *harness {
	h := newHarness(t, cfg)
	h.must(&fsmv1.Command{Op: &fsmv1.Command_LeaderEstablished{LeaderEstablished: &fsmv1.LeaderEstablished{ClusterId: "cluster"}}})
	h.must(createCmd("c1", "docs", 2))
	h.must(createCmd("c2", "more", 1))
	for i := range 30 {
		h.must(requestID(fmt.Sprint("r", i), writeCmd("c1", upsert(fmt.Sprint("d", i%20), fmt.Sprintf(`{"i":%d}`, i), float32(i), 1))))
	}
	h.must(writeCmd("c2", insert("x", 1)))
	h.must(sealCmd("c1", 1))
	h.must(purgeSlotsCmd("c1", 3))
	h.must(dropCmd("c2"))
	return h
}

func TestLocalSnapshotMakesTheStateDurable(t *testing.T) {
	fs := storage.NewCrashFS()
	h := filled(t, Config{FS: fs, Dir: "fsm"})
	want, applied := hashOf(h), h.f.Applied()
	snap, err := h.f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	h.must(writeCmd("c1", upsert("later", "", 1, 1))) // after the snapshot
	s := &sink{}
	if err := snap.Persist(s); err != nil || !s.closed || s.canceled {
		t.Fatal(err, s)
	}
	snap.Release()
	m, err := UnmarshalManifest(s.Bytes())
	if err != nil || m.Applied != applied || m.StateHash != want.String() || len(m.Files) != 0 {
		t.Fatalf("%+v %v", m, err)
	}
	// Power fails; all that was not synced is gone.
	after, err := Open(context.Background(), Config{FS: fs.CrashClone(storage.CrashConfig{}), Dir: "fsm"})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if after.Applied() < applied {
		t.Fatalf("applied %d after the crash, the snapshot was of %d", after.Applied(), applied)
	}
	if err := after.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := after.Restore(io.NopCloser(bytes.NewReader(s.Bytes()))); err != nil {
		t.Fatal(err)
	}
	// A store that is behind its own snapshot has lost something.
	m.Applied += 1000
	b, err := MarshalManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := after.Restore(io.NopCloser(bytes.NewReader(b))); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// restoreInto exports src and restores dst from it, as the transport would.
func restoreInto(t *testing.T, src, dst *harness, dir string) *Manifest {
	t.Helper()
	m, err := src.f.Export(dir)
	if err != nil {
		t.Fatal(err)
	}
	received := *m
	received.Dir = dir
	b, err := MarshalManifest(&received)
	if err != nil {
		t.Fatal(err)
	}
	if err := dst.f.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExportRestoresElsewhere(t *testing.T) {
	src := filled(t, Config{Dir: filepath.Join(t.TempDir(), "a")})
	dst := newHarness(t, Config{Dir: filepath.Join(t.TempDir(), "b")})
	dst.must(createCmd("other", "other", 3))
	old := dst.f.View()
	dir := filepath.Join(t.TempDir(), "export")
	m := restoreInto(t, src, dst, dir)
	if m.Applied != src.f.Applied() || m.ClusterID != "cluster" {
		t.Fatalf("%+v", m)
	}
	if c, err := old.Collection("other"); err != nil || c.Record().GetDimension() != 3 {
		t.Fatal("a view from before the restore changed", err)
	}
	old.Close()
	check := func() {
		t.Helper()
		if hashOf(dst) != hashOf(src) || dst.f.Applied() != src.f.Applied() {
			t.Fatal("another state than the one exported")
		}
		dst.verify()
		if got, want := fmt.Sprint(dst.search("docs", 5, 3, 1)), fmt.Sprint(src.search("docs", 5, 3, 1)); got != want {
			t.Fatalf("search: %s, want %s", got, want)
		}
	}
	check()
	dst.log = src.log
	l := writeCmd("c1", upsert("n", "", 3, 1))
	src.must(l)
	dst.must(l)
	check()
	dst.reopen()
	check()
	entries, err := os.ReadDir(dst.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), storePrefix) && e.Name() != dst.f.eng.store.name() {
			t.Fatalf("%s was left over", e.Name())
		}
	}
	if _, err := src.f.Export(dir); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	// The exported directory is behind now; taking it in would lose ground.
	before := dst.f.Applied()
	if err := dst.f.RestoreDir(context.Background(), dir); err != nil || dst.f.Applied() != before {
		t.Fatal(err, dst.f.Applied())
	}
}

// TestExportCarriesGraphs: a new member takes the graph over instead of building
// it, and a graph that is damaged costs time, not the restore.
// A state under another cluster id is one in which only that differs: it is durable
// once flushed, exported with a hash that fits, and takes further entries.
func TestRefoundedStateIsWhole(t *testing.T) {
	h := filled(t, Config{Dir: t.TempDir()})
	before, applied := hashOf(h), h.f.Applied()
	if err := h.f.Refound(strings.Repeat("x", 65)); err == nil {
		t.Fatal("an id too long was taken")
	}
	if err := h.f.Refound("another"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.f.Flush(); err != nil {
		t.Fatal(err)
	}
	after := hashOf(h)
	if at, ok := h.f.HashAt(applied); after == before || !ok || at != after || h.f.Applied() != applied {
		t.Fatalf("state %s, before %s, at %d %s, applied %d of %d", after, before, applied, at, h.f.Applied(), applied)
	}
	h.reopen()
	v := h.f.View()
	id := v.ClusterID()
	v.Close()
	if id != "another" || hashOf(h) != after {
		t.Fatalf("after a restart cluster %q, state %s", id, hashOf(h))
	}
	h.verify()
	dst := newHarness(t, Config{Dir: t.TempDir()})
	restoreInto(t, h, dst, filepath.Join(t.TempDir(), "export"))
	h.must(writeCmd("c1", upsert("later", "", 1, 1)))
	dst.f.Apply(h.log[len(h.log)-1])
	if hashOf(h) != hashOf(dst) {
		t.Fatal("the states differ after the next entry")
	}
}

func TestExportCarriesGraphs(t *testing.T) {
	src := newHarness(t, Config{Dir: filepath.Join(t.TempDir(), "a")})
	src.must(createCmd("c1", "docs", 2))
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < 2000; i += 100 {
		ws := make([]*fsmv1.Write, 100)
		for k := range ws {
			ws[k] = upsert(fmt.Sprint("d", i+k), "", rng.Float32(), rng.Float32())
		}
		src.must(writeCmd("c1", ws...))
	}
	graph := func(h *harness) (hash string) {
		h.collection("docs", func(c *Collection) {
			if err := c.Index().WaitIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
			hash = c.IndexStatus().GraphHash
		})
		return hash
	}
	want := graph(src)
	for _, damage := range []bool{false, true} {
		var logged bytes.Buffer
		dst := newHarness(t, Config{Dir: filepath.Join(t.TempDir(), "b"), Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		dir := filepath.Join(t.TempDir(), "export")
		m, err := src.f.Export(dir)
		if err != nil {
			t.Fatal(err)
		}
		name := ""
		for _, f := range m.Files {
			if strings.HasPrefix(f.Name, graphPrefix) {
				name = f.Name
			}
		}
		if name == "" {
			t.Fatalf("no graph in %v", m.Files)
		}
		if damage { // before the checksums were made
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o600)); err != nil {
				t.Fatal(err)
			}
			for i := range m.Files {
				if m.Files[i].Name == name {
					if m.Files[i], err = describeFile(storage.Disk(), dir, name); err != nil {
						t.Fatal(err)
					}
				}
			}
			if b, err = MarshalManifest(m); err != nil {
				t.Fatal(err)
			}
			put(t, storage.Disk(), filepath.Join(dir, ManifestName), b)
		}
		if err := dst.f.RestoreDir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if refused := strings.Contains(logged.String(), "is not used"); refused != damage {
			t.Fatalf("damaged %t, but: %s", damage, logged.String())
		}
		target, _ := dst.f.graphTarget(dst.f.eng.store, name)
		if _, err := os.Stat(target); err != nil {
			t.Fatal(err)
		}
		if got := graph(dst); got != want {
			t.Fatalf("graph %s, want %s", got, want)
		}
	}
}

func TestDivergedReplicaIsHealedByRestore(t *testing.T) {
	src, dst := filled(t, Config{Dir: t.TempDir()}), filled(t, Config{Dir: t.TempDir()})
	dst.must(writeCmd("c1", upsert("wrong", "", 1, 1)))
	dst.f.diverge(ErrDiverged)
	restoreInto(t, src, dst, filepath.Join(t.TempDir(), "export"))
	v := dst.f.View()
	defer v.Close()
	if v.Diverged() != nil || hashOf(dst) != hashOf(src) {
		t.Fatal(v.Diverged())
	}
}

// TestDamagedExportIsRefused damages every file of an export in several ways.
// Whatever is refused must leave the old state as it was.
func TestDamagedExportIsRefused(t *testing.T) {
	fs := storage.NewMemFS()
	src := filled(t, Config{FS: fs, Dir: "src"})
	m, err := src.f.Export("export")
	if err != nil {
		t.Fatal(err)
	}
	dst := newHarness(t, Config{FS: fs, Dir: "dst"})
	dst.must(createCmd("other", "other", 3))
	want := hashOf(dst)
	refused := func(what string) {
		t.Helper()
		if err := dst.f.RestoreDir(context.Background(), "export"); err == nil {
			t.Fatalf("%s: accepted", what)
		}
		if hashOf(dst) != want || dst.f.eng.store.n != 1 {
			t.Fatalf("%s: the old state changed", what)
		}
	}
	names := []string{ManifestName}
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	for _, name := range names {
		path := "export/" + name
		good, err := storage.ReadFile(fs, path, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, len(good) / 2, len(good) - 1} {
			if n < 0 || n >= len(good) {
				continue
			}
			put(t, fs, path, good[:n])
			refused(fmt.Sprintf("%s cut to %d bytes", name, n))
			bad := bytes.Clone(good)
			bad[n] ^= 0x10
			put(t, fs, path, bad)
			refused(fmt.Sprintf("%s with byte %d changed", name, n))
		}
		put(t, fs, path, append(bytes.Clone(good), 0))
		refused(name + " with a byte more")
		if err := fs.Remove(path); err != nil {
			t.Fatal(err)
		}
		refused(name + " missing")
		put(t, fs, path, good)
	}
	put(t, fs, "export/extra", []byte("x"))
	refused("an extra file")
	if err := fs.Remove("export/extra"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := dst.f.RestoreDir(ctx, "export"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := dst.f.RestoreDir(context.Background(), "export"); err != nil {
		t.Fatal(err)
	}
	if hashOf(dst) != hashOf(src) {
		t.Fatal("another state than the one exported")
	}
}

func put(t testing.TB, fs storage.FS, path string, data []byte) {
	t.Helper()
	if err := storage.WriteFile(fs, path, bytes.Clone(data)); err != nil { // a MemFS spoils what it is given, under -race
		t.Fatal(err)
	}
}

// TestExportOfDamagedKeysIsRefused exports a store in which a value changed under
// the state machine's feet: every checksum is right, only the state hash is not.
func TestExportOfDamagedKeysIsRefused(t *testing.T) {
	fs := storage.NewMemFS()
	src := filled(t, Config{FS: fs, Dir: "src"})
	b := src.f.eng.db.NewBatch()
	defer b.Discard()
	if err := errors.Join(b.Set(appendSlotKey(nil, prefixVector, 1, 29), make([]byte, 8)), b.Commit()); err != nil {
		t.Fatal(err)
	}
	if err := src.f.Verify(context.Background()); err != nil {
		t.Fatal("a view saw a later change", err)
	}
	if _, err := src.f.Export("export"); err != nil {
		t.Fatal(err)
	}
	dst := newHarness(t, Config{FS: fs, Dir: "dst"})
	if err := dst.f.RestoreDir(context.Background(), "export"); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if dst.f.Applied() != 0 {
		t.Fatal("the old state changed")
	}
}

// FuzzManifest: whatever is accepted encodes to itself, and no damaged encoding
// of a good manifest is accepted.
func FuzzManifest(f *testing.F) {
	good, err := MarshalManifest(&Manifest{Format: 1, Applied: 7, Term: 2, StateHash: StateHash{1}.String(), ClusterID: "c", Files: []ManifestFile{{Name: "a", Size: 3, XXH3: "00"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, uint(0), byte(0))
	f.Add(good, uint(5), byte(1))
	f.Add(good[:len(good)-1], uint(0), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint, flip byte) {
		if m, err := UnmarshalManifest(b); err == nil {
			again, err := MarshalManifest(m)
			if err != nil {
				t.Fatal(err)
			}
			if m2, err := UnmarshalManifest(again); err != nil || fmt.Sprint(m2) != fmt.Sprint(m) {
				t.Fatalf("%v: %+v, %+v", err, m, m2)
			}
		}
		bad := bytes.Clone(good)
		bad[at%uint(len(bad))] ^= flip
		if _, err := UnmarshalManifest(bad); flip != 0 && err == nil {
			t.Fatalf("byte %d ^ %#x accepted", at, flip)
		}
		if _, err := UnmarshalManifest(good[:at%uint(len(good))]); err == nil {
			t.Fatalf("cut to %d accepted", at)
		}
	})
}

func TestDamagedDirectoryIsRefused(t *testing.T) {
	errIntact := errors.New("nothing was lost") // the file was left over from a compaction
	// Only values that were replaced since are damaged: nobody reads them but Verify
	// and compactions, which say so.
	errReplaced := errors.New("what is damaged is reported when it is read")
	open := func(fs storage.FS) error {
		f, err := Open(context.Background(), Config{FS: fs, Dir: "fsm"})
		if err == nil {
			if f.Applied() == 31 {
				switch damage := f.Verify(context.Background()); {
				case damage == nil:
					err = errIntact
				case errors.Is(damage, ErrCorrupt):
					err = errReplaced
				}
			}
			return errors.Join(errors.New("opened"), err, f.Close())
		}
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "fsm/") || !strings.Contains(err.Error(), "join again") {
			return fmt.Errorf("not clear: %w", err)
		}
		t.Log(err)
		return nil
	}
	fresh := func() (storage.FS, []string) {
		fs := storage.NewMemFS()
		f, err := Open(context.Background(), Config{FS: fs, Dir: "fsm"})
		if err != nil {
			t.Fatal(err)
		}
		h := &harness{t: t, f: f}
		h.must(createCmd("c1", "docs", 2))
		for i := range 30 {
			h.must(writeCmd("c1", upsert(fmt.Sprint("d", i%20), fmt.Sprintf(`{"i":%d}`, i), float32(i), 1)))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := fs.List("fsm/store-000001")
		if err != nil {
			t.Fatal(err)
		}
		return fs, names
	}
	fs, names := fresh()
	if err := fs.Remove("fsm/CURRENT"); err != nil {
		t.Fatal(err)
	}
	if err := open(fs); err != nil {
		t.Fatalf("CURRENT missing: %v", err)
	}
	fs, _ = fresh()
	put(t, fs, "fsm/CURRENT", []byte("{}\n"))
	if err := open(fs); err != nil {
		t.Fatalf("CURRENT damaged: %v", err)
	}
	fs, _ = fresh()
	if err := fs.RemoveAll("fsm/store-000001"); err != nil {
		t.Fatal(err)
	}
	if err := open(fs); err != nil {
		t.Fatalf("store missing: %v", err)
	}
	newest, first := "", "" // first: the table of an empty store, all of it replaced since
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "MANIFEST"):
			newest = max(newest, name)
		case strings.HasSuffix(name, ".sst") && (first == "" || name < first):
			first = name
		}
	}
	for _, name := range names {
		if name != newest && !strings.HasSuffix(name, ".sst") && !strings.HasPrefix(name, "marker.manifest") {
			continue
		}
		fs, _ = fresh()
		if err := fs.Remove("fsm/store-000001/" + name); err != nil {
			continue // an older run had another number of files
		}
		if err := open(fs); err != nil && !errors.Is(err, errIntact) {
			t.Fatalf("%s missing: %v", name, err)
		}
		if strings.HasSuffix(name, ".sst") {
			fs, _ = fresh()
			path := "fsm/store-000001/" + name
			good, err := storage.ReadFile(fs, path, 1<<30)
			if errors.Is(err, os.ErrNotExist) {
				continue // compacted under another number this time
			}
			if err != nil {
				t.Fatal(err)
			}
			good[len(good)/3] ^= 1
			put(t, fs, path, good)
			if err := open(fs); err != nil && !errors.Is(err, errIntact) && !(name == first && errors.Is(err, errReplaced)) {
				t.Fatalf("%s with a bit changed: %v", name, err)
			}
		}
	}
}
