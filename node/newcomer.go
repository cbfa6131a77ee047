// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
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
