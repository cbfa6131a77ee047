// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/akidb/akidb/index/distance"
)

// stored fills a Source with vectors at slots 0, 1, ...
func stored(vectors [][]float32) *memory {
	src := &memory{}
	for i, v := range vectors {
		src.add(Entry{Slot: Slot(i), Vector: v})
	}
	return src
}

// checkpointed builds an index of vectors and leaves its checkpoint in dir.
func checkpointed(t *testing.T, cfg Config, src *memory) Status {
	t.Helper()
	x := open(t, cfg, src)
	waitIdle(t, x)
	if err := x.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x.Status()
}

// Goal: an index opened on a checkpoint goes on as if it had never stopped.
func TestCheckpointGoesOn(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 51)
				vectors := clustered(r, 2600, 20, 8, 0.5)
				cfg := Config{Dimension: 20, Metric: metric, Quantization: quantization}
				want := open(t, cfg, stored(vectors))
				waitIdle(t, want)
				// 200 are too few for codes, and have no graph by which to tell.
				for _, first := range []int{200, 700, 1500} {
					goesOn(t, cfg, vectors, first, want)
				}
			})
		}
	}
}

// goesOn opens an index of all vectors on a checkpoint of the first, and compares
// it with one that was built at once.
func goesOn(t *testing.T, cfg Config, vectors [][]float32, first int, want *Index) {
	t.Helper()
	cfg.Dir = t.TempDir()
	early := checkpointed(t, cfg, stored(vectors[:first]))
	x, err := Open(t.Context(), cfg, 1, stored(vectors))
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	waitIdle(t, x)
	if a, b := x.Status(), want.Status(); a.GraphHash != b.GraphHash || a.GraphHash == early.GraphHash {
		t.Fatalf("graph %s, built at once %s, checkpoint of %d %s", a.GraphHash, b.GraphHash, first, early.GraphHash)
	}
	for _, q := range vectors[:30] {
		a, _ := search(t, x, Query{Vector: q, K: 10}, all)
		b, _ := search(t, want, Query{Vector: q, K: 10}, all)
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("results %v and %v", a, b)
			}
		}
	}
}

// Goal: the graph is taken from the checkpoint, not built. Method: the builder of
// a closed index builds nothing, so what is graphed right after Open was read.
func TestCheckpointIsUsed(t *testing.T) {
	vectors := clustered(seeded(t, 52), 1500, 8, 4, 0.5)
	cfg := Config{Dimension: 8, Metric: distance.L2, Dir: t.TempDir()}
	want := checkpointed(t, cfg, stored(vectors))
	g := loadGeneration(t, cfg, stored(vectors))
	defer g.release()
	if int(g.graphed.Load()) != want.Graphed || want.Graphed == 0 {
		t.Errorf("%d vertices from the checkpoint, want %d", g.graphed.Load(), want.Graphed)
	}
}

