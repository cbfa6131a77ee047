// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// reserved is the address space of all arenas of an index.
func reserved(x *Index) (bytes uintptr) {
	g := x.acquire()
	defer g.release()
	arenas := []*arena{g.slots, g.deadAt, g.vectors, g.norms, g.graph.links, g.graph.upper, g.graph.upperRow, g.graph.closed, g.graph.changed}
	if s := g.acquireCodes(); s != nil {
		defer s.release()
		arenas = append(arenas, s.rows, s.terms)
		if s.blocks != nil {
			arenas = append(arenas, s.blocks.rows)
		}
		if s.sketches != nil {
			arenas = append(arenas, s.sketches.rows)
		}
	}
	for _, a := range arenas {
		if a != nil {
			bytes += uintptr(len(a.mapping))
		}
	}
	return bytes
}

// Goal: thousands of collections of few vectors have room beside each other, in address
// space too, of which 128 TiB, and on small Arm boards 512 GiB, are all there is.
// Method: what one of them takes, empty, with codes, and sealed.
func TestFewVectorsTakeLittleRoom(t *testing.T) {
	const most = 32 << 20
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			for _, onDisk := range []bool{false, true} {
				vectors := clustered(seeded(t, 90), 400, 768, 10, 0.5)
				if onDisk {
					vectors = vectors[:100]
				}
				x := open(t, Config{Dimension: 768, Metric: metric, Quantization: quantization, VectorsOnDisk: onDisk}, stored(vectors[:90]))
				if got := reserved(x); got > most {
					t.Errorf("%s, %s, on disk %v: %d MiB", metricName(metric), quantization, onDisk, got>>20)
				}
				for i, v := range vectors[90:] {
					x.Append(Slot(90+i), v, nil)
				}
				x.Seal(2, 1000)
				waitIdle(t, x)
				if got := reserved(x); got > most {
					t.Errorf("%s, %s, on disk %v: %d MiB of %d vectors", metricName(metric), quantization, onDisk, got>>20, len(vectors))
				}
			}
		}
	}
}

// Goal: where a collection outgrows the room it has at first, or later with its graph,
// nothing is lost and its graph is the one that it would have had with all the room there
// is, also if it is sealed around that time. Method: searches beside appends and deletes;
// afterwards beside an index that is opened on what there is.
func TestRoomIsMadeForMore(t *testing.T) {
	const later = fewRows + 128 // so that the graph goes along
	seals := []int{0, 100, fewRows/2 - 20, fewRows / 2, 2300, 0, 60, 128}
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			for _, onDisk := range []bool{false, true} {
				if quantization == QuantizationNone && onDisk || testing.Short() && metric == distance.Cosine {
					continue
				}
				sealAt := seals[0]
				seals = append(seals[1:], sealAt)
				cfg := Config{Metric: metric, Quantization: quantization, VectorsOnDisk: onDisk}
				for _, rows := range []int{cfg.room(0), later} {
					if testing.Short() && (rows == later) != (metric == distance.L2) {
						continue
					}
					t.Run(fmt.Sprintf("%s,%s,disk=%v,seal=%d,rows=%d", metricName(metric), quantization, onDisk, sealAt, rows), func(t *testing.T) {
						makesRoom(t, cfg, rows, sealAt)
					})
				}
			}
		}
	}
}

func makesRoom(t *testing.T, cfg Config, rows, sealAt int) {
	const n, dim = 2400, 12
	r := seeded(t, 91)
	vectors := clustered(r, n, dim, 30, 0.5)
	if cfg.Metric == distance.L2 && sealAt > 0 {
		vectors = clustered(r, n, dim, 4, 1e-6) // codes tell nothing of them
	}
	cfg.Dimension = dim
	src := &memory{}
	x := openWith(t, cfg, src, rows)
	var appended atomic.Uint32
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for k := 0; ; k++ {
			select {
			case <-stop:
				return
			default:
			}
			slots := Slot(appended.Load())
			if slots == 0 {
				continue
			}
			q := Query{Vector: vectors[Slot(k*7919)%slots], K: 5, Exact: true}
			rs, _, err := x.Search(context.Background(), q, View{Slots: slots, Applied: n}, nil) // before any delete
			if err != nil || len(rs) != min(5, int(slots)) || cfg.Metric == distance.L2 && rs[0].Distance != 0 {
				t.Errorf("of %d: %v, %v", slots, rs, err)
				return
			}
		}
	}()
	generation := uint64(1)
	for i, v := range vectors {
		src.add(Entry{Slot: Slot(i), Vector: v})
		x.Append(Slot(i), v, nil)
		appended.Store(uint32(i) + 1)
		if i > 0 && i == sealAt {
			generation = 2
			x.Seal(generation, uint64(i))
		}
		if at := i - 50; at >= 0 && at%3 == 0 { // after the view of the searches
			x.Delete(Slot(at), uint64(n+i))
			src.mu.Lock()
			src.entries[at].DeadAt = uint64(n + i)
			src.mu.Unlock()
		}
	}
	waitIdle(t, x)
	close(stop)
	<-done
	if got := roomOf(x); got <= rows {
		t.Errorf("room for %d of %d", got, n)
	}
	want, err := Open(t.Context(), cfg, generation, src)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := want.Close(); err != nil {
			t.Error(err)
		}
	}()
	waitIdle(t, want)
	a, b := x.Status(), want.Status()
	if a.GraphHash != b.GraphHash || a.Total != b.Total || a.Garbage != b.Garbage || a.Generation != b.Generation {
		t.Errorf("%+v, opened %+v", a, b)
	}
	for _, v := range vectors[:200] {
		q := Query{Vector: v, K: 10}
		got, _ := search(t, x, q, all)
		if exp, _ := search(t, want, q, all); !slices.Equal(got, exp) {
			t.Fatalf("%v, opened %v", got, exp)
		}
	}
}

