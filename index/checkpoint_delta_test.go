// SPDX-License-Identifier: Apache-2.0

package index

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// checkpointFiles is the content of a directory by name.
func checkpointFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = raw
	}
	return out
}

// grown is an index that was checkpointed after each of some portions, what its
// directory held then, and what its state was.
type grown struct {
	cfg     Config
	vectors [][]float32
	ends    []int
	files   []map[string][]byte
	states  []Status
}

func grow(t *testing.T, metric distance.Metric, ends ...int) *grown {
	t.Helper()
	g := &grown{ends: ends, vectors: clustered(seeded(t, 91), ends[len(ends)-1], 12, 8, 0.5)}
	g.cfg = Config{Dimension: 12, Metric: metric, Dir: t.TempDir(), EfConstruction: 40}
	x := open(t, g.cfg, &memory{})
	at := 0
	for _, end := range ends {
		for ; at < end; at++ {
			x.Append(Slot(at), g.vectors[at], nil)
		}
		waitIdle(t, x)
		if err := x.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.files = append(g.files, checkpointFiles(t, g.cfg.Dir))
		g.states = append(g.states, x.Status())
	}
	return g
}

// reopen opens a directory of such files and says what was taken from them, how
// often it warned, and what graph came of it in the end.
func (g *grown) reopen(t *testing.T, files map[string][]byte) (graphed, warned int, end *Index) {
	t.Helper()
	cfg := g.cfg
	cfg.Dir = t.TempDir()
	for name, raw := range files {
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Warn = func(string, error) { warned++ }
	once := loadGeneration(t, cfg, stored(g.vectors))
	defer once.release()
	count := warned
	return int(once.graphed.Load()), count, open(t, cfg, stored(g.vectors))
}

// Goal: a checkpoint after few new vectors writes little, and an index goes on
// from any of them, and from checkpoints made after that, to the same graph.
func TestCheckpointsWriteWhatChanged(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			g := grow(t, metric, 4000, 4064, 4128, 4128, 4500)
			base := "generation-1.graph"
			for i, files := range g.files {
				whole, since := len(files[base]), 0
				for name, raw := range files {
					if name != base {
						since += len(raw)
					}
				}
				wantFiles := []int{1, 2, 3, 3, 4}[i]
				if len(files) != wantFiles && i < 4 || i == 1 && since*3 > whole {
					t.Errorf("after %d vectors: %v, %d bytes beside %d", g.ends[i], slices.Sorted(maps.Keys(files)), since, whole)
				}
				graphed, warned, x := g.reopen(t, files)
				if graphed != g.states[i].Graphed || warned != 0 {
					t.Errorf("after %d vectors: %d of %d from the checkpoint, %d warnings", g.ends[i], graphed, g.states[i].Graphed, warned)
				}
				waitIdle(t, x)
				if got, want := x.Status().GraphHash, g.states[len(g.states)-1].GraphHash; got != want {
					t.Errorf("from %d vectors on: graph %s, want %s", g.ends[i], got, want)
				}
				if err := x.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
				graphed, warned, _ = g.reopen(t, checkpointFiles(t, x.cfg.Dir))
				if graphed != x.Status().Graphed || warned != 0 {
					t.Errorf("from %d vectors on: %d of %d from the next checkpoint, %d warnings", g.ends[i], graphed, x.Status().Graphed, warned)
				}
			}
		})
	}
}

// Goal: what changed is not written for ever: a whole checkpoint follows, and the
// files before it go.
func TestCheckpointsBecomeWholeAgain(t *testing.T) {
	ends := []int{2048}
	for len(ends) < 30 {
		ends = append(ends, ends[len(ends)-1]+64)
	}
	g := grow(t, distance.L2, ends...)
	most, wholes := 0, 0
	for i, files := range g.files {
		most = max(most, len(files))
		if i > 0 && len(files) == 1 {
			wholes++
		}
		total := 0
		for _, raw := range files {
			total += len(raw)
		}
		if whole := len(files["generation-1.graph"]); total > 2*whole {
			t.Errorf("checkpoint %d takes %d bytes, a whole one %d", i, total, whole)
		}
	}
	if wholes == 0 || most < 3 {
		t.Errorf("%d whole checkpoints, at most %d files", wholes, most)
	}
}

// Goal: whatever a crash leaves, and whatever damage there is, an index comes to
// the right graph, and it warns of damage. Method: the files of two moments
// mixed as renames can mix them, files missing, cut, and bits flipped.
func TestCheckpointsMixedAndDamaged(t *testing.T) {
	g := grow(t, distance.L2, 10048, 10112, 10176, 10240)
	last := g.files[3]
	if len(last) != 4 {
		t.Fatalf("files %v, want a whole one and three more", slices.Sorted(maps.Keys(last)))
	}
	other := grow(t, distance.L2, 10240) // a whole checkpoint of the same vectors, later
	end := g.states[3].GraphHash
	r := seeded(t, 92)
	try := func(what string, files map[string][]byte, graphed int, warns bool) {
		t.Helper()
		got, warned, x := g.reopen(t, files)
		if got != graphed || warned > 0 != warns {
			t.Errorf("%s: %d vertices taken, want %d; %d warnings", what, got, graphed, warned)
		}
		waitIdle(t, x)
		if hash := x.Status().GraphHash; hash != end {
			t.Errorf("%s: graph %s, want %s", what, hash, end)
		}
		if err := x.Checkpoint(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got, warned, _ := g.reopen(t, checkpointFiles(t, x.cfg.Dir)); got != g.states[3].Graphed || warned > 0 {
			t.Errorf("%s: %d vertices from the next checkpoint, %d warnings", what, got, warned)
		}
	}
	change := func(name string, raw []byte) map[string][]byte {
		files := maps.Clone(last)
		if files[name] = raw; raw == nil {
			delete(files, name)
		}
		return files
	}
	base, delta := "generation-1.graph", func(i int) string { return filepath.Base(deltaPath("", 1, i)) }
	try("a torn file", change("writing-1", []byte("torn")), g.states[3].Graphed, false)
	try("a new whole one before the old rest", change(base, other.files[0][base]), g.states[3].Graphed, false)
	try("the first change missing", change(delta(1), nil), g.states[0].Graphed, false)
	try("the second change missing", change(delta(2), nil), g.states[1].Graphed, false)
	try("the whole one missing", change(base, nil), 0, false)
	try("a change behind the wrong one", change(delta(2), last[delta(3)]), g.states[1].Graphed, false)
	for i := 1; i <= 3; i++ {
		raw := last[delta(i)]
		for range 6 {
			flipped := slices.Clone(raw)
			flipped[r.IntN(len(raw))] ^= 1 << r.IntN(8)
			try("a bit flipped", change(delta(i), flipped), g.states[i-1].Graphed, true)
		}
		try("cut", change(delta(i), raw[:r.IntN(len(raw))]), g.states[i-1].Graphed, true)
	}
	if !strings.HasSuffix(delta(1), checkpointSuffix) {
		t.Errorf("%s would not be sent to a peer", delta(1))
	}
}
