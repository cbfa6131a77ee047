// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// A survivor may hold a state that is ahead of its log: that of a snapshot which a
// leader sent with what it had applied since. It counts for what its state holds,
// and what is written after the recovery gets no log indexes that the state takes
// for applied.
func TestRecoverStateAheadOfItsLog(t *testing.T) {
	var full atomic.Bool
	c := startCluster(t, 3, func(cfg *Config) {
		// bolt, since a follower finds what was cut off in the newest segment of wal.
		cfg.TrailingLogs, cfg.LogStore = 4, logStoreBolt
		if cfg.NodeID == "n3" {
			cfg.wrapLog = func(l closableLogStore) closableLogStore { return fullDisk{l, &full} }
		}
	})
	c.put(c.leader(), "first")
	id := c.clusterID()
	c.stop("n3")
	l := c.leader()
	for i := range 30 {
		c.put(l, fmt.Sprintf("d%d", i))
	}
	if _, _, err := l.Snapshot(c.ctx()); err != nil {
		t.Fatal(err)
	}
	var at uint64
	for i := range 30 {
		at = c.put(l, fmt.Sprintf("e%d", i))
	}
	full.Store(true) // n3 gets the files of the snapshot, and no entry after it
	n3 := c.start("n3")
	c.wait("n3 to have the leader's state", func() bool { return n3.g.ad.applied() >= at })
	for _, name := range c.names {
		c.stop(name)
	}
	full.Store(false)
	c.wipe("n1")
	c.wipe("n2") // both are gone for good

	in, err := Inspect(t.Context(), c.config("n3"))
	if err != nil || in.LastLogIndex < at || in.LastTerm == 0 {
		t.Errorf("inspect: %+v (%v), the state is at %d", in, err, at)
	}
	out, err := Recover(t.Context(), c.config("n3"), RecoverConfirmation{ClusterID: id, NodeID: "n3"})
	if err != nil || out.LogIndex < at {
		t.Errorf("recover: %+v (%v), the state is at %d", out, err, at)
	}
	n := c.start("n3")
	c.wait("n3 to lead alone", func() bool { return n.Ready() == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res, err := n.Propose(ctx, put("after"))
	if _, ok := c.mem["n3"].doc("after"); !ok || err != nil {
		t.Errorf("the first write after the recovery: %v, %v, in the state: %v", res, err, ok)
	}
	if _, ok := c.mem["n3"].doc("e29"); !ok {
		t.Error("e29 is gone")
	}
}
