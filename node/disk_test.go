// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/storage"
)

// The log must come back from each crash with every entry that was stored,
// whatever part of the rest made it to the disk, and take more. Most crashes
// here hit a log whose tail was just sealed or cut off.
func TestLogKeepsWhatItStoredAcrossCrashes(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			disk := storage.NewCrashFS()
			first, last := uint64(1), uint64(0)
			for range 12 {
				log, err := openLogStore(disk, "/data", logStoreWAL, hclog.NewNullLogger())
				if err != nil {
					t.Fatal(err)
				}
				checkLog(t, log, first, last)
				for range rng.IntN(60) {
					batch := make([]*raft.Log, 1+rng.IntN(4))
					for i := range batch {
						last++
						batch[i] = &raft.Log{Index: last, Term: 1, Data: entryData(last)}
					}
					if err := log.StoreLogs(batch); err != nil {
						t.Fatal(err)
					}
				}
				if rng.IntN(3) == 0 && last > first+2 { // a new leader overwrites the end
					if err := log.DeleteRange(last-1, last); err != nil {
						t.Fatal(err)
					}
					last -= 2
				}
				if rng.IntN(3) == 0 && last > first+60 { // a snapshot was taken
					if err := log.DeleteRange(first, last-50); err != nil {
						t.Fatal(err)
					}
					first = last - 49
				}
				crashed := disk.CrashClone(storage.CrashConfig{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
				log.Close()
				disk = crashed
			}
		})
	}
}

// The same with a disk that refuses writes and syncs now and then: what was
// stored stays, what failed is there or not, and the log opens.
func TestLogSurvivesFailingWrites(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			var mu sync.Mutex // the log writes in background too
			failing, faults := false, rand.New(rand.NewPCG(seed, 3))
			fail := func(on bool) {
				mu.Lock()
				defer mu.Unlock()
				failing = on
			}
			mem := storage.NewCrashFS()
			mount := func() storage.FS {
				return storage.FailingFS(mem, func(write bool, _, _ string) bool {
					mu.Lock()
					defer mu.Unlock()
					return write && failing && faults.IntN(12) == 0
				})
			}
			disk := mount()
			last := uint64(0)
			for range 25 {
				fail(false)
				log, err := openLogStore(disk, "/data", logStoreWAL, hclog.NewNullLogger())
				if err != nil {
					t.Fatal(err)
				}
				hi, err := log.LastIndex()
				if err != nil || hi < last || hi > last+4 {
					t.Fatalf("log ends at %d (%v), stored were %d", hi, err, last)
				}
				last = hi
				checkLog(t, log, 1, last)
				fail(true)
				for range rng.IntN(60) {
					batch := make([]*raft.Log, 1+rng.IntN(4))
					for i := range batch {
						batch[i] = &raft.Log{Index: last + 1 + uint64(i), Term: 1, Data: entryData(last + 1 + uint64(i))}
					}
					if err := log.StoreLogs(batch); err != nil {
						break // then the node opens it anew
					}
					last += uint64(len(batch))
				}
				fail(false)
				if rng.IntN(3) == 0 {
					mem = mem.CrashClone(storage.CrashConfig{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
				}
				disk = mount()
				log.Close()
			}
		})
	}
}

func entryData(index uint64) []byte {
	return []byte(fmt.Sprintf("%0*d", int(10+index*37%2900), index))
}

func checkLog(t *testing.T, log raft.LogStore, first, last uint64) {
	t.Helper()
	if last == 0 {
		return
	}
	lo, err1 := log.FirstIndex()
	hi, err2 := log.LastIndex()
	if err := errors.Join(err1, err2); err != nil || lo != first || hi != last {
		t.Fatalf("log holds %d to %d (%v), want %d to %d", lo, hi, err, first, last)
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil || string(l.Data) != string(entryData(i)) {
			t.Fatalf("entry %d: %q, %v", i, l.Data, err)
		}
	}
}

// A directory must not disappear with a file that was synced inside it.
func TestMadeDirectoriesSurviveACrash(t *testing.T) {
	disk := storage.NewCrashFS()
	if err := mkdirAll(disk, "/a/b/c"); err != nil {
		t.Fatal(err)
	}
	if err := storage.WriteFile(disk, "/a/b/c/vote", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.CrashClone(storage.CrashConfig{}).Stat("/a/b/c/vote"); err != nil {
		t.Error(err)
	}
}
