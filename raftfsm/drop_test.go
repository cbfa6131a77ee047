// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"weak"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Two drops of one name were both told that they dropped it: each proposer had
// looked the name up for itself. The name is resolved when the command is
// applied, so one of them finds nothing, and a drop that is sent again keeps its
// outcome though the name belongs to another collection by then.
func TestDropByNameIsDecidedWhenApplied(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("id-1", "notes", 2))
	first := h.must(requestID("drop-1", dropCmd("notes")))
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, requestID("drop-2", dropCmd("notes")))

	h.must(createCmd("id-2", "notes", 2))
	again := h.must(requestID("drop-1", dropCmd("notes")))
	if !again.Replayed || again.LogIndex != first.LogIndex {
		t.Errorf("the drop that was sent again answers %v, want the outcome of log index %d", again, first.LogIndex)
	}
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, requestID("drop-2", dropCmd("notes")))
	h.collection("notes", func(c *Collection) {
		if id := c.Record().GetCollectionId(); id != "id-2" {
			t.Errorf("the name belongs to %s, want id-2", id)
		}
	})
	h.verify()
}

// A dropped collection is not kept in RAM by what Apply remembers of the entries
// that wrote to it, though other collections alone are written from then on.
func TestDroppedCollectionIsGivenUp(t *testing.T) {
	h := newHarness(t, Config{})
	h.entry(createCmd("keep", "keep", 2), createCmd("big", "big", 2))
	h.entry(writeCmd("keep", upsert("a", "", 1, 2)), writeCmd("big", upsert("a", "", 1, 2)))
	h.entry(sealCmd("keep", 1), sealCmd("big", 1))
	big := weak.Make(h.f.eng.byID["big"])
	h.must(dropCmd("big"))
	h.must(purgeCollectionCmd("big", 0))
	for i := range 3 {
		h.must(writeCmd("keep", upsert(fmt.Sprint(i), "", 1, 2)))
	}
	h.f.life.wg.Wait() // its index is closed in background
	for range 3 {
		runtime.GC()
	}
	if big.Value() != nil {
		t.Fatal("the dropped collection is still referred to")
	}
}

// The graph of a dropped collection goes when its last reader has gone. If the
// process ends before, it goes at the next start.
func TestGraphOfADroppedCollectionGoesAtTheNextStart(t *testing.T) {
	h := newHarness(t, Config{Dir: filepath.Join(t.TempDir(), "fsm")})
	for _, name := range []string{"keep", "gone"} {
		h.must(createCmd(name, name, 2))
		h.must(writeCmd(name, upsert("a", "", 1, 2)))
	}
	if err := h.f.CheckpointIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	reader := h.f.View()
	defer reader.Close()
	h.must(dropCmd("gone"))
	h.must(purgeCollectionCmd("gone", 0))
	if _, err := h.f.Flush(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(t.TempDir(), "fsm") // what is there if the process dies now
	if err := os.CopyFS(dead, os.DirFS(h.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), Config{Dir: dead})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dead, indexPrefix+"*", "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "1" {
		t.Errorf("the graphs of %v are left, %v; want that of collection 1", left, err)
	}
}

// An index warns from its own goroutines while Apply seals the collection.
func TestIndexWarnsWhileItsCollectionIsSealed(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("c1", "docs", 2))
	warn := h.f.eng.indexConfig(h.f.eng.byID["c1"]).Warn
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			warn("test", nil)
			runtime.Gosched()
		}
	})
	for gen := range uint64(20) {
		h.must(sealCmd("c1", gen+1))
	}
	wg.Wait()
}
