// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A node that is removed while it runs says so instead of looking for a leader
// for ever; told to leave, it finds that done at once; added again, it serves.
func TestRemovedNodeKnowsIt(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	l, f := c.leader(), c.follower()
	c.wait("the follower to know that it is listed", f.wasListed.Load)
	if err := l.RemoveMember(c.ctx(), f.ID()); err != nil {
		t.Fatal(err)
	}
	c.wait("the node to know that it was removed", func() bool { return errors.Is(f.Ready(), errRemoved) })
	if why := f.Status().NotReadyReason; !strings.Contains(why, "no member") || !strings.Contains(why, "restart it") {
		t.Errorf("it says %q", why)
	}
	began := time.Now()
	if err := f.Leave(c.ctx()); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("leaving took %v: %v", time.Since(began), err)
	}
	if err := c.leader().AddMember(c.ctx(), f.ID(), c.addrs[f.ID()], false); err != nil {
		t.Fatal(err)
	}
	c.wait("the node to serve again", func() bool { return f.Ready() == nil })
}
