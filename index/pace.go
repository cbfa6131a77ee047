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
	start time.Time
	stop  <-chan struct{}
	// Nanoseconds since start; coarse, so that searches seldom write them.
	lastAppend, lastSearch atomic.Int64
	waiting                atomic.Int64 // callers that wait for the graph
}

const pacerGrain = time.Millisecond

func (p *pacer) touch(at *atomic.Int64) {
	now := int64(time.Since(p.start)) + 1
	if now-at.Load() > int64(pacerGrain) {
		at.Store(now)
	}
}

func (p *pacer) appended() { p.touch(&p.lastAppend) }
func (p *pacer) searched() { p.touch(&p.lastSearch) }

// burst reports whether construction should hold back.
func (p *pacer) burst(backlog int) bool {
	now := int64(time.Since(p.start))
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
