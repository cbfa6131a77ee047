// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"sync"
	"time"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// statsInterval is how often the leader asks the members how they are.
const statsInterval = time.Second

// pilot keeps the last report of each member. The leader polls; see autopilot.go
// for what is done with it.
type pilot struct {
	n       *Node
	mu      sync.Mutex // guards reports
	reports map[string]memberReport
}

type memberReport struct {
	stats *nodev1.StatsReply
	at    time.Time
}

func newPilot(n *Node) *pilot { return &pilot{n: n, reports: make(map[string]memberReport)} }

// report is what a member said last, and when.
func (p *pilot) report(id string) (*nodev1.StatsReply, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.reports[id]
	return r.stats, r.at, ok
}

// poll asks every member once.
func (p *pilot) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statsInterval)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range p.n.g.servers() {
		if string(s.ID) == p.n.cfg.NodeID {
			p.put(string(s.ID), p.n.stats())
			continue
		}
		wg.Go(func() {
			var r nodev1.StatsReply
			if err := p.n.rpc.call(ctx, p.n.g.addrOf(s), laneControl, methodStats, &nodev1.StatsRequest{}, &r); err != nil {
				return
			}
			p.put(string(s.ID), &r)
			p.n.book.learn(r.Node)
		})
	}
	wg.Wait()
}

func (p *pilot) put(id string, r *nodev1.StatsReply) {
	p.mu.Lock()
	p.reports[id] = memberReport{r, time.Now()}
	p.mu.Unlock()
}

// autopilot polls the members while this node leads.
func (p *pilot) autopilot(ctx context.Context) {
	for ctx.Err() == nil {
		p.poll(ctx)
		pause(ctx, statsInterval)
	}
}
