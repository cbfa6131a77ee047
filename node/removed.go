// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// errRemoved is why a node that was taken out of the configuration while it ran
// is not ready. Raft does not tell it: it just hears of no leader any more.
var errRemoved = errors.New("this node is no member of the cluster any more, it was removed: " +
	"restart it or add it (akidb cluster add) to take it in again, at first without a vote; else stop it and remove its data directory")

// watchMembership asks the others, while no leader is known, whether this node
// was removed.
func (n *Node) watchMembership() {
	for n.ctx.Err() == nil {
		pause(n.ctx, n.cfg.paced(helloPauseMax))
		if n.ctx.Err() == nil {
			n.askIfRemoved(n.ctx)
		}
	}
}

// askIfRemoved reports what the leader's configuration says of this node, or the
// last answer while no leader can be asked. A node that never was listed in this
// life asks to be taken in (rejoin), so that it is not removed yet.
func (n *Node) askIfRemoved(ctx context.Context) bool {
	if id, _ := n.g.leader(); id != "" || !n.g.member.Load() || !n.wasListed.Load() {
		n.removed.Store(false)
		return false
	}
	replies, err := n.helloAll(ctx)
	if err != nil {
		n.log.Debug("asking whether this node is a member", "err", err)
	}
	for _, r := range replies {
		if r.ClusterId == "" || r.ClusterId != n.g.clusterID() || r.LeaderId == "" || r.LeaderId != r.Node.NodeId {
			continue // only the leader's own configuration counts
		}
		gone := !lists(r.Servers, n.cfg.NodeID)
		if gone && n.removed.CompareAndSwap(false, true) {
			n.log.Warn("no member any more", "reason", errRemoved)
		}
		n.removed.Store(gone)
	}
	return n.removed.Load()
}

func lists(servers []*nodev1.Server, id string) bool {
	for _, s := range servers {
		if s.NodeId == id {
			return true
		}
	}
	return false
}
