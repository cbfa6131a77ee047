// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Session is sessions that hop between replicas with their token.
func Session() *Workload {
	return &Workload{
		Name:  "session",
		About: "counters with one writer each, read on any replica with a session token: own writes are seen, nothing goes back",
		Setup: setupCounters("session"),
		New:   func(w *Worker) Client { return &counterClient{w: w, consistency: "session"} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result {
			return []*check.Result{check.Session(ops), check.Whole(ops)}
		},
	}
}

// boundMs is the staleness that bounded reads allow, and slackMs what is given
// to the steps between the leader's clock and the client's.
const (
	boundMs = 1000
	slackMs = 50
)

// Bounded is reads of bounded staleness on any replica.
func Bounded() *Workload {
	return &Workload{
		Name:  "bounded",
		About: fmt.Sprintf("counters read on any replica with max_staleness_ms %d: never older than that, or refused", boundMs),
		Setup: setupCounters("bounded"),
		New:   func(w *Worker) Client { return &counterClient{w: w, consistency: "bounded"} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result {
			return []*check.Result{check.Bounded(ops, slackMs), check.Whole(ops)}
		},
	}
}

// counters is the collection for a consistency: the two workloads may run side
// by side, and each counter has one writer.
func counters(consistency string) string { return "counters-" + consistency }

func setupCounters(consistency string) func(context.Context, DB) error {
	return func(ctx context.Context, db DB) error {
		return createCollection(ctx, db, counters(consistency), smallDims)
	}
}

// counterClient bumps a counter of its own and reads those of a few workers.
type counterClient struct {
	w           *Worker
	consistency string
	count       int64
	token       string
}

func counterKey(worker int) string { return fmt.Sprintf("counter-%d", worker) }

func (c *counterClient) Next() *Op {
	if c.w.Rand.IntN(3) == 0 {
		c.count++
		n := c.count
		return &Op{F: "bump", Key: counterKey(c.w.ID), Conn: c.w.Home, In: history.Value{N: n},
			Do: func(ctx context.Context, conn Conn) (history.Value, error) { return c.bump(ctx, conn, n) }}
	}
	// Half of the reads are of its own counter.
	k := counterKey(c.w.ID)
	if c.w.Rand.IntN(2) == 0 {
		k = counterKey(c.w.Rand.IntN(c.w.Workers))
	}
	return c.readOp(k, c.w.AnyNode(), c.consistency)
}

func (c *counterClient) readOp(k string, conn Conn, consistency string) *Op {
	in := history.Value{Consistency: consistency}
	req := &cv1.GetRequest{CollectionId: counters(c.consistency), DocId: k, Consistency: consistency}
	if consistency == "bounded" {
		req.MaxStalenessMs, in.MaxStaleMs = boundMs, boundMs
	}
	return &Op{F: "read", Key: k, Conn: conn, Read: true, In: in,
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			if consistency == "session" {
				req.SessionToken = c.token // the newest, at the moment it is sent
			}
			resp, err := conn.Get(ctx, req)
			if err != nil {
				return history.Value{}, err
			}
			c.keep(resp.GetSessionToken())
			out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy(), Token: resp.GetSessionToken()}
			if d := resp.GetDocument(); d != nil {
				p, err := decode(d.GetMetadata())
				if err != nil {
					out.Note = err.Error() // the checker objects
				}
				out.N, out.Version = p.N, d.GetVersion()
			}
			return out, nil
		}}
}

func (c *counterClient) keep(token string) {
	if token != "" {
		c.token = token
	}
}

// bump writes the counter, conditional on a linearizable read: a write of unknown
// outcome that is still on its way meets another version then, and changes
// nothing, so that the counter never goes back by itself.
func (c *counterClient) bump(ctx context.Context, conn Conn, n int64) (history.Value, error) {
	got, err := conn.Get(ctx, &cv1.GetRequest{CollectionId: counters(c.consistency), DocId: counterKey(c.w.ID), Consistency: "linearizable"})
	if err != nil {
		return history.Value{}, notSent(err)
	}
	version := got.GetDocument().GetVersion()
	resp, err := conn.Upsert(ctx, &cv1.UpsertRequest{
		CollectionId: counters(c.consistency), DocId: counterKey(c.w.ID), Vector: vectorOf(n, smallDims),
		Metadata: encode(payload{N: n}), IfVersion: &version,
	})
	if err != nil {
		return history.Value{}, err
	}
	c.keep(resp.GetSessionToken())
	return history.Value{Version: resp.GetVersion(), Applied: resp.GetAppliedIndex(), Token: resp.GetSessionToken()}, nil
}

func (c *counterClient) Final() []*Op {
	var ops []*Op
	for _, conn := range c.w.Pinned {
		ops = append(ops, c.readOp(counterKey(c.w.ID), conn, c.consistency))
	}
	return ops
}
