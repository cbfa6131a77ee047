// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const appendCollection = "lists"

// Append is transactions of reads and appends over several lists.
func Append() *Workload {
	return &Workload{
		Name:  "append",
		About: "transactions over lists: fetch at one index, then one batch conditional on all that was read; no cycle of dependencies",
		Setup: func(ctx context.Context, db DB) error {
			return createCollection(ctx, db, appendCollection, smallDims)
		},
		New: func(w *Worker) Client { return &appendClient{w} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result {
			return []*check.Result{check.Append(ops), check.Whole(ops)}
		},
	}
}

type appendClient struct{ w *Worker }

func listKey(epoch int64, i int) string { return fmt.Sprintf("l%d", epoch*4+int64(i)) }

// Next draws one to four micro-operations on four lists that are in use now. A
// list gets at most one append from a transaction.
func (c *appendClient) Next() *Op {
	const drawsPerLists = 250 // lists are written whole, so they must stay short
	epoch := c.w.Draws.Add(1) / drawsPerLists
	var mops []history.Mop
	appended := make(map[string]bool)
	readOnly := c.w.Rand.IntN(3) == 0
	for range 1 + c.w.Rand.IntN(4) {
		k := listKey(epoch, c.w.Rand.IntN(4))
		if !readOnly && !appended[k] && c.w.Rand.IntN(2) == 0 {
			appended[k] = true
			mops = append(mops, history.Mop{F: "append", Key: k, N: c.w.Unique()})
			continue
		}
		if !appended[k] { // reads show the state before the transaction
			mops = append(mops, history.Mop{F: "r", Key: k})
		}
	}
	conn := c.w.Home
	if len(appended) == 0 {
		conn = c.w.AnyNode()
	}
	return &Op{F: "txn", Conn: conn, In: history.Value{Txn: mops}, Read: len(appended) == 0,
		Do: func(ctx context.Context, conn Conn) (history.Value, error) { return transact(ctx, conn, mops) }}
}

func (c *appendClient) Final() []*Op {
	if c.w.ID != 0 {
		return nil
	}
	var ops []*Op
	for epoch := int64(0); epoch <= c.w.Draws.Load()/250; epoch++ {
		var mops []history.Mop
		for i := range 4 {
			mops = append(mops, history.Mop{F: "r", Key: listKey(epoch, i)})
		}
		conn := c.w.Pinned[int(epoch)%len(c.w.Pinned)]
		ops = append(ops, &Op{F: "txn", Conn: conn, In: history.Value{Txn: mops}, Read: true,
			Do: func(ctx context.Context, conn Conn) (history.Value, error) { return transact(ctx, conn, mops) }})
	}
	return ops
}

// transact fetches every list it touches at one log index and, if it appends,
// writes all of them in one batch that is conditional on their versions. Lists
// that are only read are written back unchanged: that proves that they did not
// change before the commit.
func transact(ctx context.Context, conn Conn, mops []history.Mop) (history.Value, error) {
	keys, ids := make(map[string]bool), []string(nil)
	writes := false
	for _, m := range mops {
		if !keys[m.Key] {
			keys[m.Key] = true
			ids = append(ids, m.Key)
		}
		writes = writes || m.F == "append"
	}
	resp, err := conn.Fetch(ctx, &cv1.FetchRequest{CollectionId: appendCollection, DocIds: ids})
	if err != nil {
		return history.Value{}, notSent(err)
	}
	lists, versions := make(map[string][]int64), make(map[string]uint64)
	for _, d := range resp.GetDocuments() {
		p, err := decode(d.GetMetadata())
		if err != nil {
			return history.Value{Note: err.Error()}, nil // the checker objects
		}
		lists[d.GetDocId()], versions[d.GetDocId()] = p.List, d.GetVersion()
	}
	out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
	after := make(map[string][]int64, len(lists))
	for k, list := range lists {
		after[k] = list
	}
	for _, m := range mops {
		if m.F == "r" {
			m.List = lists[m.Key]
		} else {
			after[m.Key] = append(after[m.Key][:len(after[m.Key]):len(after[m.Key])], m.N)
		}
		out.Txn = append(out.Txn, m)
	}
	if !writes {
		return out, nil
	}
	batch := &cv1.BatchRequest{CollectionId: appendCollection}
	for _, k := range ids {
		version := versions[k]
		batch.Ops = append(batch.Ops, &cv1.WriteOp{Op: &cv1.WriteOp_Upsert{Upsert: &cv1.UpsertRequest{
			DocId: k, Vector: vectorOf(int64(len(after[k])), smallDims),
			Metadata: encode(payload{N: int64(len(after[k])), List: after[k]}), IfVersion: &version,
		}}})
	}
	b, err := conn.Batch(ctx, batch)
	out.Version = b.GetVersion()
	return out, err
}
