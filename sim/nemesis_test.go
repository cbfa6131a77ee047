// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/akidb/akidb/node"
)

// fault is one kind of trouble. It returns when its own part is over, but may
// leave the cluster in trouble: later faults come on top, until calm undoes all.
type fault struct {
	name   string
	weight int
	strike func(nm *nemesis)
}

// nemesis strikes by a schedule drawn from the seed.
type nemesis struct {
	*Cluster
	wg sync.WaitGroup // operations under way at a node
}

var faults = []fault{
	{"kill one", 4, func(nm *nemesis) { nm.kill(nm.any(), false, 0) }},
	{"power off one", 4, func(nm *nemesis) { nm.powerOff(nm.any()) }},
	{"power off the leader", 4, func(nm *nemesis) { nm.powerOff(nm.leader()) }},
	{"kill the leader", 3, func(nm *nemesis) {
		if h := nm.leader(); h != nil {
			nm.kill(h, false, 0)
		}
	}},
	{"power off all", 3, func(nm *nemesis) {
		for _, h := range nm.hosts {
			nm.powerOff(h)
		}
		nm.rest(4)
		nm.startAll()
	}},
	{"kill a majority", 2, func(nm *nemesis) {
		for _, i := range nm.rng.Perm(len(nm.hosts))[:len(nm.hosts)/2+1] {
			nm.kill(nm.hosts[i], nm.rng.IntN(2) == 0, 100)
		}
		nm.rest(4)
		nm.startAll()
	}},
	{"restart one in order", 2, func(nm *nemesis) {
		h := nm.any()
		nm.stop(h)
		nm.rest(2)
		nm.start(h)
	}},
	{"start all", 8, (*nemesis).startAll},
	{"heal the network", 8, func(nm *nemesis) { nm.net.Heal() }},
	{"mend the disks", 4, func(nm *nemesis) {
		for _, h := range nm.hosts {
			h.disk.Mend()
		}
	}},
	{"split in halves", 3, func(nm *nemesis) {
		side := map[string]bool{}
		for _, h := range nm.hosts {
			side[h.name] = nm.rng.IntN(2) == 0
		}
		nm.net.Partition(nm.names(), func(a, b string) bool { return side[a] != side[b] })
	}},
	{"isolate one", 3, func(nm *nemesis) { nm.isolate(nm.any()) }},
	{"isolate the leader", 4, func(nm *nemesis) { nm.isolate(nm.leader()) }},
	{"leader cannot hear", 3, func(nm *nemesis) {
		if l := nm.leader(); l != nil {
			nm.net.Partition(nm.names(), func(_, to string) bool { return to == l.name })
		}
	}},
	{"leader cannot speak", 3, func(nm *nemesis) {
		if l := nm.leader(); l != nil {
			nm.net.Partition(nm.names(), func(from, _ string) bool { return from == l.name })
		}
	}},
	{"ring", 2, func(nm *nemesis) { // everybody sees its neighbours only
		names := nm.names()
		n := len(names)
		nm.net.Partition(names, func(a, b string) bool {
			d := (slices.Index(names, a) - slices.Index(names, b) + n) % n
			return d != 1 && d != n-1 || n == 3 && d == 1
		})
	}},
	{"bridge", 2, func(nm *nemesis) { // two halves that share one member
		names, bridge := nm.names(), nm.any().name
		nm.net.Partition(names, func(a, b string) bool {
			if a == bridge || b == bridge {
				return false
			}
			return slices.Index(names, a)%2 != slices.Index(names, b)%2
		})
	}},
	{"random grudge", 3, func(nm *nemesis) {
		cut := map[link]bool{}
		for _, a := range nm.names() {
			for _, b := range nm.names() {
				cut[link{a, b}] = nm.rng.IntN(3) == 0
			}
		}
		nm.net.Partition(nm.names(), func(a, b string) bool { return cut[link{a, b}] })
	}},
	{"slow links", 3, func(nm *nemesis) {
		for _, a := range nm.names() {
			for _, b := range nm.names() {
				if nm.rng.IntN(2) == 0 {
					nm.net.SetLatency(a, b, Latency{tick / 20, tick / 2})
				}
			}
		}
	}},
	{"lossy links", 3, func(nm *nemesis) {
		for _, a := range nm.names() {
			for _, b := range nm.names() {
				nm.net.SetLoss(a, b, 1+nm.rng.IntN(40))
			}
		}
	}},
	{"reset connections", 2, func(nm *nemesis) { nm.net.ResetHost(nm.any().name) }},
	{"full disk", 3, func(nm *nemesis) { nm.any().disk.Fail(1000) }},
	{"flaky disk", 3, func(nm *nemesis) { nm.any().disk.Fail(20 + nm.rng.IntN(200)) }},
	{"transfer leadership", 3, func(nm *nemesis) { nm.transfer() }},
	{"leadership storm", 2, func(nm *nemesis) {
		for range 5 {
			nm.transfer()
			nm.rest(1)
		}
	}},
	{"snapshot", 4, func(nm *nemesis) {
		nm.at(nm.any(), func(ctx context.Context, n *node.Node) { _, _, _ = n.Snapshot(ctx) })
	}},
	{"leave one behind", 4, func(nm *nemesis) { // it needs a snapshot afterwards
		h := nm.any()
		nm.kill(h, false, 0)
		nm.rest(30)
		for _, o := range nm.live() {
			nm.at(o, func(ctx context.Context, n *node.Node) { _, _, _ = n.Snapshot(ctx) })
		}
		nm.rest(4)
		nm.start(h)
	}},
	{"remove a member", 2, func(nm *nemesis) { nm.removeMember(false) }},
	{"replace a member", 2, func(nm *nemesis) { nm.removeMember(true) }},
}

