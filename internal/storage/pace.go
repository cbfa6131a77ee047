// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// How flushes and compactions make way for the log. All replicas fill their
// memtables at the same moment, so that no majority is without a flush in progress
// when one is: written at the speed of the disk, tables would hold up the syncs by
// which writes are acknowledged, everywhere at once (ADR 0097).
const (
	// paceFloor bytes a second are written however few come in, and paceAsked while
	// somebody waits for a flush.
	paceFloor = 4 << 20
	paceAsked = 32 << 20
	// paceShare is how many bytes are written for one that is committed: a flush,
	// and what compactions write of it again.
	paceShare = 2
	// paceDebt seconds is how soon compactions should catch up. Their debt adds to
	// the rate.
	paceDebt = 20
	// paceQuiet without a commit means that nobody waits for the log.
	paceQuiet = time.Second
	// paceSample is how long a rate holds.
	paceSample = 100 * time.Millisecond
	// paceAhead is what may be written ahead of the rate, in time: timers are coarse.
	paceAhead = 5 * time.Millisecond
	// paceBehind full memtables mean that commits will soon wait for flushes: one
	// takes commits, one is being flushed, and another waits for that.
	paceBehind = 3
)

// Pebble's names of what it writes tables for.
const (
	categoryFlush      WriteCategory = "pebble-memtable-flush"
	categoryCompaction WriteCategory = "pebble-compaction"
)

// pacer bounds how fast tables are written while commits come in, so that a flush
// takes most of the time that the next memtable takes to fill. It changes only when
// bytes are written, never which.
type pacer struct {
	start   time.Time
	backlog atomic.Pointer[backlog] // nil: the store is being opened; no bound

	committed  atomic.Int64 // bytes
	lastCommit atomic.Int64 // ns since start
	asked      atomic.Int32 // flushes that somebody waits for
	ended      atomic.Bool

	mu      sync.Mutex // guards the fields below
	free    time.Duration
	rate    float64 // bytes a second; infinite: no bound
	sampled time.Duration
	seen    int64 // of committed, when sampled
}

// backlog tells how many full memtables the bytes in RAM would make, and how many
// bytes compactions are behind.
type backlog func() (memtables int, debt uint64)

func newPacer() *pacer { return &pacer{start: time.Now(), rate: math.Inf(1)} }

// begin makes the bound count: the store is open, which a compaction may precede.
func (p *pacer) begin(b backlog) { p.backlog.Store(&b) }

// commit notes that n bytes were committed.
func (p *pacer) commit(n int) {
	p.committed.Add(int64(n))
	p.lastCommit.Store(int64(time.Since(p.start)))
}

// end lifts the bound for good; who waits goes on within paceSample.
func (p *pacer) end() { p.ended.Store(true) }

// wait returns when n more bytes may be written.
func (p *pacer) wait(n int) {
	at := p.book(n)
	for !p.ended.Load() {
		d := at - time.Since(p.start)
		if d <= 0 {
			return
		}
		time.Sleep(min(d, paceSample))
	}
}

// book reserves n bytes and returns when they may be written, since start.
func (p *pacer) book(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Since(p.start)
	if now-p.sampled >= paceSample {
		p.sample(now)
	}
	if math.IsInf(p.rate, 1) {
		p.free = now
		return now
	}
	p.free = max(p.free, now-paceAhead) + time.Duration(float64(n)/p.rate*float64(time.Second))
	if p.free < now+paceAhead {
		return now
	}
	return p.free
}

// sample chooses the rate anew.
func (p *pacer) sample(now time.Duration) {
	committed := p.committed.Load()
	income := float64(committed-p.seen) / (now - p.sampled).Seconds()
	p.sampled, p.seen = now, committed
	ask := p.backlog.Load()
	if ask == nil {
		return
	}
	memtables, debt := (*ask)()
	if memtables >= paceBehind || now-time.Duration(p.lastCommit.Load()) > paceQuiet {
		p.rate = math.Inf(1)
		return
	}
	floor := float64(paceFloor)
	if p.asked.Load() > 0 {
		floor = paceAsked
	}
	p.rate = max(floor, paceShare*income) + float64(debt)/paceDebt
}

// pacedFS is a file system whose tables are written at the pace of p.
type pacedFS struct {
	FS
	p *pacer
}

func (f pacedFS) Create(name string, c WriteCategory) (File, error) {
	file, err := f.FS.Create(name, c)
	if err == nil && (c == categoryFlush || c == categoryCompaction) {
		return pacedFile{file, f.p}, nil
	}
	return file, err
}

type pacedFile struct {
	File
	p *pacer
}

func (f pacedFile) Write(b []byte) (int, error) {
	f.p.wait(len(b))
	return f.File.Write(b)
}
