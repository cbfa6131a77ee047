// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// writeFor lets tables be written in blocks for a while and returns how many bytes
// a second were.
func writeFor(p *pacer, d time.Duration) float64 {
	const block = 32 << 10
	n := 0
	began := time.Now()
	for time.Since(began) < d {
		p.wait(block)
		n += block
		time.Sleep(100 * time.Microsecond) // the write
	}
	return float64(n) / time.Since(began).Seconds()
}

// Goal: the pace follows what is committed, never falls below the floor, makes up
// for what compactions are behind, and holds nothing up that somebody waits for.
func TestPaceOfTables(t *testing.T) {
	for _, c := range []struct {
		name      string
		income    int // bytes a second
		memtables int
		debt      uint64
		asked     int32
		ended     bool
		want      float64 // bytes a second; 0: no bound
	}{
		{"little is committed", 1 << 20, 1, 0, 0, false, paceFloor},
		{"much is committed", 20 << 20, 1, 0, 0, false, paceShare * (20 << 20)},
		{"compactions are behind", 1 << 20, 1, 20 * paceDebt << 20, 0, false, paceFloor + 20<<20},
		{"somebody waits for a flush", 1 << 20, 1, 0, 1, false, paceAsked},
		{"two memtables", 10 << 20, paceBehind - 1, 0, 0, false, paceShare * (10 << 20)},
		{"commits would soon wait", 10 << 20, paceBehind, 0, 0, false, 0},
		{"nothing is committed", 0, 1, 0, 0, false, 0},
		{"the store is being opened", 10 << 20, 0, 0, 0, false, 0},
		{"the store is being closed", 10 << 20, 1, 0, 0, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPacer()
				if c.memtables > 0 {
					p.begin(func() (int, uint64) { return c.memtables, c.debt })
				}
				p.asked.Store(c.asked)
				stop := make(chan struct{})
				go func() {
					tick := time.NewTicker(10 * time.Millisecond)
					defer tick.Stop()
					for {
						select {
						case <-tick.C:
							if c.income > 0 {
								p.commit(c.income / 100)
							}
						case <-stop:
							return
						}
					}
				}()
				time.Sleep(2 * paceQuiet) // what was there before does not count
				if c.ended {
					p.end()
				}
				writeFor(p, 2*paceSample)
				got := writeFor(p, 5*time.Second)
				close(stop)
				switch {
				case c.want == 0 && got < 256<<20:
					t.Fatalf("%.0f bytes a second, want no bound", got)
				case c.want > 0 && (got < 0.9*c.want || got > 1.1*c.want):
					t.Fatalf("%.0f bytes a second, want %.0f", got, c.want)
				}
			})
		})
	}
}

// Goal: who waits for the pace goes on at once when the store is closed, however
// much was booked.
func TestPaceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer()
		p.begin(func() (int, uint64) { return 1, 0 })
		time.Sleep(time.Second)
		p.commit(1)
		done := make(chan time.Duration)
		began := time.Now()
		go func() {
			p.wait(10 * paceFloor)
			done <- time.Since(began)
		}()
		time.Sleep(time.Second)
		p.end()
		if took := <-done; took < time.Second || took > time.Second+2*paceSample {
			t.Fatalf("waited %v", took)
		}
	})
}

// Goal: what Pebble flushes and compacts on the disk goes through the pacer, and a
// file system of a test's own does not.
func TestTablesOfTheDiskArePaced(t *testing.T) {
	for _, o := range []Options{{}, {FS: NewMemFS()}} {
		db := open(t, t.TempDir(), o)
		for i := range 20 {
			put(t, db, fmt.Sprintf("k%d=%s", i, bytes.Repeat([]byte{'v'}, 1000)))
		}
		db.pace.mu.Lock()
		db.pace.sampled = -paceSample // the next block chooses a rate
		db.pace.mu.Unlock()
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		db.pace.mu.Lock()
		paced := db.pace.sampled >= 0
		db.pace.mu.Unlock()
		if disk := o.FS == nil; paced != disk {
			t.Fatalf("paced: %t, on the disk: %t", paced, disk)
		}
	}
}
