// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// A node that was taken in empty may have been a member of that id before: it forgot
// what it acknowledged, whom it voted for, and which terms there were. Its leader takes
// it out and in again as a non-voter for that, but who has not heard of the change goes
// on to count it: a voter that lags behind asks it for its vote, a leader of the past for
// its acknowledgement and its term. One of them does no harm, since a majority without
// it made the change. Of two that were taken in one after the other, while the log of a
// third does not get ahead, that third could be elected by both, and lose what was
// acknowledged since.
//
// So it refuses every leader of a term before the one it was taken in by, and takes no
// part in elections before its log holds the entry that took it in. Who asks then either
// has that entry too, and counts it for what it is, or has less and is refused by Raft.

var errNewcomer = errors.New("this node was taken in without data and has not caught up: it takes no part in elections yet")

// catchingUp reports whether this node was taken in and does not have the entry yet
// that did it. r is nil while Raft starts.
func (g *group) catchingUp(r *raft.Raft) bool {
	index := g.joinedIndex.Load()
	return index > 0 && (r == nil || r.LastIndex() < index)
}

// outdated refuses what a newcomer must not answer.
func (g *group) outdated(r *raft.Raft, command any) error {
	var term uint64
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		term = req.Term
	case *raft.InstallSnapshotRequest:
		term = req.Term
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		if g.catchingUp(r) {
			return errNewcomer
		}
		return nil
	default:
		return nil
	}
	if joined := g.joinedTerm.Load(); term < joined {
		return fmt.Errorf("node: a leader of term %d is of the past: this node was taken in in term %d", term, joined)
	}
	return nil
}

// The log index at which a node was taken in tells its lives apart. A data directory of a
// former life, put back from a disk or a backup after the node had joined anew, lacks
// entries that the later life acknowledged and votes that it gave. Who has heard of a
// later life does not count such a node: it is not asked for its vote, its term or its
// acknowledgement. The node itself is told by whom it greets, and joins anew with what
// it has. What was heard is forgotten with the process.

var errFormerLife = errors.New("its data are of a former life")

// ofNow refuses a node that is known to have been taken in anew since, and notes of one
// that was not how it is to be told from those before.
func (b *addressBook) ofNow(i *nodev1.NodeInfo) error {
	if i == nil || i.JoinedIndex == nil {
		return nil
	}
	if known := b.hear(i.NodeId, *i.JoinedIndex); known > *i.JoinedIndex {
		return fmt.Errorf("%w: %s was taken in anew at log index %d, and this one at %d", errFormerLife, i.NodeId, known, *i.JoinedIndex)
	}
	return nil
}

// hear notes when a node was taken in and returns the latest of what was heard.
func (b *addressBook) hear(id string, joined uint64) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lives[id] = max(b.lives[id], joined)
	return b.lives[id]
}

func (b *addressBook) life(id string) uint64 { return b.hear(id, 0) }

// hearOfLife takes what a peer has heard of this node's id. If that is a later life the
// node is a member no more, so that it joins.
func (n *Node) hearOfLife(joined uint64) {
	if own := n.g.joinedIndex.Load(); joined > own && n.g.member.CompareAndSwap(true, false) {
		n.log.Warn("these data are of a former life of this node: joining anew", "joined at", own, "and later at", joined)
		n.g.poke()
		n.lookAround()
	}
}
