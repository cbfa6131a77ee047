// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: with vectors on disk the same queries have the same answers, also after a
// seal and on a checkpoint. Method: beside an index with vectors in RAM.
func TestVectorsOnDisk(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metricName(metric), func(t *testing.T) {
			r := seeded(t, 81)
			vectors := clustered(r, 3000, 20, 8, 0.5)
			src := stored(vectors)
			cfg := Config{Dimension: 20, Metric: metric}
			ram := open(t, cfg, src)
			cfg.VectorsOnDisk, cfg.Dir = true, t.TempDir()
			disk := open(t, cfg, src)
			same := func(what string, disk *Index) {
				t.Helper()
				waitIdle(t, ram)
				waitIdle(t, disk)
				if a, b := ram.Status(), disk.Status(); a.GraphHash != b.GraphHash || b.Memory.Vectors*5 > a.Memory.Vectors {
					t.Fatalf("%s: %+v in RAM, %+v on disk", what, a, b)
				}
				for i, q := range vectors[:60] {
					query := Query{Vector: q, K: 10, Exact: i%3 == 0}
					a, _ := search(t, ram, query, all)
					b, _ := search(t, disk, query, all)
					if !slices.Equal(a, b) {
						t.Fatalf("%s: %v in RAM, %v on disk", what, a, b)
					}
				}
			}
			same("built", disk)
			if err := disk.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			again := open(t, cfg, src)
			same("opened again", again)
			for i := range 500 {
				ram.Delete(Slot(i), 1)
				disk.Delete(Slot(i), 1)
			}
			ram.Seal(2, 1)
			disk.Seal(2, 1)
			same("sealed", disk)
		})
	}
}

// Goal: a search beside the builder never reads a row that was given back.
func TestVectorsOnDiskUnderWrites(t *testing.T) {
	r := seeded(t, 82)
	vectors := clustered(r, 6000, 16, 8, 0.5)
	src := stored(vectors)
	x := open(t, Config{Dimension: 16, Metric: distance.L2, VectorsOnDisk: true, Workers: 1}, stored(vectors[:100]))
	x.src = src
	x.current.Load().disk.src = src
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				d := i % 100
				rs, _, err := x.Search(t.Context(), Query{Vector: vectors[d], K: 1, Ef: 60}, all, nil)
				if err != nil || len(rs) != 1 || rs[0] != (Result{Slot(d), 0}) {
					t.Errorf("vector %d: %v, %v", d, rs, err)
					return
				}
			}
		})
	}
	for i, v := range vectors[100:] {
		x.Append(Slot(100+i), v, nil)
	}
	waitIdle(t, x)
	close(stop)
	wg.Wait()
}

// failing is a Source whose vectors cannot be read.
type failing struct{ *memory }

var errUnreadable = errors.New("unreadable")

func (failing) Vector(Slot, []float32) error { return errUnreadable }

// Goal: a vector that cannot be read fails the query, with the reason.
func TestUnreadableVector(t *testing.T) {
	vectors := clustered(seeded(t, 83), 2000, 16, 8, 0.5)
	x := open(t, Config{Dimension: 16, Metric: distance.L2, VectorsOnDisk: true}, failing{stored(vectors)})
	waitIdle(t, x)
	for _, exact := range []bool{false, true} {
		if _, _, err := x.Search(t.Context(), Query{Vector: vectors[0], K: 3, Exact: exact}, all, nil); !errors.Is(err, errUnreadable) {
			t.Errorf("exact %t: %v", exact, err)
		}
	}
}

// Goal: what a vector takes in RAM with its floats on disk is at most what
// docs/benchmarks.md promises: 1.25 times its codes and the links of the lowest
// layer, for dimensions from 16. Method: by the accounting, over dimensions
// around those at which rows change their form.
func TestBytesPerVector(t *testing.T) {
	for _, metric := range metrics {
		for _, dim := range []int{16, 25, 32, 50, 56, 57, 63, 64, 65, 70, 96, 100, 121, 128, 192, 384, 385, 448, 784} {
			r := seeded(t, uint64(dim))
			const n = 1500 // more than codes are trained on at first
			x := open(t, Config{Dimension: dim, Metric: metric, VectorsOnDisk: true}, stored(clustered(r, n, dim, 8, 0.5)))
			waitIdle(t, x)
			st := x.Status()
			m := st.Memory // vectors that no batch was made of yet have their floats in RAM
			got := float64(m.Codes+m.Graph)/float64(st.Graphed) + float64(m.Slots)/n
			bound := 1.25 * float64(dim+8*x.cfg.M)
			t.Logf("%s of %d dimensions: %.1f bytes a vector of %.1f", metricName(metric), dim, got, bound)
			if st.Graphed < n*9/10 || got > bound {
				t.Errorf("%s of %d dimensions: %.1f bytes a vector, want %.1f at most: %+v", metricName(metric), dim, got, bound, m)
			}
		}
	}
}
