// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// answers is everything a client can learn of a replica, as text.
func answers(t testing.TB, f *FSM) string {
	t.Helper()
	ctx := context.Background()
	v := f.View()
	defer v.Close()
	var b strings.Builder
	fmt.Fprintln(&b, v.Applied(), v.StateHash(), v.ClusterID(), v.ClusterVersion(), v.Alarms(), v.PendingPurges())
	dump := func(x any) {
		j, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(j)
		b.WriteByte('\n')
	}
	for _, n := range v.Nodes() {
		dump(n)
	}
	for _, c := range v.AllCollections() {
		dump(c.Record())
		if err := c.Index().WaitIdle(ctx); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, "graph", c.IndexStatus().GraphHash)
		all, err := c.Scroll(ctx, nil, "", 1000, Projection{Vector: true, Metadata: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			fmt.Fprintln(&b, show(&all[i])...)
		}
		for i := range 5 {
			ms, _, err := c.Search(ctx, index.Query{Vector: []float32{float32(i), 1, 5}, K: 7}, Projection{})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				fmt.Fprintln(&b, m.ID, m.Distance)
			}
		}
	}
	return b.String()
}

// feed applies logs up to the given number in runs of random length.
func feed(rng *rand.Rand, f *FSM, logs []*raft.Log) {
	for len(logs) > 0 {
		n := 1 + rng.IntN(min(64, len(logs)))
		f.ApplyBatch(logs[:n])
		logs = logs[n:]
	}
}

// TestReplicasAgree gives one random log to three replicas: one that just
// applies it, one that loses power at random points, and one that starts late
// from an export of the first, in other runs and on other numbers of threads.
// All must give the same answers and hold the same graph.
func TestReplicasAgree(t *testing.T) {
	forSeeds(t, 4, func(t *testing.T, rng *rand.Rand) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
		limits := Config{MaxRequests: 50, RequestTTLms: 9000, MemTableBytes: 256 << 10}
		g := &logGen{rng: rng}
		logs := g.logs(t, 800)

		steady := limits
		steady.FS, steady.Dir, steady.IndexWorkers = storage.NewMemFS(), "fsm", 1
		a := newHarness(t, steady)
		half := rng.IntN(len(logs))
		feed(rng, a.f, logs[:half])
		late := limits
		late.FS, late.Dir = steady.FS, "late"
		c := newHarness(t, late)
		if _, err := a.f.Export("export"); err != nil {
			t.Fatal(err)
		}
		if err := c.f.RestoreDir(context.Background(), "export"); err != nil {
			t.Fatal(err)
		}
		feed(rng, a.f, logs[half:])
		want := answers(t, a.f)

		runtime.GOMAXPROCS(4)
		feed(rng, c.f, logs) // entries it has are skipped
		if got := answers(t, c.f); got != want {
			t.Fatalf("the late replica differs:\n%s", firstDifference(got, want))
		}
		runtime.GOMAXPROCS(1 + rng.IntN(3))
		fs := storage.NewCrashFS()
		b, fs := crashing(t, rng, limits, fs, logs)
		if got := answers(t, b); got != want {
			t.Fatalf("the crashed replica differs:\n%s", firstDifference(got, want))
		}
		if err := errors.Join(b.Verify(context.Background()), b.Close()); err != nil {
			t.Fatal(err)
		}
	})
}

