// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"testing"
	"time"
)

// The leader's disk neither writes nor fails: the leader gives the lead up, since nothing
// is written and no read confirmed as long as it has it.
func TestLeaderWhoseDiskHangsGivesUp(t *testing.T) {
	c, valves := startWithValves(t)
	l := c.leader()
	c.put(l, "before")
	valves[l.ID()].close()
	first := c.propose(l, put("held"))
	var other *Node
	for _, n := range c.nodes {
		if n != l {
			other = n
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*diskPatience+10*time.Second)
	defer cancel()
	cmd := put("through")
	cmd.RequestId = "through"
	if _, err := other.Propose(ctx, cmd); err != nil {
		t.Errorf("a write while the leader's disk hangs: %v; %s leads", err, other.LeaderID())
	}
	if err := other.awaitRead(ctx, ReadOptions{}); err != nil {
		t.Errorf("a read while the leader's disk hangs: %v", err)
	}
	valves[l.ID()].end(nil)
	<-first
	c.wait("the former leader to be back", func() bool { return l.Ready() == nil })
}
