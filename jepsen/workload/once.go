// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const onceCollection = "once"

// Once is requests that are sent again and again under one request id.
func Once() *Workload {
	return &Workload{
		Name:  "once",
		About: "inserts sent several times under one request id, on several nodes at once and again after a delete: one answer, one document",
		Setup: func(ctx context.Context, db DB) error {
			return createCollection(ctx, db, onceCollection, smallDims)
		},
		New:   func(w *Worker) Client { return &onceClient{w: w} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result { return []*check.Result{check.Once(ops)} },
	}
}

type onceClient struct {
	w    *Worker
	sent []*cv1.InsertRequest
	ids  []string // of sent, as answered
}

func (c *onceClient) Next() *Op {
	switch p := c.w.Rand.IntN(100); {
	case p < 55 && len(c.sent) < maxElements/16 || len(c.sent) == 0:
		return c.sendOp()
	case p < 70:
		return c.eraseOp()
	case p < 90:
		return c.resendOp()
	default:
		return &Op{F: "scan", Conn: c.w.AnyNode(), Read: true, In: history.Value{Note: "all"},
			Do: func(ctx context.Context, conn Conn) (history.Value, error) {
				return scrollAll(ctx, conn, onceCollection, "")
			}}
	}
}

// sendOp sends a new request up to four times: first to one node, then, whatever
// came of it, to others, some of them at the same time.
func (c *onceClient) sendOp() *Op {
	n := c.w.Unique()
	req := &cv1.InsertRequest{CollectionId: onceCollection, Vector: vectorOf(n, smallDims),
		Metadata: encode(payload{N: n}), RequestId: fmt.Sprintf("once-%d", n)}
	if c.w.Rand.IntN(2) == 0 {
		req.DocId = fmt.Sprintf("o%d", n)
	}
	conns := make([]Conn, 1+c.w.Rand.IntN(3))
	for i := range conns {
		conns[i] = c.w.AnyNode()
	}
	together := c.w.Rand.IntN(2) == 0
	return &Op{F: "send", Conn: c.w.Home, In: history.Value{N: n, ID: req.DocId, RequestID: req.RequestId},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			out, err := sendAll(ctx, append([]Conn{conn}, conns...), req, together)
			if err == nil && out.Result == "" {
				c.sent, c.ids = append(c.sent, req), append(c.ids, out.ID)
			}
			return out, err
		}}
}

// sendAll sends req on each connection. One answer is enough to know that it
// happened; only if every try certainly did nothing, nothing happened.
func sendAll(ctx context.Context, conns []Conn, req *cv1.InsertRequest, together bool) (history.Value, error) {
	type reply struct {
		resp *cv1.InsertResponse
		err  error
	}
	replies := make([]reply, len(conns))
	var wg sync.WaitGroup
	for i, conn := range conns {
		send := func() {
			resp, err := conn.Insert(ctx, req)
			replies[i] = reply{resp, err}
		}
		if together {
			wg.Go(send)
		} else {
			send()
		}
	}
	wg.Wait()
	var out history.Value
	var errs, unknown []error
	for _, r := range replies {
		if r.err == nil {
			out.Versions = append(out.Versions, r.resp.GetVersion())
			out.IDs = append(out.IDs, r.resp.GetDocId())
			out.ID, out.Version = r.resp.GetDocId(), r.resp.GetVersion()
			continue
		}
		if res, ok := answer(r.err); ok {
			out.Result = res // nobody else inserts this document: the checker objects
			continue
		}
		if Reason(r.err) == reasonRequestIDReused {
			out.Result = "reused" // nobody else uses this id: so too
			continue
		}
		errs = append(errs, r.err)
		if Classify(false, r.err) == history.Info {
			unknown = append(unknown, r.err)
		}
	}
	switch {
	case len(out.Versions) > 0 || out.Result != "":
		return out, nil
	case len(unknown) > 0:
		return history.Value{}, unknown[0]
	}
	return history.Value{}, notSent(errors.Join(errs...))
}

// eraseOp deletes a document that was acknowledged; it is not sent again.
func (c *onceClient) eraseOp() *Op {
	i := c.w.Rand.IntN(len(c.sent))
	p, err := decode(c.sent[i].GetMetadata())
	id := c.ids[i]
	return &Op{F: "erase", Conn: c.w.Home, In: history.Value{N: p.N, ID: id},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			if err != nil {
				return history.Value{}, notSent(err)
			}
			_, err := conn.Delete(ctx, &cv1.DeleteRequest{CollectionId: onceCollection, DocId: id})
			return outcome(history.Value{}, err)
		}}
}

// resendOp sends a request again that was answered long ago, perhaps after its
// document was deleted. It changes nothing, so it is as good as a read.
func (c *onceClient) resendOp() *Op {
	i := c.w.Rand.IntN(len(c.sent))
	req := c.sent[i]
	p, _ := decode(req.GetMetadata())
	return &Op{F: "resend", Conn: c.w.AnyNode(), Read: true, In: history.Value{N: p.N, ID: c.ids[i], RequestID: req.RequestId},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			return sendAll(ctx, []Conn{conn}, req, false)
		}}
}

func (c *onceClient) Final() []*Op { return finalScans(c.w, onceCollection) }
