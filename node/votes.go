// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// MemberOption changes how a membership operation is done.
type MemberOption func(*nodev1.MemberRequest)

// Forced skips the question whether the voters that answer are a majority of
// those there will be. A cluster without that majority is at a standstill, and
// only `akidb cluster recover` gets it out.
func Forced(force bool) MemberOption {
	return func(r *nodev1.MemberRequest) { r.Force = force }
}

const (
	// changePatience is how long voters are asked before a change is refused for
	// those that did not answer, promotePatience how long a member may take to
	// catch up before it is refused a vote. Both end well before the caller's
	// deadline, so that it learns why.
	changePatience  = 2 * time.Second
	promotePatience = 10 * time.Second
	askPause        = 100 * time.Millisecond
	// maxTrailing is how many entries a member may be behind and still count as
	// caught up.
	maxTrailing = 4096
)

// ailment is why a member cannot be counted on.
type ailment struct {
	why    string
	silent bool // it gave no answer at all
}

// lastContactLimit is how long a member may not have heard of the leader.
func (c *Config) lastContactLimit() time.Duration { return max(10*c.HeartbeatTimeout, time.Second) }

// ailments asks members how they are, all at once, and returns what is wrong with
// those that cannot be counted on; the leader can.
func (n *Node) ailments(ctx context.Context, c *raftCore, servers []raft.Server) map[raft.ServerID]ailment {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.paced(helloTimeout))
	defer cancel()
	var mu sync.Mutex // guards out
	out := make(map[raft.ServerID]ailment)
	var wg sync.WaitGroup
	for _, s := range servers {
		if string(s.ID) == n.cfg.NodeID {
			continue
		}
		wg.Go(func() {
			r, err := n.pilot.ask(ctx, s)
			a := ailment{why: fmt.Sprintf("does not answer at %s", n.g.addrOf(s)), silent: true}
			if err == nil {
				a = ailment{why: n.behind(c, r)}
			}
			if a.why != "" {
				mu.Lock()
				out[s.ID] = a
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// behind says why a member that answered would not help to commit; "" if it
// would.
func (n *Node) behind(c *raftCore, r *nodev1.StatsReply) string {
	contact := time.Duration(r.LastContactMs) * time.Millisecond
	switch last := c.r.LastIndex(); {
	case r.ClusterId != "" && r.ClusterId != n.g.clusterID():
		return "belongs to another cluster"
	case r.Term != c.r.CurrentTerm(), contact < 0, contact > n.cfg.lastContactLimit():
		return "does not follow this leader"
	case r.LastIndex+maxTrailing < last:
		return fmt.Sprintf("is %d entries behind", last-r.LastIndex)
	}
	return ""
}

// patience is d, or less if the caller has less time.
func (n *Node) patience(ctx context.Context, d time.Duration) time.Duration {
	return min(n.cfg.paced(d), timeoutOf(ctx)*3/4)
}

// mayLose refuses to take a vote away if those that are left and can be counted
// on would be no majority of those that are left. A voter that does not answer
// may always go: without it the others need no more than before.
func (n *Node) mayLose(ctx context.Context, c *raftCore, gone raft.ServerID, voters []raft.Server) error {
	left := slices.DeleteFunc(slices.Clone(voters), func(s raft.Server) bool { return s.ID == gone })
	need := len(left)/2 + 1
	patience, began := n.patience(ctx, changePatience), time.Now()
	for silent := true; ; pause(ctx, n.cfg.paced(askPause)) {
		ill := n.ailments(ctx, c, voters)
		silent = silent && ill[gone].silent
		delete(ill, gone)
		if len(left)-len(ill) >= need {
			return nil
		}
		if time.Since(began) < patience && ctx.Err() == nil {
			continue
		}
		if silent {
			return nil
		}
		return fmt.Errorf("%w: without %s %d voters are left, of which %d must answer to write anything, and %s: remove %s first or bring it back (or force it)",
			ErrUnsafeChange, gone, len(left), need, describeIll(ill), names(ill))
	}
}

func describeIll(ill map[raft.ServerID]ailment) string {
	var parts []string
	for id, a := range ill {
		parts = append(parts, fmt.Sprintf("%s %s", id, a.why))
	}
	slices.Sort(parts)
	return strings.Join(parts, " and ")
}

func names(ill map[raft.ServerID]ailment) string {
	var ids []string
	for id := range ill {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	return strings.Join(ids, ", ")
}

// promoteHere gives a member a vote once it answers and has caught up, and if the
// voters that can be counted on are a majority with it.
func (n *Node) promoteHere(ctx context.Context, c *raftCore, id raft.ServerID, force bool) error {
	patience, began := n.patience(ctx, promotePatience), time.Now()
	for {
		why, done, err := n.tryPromote(ctx, c, id, force)
		if done || err != nil {
			return err
		}
		if time.Since(began) >= patience || ctx.Err() != nil {
			return fmt.Errorf("%w: %s stays without a vote: %s; it is given one when it answers and has caught up, by `akidb cluster promote` or, if there is room, by itself", ErrUnsafeChange, id, why)
		}
		pause(ctx, n.cfg.paced(askPause))
	}
}

// tryPromote looks and promotes in one step, or says why not yet.
func (n *Node) tryPromote(ctx context.Context, c *raftCore, id raft.ServerID, force bool) (why string, done bool, err error) {
	leave, err := n.enterMembership(ctx)
	if err != nil {
		return "", false, err
	}
	defer leave()
	s, found := n.server(string(id))
	switch {
	case !found:
		return "", false, fmt.Errorf("%w: %q is no member", errInvalid, id)
	case s.Suffrage == raft.Voter:
		return "", true, nil
	case force:
		return "", true, waitRaft(ctx, c.r.AddVoter(s.ID, s.Address, 0, timeoutOf(ctx)))
	}
	voters := n.voters()
	if len(voters) >= n.cfg.MaxVoters {
		return "", false, fmt.Errorf("%w: %s stays without a vote: %d members have one, and max_voters is %d: raise it on every node, or remove a voter first", ErrUnsafeChange, id, len(voters), n.cfg.MaxVoters)
	}
	ill := n.ailments(ctx, c, append(slices.Clone(voters), s))
	if r, _, ok := n.pilot.report(string(id)); ok && ill[id].why == "" && (r.Diverged != "" || r.Corrupt != "") {
		ill[id] = ailment{why: "is out of service: remove its data directory and let it rejoin"}
	}
	if a, ok := ill[id]; ok {
		return fmt.Sprintf("it %s", a.why), false, nil
	}
	if len(voters)+1-len(ill) < (len(voters)+1)/2+1 {
		return "with it, too few voters can be counted on: " + describeIll(ill), false, nil
	}
	return "", true, waitRaft(ctx, c.r.AddVoter(s.ID, s.Address, 0, timeoutOf(ctx)))
}

// voters are those of the latest configuration.
func (n *Node) voters() []raft.Server {
	return votersAmong(n.g.servers())
}

// votersAmong are those of a configuration that have a vote.
func votersAmong(servers []raft.Server) []raft.Server {
	return slices.DeleteFunc(slices.Clone(servers), func(s raft.Server) bool { return s.Suffrage != raft.Voter })
}

// addHere adds a member without a vote, then gives it one if that was asked for.
func (n *Node) addHere(ctx context.Context, c *raftCore, req *nodev1.MemberRequest) error {
	if req.RaftAddr == "" {
		return fmt.Errorf("%w: raft address is empty", errInvalid)
	}
	id, addr := raft.ServerID(req.NodeId), raft.ServerAddress(req.RaftAddr)
	if req.Voter && req.Force {
		leave, err := n.enterMembership(ctx)
		if err != nil {
			return err
		}
		defer leave()
		return waitRaft(ctx, c.r.AddVoter(id, addr, 0, timeoutOf(ctx)))
	}
	if err := n.addNonvoter(ctx, c, id, addr); err != nil || !req.Voter {
		return err
	}
	return n.promoteHere(ctx, c, id, false)
}

func (n *Node) addNonvoter(ctx context.Context, c *raftCore, id raft.ServerID, addr raft.ServerAddress) error {
	leave, err := n.enterMembership(ctx)
	if err != nil {
		return err
	}
	defer leave()
	have, found := n.server(string(id))
	for _, s := range n.g.servers() {
		if s.ID != id && s.Address == addr {
			return fmt.Errorf("%w: %s is the address of the member %s", errInvalid, addr, s.ID)
		}
	}
	switch {
	case !found:
		return waitRaft(ctx, c.r.AddNonvoter(id, addr, 0, timeoutOf(ctx)))
	case have.Address == addr, n.g.addrOf(have) == string(addr):
		return nil
	}
	return fmt.Errorf("%w: %s is a member already, at %s: a node that moved tells its new address by itself; if this is another node, remove %s first",
		errInvalid, id, n.g.addrOf(have), id)
}

// removeHere takes a member out: this node only once another one leads.
func (n *Node) removeHere(ctx context.Context, c *raftCore, id string, force bool) error {
	leave, err := n.enterMembership(ctx)
	if err != nil {
		return err
	}
	defer leave()
	have, found := n.server(id)
	if !found {
		return nil
	}
	if have.Suffrage == raft.Voter {
		voters := n.voters()
		if len(voters) == 1 {
			return fmt.Errorf("%w: %s is the last voter, and without one there is no cluster: give another member a vote first (`akidb cluster promote`), or stop the node", ErrUnsafeChange, id)
		}
		if !force {
			if err := n.mayLose(ctx, c, have.ID, voters); err != nil {
				return err
			}
		}
	}
	if id == n.cfg.NodeID {
		if err := n.transferHere(ctx, ""); err != nil {
			return err
		}
		return n.g.notLeader() // the new leader removes us
	}
	if err := waitRaft(ctx, c.r.RemoveServer(raft.ServerID(id), 0, timeoutOf(ctx))); err != nil {
		return err
	}
	n.forgetRecord(ctx, id)
	return nil
}

var errOtherNode = errors.New("another node lives at its address")
