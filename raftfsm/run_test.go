// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// A run of small entries of patches, as a follower that catches up is given, writes
// the patched documents again, vectors and all. What it keeps of them in RAM is
// bounded by what one storage batch may hold, not by the run.
func TestRunOfPatchesIsBoundedInRAM(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a GiB")
	}
	const dim, docs, entries = 4096, 1000, 32
	h := newHarness(t, Config{Dir: t.TempDir(), IndexWorkers: 1})
	h.must(createCmd("c1", "docs", dim))
	var logs []*raft.Log
	raw := 0
	for e := range entries {
		var in, change []*fsmv1.Write
		for i := range docs {
			v := make([]float32, dim)
			v[i%dim] = 1
			id := fmt.Sprintf("%d-%d", e, i)
			in = append(in, upsert(id, "", v...))
			change = append(change, patch(id, `{"a":1}`))
		}
		h.must(writeCmd("c1", in...))
		h.log = h.log[:len(h.log):len(h.log)]
		h.log[len(h.log)-1].Data = nil
		l := entryLog(t, entries+2+uint64(e), writeCmd("c1", change...))
		raw += len(l.Data)
		logs = append(logs, l)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, peak := m.HeapAlloc, uint64(0)
	done, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	h.f.ApplyBatch(logs)
	close(done)
	<-sampled
	kept := int64(peak) - int64(before)
	t.Logf("a run of %d entries, %d KiB, took %d MiB", entries, raw>>10, kept>>20)
	if kept > 9*maxBatchBytes { // in the run, its storage batch, and those that are being flushed
		t.Errorf("%d MiB of RAM for a run of %d KiB", kept>>20, raw>>10)
	}
	if got := h.f.Applied(); got != logs[len(logs)-1].Index {
		t.Errorf("applied %d", got)
	}
	h.verify()
}
