// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
)

// fence says why a replica is out of service: exactly one of the two is set. It is
// kept beside the data it is about, so that a restart does not lift it, and goes
// with them when the directory is removed.
type fence struct {
	// Diverged: the state hash differs from that of the others.
	Diverged string `json:",omitempty"`
	// Corrupt: what is stored does not have its checksum.
	Corrupt string `json:",omitempty"`
}

func (f *fence) reason() string {
	if f.Corrupt != "" {
		return f.Corrupt
	}
	return f.Diverged
}

func (n *Node) fencePath() string { return filepath.Join(n.g.dir, "fenced.json") }

// loadFence puts up the fence of an earlier life.
func (n *Node) loadFence() error {
	var f fence
	if err := loadJSON(n.cfg.files(), n.fencePath(), &f); err != nil {
		return err
	}
	if f.reason() != "" {
		n.log.Error("this replica was taken out of service: remove its data directory and let it rejoin", "reason", f.reason())
		n.fence.Store(&f)
	}
	return nil
}

// raiseFence takes this replica out of service for good; the first reason counts.
func (n *Node) raiseFence(f fence) {
	if !n.fence.CompareAndSwap(nil, &f) {
		return
	}
	n.log.Error("this replica is out of service: remove its data directory and let it rejoin", "reason", f.reason())
	if err := storeJSON(n.cfg.files(), n.fencePath(), &f); err != nil {
		n.log.Error("a restart will forget that", "err", err)
	}
}

// fenced is not nil once this replica is not to be trusted.
func (n *Node) fenced() error {
	if f := n.fence.Load(); f != nil {
		return fmt.Errorf("%w: %s", ErrFenced, f.reason())
	}
	if err := n.g.m.Diverged(); err != nil {
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	if err := n.g.m.Damaged(); err != nil {
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	return n.superseded()
}

// Alarms lists the alarms of the state as it is applied here, also while this
// replica is fenced.
func (n *Node) Alarms() []raftfsm.Alarm { return n.g.m.Facts().alarms }

// fencePoll is how soon a divergence is recorded, handOnPause how long a fenced
// leader waits before it tries once more to be none.
const (
	fencePoll   = 100 * time.Millisecond
	handOnPause = time.Second
)

// keepFence records what a state check or applying found, and keeps a fenced node from
// leading: what it answers to writes comes from its state too.
func (n *Node) keepFence() {
	for n.ctx.Err() == nil {
		pause(n.ctx, n.cfg.paced(fencePoll))
		if err := n.g.m.Diverged(); err != nil {
			n.raiseFence(fence{Diverged: err.Error()})
		}
		if err := n.g.m.Damaged(); err != nil {
			n.raiseFence(fence{Corrupt: err.Error()})
		}
		if n.fence.Load() == nil {
			continue
		}
		if c := n.g.core.Load(); c == nil || c.r.State() != raft.Leader {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
		if err := n.transferHere(ctx, ""); err != nil {
			n.log.Warn("a fenced node leads and found nobody to hand over to", "err", err)
		}
		cancel()
		pause(n.ctx, n.cfg.paced(handOnPause))
	}
}

// outvoted asks the voters for their hashes before the leader holds its own up to
// them: if more of them contradict the leader than agree with it, it is the leader
// that has gone astray, and it fences itself instead of them.
func (n *Node) outvoted(ctx context.Context, f facts) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var mu sync.Mutex // guards the counts
	agree, differ := 1, 0
	var other string
	var wg sync.WaitGroup
	for _, s := range n.g.servers() {
		if s.Suffrage != raft.Voter || string(s.ID) == n.cfg.NodeID {
			continue
		}
		wg.Go(func() {
			r, err := n.hashOf(ctx, string(s.ID), n.g.addrOf(s), &nodev1.HashRequest{LogIndex: f.applied})
			if err != nil || len(r.StateHash) != len(raftfsm.StateHash{}) || n.g.ad.wait(ctx, r.AppliedIndex) != nil {
				return
			}
			ours, ok := n.g.m.HashAt(r.AppliedIndex)
			if !ok {
				return // too long ago by now
			}
			mu.Lock()
			defer mu.Unlock()
			if theirs := raftfsm.StateHash(r.StateHash); theirs == ours {
				agree++
			} else {
				differ++
				other = fmt.Sprintf("at log index %d the state hash here is %s, on %s it is %s", r.AppliedIndex, ours, s.ID, theirs)
			}
		})
	}
	wg.Wait()
	if differ <= agree {
		return false
	}
	n.raiseFence(fence{Diverged: fmt.Sprintf("%v: %d voters of %d disagree with it: %s", raftfsm.ErrDiverged, differ, agree+differ, other)})
	return true
}
