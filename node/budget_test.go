// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/akidb/akidb/raftfsm"
)

// A budget that a follower has used up is known to the leader: it raises an alarm
// and refuses writes, naming node and budget, until there is room again, and some
// more, on the follower.
func TestBudgetOfAFollowerCounts(t *testing.T) {
	var mu sync.Mutex // guards used
	used := map[string]int64{}
	use := func(name string, bytes int64) { mu.Lock(); used[name] = bytes; mu.Unlock() }
	c := startCluster(t, 3, func(cfg *Config) {
		name := cfg.NodeID
		cfg.MaxMemoryBytes, cfg.MaxIndexBacklog = 1600, 100
		cfg.residentBytes = func() int64 { mu.Lock(); defer mu.Unlock(); return used[name] }
	})
	type levels struct{ over, some, room int64 }
	for _, try := range []struct {
		budget, kind string
		levels       levels
		set          func(f *Node, v int64)
		sampled      func(f *Node) int64
	}{
		{budgetMemory, AlarmMemory, levels{1601, 1550, 1500},
			func(f *Node, v int64) { use(f.ID(), v) }, func(f *Node) int64 { return f.budgets.memory.Load() }},
		{budgetBacklog, AlarmBacklog, levels{101, 80, 75},
			func(f *Node, v int64) { c.mem[f.ID()].backlog.Store(v) }, func(f *Node) int64 { return f.budgets.backlog.Load() }},
	} {
		f := c.follower()
		raised := func() bool {
			return slices.ContainsFunc(c.leader().g.m.Facts().alarms, func(a raftfsm.Alarm) bool { return a.Kind == try.kind && a.NodeID == f.ID() })
		}
		refused := func() bool {
			var o *OverloadedError
			_, err := c.leader().Propose(c.ctx(), put("x"))
			return errors.As(err, &o) && o.Budget == try.budget && o.NodeID == f.ID() && o.RetryAfter > 0
		}
		c.put(c.leader(), "before")
		try.set(f, try.levels.over)
		c.wait(try.kind, func() bool { return raised() && refused() })
		if _, err := f.Propose(c.ctx(), put("x")); !errors.Is(err, ErrOverloaded) {
			t.Errorf("%s: through the follower: %v", try.budget, err)
		}
		try.set(f, try.levels.some)
		c.wait("a sample", func() bool { return try.sampled(f) == try.levels.some })
		if !f.stats().OverMemory && !f.stats().OverBacklog {
			t.Errorf("%s: taken back at once: it would come and go", try.kind)
		}
		try.set(f, try.levels.room)
		c.wait(try.kind+" to be taken back", func() bool { return !raised() && !refused() })
		c.put(c.leader(), "after")
	}
}
