// SPDX-License-Identifier: Apache-2.0

package client

import (
	"slices"
	"time"
)

// now is monotonic, in ns since the client was opened.
func (k *core) now() int64 { return int64(time.Since(k.epoch)) }

// markDown passes the endpoint over for a while and asks for a health check.
func (k *core) markDown(e *endpoint) {
	e.downUntil.Store(k.now() + int64(downTime))
	k.leader.CompareAndSwap(e, nil)
	e.check()
}

// healthy is true unless the last health check or a call since then failed.
func (e *endpoint) healthy(now int64) bool {
	return e.ready.Load() != readyNo && e.downUntil.Load() <= now
}

// follow takes the hint's endpoint as the leader.
func (k *core) follow(h leaderHint) *endpoint {
	e := k.find(h)
	if e != nil {
		k.leader.Store(e)
	}
	return e
}

// find returns the hint's endpoint. A node that the client has no endpoint of is
// not dialled: its address may mean nothing here, and the other nodes forward to
// it.
func (k *core) find(h leaderHint) *endpoint {
	for _, e := range k.set.Load().list {
		id := e.nodeID.Load()
		if h.nodeID != "" && id != nil && *id == h.nodeID || h.addr != "" && e.addr == h.addr {
			return e
		}
	}
	return nil
}

// tried is the endpoints that a call should not go to again, few of them.
type tried []*endpoint

// pick chooses where an attempt goes. It returns nil only if there is no
// endpoint at all.
func (k *core) pick(toLeader bool, not tried) *endpoint {
	list := k.set.Load().list
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	now := k.now()
	if toLeader {
		if e := k.leader.Load(); e != nil && e.downUntil.Load() <= now && !slices.Contains(not, e) {
			return e
		}
	}
	if e := k.nearest(list, now, not); e != nil {
		return e
	}
	// Nobody is healthy: ask whoever was not asked yet, else anybody.
	start := int(k.rotate.Add(1))
	for i := range list {
		if e := list[(start+i)%len(list)]; !slices.Contains(not, e) {
			return e
		}
	}
	return list[start%len(list)]
}

// nearest returns the endpoint with the fewest calls under way among the
// nearest healthy ones, starting at a rotating place so that ties are spread. While
// some were never heard of, those that were come first.
func (k *core) nearest(list []*endpoint, now int64, not tried) *endpoint {
	minRTT, heard := int64(-1), false
	for _, e := range list {
		if !e.healthy(now) || slices.Contains(not, e) {
			continue
		}
		heard = heard || e.ready.Load() == readyYes
		if rtt := e.rtt.Load(); rtt > 0 && (minRTT < 0 || rtt < minRTT) {
			minRTT = rtt
		}
	}
	limit := 2*minRTT + int64(nearSlack)
	var best *endpoint
	start := int(k.rotate.Add(1) - 1) // a new client begins with the first
	for i := range list {
		e := list[(start+i)%len(list)]
		if !e.healthy(now) || slices.Contains(not, e) || heard && e.ready.Load() != readyYes {
			continue
		}
		if rtt := e.rtt.Load(); minRTT > 0 && rtt > limit {
			continue
		}
		if best == nil || e.inflight.Load() < best.inflight.Load() {
			best = e
		}
	}
	return best
}
