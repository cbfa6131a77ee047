// SPDX-License-Identifier: Apache-2.0

package index

import (
	"sync/atomic"
	"time"
)

// How construction makes way for a burst of writes. It decides when a batch is
// built, never what comes out.
const (
	// burstPause without an append ends a burst. Entries of a busy cluster come
	// many at a time, tens of milliseconds apart.
	burstPause = 250 * time.Millisecond
	// searchPause without a search means that nobody pays for scanning what
	// the graph does not cover.
	searchPause = time.Minute
	// burstBacklog vectors may wait for the graph while there are searches:
	// scanning them costs as much as a search does. So many do wait where writes go
	// on for minutes. quietBacklog may wait without.
	burstBacklog = 1024
	quietBacklog = 200_000
	// restShare is how long a worker rests for each moment it works. There are as
	// many workers as cores, and often several replicas on a machine.
	restShare = 100
	minRest   = time.Millisecond
	maxRest   = 150 * time.Millisecond
)

// pacer keeps construction from taking the cores that a burst of writes needs
// to be acknowledged: a vector costs microseconds to store and a hundred times
// that to link. While vectors keep coming and few wait, workers rest most of
// the time; at the end of the burst, when too many wait, or when somebody waits for
// the graph, they run freely.
type pacer struct {
	start      time.Time
	stop       <-chan struct{}
	lastAppend atomic.Int64 // nanoseconds since start; coarse, so that it is seldom written
	lastSearch atomic.Int64 // as far as burst has looked: that long ago at most
	asked      atomic.Bool  // by a search since then, which need not know the time for it
	waiting    atomic.Int64 // callers that wait for the graph
}

const pacerGrain = time.Millisecond

func (p *pacer) appended() {
	now := p.now()
	if now-p.lastAppend.Load() > int64(pacerGrain) {
		p.lastAppend.Store(now)
	}
}

func (p *pacer) searched() {
	if !p.asked.Load() {
		p.asked.Store(true)
	}
}

// now is never zero.
func (p *pacer) now() int64 { return int64(time.Since(p.start)) + 1 }

// burst reports whether construction should hold back.
func (p *pacer) burst(backlog int) bool {
	now := p.now()
	if p.asked.CompareAndSwap(true, false) {
		p.lastSearch.Store(now)
	}
	last := p.lastAppend.Load()
	if last == 0 || now-last > int64(burstPause) || p.waiting.Load() > 0 {
		return false
	}
	limit := quietBacklog
	if s := p.lastSearch.Load(); s != 0 && now-s < int64(searchPause) {
		limit = burstBacklog
	}
	return backlog < limit
}

// rest makes up for the work of a worker if a burst is on, and forgets the
// debt if none is. It returns at once when the index is being closed.
func (p *pacer) rest(debt time.Duration, backlog int) time.Duration {
	if debt < minRest/restShare {
		return debt
	}
	if p.burst(backlog) {
		t := time.NewTimer(min(debt*restShare, maxRest))
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.stop:
		}
	}
	return 0
}
