// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Catalog is collections that are created, listed and dropped.
func Catalog() *Workload {
	return &Workload{
		Name:  "catalog",
		About: "create, get, list and drop collections: names are linearizable, and a new collection holds nothing of an old one",
		Setup: func(context.Context, DB) error { return nil },
		New:   func(w *Worker) Client { return &catalogClient{w} },
		Check: func(ops []history.Op, o CheckOptions) []*check.Result {
			return []*check.Result{
				check.Linearizable("linearizable", check.CatalogOps(ops, catalogNames(ops)), check.LinearOptions{Timeout: o.Timeout, HTML: o.HTML}),
				check.Contents(ops),
				check.Observed(ops, isF("read", "list"), isF("insert", "delete")),
			}
		},
	}
}

// catalogNames are the names that a history speaks of.
func catalogNames(ops []history.Op) []string {
	var names []string
	seen := make(map[string]bool)
	for i := range ops {
		if k := ops[i].Key; k != "" && !seen[k] {
			seen[k] = true
			names = append(names, k)
		}
	}
	return names
}

type catalogClient struct{ w *Worker }

func catalogName(epoch int64, i int) string { return fmt.Sprintf("c%d", epoch*3+int64(i)) }

func (c *catalogClient) Next() *Op {
	name := catalogName(c.w.Draws.Add(1)/120, c.w.Rand.IntN(3))
	op := &Op{Key: name, Conn: c.w.Home}
	switch p := c.w.Rand.IntN(100); {
	case p < 30:
		// The mark says which creation a collection comes from.
		op.F, op.In = "insert", history.Value{N: c.w.Unique()}
		mark := strconv.FormatInt(op.In.N, 10)
		op.Do = func(ctx context.Context, conn Conn) (history.Value, error) {
			_, err := conn.CreateCollection(ctx, &cv1.CreateCollectionRequest{
				Name: name, Dimension: smallDims, Metric: "l2", EmbeddingModel: &mark,
			})
			return outcome(history.Value{}, err)
		}
	case p < 50:
		op.F = "delete"
		op.Do = func(ctx context.Context, conn Conn) (history.Value, error) {
			_, err := conn.DeleteCollection(ctx, &cv1.DeleteCollectionRequest{CollectionId: name})
			return outcome(history.Value{}, err)
		}
	case p < 70:
		op.F, op.Read, op.Conn = "read", true, c.w.AnyNode()
		op.Do = func(ctx context.Context, conn Conn) (history.Value, error) {
			out, _, err := collection(ctx, conn, name)
			return out, err
		}
	case p < 80:
		op.F, op.Key, op.Read, op.Conn = "list", "", true, c.w.AnyNode()
		op.Do = list
	case p < 90:
		op.F = "fill"
		op.Do = func(ctx context.Context, conn Conn) (history.Value, error) {
			return fill(ctx, conn, name, c.w.Unique())
		}
	default:
		op.F, op.Read, op.Conn = "peek", true, c.w.AnyNode()
		op.Do = func(ctx context.Context, conn Conn) (history.Value, error) { return peek(ctx, conn, name) }
	}
	return op
}

func (c *catalogClient) Final() []*Op {
	if c.w.ID != 0 {
		return nil
	}
	var ops []*Op
	for _, conn := range c.w.Pinned {
		ops = append(ops, &Op{F: "list", Conn: conn, Read: true, Do: list})
	}
	return ops
}

// collection reads the mark of a collection, 0 if there is none, and its id.
func collection(ctx context.Context, conn Conn, name string) (history.Value, string, error) {
	resp, err := conn.GetCollection(ctx, &cv1.GetCollectionRequest{CollectionId: name})
	if Reason(err) == reasonCollectionNotFound {
		return history.Value{}, "", nil
	}
	if err != nil {
		return history.Value{}, "", err
	}
	out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
	info := resp.GetCollection()
	out.N, err = strconv.ParseInt(info.GetEmbeddingModel(), 10, 64)
	return out, info.GetCollectionId(), err
}

func list(ctx context.Context, conn Conn) (history.Value, error) {
	resp, err := conn.ListCollections(ctx, &cv1.ListCollectionsRequest{})
	if err != nil {
		return history.Value{}, err
	}
	out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy()}
	for _, info := range resp.GetCollections() {
		mark, err := strconv.ParseInt(info.GetEmbeddingModel(), 10, 64)
		if err != nil {
			continue // not a collection of this workload
		}
		out.Docs = append(out.Docs, history.Doc{ID: info.GetName(), N: mark})
	}
	return out, nil
}

// fill writes a document that carries the collection's mark, by the collection's
// id, so it can never land in a later collection of the same name.
func fill(ctx context.Context, conn Conn, name string, n int64) (history.Value, error) {
	found, id, err := collection(ctx, conn, name)
	if err != nil || id == "" {
		return history.Value{}, notSent(errors.Join(errors.New("no collection to fill"), err))
	}
	_, err = conn.Insert(ctx, &cv1.InsertRequest{CollectionId: id, DocId: fmt.Sprintf("f%d", n),
		Vector: vectorOf(n, smallDims), Metadata: encode(payload{N: found.N})})
	return outcome(history.Value{N: found.N}, err)
}

// peek lists the documents of a collection, by its id.
func peek(ctx context.Context, conn Conn, name string) (history.Value, error) {
	found, id, err := collection(ctx, conn, name)
	if err != nil || id == "" {
		return history.Value{}, notSent(errors.Join(errors.New("no collection to look into"), err))
	}
	resp, err := conn.Scroll(ctx, &cv1.ScrollRequest{CollectionId: id, Limit: 1000})
	if err != nil {
		return history.Value{}, err
	}
	for _, d := range resp.GetDocuments() {
		found.Docs = append(found.Docs, docOf(d.GetDocId(), d.GetVersion(), d.GetMetadata(), nil, false))
	}
	return found, nil
}
