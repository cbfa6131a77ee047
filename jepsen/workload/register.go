// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Register is linearizable registers: every document is one.
func Register() *Workload { return registers("register") }

// registers is the register workload in a collection of its own, which bears the
// workload's name: two of the kind may run side by side.
func registers(name string) *Workload {
	return &Workload{
		Name:  name,
		About: "read, write, insert, patch, compare-and-set and delete single documents; linearizable (porcupine)",
		Setup: func(ctx context.Context, db DB) error {
			return createCollection(ctx, db, name, smallDims)
		},
		New: func(w *Worker) Client { return &registerClient{w: w, coll: name, seen: make(map[string]seenValue)} },
		Check: func(ops []history.Op, o CheckOptions) []*check.Result {
			return []*check.Result{
				check.Linearizable("linearizable", check.RegisterOps(ops), check.LinearOptions{Timeout: o.Timeout, HTML: o.HTML}),
				check.Versions(ops),
				check.Whole(ops),
				check.Observed(ops, isF("read"), isF("write", "insert", "cas", "patch")),
			}
		},
	}
}

// RegisterREST is Register through an independent client of the REST contract.
func RegisterREST() *Workload {
	w := registers("register-rest")
	w.REST = true
	w.About = "the register workload by a client of its own on plain net/http, from the REST contract"
	return w
}

func isF(names ...string) func(*history.Op) bool {
	return func(op *history.Op) bool {
		for _, n := range names {
			if op.F == n && op.Out.Result == "" {
				return true
			}
		}
		return false
	}
}

// seenValue is the newest thing a client knows of a key.
type seenValue struct {
	n       int64
	version uint64
}

// drawsPerEpoch bounds the history of one register: the search for an order is
// exponential in the operations whose outcome is unknown. After so many draws of
// all workers together they move on to three new keys.
const drawsPerEpoch = 150

type registerClient struct {
	w    *Worker
	coll string
	seen map[string]seenValue
}

func (c *registerClient) key() string {
	return registerKey(c.w.Draws.Add(1)/drawsPerEpoch, c.w.Rand.IntN(3))
}

func registerKey(epoch int64, i int) string { return fmt.Sprintf("r%d", epoch*3+int64(i)) }

func (c *registerClient) Next() *Op {
	k := c.key()
	op := &Op{Key: k, Conn: c.w.Home}
	known, haveKnown := c.seen[k]
	switch p := c.w.Rand.IntN(100); {
	case p < 40:
		op.F, op.Read = "read", true
		op.Do = func(ctx context.Context, conn Conn) (history.Value, error) { return c.read(ctx, conn, k) }
	case p < 55:
		op.F, op.In = "write", history.Value{N: c.w.Unique()}
		op.Do = c.upsert(k, op.In.N, nil)
	case p < 62:
		op.F, op.In = "insert", history.Value{N: c.w.Unique()}
		op.Do = c.insert(k, op.In.N)
	case p < 70:
		op.F, op.In = "patch", history.Value{N: c.w.Unique()}
		op.Do = c.patch(k, op.In.N)
	case p < 92:
		// Conditional on what this client last saw; on nothing, at first.
		op.F = "cas"
		op.In = history.Value{Expect: known.n, N: c.w.Unique(), Version: known.version}
		op.Do = c.upsert(k, op.In.N, &known.version)
	case p < 96 || !haveKnown || known.n == 0:
		op.F = "delete"
		op.Do = c.del(k, nil)
	default:
		op.F, op.In = "cas-del", history.Value{Expect: known.n, Version: known.version}
		op.Do = c.del(k, &known.version)
	}
	return op
}

func (c *registerClient) Final() []*Op {
	if c.w.ID != 0 {
		return nil
	}
	var ops []*Op
	for i := range 3 {
		k := registerKey(c.w.Draws.Load()/drawsPerEpoch, i)
		for _, conn := range c.w.Pinned {
			ops = append(ops, &Op{F: "read", Key: k, Conn: conn, Read: true,
				Do: func(ctx context.Context, conn Conn) (history.Value, error) { return c.read(ctx, conn, k) }})
		}
	}
	return ops
}

func (c *registerClient) read(ctx context.Context, conn Conn, k string) (history.Value, error) {
	resp, err := conn.Get(ctx, &cv1.GetRequest{CollectionId: c.coll, DocId: k})
	if err != nil {
		return history.Value{}, err
	}
	out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
	if doc := resp.GetDocument(); doc != nil {
		d := docOf(k, doc.GetVersion(), doc.GetMetadata(), nil, false)
		out.N, out.Version, out.Note = d.N, d.Version, d.Bad
	}
	c.seen[k] = seenValue{out.N, out.Version}
	return out, nil
}

func (c *registerClient) upsert(k string, n int64, ifVersion *uint64) func(context.Context, Conn) (history.Value, error) {
	return func(ctx context.Context, conn Conn) (history.Value, error) {
		resp, err := conn.Upsert(ctx, &cv1.UpsertRequest{
			CollectionId: c.coll, DocId: k, Vector: vectorOf(n, smallDims),
			Metadata: encode(payload{N: n}), IfVersion: ifVersion,
		})
		return c.wrote(k, n, resp.GetVersion(), err)
	}
}

// wrote remembers what a write left, so that the next compare-and-set can hit.
func (c *registerClient) wrote(k string, n int64, version uint64, err error) (history.Value, error) {
	if err == nil {
		c.seen[k] = seenValue{n, version}
	} else {
		delete(c.seen, k)
	}
	return outcome(history.Value{Version: version}, err)
}

func (c *registerClient) insert(k string, n int64) func(context.Context, Conn) (history.Value, error) {
	return func(ctx context.Context, conn Conn) (history.Value, error) {
		resp, err := conn.Insert(ctx, &cv1.InsertRequest{
			CollectionId: c.coll, DocId: k, Vector: vectorOf(n, smallDims), Metadata: encode(payload{N: n}),
		})
		return c.wrote(k, n, resp.GetVersion(), err)
	}
}

func (c *registerClient) patch(k string, n int64) func(context.Context, Conn) (history.Value, error) {
	return func(ctx context.Context, conn Conn) (history.Value, error) {
		resp, err := conn.PatchPayload(ctx, &cv1.PatchPayloadRequest{
			CollectionId: c.coll, DocId: k, Metadata: encode(payload{N: n}),
		})
		return c.wrote(k, n, resp.GetVersion(), err)
	}
}

func (c *registerClient) del(k string, ifVersion *uint64) func(context.Context, Conn) (history.Value, error) {
	return func(ctx context.Context, conn Conn) (history.Value, error) {
		_, err := conn.Delete(ctx, &cv1.DeleteRequest{CollectionId: c.coll, DocId: k, IfVersion: ifVersion})
		return c.wrote(k, 0, 0, err)
	}
}
