// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"fmt"
	"strings"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const (
	deletedCollection = "deleted"
	searchCollection  = "search"
	// population is what searches have to look past, so that the graph is used.
	population = 1500
)

// Deleted is documents that must stay away once they are deleted.
func Deleted() *Workload {
	return &Workload{
		Name:  "delete",
		About: "documents written once, deleted once, never written again: gone from every read, search, count and scroll for good",
		Setup: func(ctx context.Context, db DB) error {
			return createCollection(ctx, db, deletedCollection, searchDims)
		},
		New: func(w *Worker) Client { return &deletedClient{w: w} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result {
			return []*check.Result{check.Deleted(ops)}
		},
	}
}

// deletedClient inserts documents and deletes some of those it inserted.
type deletedClient struct {
	w    *Worker
	live []int64
	dead []int64
}

func (c *deletedClient) Next() *Op {
	switch p := c.w.Rand.IntN(100); {
	case p < 35 || len(c.live) == 0:
		n := c.w.Unique()
		if len(c.live) < maxElements/16 {
			c.live = append(c.live, n)
			return c.insertOp(n)
		}
		fallthrough
	case p < 60:
		i := c.w.Rand.IntN(len(c.live))
		n := c.live[i]
		c.live = append(c.live[:i], c.live[i+1:]...)
		c.dead = append(c.dead, n)
		return c.deleteOp(n)
	case p < 85 && len(c.dead) > 0:
		return c.searchOp(c.dead[c.w.Rand.IntN(len(c.dead))], c.w.AnyNode())
	case p < 95 && len(c.dead) > 0:
		return c.getOp(c.dead[c.w.Rand.IntN(len(c.dead))], c.w.AnyNode())
	default:
		return &Op{F: "scan", Conn: c.w.AnyNode(), Read: true, In: history.Value{Note: "all"},
			Do: func(ctx context.Context, conn Conn) (history.Value, error) {
				return scrollAll(ctx, conn, deletedCollection, "")
			}}
	}
}

func deletedKey(n int64) string { return fmt.Sprintf("d%d", n) }

func (c *deletedClient) insertOp(n int64) *Op {
	return &Op{F: "insert", Key: deletedKey(n), Conn: c.w.Home, In: history.Value{N: n},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			resp, err := conn.Insert(ctx, &cv1.InsertRequest{CollectionId: deletedCollection, DocId: deletedKey(n),
				Vector: vectorOf(n, searchDims), Metadata: encode(payload{N: n})})
			return outcome(history.Value{Version: resp.GetVersion()}, err)
		}}
}

func (c *deletedClient) deleteOp(n int64) *Op {
	return &Op{F: "delete", Key: deletedKey(n), Conn: c.w.Home, In: history.Value{N: n},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			_, err := conn.Delete(ctx, &cv1.DeleteRequest{CollectionId: deletedCollection, DocId: deletedKey(n)})
			return outcome(history.Value{}, err)
		}}
}

func (c *deletedClient) searchOp(n int64, conn Conn) *Op {
	return &Op{F: "search", Key: deletedKey(n), Conn: conn, Read: true, In: history.Value{N: n},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			return search(ctx, conn, deletedCollection, n, 10)
		}}
}

func (c *deletedClient) getOp(n int64, conn Conn) *Op {
	return &Op{F: "get", Key: deletedKey(n), Conn: conn, Read: true, In: history.Value{N: n},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			resp, err := conn.Fetch(ctx, &cv1.FetchRequest{CollectionId: deletedCollection, DocIds: []string{deletedKey(n)}})
			out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
			for _, d := range resp.GetDocuments() {
				out.Docs = append(out.Docs, docOf(d.GetDocId(), d.GetVersion(), d.GetMetadata(), d.GetVector(), true))
			}
			return out, err
		}}
}

// Final scans, and searches for a few of what this worker deleted, everywhere.
func (c *deletedClient) Final() []*Op {
	ops := finalScans(c.w, deletedCollection)
	for i, n := range c.dead {
		if i == 20 {
			break
		}
		ops = append(ops, c.searchOp(n, c.w.AnyNode()))
	}
	return ops
}

// search looks for the vector of n and returns what came, nearest first.
func search(ctx context.Context, conn Conn, coll string, n int64, topK int32) (history.Value, error) {
	resp, err := conn.Query(ctx, &cv1.QueryRequest{
		CollectionId: coll, QueryVector: vectorOf(n, searchDims), TopK: topK, IncludeMetadata: true, IncludeVector: true,
	})
	if err != nil {
		return history.Value{}, err
	}
	out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
	for _, m := range resp.GetMatches() {
		d := docOf(m.GetDocId(), m.GetVersion(), m.GetMetadata(), m.GetVector(), true)
		d.Distance = m.GetDistance()
		out.Docs = append(out.Docs, d)
	}
	return out, nil
}