// openWith is open with room for so many vectors.
func openWith(t *testing.T, cfg Config, src Source, rows int) *Index {
	t.Helper()
	x := unstarted(t, cfg, src, rows)
	x.begin()
	return x
}

// unstarted is an index without its builder.
func unstarted(t *testing.T, cfg Config, src Source, rows int) *Index {
	t.Helper()
	cfg.Warn = func(msg string, err error) { t.Errorf("warning: %s: %v", msg, err) }
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	x, err := load(context.Background(), cfg, 1, src, rows)
	if err != nil {
		t.Fatal(err)
	}
	closeLast(t, x)
	return x
}

// roomOf is how many vectors the current generation has room for.
func roomOf(x *Index) int {
	g := x.acquire()
	defer g.release()
	return g.rows
}

// Nothing of a generation stays behind in the smaller room.
func TestLargerRoomHasAllThatTheSmallerHad(t *testing.T) {
	const n, dim = 700, 448 // whose terms are apart
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			for _, onDisk := range []bool{false, true} {
				name := fmt.Sprintf("%s, %s, on disk %v", metricName(metric), quantization, onDisk)
				src := stored(clustered(seeded(t, 94), n, dim, 10, 0.5))
				x := unstarted(t, Config{Dimension: dim, Metric: metric, Quantization: quantization, VectorsOnDisk: onDisk}, src, 2*n-100)
				x.Delete(5, 1000)
				g := x.acquire()
				b := newBuilder(g, 1)
				for b.step() {
				}
				g.late.Store(true)
				g.graph.setChanged(3, 0)
				if s := g.codes.Load(); s != nil {
					s.lossless.Store(true)
				}
				x.enlarge(g)
				f := x.acquire()
				if f == g || f.rows <= g.rows {
					t.Fatalf("%s: room for %d, then %d", name, g.rows, f.rows)
				}
				graphed := g.graphed.Load()
				same := func(what string, a, b *arena, from, to uint32) {
					t.Helper()
					if (a == nil) != (b == nil) {
						t.Errorf("%s: %s: %v and %v", name, what, a, b)
					}
					if a != nil && to > from && !bytes.Equal(u8At(a.row(from), int(to-from)*int(a.stride)), u8At(b.row(from), int(to-from)*int(b.stride))) {
						t.Errorf("%s: %s differ", name, what)
					}
				}
				from := uint32(0)
				if g.disk != nil {
					from = g.disk.freed
					if from == 0 || f.disk.freed != from || f.disk.limit < g.disk.limit {
						t.Errorf("%s: freed %d, limit %d; were %d, %d", name, f.disk.freed, f.disk.limit, from, g.disk.limit)
					}
				}
				uppers := g.graph.uppers.Load()
				same("slots", g.slots, f.slots, 0, n)
				same("deletes", g.deadAt, f.deadAt, 0, n)
				same("vectors", g.vectors, f.vectors, from, n)
				same("lengths", g.norms, f.norms, 0, n)
				same("links", g.graph.links, f.graph.links, 0, graphed)
				same("upper links", g.graph.upper, f.graph.upper, 0, uppers)
				same("places of upper links", g.graph.upperRow, f.graph.upperRow, 0, graphed)
				same("closed", g.graph.closed, f.graph.closed, 0, graphed)
				same("changed", g.graph.changed, f.graph.changed, 0, uppers)
				a, c := g.codes.Load(), f.codes.Load()
				if (a == nil) != (quantization == QuantizationNone) {
					t.Fatalf("%s: codes %v", name, a)
				}
				if a != nil {
					ahead := a.ahead.Load()
					if ahead != n || c.ahead.Load() != n || c.checked != a.checked || c.lossless.Load() != a.lossless.Load() || c.scale != a.scale || !slices.Equal(c.offset, a.offset) {
						t.Errorf("%s: codes ahead %d, checked %d; were %d, %d", name, c.ahead.Load(), c.checked, ahead, a.checked)
					}
					same("codes", a.rows, c.rows, 0, ahead)
					same("terms", a.terms, c.terms, 0, ahead)
					if k, l := a.sketches, c.sketches; k != nil {
						same("sketches", k.rows, l.rows, 0, graphed)
						if !slices.Equal(k.centre, l.centre) || l.codes != c {
							t.Errorf("%s: centres %v and %v", name, k.centre, l.centre)
						}
					}
					if k, l := a.blocks, c.blocks; k != nil {
						same("blocks", k.rows, l.rows, 0, k.made)
						if k.made == 0 || l.made != k.made || l.covered.Load() != k.covered.Load() || l.poor.Load() != k.poor.Load() || !slices.Equal(k.stale, l.stale) ||
							!slices.Equal(k.centre, l.centre) || l.codes != c {
							t.Errorf("%s: blocks differ", name)
						}
					}
				}
				if l := g.longest.Load(); l != nil {
					m := f.longest.Load()
					if m.codes != c || !slices.Equal(l.ids, m.ids) || !slices.Equal(l.ranked, m.ranked) || !slices.Equal(l.cut, m.cut) {
						t.Errorf("%s: the longest differ", name)
					}
				}
				if f.total.Load() != n || f.graphed.Load() != graphed || f.garbage.Load() != 1 || !f.late.Load() || f.plain.Load() != g.plain.Load() ||
					f.radius.Load() != g.radius.Load() || f.vectorsHash != g.vectorsHash || *f.graphHash.Load() != *g.graphHash.Load() ||
					!slices.Equal(f.marks.newest(maxMarks), g.marks.newest(maxMarks)) ||
					f.graph.uppers.Load() != uppers || f.graph.entry.Load() != g.graph.entry.Load() {
					t.Errorf("%s: what is known of the graph differs", name)
				}
				f.release()
				g.release()
			}
		}
	}
}

