// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/akidb/akidb/internal/storage"
)

// Disk is one machine's disk. A crash makes a new file system out of what was
// synced, so a process that has not noticed its own death yet writes into the
// void.
type Disk struct {
	mu  sync.Mutex // guards the fields below
	rng *rand.Rand
	mem *storage.MemFS
	// permille of the writes that fail; see Fail.
	permille int

	// Injected counts operations that failed on purpose.
	Injected atomic.Int64
}

// NewDisk returns an empty disk.
func NewDisk(rng *rand.Rand) *Disk { return &Disk{rng: rng, mem: storage.NewCrashFS()} }

// Crash forgets what was not synced. unsyncedPercent of the blocks and names
// that were not synced make it to the disk all the same, so that files come
// back torn.
func (d *Disk) Crash(unsyncedPercent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.permille = 0
	d.mem = d.mem.CrashClone(storage.CrashConfig{UnsyncedDataPercent: unsyncedPercent, RNG: d.rng})
}

// Fail makes writing operations on the log and on the node's own files fail
// with the given chance, until Mend. Two places are spared, since a failure
// there ends the process by a panic, which is right for a node but not for a
// process of many: Pebble's manifest with all of the store, and Raft's term.
func (d *Disk) Fail(permille int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.permille = permille
}

// Mend ends Fail.
func (d *Disk) Mend() { d.Fail(0) }

// Mount is the disk as one process has it.
func (d *Disk) Mount() storage.FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	mem := d.mem
	return storage.FailingFS(mem, func(write bool, _, path string) bool {
		if !write || strings.Contains(path, "/stable.json") || !(strings.Contains(path, "/log-wal/") || strings.HasSuffix(path, ".json") ||
			strings.HasSuffix(path, ".json.tmp") || strings.HasSuffix(path, "/probe.tmp")) {
			return false
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if mem != d.mem || d.permille == 0 || d.rng.IntN(1000) >= d.permille {
			return false
		}
		d.Injected.Add(1)
		return true
	})
}

func (d *Disk) failing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.permille > 0
}

// wipe is a new disk.
func (d *Disk) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mem, d.permille = storage.NewCrashFS(), 0
}
