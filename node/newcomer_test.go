// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// deafen keeps a node from dialling another, which can still dial it.
func (p *partNet) deafen(from, to string, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut[[2]string{from, to}] = cut
}

// Goal: members that lost their disks and were taken in anew help nobody to lead who
// does not have what was acknowledged. Method: of five nodes one fetches a snapshot and
// does not get ahead; it hears of its leader, and of no change of members. Two are wiped
// one after the other and taken in, and no entry gets to them. With the votes of both the
// one that lags would lead, as soon as the other two are away.
func TestMemberTakenInAnewHelpsNobodyWhoLags(t *testing.T) {
	c := startCluster(t, 5, func(cfg *Config) { cfg.RemoveDeadAfter, cfg.TrailingLogs = -1, 4 })
	a := c.leader()
	others := slices.DeleteFunc(slices.Clone(c.names), func(n string) bool { return n == a.ID() })
	lags, stays, wiped := others[0], others[1], others[2:]
	index := c.put(a, "before")
	c.wait("all to have it", func() bool {
		for _, n := range c.nodes {
			if n.g.ad.applied() < index {
				return false
			}
		}
		return true
	})
	c.net.isolate(lags, true)
	for i := range 30 {
		c.put(a, fmt.Sprint(i))
	}
	if _, _, err := a.Snapshot(c.ctx()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{a.ID(), stays} {
		c.net.deafen(n, lags, false) // but not the other way, where the files are
	}
	c.wait("the one that lags to hear of the leader", func() bool { return c.nodes[lags].LeaderID() == a.ID() })
	for _, w := range wiped {
		c.crash(w)
		c.wipe(w)
		c.net.deafen(a.ID(), w, true)
		c.net.deafen(stays, w, true)
		n := c.start(w)
		c.wait(w+" to be taken in", n.g.member.Load)
	}
	c.put(a, "acknowledged")
	for _, w := range wiped {
		c.net.set(lags, w, false)
	}
	core := c.nodes[lags].g.core.Load()
	term := a.Status().Term
	last := core.r.LastIndex()
	head := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(lags), Addr: []byte(c.addrs[lags])}
	for _, w := range wiped {
		id, addr := raft.ServerID(w), raft.ServerAddress(c.addrs[w])
		var app raft.AppendEntriesResponse
		err := core.trans.AppendEntries(id, addr, &raft.AppendEntriesRequest{RPCHeader: head, Term: 1}, &app)
		if err == nil && app.Success {
			t.Errorf("%s follows a leader of term 1", w)
		}
		var r nodev1.TermReply
		err = c.nodes[lags].rpc.call(c.ctx(), c.addrs[w], laneControl, methodTerm, &nodev1.TermRequest{}, &r)
		if err == nil && r.Term < term {
			t.Errorf("%s says that it knows of no term above %d, to whoever led until %d", w, r.Term, term)
		}
		var pre raft.RequestPreVoteResponse
		err = core.trans.RequestPreVote(id, addr, &raft.RequestPreVoteRequest{RPCHeader: head, Term: term + 1, LastLogIndex: last, LastLogTerm: core.ls.termAt(last)}, &pre)
		if err == nil && pre.Granted {
			t.Errorf("%s would vote for %s, which lags", w, lags)
		}
		var vote raft.RequestVoteResponse
		err = core.trans.RequestVote(id, addr, &raft.RequestVoteRequest{RPCHeader: head, Term: term + 1, LastLogIndex: last, LastLogTerm: core.ls.termAt(last)}, &vote)
		if err == nil && vote.Granted {
			t.Errorf("%s votes for %s, which lags", w, lags)
		}
	}
	if t.Failed() {
		return
	}
	// They take part again once they have what was committed when they were taken in.
	for _, w := range wiped {
		n := c.nodes[w]
		if n.stats().LastContactMs >= 0 {
			t.Errorf("%s could be given a vote, which it would not use", w)
		}
		c.net.deafen(a.ID(), w, false)
		c.wait(w+" to catch up", func() bool { return n.stats().LastContactMs >= 0 })
		if err := n.g.outdated(n.g.core.Load().r, &raft.RequestVoteRequest{}); err != nil {
			t.Error(err)
		}
	}
}
