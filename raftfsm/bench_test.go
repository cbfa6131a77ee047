// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// BenchmarkApply applies runs of 64 entries of one new 768-dimensional document
// each, about 3 KiB, to a store on disk.
func BenchmarkApply(b *testing.B) {
	const dim, run = 768, 64
	for _, withID := range []bool{false, true} {
		b.Run(fmt.Sprintf("requestIDs=%t", withID), func(b *testing.B) {
			h := newHarness(b, Config{Dir: b.TempDir(), IndexWorkers: 1})
			h.must(createCmd("c1", "docs", dim))
			rng := rand.New(rand.NewPCG(1, 2))
			v := make([]float32, dim)
			at := uint64(1)
			batch := func() []*raft.Log {
				logs := make([]*raft.Log, run)
				for i := range logs {
					for j := range v {
						v[j] = rng.Float32()
					}
					at++
					c := writeCmd("c1", upsert(fmt.Sprintf("document-%012d", at), `{"title":"a title","year":1999}`, v...))
					if withID {
						c.RequestId = fmt.Sprintf("01890a5d-ac96-774b-bcce-%012d", at)
					}
					logs[i] = entryLog(b, at, c)
				}
				return logs
			}
			b.SetBytes(run * dim * 4)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				logs := batch()
				b.StartTimer()
				h.f.ApplyBatch(logs)
			}
			b.ReportMetric(float64(b.N*run)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// BenchmarkSearchOverhead searches a tiny collection, so that what is measured
// is the way to the index and back: view, slots to documents.
func BenchmarkSearchOverhead(b *testing.B) {
	h := newHarness(b, Config{Dir: b.TempDir()})
	h.must(createCmd("c1", "docs", 4))
	ws := make([]*fsmv1.Write, 100)
	for i := range ws {
		ws[i] = upsert(fmt.Sprintf("document-%012d", i), `{"title":"a title","year":1999}`, float32(i), 1, 2, 3)
	}
	h.must(writeCmd("c1", ws...))
	for _, p := range []Projection{{}, {Metadata: true}, {Metadata: true, Vector: true}} {
		b.Run(fmt.Sprintf("metadata=%t/vector=%t", p.Metadata, p.Vector), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v := h.f.View()
				c, err := v.Collection("docs")
				if err != nil {
					b.Fatal(err)
				}
				if ms, _, err := c.Search(context.Background(), index.Query{Vector: []float32{50, 1, 2, 3}, K: 10}, p); err != nil || len(ms) != 10 {
					b.Fatal(ms, err)
				}
				v.Close()
			}
		})
	}
}

// BenchmarkOpen opens a store of 20,000 documents of 256 dimensions.
func BenchmarkOpen(b *testing.B) {
	const n, dim = 20_000, 256
	h := newHarness(b, Config{Dir: b.TempDir(), IndexWorkers: 1})
	h.must(createCmd("c1", "docs", dim))
	rng := rand.New(rand.NewPCG(1, 2))
	v := make([]float32, dim)
	for i := 0; i < n; i += 100 {
		ws := make([]*fsmv1.Write, 100)
		for k := range ws {
			for j := range v {
				v[j] = rng.Float32()
			}
			ws[k] = upsert(fmt.Sprintf("document-%012d", i+k), `{"title":"a title","year":1999}`, v...)
		}
		h.must(writeCmd("c1", ws...))
	}
	for b.Loop() {
		b.StopTimer()
		if err := h.f.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		h.open()
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "documents/s")
}
