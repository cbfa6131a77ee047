// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// IngestOptions bound an Ingest; zero takes the defaults.
type IngestOptions struct {
	BatchDocs  int // documents a batch, default 500, at most 10,000
	BatchBytes int // bytes a batch, default 8 MiB, at most 24 MiB
	InFlight   int // batches under way at once, default 4, at most 64
	// RequestID names batch n (from 0), of which first is the place of its
	// first document in the stream. Default: a new UUIDv7 each. Give ids that
	// depend on n alone to make a whole stream that is sent again apply once:
	// batches are cut by count and size only, so the same stream makes the
	// same batches.
	RequestID func(n, first int) string
	// Acked is called, from one goroutine at a time, with the number of
	// documents from the beginning of the stream that are all committed.
	Acked func(docs int)
}

// IngestResult says what a finished stream did.
type IngestResult struct {
	Documents, Created int
}

// Ingest streams documents into a collection in batches, each one log entry,
// and survives a change of leader: a batch keeps its request id until it is
// acknowledged, so it is applied once. Several batches are under way at once;
// two that hold the same document are not, so writes of one document keep the
// order of the stream. Add and Close are called by one goroutine.
type Ingest struct {
	c          *Client
	ctx        context.Context
	cancel     context.CancelFunc
	collection string
	opt        IngestOptions

	ops   []*collectionv1.WriteOp
	ids   map[string]struct{} // of ops
	bytes int
	first int // place of ops[0] in the stream
	n     int // number of the batch being filled

	wg sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	changed *sync.Cond
	busy    map[string]struct{}        // ids under way
	flying  map[int]context.CancelFunc // batches under way
	done    map[int]int                // batch → documents, of batches acknowledged out of order
	next    int                        // the first batch not acknowledged
	acked   int                        // documents before it
	created int
	failure int // the batch of err
	err     error
}

// IngestError is what stopped a stream.
type IngestError struct {
	// Acked documents from the beginning of the stream are all committed; of
	// those after, batches that were under way may be too.
	Acked int
	// First and Docs are the batch that failed, the first of them.
	First, Docs int
	Err         error
}

func (e *IngestError) Error() string {
	return fmt.Sprintf("client: ingest: documents %d to %d: %v (the first %d are committed)", e.First, e.First+e.Docs-1, e.Err, e.Acked)
}

// Unwrap returns the error of the batch.
func (e *IngestError) Unwrap() error { return e.Err }

var errIngestClosed = errors.New("client: ingest is closed")

// Ingest begins a stream of upserts; end it with Close.
func (c *Client) Ingest(ctx context.Context, collection string, o IngestOptions) *Ingest {
	o.BatchDocs = bounded(o.BatchDocs, defaultIngestDocs, maxIngestDocs)
	o.BatchBytes = bounded(o.BatchBytes, defaultIngestBytes, maxIngestBytes)
	o.InFlight = bounded(o.InFlight, defaultIngestInFlight, maxIngestInFlight)
	if o.RequestID == nil {
		o.RequestID = func(int, int) string { return NewRequestID() }
	}
	in := &Ingest{c: c, collection: collection, opt: o, ids: map[string]struct{}{},
		busy: map[string]struct{}{}, flying: map[int]context.CancelFunc{}, done: map[int]int{}}
	in.changed = sync.NewCond(&in.mu)
	in.ctx, in.cancel = context.WithCancel(ctx)
	return in
}

func bounded(v, def, limit int) int {
	if v <= 0 {
		return def
	}
	return min(v, limit)
}

// Add takes the next document; collection and request id of r must be empty and
// r is not to be changed afterwards. It waits while InFlight batches are under
// way and returns the error that stopped the stream, if one did.
func (in *Ingest) Add(r *collectionv1.UpsertRequest) error {
	if in.ops == nil && in.n < 0 {
		return errIngestClosed
	}
	if err := in.failed(); err != nil {
		return err
	}
	size := proto.Size(r)
	_, twice := in.ids[r.DocId]
	if len(in.ops) > 0 && (twice || len(in.ops) >= in.opt.BatchDocs || in.bytes+size > in.opt.BatchBytes) {
		if err := in.send(); err != nil {
			return err
		}
	}
	in.ops = append(in.ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Upsert{Upsert: r}})
	in.bytes += size
	if r.DocId != "" {
		in.ids[r.DocId] = struct{}{}
	}
	return nil
}

// send hands the batch to a goroutine once there is room for it and none of its
// documents is under way.
func (in *Ingest) send() error {
	in.mu.Lock()
	for in.err == nil && (len(in.flying) >= in.opt.InFlight || in.overlaps()) {
		in.changed.Wait()
	}
	if in.err != nil {
		in.mu.Unlock()
		return in.failed()
	}
	n, first, ids := in.n, in.first, in.ids
	ctx, cancel := context.WithCancel(in.ctx)
	in.flying[n] = cancel
	for id := range ids {
		in.busy[id] = struct{}{}
	}
	in.mu.Unlock()
	req := &collectionv1.BatchRequest{CollectionId: in.collection, Ops: in.ops, RequestId: in.opt.RequestID(n, first)}
	in.wg.Go(func() { in.run(ctx, n, first, ids, req) })
	in.n++
	in.first += len(in.ops)
	in.ops, in.ids, in.bytes = nil, make(map[string]struct{}, len(ids)), 0
	return nil
}

// overlaps is called with mu held.
func (in *Ingest) overlaps() bool {
	for id := range in.ids {
		if _, ok := in.busy[id]; ok {
			return true
		}
	}
	return false
}

// run sends one batch until it is acknowledged or refused. Those behind one that
// failed are ended, since they must not go on behind a hole; those before it are
// finished, so that all is committed up to the first that failed.
func (in *Ingest) run(ctx context.Context, n, first int, ids map[string]struct{}, req *collectionv1.BatchRequest) {
	out, err := in.c.Batch(ctx, req)
	in.mu.Lock()
	defer in.mu.Unlock()
	defer in.changed.Broadcast()
	in.flying[n]()
	delete(in.flying, n)
	for id := range ids {
		delete(in.busy, id)
	}
	if err != nil {
		if in.err == nil || n < in.failure {
			in.err, in.failure = &IngestError{First: first, Docs: len(req.Ops), Err: err}, n
			for behind, end := range in.flying {
				if behind > n {
					end()
				}
			}
		}
		return
	}
	for _, r := range out.Results {
		if r.GetCreated() {
			in.created++
		}
	}
	in.done[n] = len(req.Ops)
	before := in.acked
	for docs, ok := in.done[in.next]; ok; docs, ok = in.done[in.next] {
		delete(in.done, in.next)
		in.acked += docs
		in.next++
	}
	if in.acked > before && in.opt.Acked != nil {
		in.opt.Acked(in.acked)
	}
}

// failed returns the error that stopped the stream, with how far it got.
func (in *Ingest) failed() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if e, ok := in.err.(*IngestError); ok {
		return &IngestError{Acked: in.acked, First: e.First, Docs: e.Docs, Err: e.Err}
	}
	return in.err
}

// Close sends what is left, waits until all is acknowledged, and ends the
// stream. It must be called even after an error.
func (in *Ingest) Close() (IngestResult, error) {
	if len(in.ops) > 0 && in.failed() == nil {
		_ = in.send() // its error is in.err
	}
	in.wg.Wait()
	in.cancel()
	err := in.failed()
	in.ops, in.n = nil, -1
	in.mu.Lock()
	defer in.mu.Unlock()
	return IngestResult{Documents: in.acked, Created: in.created}, err
}
