// SPDX-License-Identifier: Apache-2.0

package node

import (
	"reflect"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/hashicorp/raft"
)

// A flag that a leadership transfer of an earlier term left behind makes Raft
// refuse every entry for ever. The test sets it where such a transfer leaves it;
// the next leader must then get rid of it and commit.
func TestLeaderGetsOutOfAStuckTransfer(t *testing.T) {
	c := startCluster(t, 3, nil)
	old := c.leader()
	c.put(old, "before")
	for _, n := range c.nodes {
		if n != old {
			stickTransfer(n.g.core.Load().r)
		}
	}
	c.crash(old.cfg.NodeID)
	c.put(c.leader(), "after")
}

func stickTransfer(r *raft.Raft) {
	f := reflect.ValueOf(r).Elem().FieldByName("leaderState").FieldByName("leadershipTransferInProgress")
	atomic.StoreInt32((*int32)(unsafe.Pointer(f.UnsafeAddr())), 1)
}
