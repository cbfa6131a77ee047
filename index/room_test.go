// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"fmt"
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

// Goal: where a collection outgrows the room it has at first, nothing is lost and its
// graph is the one that it would have had with all the room there is, also if it is
// sealed around that time. Method: searches beside appends and deletes; afterwards
// beside an index that is opened on what there is.
func TestRoomIsMadeForMore(t *testing.T) {
	seals := []int{0, 100, fewRows/2 - 20, fewRows / 2, 2500, 0, 60, 128}
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			for _, onDisk := range []bool{false, true} {
				if quantization == QuantizationNone && onDisk || testing.Short() && metric == distance.Cosine {
					continue
				}
				sealAt := seals[0]
				seals = append(seals[1:], sealAt)
				cfg := Config{Metric: metric, Quantization: quantization, VectorsOnDisk: onDisk}
				t.Run(fmt.Sprintf("%s,%s,disk=%v,seal=%d", metricName(metric), quantization, onDisk, sealAt), func(t *testing.T) { makesRoom(t, cfg, sealAt) })
			}
		}
	}
}

func makesRoom(t *testing.T, cfg Config, sealAt int) {
	const n, dim = 3000, 12
	r := seeded(t, 91)
	vectors := clustered(r, n, dim, 30, 0.5)
	if cfg.Metric == distance.L2 && sealAt > 0 {
		vectors = clustered(r, n, dim, 4, 1e-6) // codes tell nothing of them
	}
	cfg.Dimension = dim
	src := &memory{}
	x := open(t, cfg, src)
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
