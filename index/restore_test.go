// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// watched is a Source that is looked at after every entry.
type watched struct {
	*memory
	look func()
}

func (w watched) Scan(from Slot, fn func(Entry) error) error {
	return w.memory.Scan(from, func(e Entry) error {
		defer w.look()
		return fn(e)
	})
}

// present is how many rows of vectors there are; those given back read as zero.
func present(g *generation) (n int) {
	for v := range g.total.Load() {
		if slices.ContainsFunc(g.vector(v), func(f float32) bool { return f != 0 }) {
			n++
		}
	}
	return n
}

// Goal: opening on a checkpoint with vectors on disk never holds all of them.
func TestVectorsOnDiskOpenWithoutRoomForAll(t *testing.T) {
	r := seeded(t, 84)
	const n, dim = 20000, 64
	vectors := clustered(r, n, dim, 8, 0.5)
	cfg, err := Config{Dimension: dim, Metric: distance.Cosine, VectorsOnDisk: true, Dir: t.TempDir(), M: 8, EfConstruction: 20}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	want := checkpointed(t, cfg, stored(vectors))
	most, entries := 0, 0
	var g *generation
	src := watched{stored(vectors), func() {
		if entries++; entries%333 == 0 {
			most = max(most, present(g))
		}
	}}
	x := newIndex(cfg, src)
	if g, err = newGeneration(&x.cfg, src, 1, 0, x.cfg.maxRows(0)); err != nil {
		t.Fatal(err)
	}
	defer g.release()
	if err := x.loadAndRestore(t.Context(), g, src); err != nil {
		t.Fatal(err)
	}
	if int(g.graphed.Load()) != want.Graphed || want.Graphed < n-64 {
		t.Fatalf("%d vertices from the checkpoint, want %d", g.graphed.Load(), want.Graphed)
	}
	if most == 0 || most > 2*earlyBlock {
		t.Errorf("up to %d of %d vectors in RAM while they were loaded", most, n)
	}
}

// Goal: a checkpoint that is found to be of no use when its vectors are gone
// already does no harm. Method: checkpoints of other vectors, and of more.
func TestVectorsOnDiskOnForeignCheckpoint(t *testing.T) {
	r := seeded(t, 85)
	vectors := clustered(r, 4000, 16, 8, 0.5)
	other := slices.Clone(vectors)
	other[1500] = vectors[1501]
	for what, src := range map[string]*memory{"other vectors": stored(other), "fewer vectors": stored(vectors[:3000])} {
		t.Run(what, func(t *testing.T) {
			warned := 0
			cfg := Config{Dimension: 16, Metric: distance.L2}
			ram := open(t, cfg, src)
			cfg.VectorsOnDisk, cfg.Dir = true, t.TempDir()
			checkpointed(t, cfg, stored(vectors))
			cfg.Warn = func(_ string, err error) {
				warned++
				if !errors.Is(err, errForeign) {
					t.Errorf("warning %v, want errForeign", err)
				}
			}
			disk := open(t, cfg, src)
			waitIdle(t, ram)
			waitIdle(t, disk)
			if a, b := ram.Status(), disk.Status(); a.GraphHash != b.GraphHash || warned != 1 {
				t.Errorf("graph %s in RAM, %s on disk, %d warnings", a.GraphHash, b.GraphHash, warned)
			}
			for _, q := range vectors[:50] {
				a, _ := search(t, ram, Query{Vector: q, K: 10}, all)
				b, _ := search(t, disk, Query{Vector: q, K: 10}, all)
				if !slices.Equal(a, b) {
					t.Fatalf("%v in RAM, %v on disk", a, b)
				}
			}
		})
	}
}