// loadGeneration is Open without the goroutines.
func loadGeneration(t *testing.T, cfg Config, src Source) *generation {
	t.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	x := newIndex(cfg, src)
	g, err := newGeneration(&x.cfg, x.src, 1, 0, x.cfg.maxRows(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.loadAndRestore(context.Background(), g, src); err != nil {
		t.Fatal(err)
	}
	return g
}

// Goal: no damage goes unnoticed, none stops the index. Method: flip a bit in
// every region, cut the file at many lengths.
func TestDamagedCheckpoint(t *testing.T) {
	r := seeded(t, 53)
	vectors := clustered(r, 1300, 8, 4, 0.5)
	cfg := Config{Dimension: 8, Metric: distance.L2, Dir: t.TempDir()}
	checkpointed(t, cfg, stored(vectors))
	path := checkpointPath(cfg.Dir, 1)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, raw []byte) {
		t.Helper()
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		var warned error
		c := cfg
		c.Warn = func(_ string, err error) { warned = err }
		g := loadGeneration(t, c, stored(vectors))
		defer g.release()
		if warned == nil || g.graphed.Load() != 0 {
			t.Errorf("%s: warned of %v, %d vertices taken", what, warned, g.graphed.Load())
		}
	}
	flip := func(at int) {
		raw := append([]byte(nil), sound...)
		raw[at] ^= 1 << r.IntN(8)
		try("flip", raw)
	}
	for at := range 180 {
		flip(at)
	}
	for range 60 {
		flip(r.IntN(len(sound)))
	}
	for at := range 16 {
		flip(len(sound) - 1 - at)
	}
	for range 30 {
		try("cut", sound[:r.IntN(len(sound))])
	}
	try("empty", nil)
	try("longer", append(append([]byte(nil), sound...), 0))
	if err := os.WriteFile(path, sound[:len(sound)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Warn = func(string, error) {}
	x := open(t, cfg, stored(vectors))
	waitIdle(t, x)
	if err := x.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(sound) {
		t.Errorf("the checkpoint built anew differs: %v", err)
	}
}

// Goal: a sound checkpoint of something else is not trusted.
func TestForeignCheckpoint(t *testing.T) {
	r := rand.New(rand.NewPCG(54, 1))
	vectors := clustered(r, 1300, 8, 4, 0.5)
	cfg := Config{Dimension: 8, Metric: distance.L2, Dir: t.TempDir()}
	checkpointed(t, cfg, stored(vectors))
	expect := func(what string, cfg Config, src *memory) {
		t.Helper()
		var warned error
		cfg.Warn = func(_ string, err error) { warned = err }
		g := loadGeneration(t, cfg, src)
		defer g.release()
		if !errors.Is(warned, errForeign) || g.graphed.Load() != 0 {
			t.Errorf("%s: warned of %v, %d vertices taken", what, warned, g.graphed.Load())
		}
	}
	expect("fewer vectors", cfg, stored(vectors[:1100]))
	other := clustered(r, 1300, 8, 4, 0.5)
	copy(other, vectors)
	other[700] = append([]float32(nil), other[700]...)
	other[700][3]++
	expect("one element", cfg, stored(other))
	shifted := stored(vectors)
	for i := 900; i < len(shifted.entries); i++ {
		shifted.entries[i].Slot++
	}
	expect("other slots", cfg, shifted)
	m := cfg
	m.M = 8
	expect("other parameters", m, stored(vectors))
	m = cfg
	m.Metric = distance.Cosine
	expect("other metric", m, stored(vectors))
	m = cfg
	m.Quantization = QuantizationNone
	expect("other codes", m, stored(vectors))
}

// Goal: a checkpoint of the next generation replaces the old one's file.
func TestCheckpointAfterSeal(t *testing.T) {
	vectors := clustered(seeded(t, 55), 1300, 8, 4, 0.5)
	cfg := Config{Dimension: 8, Metric: distance.L2, Dir: t.TempDir()}
	x := open(t, cfg, stored(vectors))
	waitIdle(t, x)
	if err := x.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "writing-1"), []byte("torn"), 0o644); err != nil {
		t.Fatal(err)
	}
	x.Seal(2, 1)
	waitIdle(t, x)
	if err := x.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil || len(entries) != 1 || filepath.Join(cfg.Dir, entries[0].Name()) != checkpointPath(cfg.Dir, 2) {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestRestartTime opens many vectors of 128 dimensions on a checkpoint and prints
// how long it took; it builds the graph first. Then it prints what a checkpoint
// after 1 % new vectors writes.
func TestRestartTime(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("AKIDB_RESTART"))
	if err != nil {
		t.Skip("set AKIDB_RESTART to a number of vectors to run, such as 1000000")
	}
	vectors := clustered(seeded(t, 56), n, 128, 1000, 0.4)
	src := stored(vectors)
	cfg := Config{Dimension: 128, Metric: distance.L2, Dir: t.TempDir()}
	x := open(t, cfg, src)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	if err := x.WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v", time.Since(start))
	start = time.Now()
	if err := x.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	size := func() (n int) {
		for _, raw := range checkpointFiles(t, cfg.Dir) {
			n += len(raw)
		}
		return n
	}
	whole := size()
	t.Logf("checkpoint of %d bytes in %v", whole, time.Since(start))
	start = time.Now()
	y := open(t, cfg, src)
	t.Logf("opened in %v, backlog %d", time.Since(start), y.Backlog())
	for i := range n / 100 {
		v := slices.Clone(vectors[i*97])
		v[i%128] += 0.1
		x.Append(Slot(n+i), v, nil)
	}
	if err := x.WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	if err := x.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("after 1 %% new vectors another checkpoint of %d bytes in %v", size()-whole, time.Since(start))
}
