// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"errors"
	"fmt"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const setCollection = "set"

// maxElements keeps a set on one page of a scroll, which is at one log index.
const maxElements = 9000

// Set is inserts that must all be there, once.
func Set() *Workload {
	return &Workload{
		Name:  "set",
		About: "inserts, half of them with ids that the server mints; whatever was acknowledged is there, once",
		Setup: func(ctx context.Context, db DB) error {
			return createCollection(ctx, db, setCollection, smallDims)
		},
		New:   func(w *Worker) Client { return &setClient{w: w} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result { return []*check.Result{check.Set(ops)} },
	}
}

type setClient struct {
	w     *Worker
	added int
}

func (c *setClient) Next() *Op {
	if c.w.Rand.IntN(30) == 0 || c.added >= maxElements/64 && c.w.Rand.IntN(4) != 0 || c.added >= maxElements/16 {
		conn := c.w.AnyNode()
		return &Op{F: "scan", Conn: conn, Read: true, In: history.Value{Note: "all"},
			Do: func(ctx context.Context, conn Conn) (history.Value, error) {
				return scrollAll(ctx, conn, setCollection, "")
			}}
	}
	c.added++
	n := c.w.Unique()
	req := &cv1.InsertRequest{CollectionId: setCollection, Vector: vectorOf(n, smallDims), Metadata: encode(payload{N: n})}
	if c.w.Rand.IntN(2) == 0 {
		req.DocId = fmt.Sprintf("e%d", n)
	}
	return &Op{F: "add", Conn: c.w.Home, In: history.Value{N: n, ID: req.DocId},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			resp, err := conn.Insert(ctx, req)
			return history.Value{ID: resp.GetDocId(), Version: resp.GetVersion()}, err
		}}
}

func (c *setClient) Final() []*Op { return finalScans(c.w, setCollection) }

const (
	bankCollection = "bank"
	bankAccounts   = 8
	bankEach       = 100
)

// Bank is transfers between accounts by atomic batches.
func Bank() *Workload {
	return &Workload{
		Name:  "bank",
		About: "transfers by atomic conditional batches; every scroll, at one log index, shows the same total",
		Setup: setupBank,
		New:   func(w *Worker) Client { return &bankClient{w: w} },
		Check: func(ops []history.Op, _ CheckOptions) []*check.Result {
			return []*check.Result{check.Bank(ops, bankAccounts, bankAccounts*bankEach), check.Whole(ops)}
		},
	}
}

func account(i int) string { return fmt.Sprintf("account-%d", i) }

// balance is stored plus one: the history keeps 0 for "no document".
func balanceDoc(n int64) payload { return payload{N: n + 1} }

func setupBank(ctx context.Context, db DB) error {
	if err := createCollection(ctx, db, bankCollection, smallDims); err != nil {
		return err
	}
	batch := &cv1.BatchRequest{CollectionId: bankCollection, RequestId: "bank-setup"}
	for i := range bankAccounts {
		batch.Ops = append(batch.Ops, &cv1.WriteOp{Op: &cv1.WriteOp_Insert{Insert: &cv1.InsertRequest{
			DocId: account(i), Vector: vectorOf(bankEach+1, smallDims), Metadata: encode(balanceDoc(bankEach)),
		}}})
	}
	if _, err := db.Batch(ctx, batch); err != nil && Reason(err) != reasonDocumentExists {
		return fmt.Errorf("open accounts: %w", err)
	}
	return nil
}

type bankClient struct{ w *Worker }

func (c *bankClient) Next() *Op {
	if c.w.Rand.IntN(3) == 0 {
		return &Op{F: "scan", Conn: c.w.AnyNode(), Read: true, In: history.Value{Note: "all"},
			Do: func(ctx context.Context, conn Conn) (history.Value, error) {
				return scrollAll(ctx, conn, bankCollection, "")
			}}
	}
	from := c.w.Rand.IntN(bankAccounts)
	to := (from + 1 + c.w.Rand.IntN(bankAccounts-1)) % bankAccounts
	amount := int64(1 + c.w.Rand.IntN(20))
	return &Op{F: "transfer", Key: account(from) + ">" + account(to), Conn: c.w.Home, In: history.Value{N: amount},
		Do: func(ctx context.Context, conn Conn) (history.Value, error) {
			return transfer(ctx, conn, account(from), account(to), amount)
		}}
}

// transfer reads both accounts and writes both, if neither changed meanwhile.
func transfer(ctx context.Context, conn Conn, from, to string, amount int64) (history.Value, error) {
	resp, err := conn.Fetch(ctx, &cv1.FetchRequest{CollectionId: bankCollection, DocIds: []string{from, to}})
	if err != nil {
		return history.Value{}, notSent(err)
	}
	type state struct {
		balance int64
		version uint64
	}
	read := make(map[string]state)
	for _, d := range resp.GetDocuments() {
		p, err := decode(d.GetMetadata())
		if err != nil {
			return history.Value{Note: err.Error()}, nil // the checker objects
		}
		read[d.GetDocId()] = state{p.N - 1, d.GetVersion()}
	}
	if len(read) != 2 {
		return history.Value{Note: fmt.Sprintf("fetched %d accounts of 2", len(read))}, nil // so too
	}
	if read[from].balance < amount {
		return history.Value{}, notSent(errors.New("not enough money"))
	}
	put := func(id string, balance int64, version uint64) *cv1.WriteOp {
		return &cv1.WriteOp{Op: &cv1.WriteOp_Upsert{Upsert: &cv1.UpsertRequest{
			DocId: id, Vector: vectorOf(balance+1, smallDims), Metadata: encode(balanceDoc(balance)), IfVersion: &version,
		}}}
	}
	b, err := conn.Batch(ctx, &cv1.BatchRequest{CollectionId: bankCollection, Ops: []*cv1.WriteOp{
		put(from, read[from].balance-amount, read[from].version),
		put(to, read[to].balance+amount, read[to].version),
	}})
	return history.Value{Version: b.GetVersion()}, err
}

func (c *bankClient) Final() []*Op { return finalScans(c.w, bankCollection) }