// crashing applies logs on a replica that is killed or loses power at random
// points: what was not synced is all there or all gone.
func crashing(t *testing.T, rng *rand.Rand, cfg Config, fs *storage.MemFS, logs []*raft.Log) (*FSM, *storage.MemFS) {
	cfg.Dir = "fsm"
	crashes, lost := 0, uint64(0)
	for {
		cfg.FS = fs
		f, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatalf("open after %d crashes: %v", crashes, err)
		}
		done := 0
		for done < len(logs) && logs[done].Index <= f.Applied() {
			done++
		}
		n := len(logs)
		if crashes < 12 {
			n = min(n, done+1+rng.IntN(150))
		}
		feed(rng, f, logs[max(0, done-rng.IntN(50)):n]) // Raft replays more than was lost
		if n == len(logs) {
			t.Logf("%d crashes, %d entries applied again", crashes, lost)
			return f, fs
		}
		durable := uint64(0)
		if rng.IntN(2) == 0 {
			if durable, err = f.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		before := f.Applied()
		fs = fs.CrashClone(storage.CrashConfig{UnsyncedDataPercent: 100 * rng.IntN(2), RNG: rng})
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		crashes++
		cfg.FS = fs
		f, err = Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if f.Applied() < durable {
			t.Fatalf("applied %d after the crash, flushed up to %d", f.Applied(), durable)
		}
		lost += before - f.Applied()
		if err := errors.Join(f.Verify(context.Background()), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilledWithGraphAhead: a process is killed after its graphs were written to
// disk and before the store was flushed. The graph knows slots the store has
// lost; it must not be trusted for them, and end up the same.
func TestKilledWithGraphAhead(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "alive")}
	h := newHarness(t, cfg)
	h.must(createCmd("c1", "docs", genDim))
	rng := rand.New(rand.NewPCG(3, 4))
	write := func(from, to int) {
		for i := from; i < to; i += 100 {
			ws := make([]*fsmv1.Write, 100)
			for k := range ws {
				ws[k] = upsert(fmt.Sprint("d", i+k), `{"n":1}`, rng.Float32(), rng.Float32(), rng.Float32())
			}
			h.must(writeCmd("c1", ws...))
		}
	}
	write(0, 1500)
	if _, err := h.f.Flush(); err != nil {
		t.Fatal(err)
	}
	durable := h.f.Applied()
	write(1500, 4000)
	want := answers(t, h.f) // waits for the graph
	if err := h.f.CheckpointIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = killed
	again := newHarness(t, cfg)
	if got := again.f.Applied(); got != durable {
		t.Fatalf("applied %d, flushed was %d", got, durable)
	}
	again.verify()
	if got := len(again.search("docs", 3000, 0.5, 0.5, 0.5)); got != 1500 {
		t.Fatalf("%d documents found of 1500", got)
	}
	feed(rng, again.f, h.log)
	if got := answers(t, again.f); got != want {
		t.Fatal(firstDifference(got, want))
	}
	again.reopen()
	if got := answers(t, again.f); got != want {
		t.Fatal(firstDifference(got, want))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\n got %s\nwant %s", i, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// TestPowerLossAtEveryFileOperation takes a crash image before each operation
// that writes, over a life with flushes, an export, a restore and a close. Every
// image must open, be a prefix of the log, and hash to what its log index had.
// Of what was not synced nothing, every second block, or all survives.
func TestPowerLossAtEveryFileOperation(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprint("survives=", percent), func(t *testing.T) { testPowerLoss(t, percent) })
	}
}

// orderedDirs makes changes of directories durable at once, as a journalling
// file system orders them. Without it a crash image may hold the second of two
// new names but not the first, which Pebble does not stand.
type orderedDirs struct{ storage.FS }

func (o orderedDirs) after(err error, name string) error {
	if err != nil {
		return err
	}
	return storage.SyncDir(o.FS, o.PathDir(name))
}

func (o orderedDirs) Create(name string, c storage.WriteCategory) (storage.File, error) {
	f, err := o.FS.Create(name, c)
	return f, o.after(err, name)
}

func (o orderedDirs) Link(from, to string) error   { return o.after(o.FS.Link(from, to), to) }
func (o orderedDirs) Rename(from, to string) error { return o.after(o.FS.Rename(from, to), to) }
func (o orderedDirs) Remove(name string) error     { return o.after(o.FS.Remove(name), name) }

// noLocks keeps out two methods of Pebble's MemFS that take its read lock twice,
// which never ends if a crash image is taken in between.
type noLocks struct{ storage.FS }

func (n noLocks) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (n noLocks) ReuseForWrite(from, to string, c storage.WriteCategory) (storage.File, error) {
	if err := n.FS.Rename(from, to); err != nil {
		return nil, err
	}
	return n.FS.OpenReadWrite(to, c)
}

func testPowerLoss(t *testing.T, percent int) {
	forSeeds(t, 1, func(t *testing.T, rng *rand.Rand) {
		type image struct {
			op      string
			fs      *storage.MemFS
			durable uint64 // was promised when it was taken
		}
		var mu sync.Mutex // guards what follows; operations come from several goroutines
		var images []image
		durable := uint64(0)
		disk := storage.NewCrashFS()
		taking := true
		cfg := Config{Dir: "fsm", MemTableBytes: 64 << 10}
		inner := storage.FS(noLocks{disk})
		if percent != 0 && percent != 100 {
			inner = orderedDirs{inner}
		}
		cfg.FS = storage.FailingFS(inner, func(write bool, op, path string) bool {
			mu.Lock()
			defer mu.Unlock()
			if write && taking {
				images = append(images, image{op + " " + path, disk.CrashClone(storage.CrashConfig{UnsyncedDataPercent: percent, RNG: rng}), durable})
			}
			return false
		})
		promise := func(n uint64) {
			mu.Lock()
			defer mu.Unlock()
			durable = n
		}
		g := &logGen{rng: rng}
		logs := g.logs(t, 120)
		hashes := map[uint64]StateHash{}
		h := newHarness(t, Config{})
		for _, l := range logs {
			hashes[h.f.Applied()] = hashOf(h)
			h.f.Apply(l)
		}
		hashes[h.f.Applied()] = hashOf(h)
		// A snapshot of the future, to be restored half-way.
		if _, err := h.f.Export("export"); err != nil {
			t.Fatal(err)
		}
		copyDir(t, h.cfg.FS, disk, "export")

		f, err := Open(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range logs[:60] {
			f.Apply(l)
			if i%20 == 10 {
				n, err := f.Flush()
				if err != nil {
					t.Fatal(err)
				}
				promise(n)
			}
		}
		if _, err := f.Export("mine"); err != nil {
			t.Fatal(err)
		}
		if err := f.RestoreDir(context.Background(), "export"); err != nil {
			t.Fatal(err)
		}
		promise(f.Applied())
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		taking = false
		mu.Unlock()
		t.Logf("%d images with %d%% of what was not synced", len(images), percent)
		for i, im := range images {
			if err := checkImage(im.fs, im.durable, hashes); err != nil {
				t.Fatalf("image %d of %d, before %s: %v", i, len(images), im.op, err)
			}
		}
	})
}

func checkImage(fs *storage.MemFS, durable uint64, hashes map[uint64]StateHash) error {
	f, err := Open(context.Background(), Config{FS: fs, Dir: "fsm"})
	if err != nil {
		return err
	}
	v := f.View()
	want, known := hashes[v.Applied()]
	switch {
	case v.Applied() < durable:
		err = fmt.Errorf("applied %d, durable was %d", v.Applied(), durable)
	case !known || v.StateHash() != want:
		err = fmt.Errorf("state hash %s at %d, want %s", v.StateHash(), v.Applied(), want)
	}
	v.Close()
	return errors.Join(err, f.Verify(context.Background()), f.Close())
}

func copyDir(t testing.TB, from, to storage.FS, dir string) {
	t.Helper()
	names, err := from.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		b, err := storage.ReadFile(from, dir+"/"+n, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		put(t, to, dir+"/"+n, b)
	}
}

// TestFailedRestoreKeepsTheOldState lets each operation that writes during a
// restore fail in turn.
func TestFailedRestoreKeepsTheOldState(t *testing.T) {
	src := filled(t, Config{})
	if _, err := src.f.Export("export"); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		fs := storage.NewMemFS()
		copyDir(t, src.cfg.FS, fs, "export")
		var mu sync.Mutex
		armed, seen, failed := false, 0, ""
		cfg := Config{Dir: "fsm", FS: storage.FailingFS(fs, func(write bool, op, path string) bool {
			mu.Lock()
			defer mu.Unlock()
			// Pebble does not stand a failure while it opens a store, and stops the
			// process when it cannot write its manifest; only what is done around
			// it fails here.
			store := strings.HasPrefix(path, "fsm/"+storePrefix)
			if !armed || !write || store && op != "link" && op != "mkdir" {
				return false
			}
			seen++
			if seen == n+1 {
				failed = op + " " + path
			}
			return seen == n+1
		})}
		h := &harness{t: t, cfg: cfg}
		h.open()
		h.must(createCmd("old", "old", 1))
		want := hashOf(h)
		if _, err := h.f.Flush(); err != nil {
			t.Fatal(err)
		}
		arm := func(on bool) {
			mu.Lock()
			defer mu.Unlock()
			armed = on
		}
		arm(true)
		err := h.f.RestoreDir(context.Background(), "export")
		h.f.life.wg.Wait() // the old store is removed in background
		arm(false)
		if err == nil {
			want = hashOf(src)
		}
		if hashOf(h) != want {
			t.Fatalf("after failing %s: %v: another state", failed, err)
		}
		h.verify()
		h.reopen()
		if hashOf(h) != want {
			t.Fatalf("after failing %s: %v: another state after a restart", failed, err)
		}
		if err := h.f.Close(); err != nil {
			t.Fatal(err)
		}
		if failed == "" {
			t.Logf("%d operations failed in turn", n)
			return
		}
	}
}

// TestReadersBesideApply searches, reads and scrolls while entries are applied,
// stores restored and collections dropped. Each view must agree with itself.
func TestReadersBesideApply(t *testing.T) {
	src := newHarness(t, Config{})
	g := &logGen{rng: rand.New(rand.NewPCG(5, 5))}
	logs := g.logs(t, 400)
	feed(g.rng, src.f, logs)
	if _, err := src.f.Export("export"); err != nil {
		t.Fatal(err)
	}
	cfg := Config{FS: src.cfg.FS, Dir: "beside"}
	h := newHarness(t, cfg)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			last := uint64(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := readOnce(h.f, &last); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	feed(g.rng, h.f, logs[:200])
	if err := h.f.RestoreDir(context.Background(), "export"); err != nil {
		t.Error(err)
	}
	feed(g.rng, h.f, append(logs, g.logs(t, 200)...))
	close(stop)
	wg.Wait()
	h.verify()
}

func readOnce(f *FSM, last *uint64) error {
	v := f.View()
	defer v.Close()
	if v.Applied() < *last {
		return fmt.Errorf("applied went back from %d to %d", *last, v.Applied())
	}
	*last = v.Applied()
	for _, c := range v.AllCollections() {
		ms, _, err := c.Search(context.Background(), index.Query{Vector: []float32{1, 2, 3}, K: 100}, Projection{Metadata: true})
		if err != nil {
			return err
		}
		all, err := c.Scroll(context.Background(), nil, "", 1000, Projection{})
		if err != nil {
			return err
		}
		if len(ms) != c.Len() || len(all) != c.Len() {
			return fmt.Errorf("%d documents, %d found, %d listed", c.Len(), len(ms), len(all))
		}
		for _, m := range ms {
			if d, err := c.Get(m.ID, Projection{}); err != nil || d == nil || d.Version != m.Version {
				return fmt.Errorf("%s: %+v %w", m.ID, d, err)
			}
		}
	}
	return nil
}
