// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"google.golang.org/grpc"

	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// IngestBatch implements collectionv1.CollectionServiceServer.
//
// One goroutine receives and cuts batches, the handler's own commits them in
// order; at most three batches are in memory. A batch ends at a fixed function of
// the stream and batch n is committed under "<request id>/<n>", so that a stream
// sent again commits what is missing and nothing twice.
func (s *service) IngestBatch(stream grpc.ClientStreamingServer[collectionv1.InsertRequest, collectionv1.IngestResponse]) error {
	watch := startWatch()
	in := &ingest{s: s}
	if err := in.run(stream); err != nil {
		return noteCount(err, "acknowledged", in.ingested)
	}
	sv := s.wrote(in.logIndex)
	return stream.SendAndClose(&collectionv1.IngestResponse{
		Ingested: in.ingested, Created: in.created, LatencyMs: watch.ms(),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	})
}

// noteCount adds how much of a request was done before the error. Once something
// was, an error that says of its part that it was not applied does not say so of
// the request.
func noteCount(err error, what string, n uint64) error {
	if n > 0 && notApplied(err) {
		err = fmt.Errorf("%w: %d documents %s, then: %w", node.ErrUnknownOutcome, n, what, err)
	}
	return note(err, what, strconv.FormatUint(n, 10))
}

// ingest is one stream. The fields behind requestID belong to the committing
// goroutine.
type ingest struct {
	s              *service
	first          *collectionv1.InsertRequest
	ref, requestID string

	ingested, created uint64
	logIndex          uint64
}

// run commits the stream to its end.
//
// A commit that fails ends the handler while the receiving goroutine still waits for
// a client that may be pausing: the end of the handler ends its wait.
func (in *ingest) run(stream grpc.ClientStreamingServer[collectionv1.InsertRequest, collectionv1.IngestResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	first, err := recvDocument(stream, 0)
	if errors.Is(err, io.EOF) {
		return invalid("", "the stream holds no document")
	}
	if err != nil {
		return err
	}
	in.first, in.ref, in.requestID = first, first.GetCollectionId(), first.GetRequestId()
	if err := checkRef(in.ref); err != nil {
		return err
	}
	if err := in.s.check(first); err != nil {
		return err
	}
	batches := make(chan *ingestBatch, 1)
	received := make(chan error, 1)
	go func() {
		defer close(batches)
		received <- func() (err error) {
			defer carry(&err)
			return in.receive(ctx, stream, first, batches)
		}()
	}()
	for b := range batches {
		if err := in.commit(ctx, b); err != nil {
			return err
		}
	}
	return throw(<-received)
}

// recvDocument receives the document that is row of the stream, and names it if it
// is refused for its bytes.
func recvDocument(stream grpc.ClientStreamingServer[collectionv1.InsertRequest, collectionv1.IngestResponse], row int) (*collectionv1.InsertRequest, error) {
	doc, err := stream.Recv()
	if err == nil {
		return doc, nil
	}
	field := at("", "documents", row)
	var iv *invalidError
	switch {
	case errors.Is(err, ErrBodyTooLarge):
		err = note(fmt.Errorf("%s: %w", field, err), "field", field)
	case errors.As(err, &iv):
		err = invalid(field, iv.Error())
	}
	return nil, err
}

// ingestBatch is a piece of the stream that goes into one log entry.
type ingestBatch struct {
	number, firstRow int
	docs             []*collectionv1.InsertRequest
	bytes            int
	ids              map[string]bool
}

func (b *ingestBatch) next() *ingestBatch {
	return &ingestBatch{number: b.number + 1, firstRow: b.firstRow + len(b.docs), ids: map[string]bool{}}
}

// checkLater refuses a message that contradicts the first one.
func (in *ingest) checkLater(field string, doc *collectionv1.InsertRequest) error {
	name := ""
	switch first := in.first; {
	case doc.GetCollectionId() != "" && doc.GetCollectionId() != first.GetCollectionId():
		name = "collection_id"
	case doc.GetConsistency() != "" && doc.GetConsistency() != first.GetConsistency():
		name = "consistency"
	case doc.GetSessionToken() != "" && doc.GetSessionToken() != first.GetSessionToken():
		name = "session_token"
	case doc.GetMaxStalenessMs() != 0 && doc.GetMaxStalenessMs() != first.GetMaxStalenessMs():
		name = "max_staleness_ms"
	case doc.GetRequestId() != "" && doc.GetRequestId() != first.GetRequestId():
		name = "request_id"
	default:
		return nil
	}
	return invalid(join(field, name), "must be empty or as in the first message")
}

// receive cuts the stream into batches until its end.
func (in *ingest) receive(ctx context.Context, stream grpc.ClientStreamingServer[collectionv1.InsertRequest, collectionv1.IngestResponse],
	doc *collectionv1.InsertRequest, batches chan<- *ingestBatch) error {
	send := func(b *ingestBatch) error {
		select {
		case batches <- b:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b := &ingestBatch{ids: map[string]bool{}}
	for {
		row := b.firstRow + len(b.docs)
		field := at("", "documents", row)
		if err := in.checkLater(field, doc); err != nil {
			return err
		}
		size := 4*len(doc.GetVector()) + len(doc.GetMetadata().GetRaw()) + len(doc.GetDocId()) + 64
		full := len(b.docs) == ingestBatchDocs || b.bytes+size > ingestBatchBytes || doc.GetDocId() != "" && b.ids[doc.GetDocId()]
		if full && len(b.docs) > 0 {
			if err := send(b); err != nil {
				return err
			}
			b = b.next()
		}
		b.docs = append(b.docs, doc)
		b.bytes += size
		b.ids[doc.GetDocId()] = true
		var err error
		if doc, err = recvDocument(stream, row+1); errors.Is(err, io.EOF) {
			return send(b)
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (in *ingest) commit(ctx context.Context, b *ingestBatch) error {
	ctx, cancel := context.WithTimeout(ctx, defaultDeadline)
	defer cancel()
	requestID := ""
	if in.requestID != "" {
		requestID = in.requestID + "/" + strconv.Itoa(b.number)
	}
	res, err := in.s.proposeOn(ctx, in.ref, requestID, func(c *raftfsm.Collection) (*fsmv1.Command, error) {
		w := &writer{
			rec: c.Record(), requestID: requestID, seen: make(map[string]int, len(b.docs)),
			writes: make([]*fsmv1.Write, 0, len(b.docs)), vectors: make([]byte, 0, b.bytes),
		}
		for i, d := range b.docs {
			err := w.document(at("", "documents", b.firstRow+i), fsmv1.Write_KIND_UPSERT,
				d.GetDocId(), d.ExternalId, d.GetVector(), d.GetMetadata(), nil)
			if err != nil {
				return nil, err
			}
		}
		return w.command(), nil
	})
	if err != nil {
		return err
	}
	in.ingested += uint64(len(b.docs))
	for i := range b.docs {
		if created(res, i) {
			in.created++
		}
	}
	in.logIndex = max(in.logIndex, res.GetLogIndex())
	return nil
}