// Search is documents that come, change and go under linearizable searches.
func Search() *Workload {
	return &Workload{
		Name: "search",
		About: "upserts, deletes and linearizable searches: every document is a register that searches observe; " +
			"an acknowledged one is found at distance zero at once, a deleted one never",
		Setup: setupSearch,
		New:   func(w *Worker) Client { return &searchClient{w: w, wrote: make(map[string]int64)} },
		Check: func(ops []history.Op, o CheckOptions) []*check.Result {
			tracked := func(id string) bool { return !strings.HasPrefix(id, "static-") }
			return []*check.Result{
				check.Linearizable("linearizable", check.SearchOps(ops, tracked), check.LinearOptions{Timeout: o.Timeout, HTML: o.HTML}),
				check.Searches(ops),
				check.Versions(ops),
				check.Whole(ops),
			}
		},
	}
}

func setupSearch(ctx context.Context, db DB) error {
	if err := createCollection(ctx, db, searchCollection, searchDims); err != nil {
		return err
	}
	const perBatch = 500
	for from := 0; from < population; from += perBatch {
		batch := &cv1.BatchRequest{CollectionId: searchCollection, RequestId: fmt.Sprintf("population-%d", from)}
		for i := from; i < from+perBatch; i++ {
			n := int64(1e12) + int64(i)
			batch.Ops = append(batch.Ops, &cv1.WriteOp{Op: &cv1.WriteOp_Upsert{Upsert: &cv1.UpsertRequest{
				DocId: fmt.Sprintf("static-%d", i), Vector: vectorOf(n, searchDims), Metadata: encode(payload{N: n}),
			}}})
		}
		if _, err := db.Batch(ctx, batch); err != nil {
			return fmt.Errorf("write the population: %w", err)
		}
	}
	return nil
}

type searchClient struct {
	w     *Worker
	wrote map[string]int64 // the newest value this client wrote or saw of a key
}

func (c *searchClient) key() string {
	return fmt.Sprintf("s%d", c.w.Draws.Add(1)/200*4+int64(c.w.Rand.IntN(4)))
}

func (c *searchClient) Next() *Op {
	k := c.key()
	switch p := c.w.Rand.IntN(100); {
	case p < 30:
		n := c.w.Unique()
		return &Op{F: "write", Key: k, Conn: c.w.Home, In: history.Value{N: n},
			Do: func(ctx context.Context, conn Conn) (history.Value, error) {
				resp, err := conn.Upsert(ctx, &cv1.UpsertRequest{CollectionId: searchCollection, DocId: k,
					Vector: vectorOf(n, searchDims), Metadata: encode(payload{N: n})})
				if err == nil {
					c.wrote[k] = n
				}
				return outcome(history.Value{Version: resp.GetVersion()}, err)
			}}
	case p < 42:
		return &Op{F: "delete", Key: k, Conn: c.w.Home,
			Do: func(ctx context.Context, conn Conn) (history.Value, error) {
				_, err := conn.Delete(ctx, &cv1.DeleteRequest{CollectionId: searchCollection, DocId: k})
				return outcome(history.Value{}, err)
			}}
	case p < 52 || c.wrote[k] == 0:
		return c.readOp(k, c.w.AnyNode())
	default:
		return c.searchOp(k, c.w.AnyNode())
	}
}

func (c *searchClient) readOp(k string, conn Conn) *Op {
	return &Op{F: "read", Key: k, Conn: conn, Read: true,
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			resp, err := conn.Get(ctx, &cv1.GetRequest{CollectionId: searchCollection, DocId: k})
			if err != nil {
				return history.Value{}, err
			}
			out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
			if doc := resp.GetDocument(); doc != nil {
				d := docOf(k, doc.GetVersion(), doc.GetMetadata(), doc.GetVector(), true)
				out.N, out.Version, out.Note = d.N, d.Version, d.Bad
				c.wrote[k] = d.N
			}
			return out, nil
		}}
}

func (c *searchClient) searchOp(k string, conn Conn) *Op {
	n := c.wrote[k]
	return &Op{F: "search", Key: k, Conn: conn, Read: true, In: history.Value{N: n},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			out, err := search(ctx, conn, searchCollection, n, 10)
			for _, d := range out.Docs {
				if strings.HasPrefix(d.ID, "s") && !strings.HasPrefix(d.ID, "static-") {
					c.wrote[d.ID] = d.N
				}
			}
			return out, err
		}}
}

func (c *searchClient) Final() []*Op {
	var ops []*Op
	for i := range int64(4) {
		k := fmt.Sprintf("s%d", c.w.Draws.Load()/200*4+i)
		if c.wrote[k] != 0 {
			ops = append(ops, c.searchOp(k, c.w.AnyNode()))
		}
	}
	return ops
}