// A generation begun when there were few has room for all that came until it took over.
func TestSuccessorOutgrowsItsRoomBeforeItTakesOver(t *testing.T) {
	x := unstarted(t, Config{Dimension: 2, Metric: distance.L2}, stored(nil), (&Config{Dimension: 2, M: 16}).maxRows(0))
	x.Seal(2, 0)
	r := seeded(t, 92)
	const n = fewRows + 100
	for i := range n {
		x.Append(Slot(i), []float32{r.Float32(), r.Float32()}, nil)
	}
	x.begin()
	waitIdle(t, x)
	if s := x.Status(); s.Generation != 2 || s.Total != n {
		t.Errorf("%+v", s)
	}
}

// The appender waits when there is no room left and the builder has not come yet to make
// more, and gives up when the index is closed.
func TestAppendWaitsForRoom(t *testing.T) {
	const rows = fewRows + 64
	for _, closes := range []bool{false, true} {
		x := unstarted(t, Config{Dimension: 2, Metric: distance.L2}, stored(nil), rows)
		done := make(chan struct{})
		var appended atomic.Int64
		go func() {
			defer close(done)
			for i := range rows + 1000 {
				x.Append(Slot(i), []float32{float32(i), 1}, nil)
				appended.Add(1)
			}
		}()
		for appended.Load() < rows {
			runtime.Gosched()
		}
		if closes {
			if err := x.Close(); err != nil {
				t.Error(err)
			}
			<-done
			continue
		}
		x.begin()
		<-done
		waitIdle(t, x)
		if s := x.Status(); s.Total != rows+1000 {
			t.Errorf("%+v", s)
		}
	}
}

// A checkpoint goes on where the last one of the smaller room ended.
func TestCheckpointsGoOnInLargerRoom(t *testing.T) {
	const rows = fewRows + 2*1024
	vectors := clustered(seeded(t, 93), rows, 8, 30, 0.5)
	for _, quantization := range quantizations {
		cfg := Config{Dimension: 8, Metric: distance.L2, Quantization: quantization, Dir: t.TempDir()}
		src := &memory{}
		x := openWith(t, cfg, src, rows)
		add := func(from, to int) {
			for i := from; i < to; i++ {
				src.add(Entry{Slot: Slot(i), Vector: vectors[i]})
				x.Append(Slot(i), vectors[i], nil)
			}
			waitIdle(t, x)
			if err := x.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		add(0, rows/2-64)
		if got := roomOf(x); got != rows {
			t.Fatalf("room for %d", got)
		}
		add(rows/2-64, rows/2+64)
		if got := roomOf(x); got == rows {
			t.Fatalf("room for %d", got)
		}
		if _, err := os.Stat(deltaPath(cfg.Dir, 1, 1)); err != nil {
			t.Errorf("%s: %v", quantization, err)
		}
		want := x.Status()
		y := open(t, cfg, src)
		if got := y.Status(); got.Graphed != want.Graphed || got.GraphHash != want.GraphHash {
			t.Errorf("%s: restored %+v, want %+v", quantization, got, want)
		}
	}
}
