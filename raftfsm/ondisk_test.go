// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// A view keeps the vectors it sees, on disk too, though their collection is dropped
// and purged: the search said that the replica is damaged.
func TestSearchOfAViewWhoseVectorsWerePurged(t *testing.T) {
	h := newHarness(t, Config{})
	const dim = 16
	cmd := createCmd("c1", "docs", dim)
	cc := cmd.GetCreateCollection()
	cc.Index.Quantization, cc.Index.VectorsOnDisk = "sq8", true
	h.must(cmd)
	rng := rand.New(rand.NewPCG(1, 2))
	vec := func() []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = rng.Float32() - 0.5
		}
		return v
	}
	for b := range 8 {
		var ws []*fsmv1.Write
		for i := range 250 {
			ws = append(ws, upsert(fmt.Sprintf("d%d-%d", b, i), "", vec()...))
		}
		h.must(writeCmd("c1", ws...))
	}
	v := h.f.View()
	defer v.Close()
	c, err := v.Collection("docs")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.Index().WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
	q := index.Query{Vector: vec(), K: 5}
	before, _, err := c.Search(ctx, q, Projection{})
	if err != nil || len(before) != 5 {
		t.Fatal(before, err)
	}
	h.must(dropCmd("c1"))
	for h.must(purgeCollectionCmd("c1", 1000)).More {
	}
	after, _, err := c.Search(ctx, q, Projection{Vector: true, Metadata: true})
	if err != nil {
		t.Fatalf("the same search of the same view: %v", err)
	}
	if after[0].ID != before[0].ID {
		t.Fatal(after, before)
	}
}
