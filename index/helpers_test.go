// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/akidb/akidb/index/distance"
)

// memory is a Source in memory, the dumb twin of the replicated state.
type memory struct {
	mu      sync.Mutex
	entries []Entry
	purged  map[Slot]bool
}

func (m *memory) add(e Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = append(m.entries, e)
}

func (m *memory) Scan(from Slot, fn func(Entry) error) error {
	m.mu.Lock()
	entries := slices.Clone(m.entries)
	m.mu.Unlock()
	for _, e := range entries {
		if e.Slot < from || m.purged[e.Slot] {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) find(slot Slot) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := slices.BinarySearchFunc(m.entries, slot, func(e Entry, s Slot) int { return int(e.Slot) - int(s) })
	if !ok {
		return Entry{}, fmt.Errorf("no slot %d", slot)
	}
	return m.entries[i], nil
}

func (m *memory) Vector(slot Slot, dst []float32) error {
	e, err := m.find(slot)
	copy(dst, e.Vector)
	return err
}

func (m *memory) Payload(slot Slot, dst []byte) ([]byte, error) {
	e, err := m.find(slot)
	return append(dst, e.Payload...), err
}

// seeded is a generator whose seed is printed with the test's log.
func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Logf("seed %d; replay: go test ./index -run '^%s$'", seed, t.Name())
	return rand.New(rand.NewPCG(seed, 1))
}

// clustered makes vectors around centres, as embeddings are.
func clustered(r *rand.Rand, n, dim, clusters int, spread float64) [][]float32 {
	centres := make([][]float32, clusters)
	for i := range centres {
		centres[i] = make([]float32, dim)
		for d := range centres[i] {
			centres[i][d] = float32(r.NormFloat64())
		}
	}
	out := make([][]float32, n)
	for i := range out {
		c := centres[r.IntN(clusters)]
		out[i] = make([]float32, dim)
		for d := range out[i] {
			out[i][d] = c[d] + float32(spread*r.NormFloat64())
		}
	}
	return out
}

func open(t testing.TB, cfg Config, src Source) *Index {
	t.Helper()
	if cfg.Warn == nil {
		cfg.Warn = func(msg string, err error) { t.Errorf("warning: %s: %v", msg, err) }
	}
	x, err := Open(context.Background(), cfg, 1, src)
	if err != nil {
		t.Fatal(err)
	}
	closeLast(t, x)
	return x
}

// closeLast closes an index when the test has ended.
func closeLast(t testing.TB, x *Index) {
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
}

func waitIdle(t testing.TB, x *Index) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := x.WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
}

// all is a view of everything.
var all = View{Slots: 1 << 31, Applied: 1 << 60}

func search(t testing.TB, x *Index, q Query, v View) ([]Result, Stats) {
	t.Helper()
	rs, st, err := x.Search(context.Background(), q, v, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rs, st
}

// recall is the share of queries' true neighbours found; a result as near as the
// last true one counts.
func recall(t testing.TB, x *Index, queries [][]float32, q Query, v View) float64 {
	t.Helper()
	hit, want := 0, 0
	for _, vector := range queries {
		q.Vector = vector
		exact := q
		exact.Exact = true
		truth, _ := search(t, x, exact, v)
		got, _ := search(t, x, q, v)
		if len(got) > len(truth) {
			t.Fatalf("%d results, exact search has %d", len(got), len(truth))
		}
		want += len(truth)
		for _, r := range got {
			if len(truth) > 0 && r.Distance <= truth[len(truth)-1].Distance {
				hit++
			}
		}
	}
	if want == 0 {
		return 1
	}
	return float64(hit) / float64(want)
}

func metricName(m distance.Metric) string {
	return map[distance.Metric]string{distance.Cosine: "cosine", distance.Dot: "dot", distance.L2: "l2"}[m]
}

// quantizations under test.
var quantizations = []Quantization{QuantizationNone, QuantizationSQ8, QuantizationRaBitQ}
