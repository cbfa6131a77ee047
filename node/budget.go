// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// budgets says when the leader refuses writes: reads go on, and writes are
// taken again by themselves once what was used up is free. What takes a system
// call to know is sampled.
type budgets struct {
	n      *Node
	free   atomic.Uint64 // bytes free on the data disk
	memory atomic.Int64  // bytes the process holds
	// backlog is the largest number of vectors a local index is behind.
	backlog atomic.Int64
	// low, full and slow are set while this node's budget of disk, memory or
	// index backlog is used up.
	low, full, slow atomic.Bool
	// others is set by the leader while such a budget of a voter is: what that
	// cannot store it cannot acknowledge, and one that ran out of memory would be
	// no use as the next leader.
	others atomic.Pointer[shortage]
	freed  time.Time // when Go's heap last gave back what it could; only sample touches it
}

// shortage is a budget of a member that is used up.
type shortage struct{ budget, nodeID string }

// The budgets that every voter has, by the names they have in errors.
const (
	budgetDisk    = "disk"
	budgetMemory  = "memory"
	budgetBacklog = "index backlog"
)

const (
	budgetInterval = 200 * time.Millisecond
	// freeInterval is how often a node above its memory budget collects its heap.
	freeInterval = 2 * time.Second
)

func newBudgets(n *Node) *budgets {
	b := &budgets{n: n}
	b.sample()
	return b
}

func (b *budgets) run() {
	for b.n.ctx.Err() == nil {
		pause(b.n.ctx, b.n.cfg.paced(budgetInterval))
		b.sample()
	}
}

func (b *budgets) sample() {
	var st unix.Statfs_t
	if b.n.cfg.FS != nil {
		b.free.Store(math.MaxInt64)
	} else if err := unix.Statfs(b.n.cfg.DataDir, &st); err == nil {
		b.free.Store(st.Bavail * uint64(st.Bsize))
		// Half as much again must be free before writes are taken again, or
		// the two states would alternate.
		limit := uint64(max(b.n.cfg.MinFreeDisk, 0))
		if b.low.Load() {
			limit += limit / 2
		}
		b.low.Store(b.free.Load() < limit)
	}
	// As with the disk, some of each must be free again: a sixteenth of the
	// memory, a quarter of the backlog.
	if most := b.n.cfg.MaxMemoryBytes; most > 0 {
		if b.full.Load() {
			most -= most / 16
		}
		memory := b.n.cfg.residentBytes()
		if memory > most && time.Since(b.freed) > freeInterval {
			// What Go's heap does not need any more counts too, and where nothing is
			// written nothing is collected: Go would keep it for minutes.
			debug.FreeOSMemory()
			memory, b.freed = b.n.cfg.residentBytes(), time.Now()
		}
		b.memory.Store(memory)
		b.full.Store(memory > most)
	}
	if b.n.g != nil && b.n.g.m != nil {
		backlog, most := int64(b.n.g.m.Backlog()), int64(b.n.cfg.MaxIndexBacklog)
		if b.slow.Load() {
			most -= most / 4
		}
		b.backlog.Store(backlog)
		b.slow.Store(b.n.cfg.MaxIndexBacklog > 0 && backlog > most)
	}
}

// residentBytes is the memory of this process that is not backed by files. The
// kernel's count, since the indexes keep their vectors outside of Go's heap; Go's
// own where there is no /proc.
func residentBytes() int64 {
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident, shared int64
		if _, err := fmt.Sscan(string(b), &size, &resident, &shared); err == nil {
			return (resident - shared) * int64(os.Getpagesize())
		}
	}
	s := []rtmetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	rtmetrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

func (b *budgets) freeDisk() uint64 { return b.free.Load() }
func (b *budgets) lowDisk() bool    { return b.low.Load() }

// admit refuses a proposal on the leader while a budget is used up. Commands
// that write no documents pass: they are few, and some are how one gets out of
// trouble (dropping a collection, clearing an alarm).
func (b *budgets) admit(e encoded) error {
	if e.exclusive {
		return nil
	}
	short, after := shortage{nodeID: b.n.cfg.NodeID}, time.Second
	switch others := b.others.Load(); {
	case b.low.Load():
		short.budget = budgetDisk
	case b.full.Load():
		short.budget = budgetMemory
	case b.slow.Load():
		short.budget = budgetBacklog
	case others != nil:
		short = *others
	default:
		c := b.n.g.core.Load()
		if c == nil || c.r.CommitIndex() <= b.n.g.ad.applied()+b.n.cfg.MaxApplyLag {
			return nil
		}
		short.budget, after = "apply lag", 200*time.Millisecond
	}
	b.n.met.refused.WithLabelValues(short.budget).Inc()
	return &OverloadedError{Budget: short.budget, NodeID: short.nodeID, RetryAfter: after}
}