// run strikes until the end of the given time, or until a promise is broken.
func (nm *nemesis) run(until time.Time, bad func() bool) {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	for time.Now().Before(until) && !bad() {
		nm.rest(12)
		d := nm.rng.IntN(total)
		for _, f := range faults {
			if d -= f.weight; d < 0 {
				nm.trace.event("%s", f.name)
				nm.trace.count(f.name)
				f.strike(nm)
				break
			}
		}
	}
	nm.wg.Wait()
}

// rest lets up to n heartbeats pass.
func (nm *nemesis) rest(n int) {
	elapse(time.Duration(1 + nm.rng.Int64N(int64(n)*int64(heartbeat))))
}

func (nm *nemesis) any() *Host { return nm.hosts[nm.rng.IntN(len(nm.hosts))] }

func (nm *nemesis) powerOff(h *Host) {
	percent := []int{0, 0, 50, 100}[nm.rng.IntN(4)]
	if h != nil {
		nm.Cluster.kill(h, true, percent)
	}
}

func (nm *nemesis) isolate(h *Host) {
	if h != nil {
		nm.net.Partition(nm.names(), func(a, b string) bool { return a == h.name || b == h.name })
	}
}

// start is what a supervisor does: a node that cannot start on a bad disk is
// tried again at the next occasion; on a good disk it must start.
func (nm *nemesis) start(h *Host) {
	if h.process() != nil {
		return
	}
	healthy := !h.disk.failing()
	if err := nm.startHost(h); err != nil {
		nm.trace.event("%v", err)
		if healthy && !h.disk.failing() {
			nm.t.Errorf("on a healthy disk: %v", err)
		}
	}
}

func (nm *nemesis) startAll() {
	for _, h := range nm.hosts {
		nm.start(h)
	}
}

// at runs an operation at a node without waiting for it.
func (nm *nemesis) at(h *Host, f func(ctx context.Context, n *node.Node)) {
	p := h.process()
	if p == nil {
		return
	}
	nm.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*heartbeat)
		defer cancel()
		f(ctx, p.n)
	})
}

func (nm *nemesis) transfer() {
	to := ""
	if nm.rng.IntN(2) == 0 {
		to = nm.any().name
	}
	nm.at(nm.any(), func(ctx context.Context, n *node.Node) { _ = n.TransferLeader(ctx, to) })
}

// removeMember takes a member out. With wipe it is down at that time and comes
// back on an empty disk if the removal succeeded: only a member without a vote
// may lose its disk, and one that runs might ask to be taken back meanwhile.
// Else it is added again.
func (nm *nemesis) removeMember(wipe bool) {
	h, via := nm.any(), nm.any()
	p := via.process()
	if via == h || p == nil {
		return
	}
	if wipe {
		nm.kill(h, false, 0)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*heartbeat)
	err := p.call(func(n *node.Node) error { return n.RemoveMember(ctx, h.name) })
	cancel()
	if err != nil {
		nm.trace.event("remove %s: %v", h.name, err)
		return
	}
	nm.rest(6)
	if wipe {
		nm.trace.event("%s comes back on an empty disk", h.name)
		h.disk.wipe()
		nm.start(h)
		return
	}
	nm.at(via, func(ctx context.Context, n *node.Node) {
		if err := n.AddMember(ctx, h.name, h.addr(), true); err != nil {
			nm.trace.event("add %s: %v", h.name, err)
		}
	})
}

func (nm *nemesis) kill(h *Host, power bool, unsyncedPercent int) {
	if h != nil {
		nm.Cluster.kill(h, power, unsyncedPercent)
	}
}
