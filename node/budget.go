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
	low    atomic.Bool
	// others is set by the leader while another voter's disk is low: what it
	// cannot store it cannot acknowledge, and a disk should not fill to the
	// last byte.
	others atomic.Bool
	// backlog is the largest number of vectors a local index is behind.
	backlog atomic.Int64
	freed   time.Time // when Go's heap last gave back what it could; only sample touches it
}

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
	memory := residentBytes()
	if most := b.n.cfg.MaxMemoryBytes; most > 0 && memory > most && time.Since(b.freed) > freeInterval {
		// What Go's heap does not need any more counts too, and where nothing is
		// written nothing is collected: Go would keep it for minutes.
		debug.FreeOSMemory()
		memory, b.freed = residentBytes(), time.Now()
	}
	b.memory.Store(memory)
	if b.n.g != nil && b.n.g.m != nil {
		b.backlog.Store(int64(b.n.g.m.Backlog()))
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
	budget, after := "", time.Second
	cfg := b.n.cfg
	switch {
	case b.low.Load() || b.others.Load():
		budget = "disk"
	case cfg.MaxMemoryBytes > 0 && b.memory.Load() > cfg.MaxMemoryBytes:
		budget = "memory"
	case cfg.MaxIndexBacklog > 0 && b.backlog.Load() > int64(cfg.MaxIndexBacklog):
		budget = "index backlog"
	default:
		c := b.n.g.core.Load()
		if c == nil || c.r.CommitIndex() <= b.n.g.ad.applied()+cfg.MaxApplyLag {
			return nil
		}
		budget, after = "apply lag", 200*time.Millisecond
	}
	b.n.met.refused.WithLabelValues(budget).Inc()
	return &OverloadedError{Budget: budget, RetryAfter: after}
}
