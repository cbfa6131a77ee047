// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// noForwardKey is the metadata by which a client asks a follower to answer
// NOT_LEADER with a hint instead of passing the write on.
const noForwardKey = "akidb-no-forward"

// propose commits one command. The error of a command that the state refused
// comes with its result.
func (s *service) propose(ctx context.Context, cmd *fsmv1.Command) (*fsmv1.Result, error) {
	commit := s.node.Propose
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get(noForwardKey)) > 0 {
		commit = s.node.ProposeLocal
	}
	res, err := commit(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return res, raftfsm.ResultError(res)
}

// proposeOn finds the collection, lets build check the request against it and
// commits the command.
//
// The collection is looked up in whatever this replica has applied, which costs
// no round trip. Only what that view refuses is looked up again by a
// linearizable read, since the replica may lag behind a create, or a drop and
// create, that the caller knows of. What that refuses in turn, and what the state
// takes for another request, is looked at by carriedBefore.
func (s *service) proposeOn(ctx context.Context, ref, requestID string,
	build func(*raftfsm.Collection) (*fsmv1.Command, error)) (*fsmv1.Result, error) {
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	id := requestID
	cmd, local := s.buildAt(ctx, node.Eventual, ref, id, build)
	if local == nil {
		cmd.RequestId = requestID
		res, err := s.propose(ctx, cmd)
		// An earlier try may have been refused so, at a replica that lagged behind:
		// it named another collection and is taken for another request.
		early := errors.Is(err, raftfsm.ErrRequestIDReused) && res.GetReplayed()
		if !early && !errors.Is(err, raftfsm.ErrCollectionNotFound) {
			return res, s.orCarriedBefore(ctx, ref, id, err)
		}
		local = fmt.Errorf("%w: collection %q", raftfsm.ErrCollectionNotFound, ref)
		if requestID != "" {
			requestID += againSuffix // the refusal is remembered under the plain one
		}
	}
	var iv *invalidError
	if !errors.Is(local, raftfsm.ErrCollectionNotFound) && !errors.As(local, &iv) {
		return nil, local
	}
	look, cancel := ctx, func() {}
	if iv != nil {
		look, cancel = s.whileLed(ctx)
	}
	defer cancel()
	cmd, err := s.buildAt(look, node.Linearizable, ref, id, build)
	switch {
	case iv != nil && (errors.Is(err, node.ErrNoLeader) || err != nil && look.Err() != nil && ctx.Err() == nil):
		return nil, local // wrong by all this replica knows; say that
	case err != nil:
		return nil, err
	}
	cmd.RequestId = requestID
	res, err := s.propose(ctx, cmd)
	return res, s.orCarriedBefore(ctx, ref, id, err)
}

// What proposeOn and mark append to the request id of a request that takes more than
// one command.
const (
	againSuffix = "/again"
	markSuffix  = "/start"
)

// carriedBefore is err, what refuses a request for a collection as of v, with what is
// known of an attempt before it. A request sent again after its collection was dropped
// finds none, or another one of that name, which refuses it: none of that says that
// the request did not happen. c is what ref means in v, nil if it means nothing.
//
// An outcome from before c began is of a collection that is gone. One from later is of
// another request, since this one would have got it too.
func carriedBefore(v *raftfsm.View, c *raftfsm.Collection, requestID string, err error) error {
	var iv *invalidError
	if requestID == "" || !errors.Is(err, raftfsm.ErrCollectionNotFound) && !errors.Is(err, raftfsm.ErrRequestIDReused) && !errors.As(err, &iv) {
		return err
	}
	for _, id := range []string{requestID, requestID + againSuffix} {
		res, rerr := v.Request(id)
		switch {
		case rerr != nil:
			return rerr
		case res == nil, c != nil && res.GetLogIndex() >= c.Record().GetCreatedIndex():
		case res.GetStatus() == fsmv1.Status_STATUS_OK, strings.HasSuffix(requestID, markSuffix) && marked(raftfsm.ResultError(res)):
			return &carriedError{err: err, logIndex: res.GetLogIndex()}
		}
	}
	return err
}

// orCarriedBefore is carriedBefore for what the state takes for another request.
func (s *service) orCarriedBefore(ctx context.Context, ref, requestID string, err error) error {
	if !errors.Is(err, raftfsm.ErrRequestIDReused) {
		return err
	}
	v, rerr := s.node.Read(ctx, node.ReadOptions{Consistency: node.Linearizable})
	if rerr != nil {
		return rerr
	}
	defer v.Close()
	c, _ := collectionOf(v, ref) // nil if it was dropped meanwhile
	return carriedBefore(v, c, requestID, err)
}

// whileLed is ctx until no leader is known: a read that is linearizable would
// then wait for one as long as ctx allows.
func (s *service) whileLed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx, at the latest by cancel
		tick := time.NewTicker(leaderPoll)
		defer tick.Stop()
		for {
			if _, err := s.node.Leader(); errors.Is(err, node.ErrNoLeader) {
				cancel()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return ctx, cancel
}

func (s *service) buildAt(ctx context.Context, level node.Consistency, ref, requestID string,
	build func(*raftfsm.Collection) (*fsmv1.Command, error)) (*fsmv1.Command, error) {
	v, err := s.node.Read(ctx, node.ReadOptions{Consistency: level})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	c, err := collectionOf(v, ref)
	if err != nil {
		return nil, carriedBefore(v, nil, requestID, err)
	}
	cmd, err := build(c)
	return cmd, carriedBefore(v, c, requestID, err)
}

// mintID makes a UUIDv7. With a request id it is a function of it, so that a
// request sent again names the same thing; its time is then the request id's if
// that is a UUIDv7 itself, and without one it is a UUIDv8.
func mintID(requestID, salt string) (string, error) {
	if requestID == "" {
		u, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("rpc: mint id: %w", err)
		}
		return u.String(), nil
	}
	sum := sha256.Sum256([]byte(requestID + "\x00" + salt))
	u := uuid.UUID(sum[:16])
	version := byte(8)
	if r, err := uuid.Parse(requestID); err == nil && r.Version() == 7 {
		version = 7
		copy(u[:6], r[:6])
	}
	u[6] = u[6]&0x0f | version<<4
	u[8] = u[8]&0x3f | 0x80
	return u.String(), nil
}

// writer collects the writes of one command and checks them.
type writer struct {
	rec       *fsmv1.CollectionRecord
	requestID string
	writes    []*fsmv1.Write
	seen      map[string]int // position by document; nil for a single write
	vectors   []byte         // room for the vectors still to come
}

// document adds an insert or an upsert.
func (w *writer) document(field string, kind fsmv1.Write_Kind, id string, external *string,
	vector []float32, payload *collectionv1.Json, ifVersion *uint64) error {
	if id == "" {
		var err error
		if id, err = mintID(w.requestID, strconv.Itoa(len(w.writes))); err != nil {
			return err
		}
	}
	if err := checkExternalID(join(field, "external_id"), external); err != nil {
		return err
	}
	if err := checkVector(join(field, "vector"), vector, w.rec); err != nil {
		return err
	}
	raw, err := payloadOf(join(field, "metadata"), payload)
	if err != nil {
		return err
	}
	from := len(w.vectors)
	w.vectors = appendVector(w.vectors, vector)
	return w.add(field, &fsmv1.Write{
		Kind: kind, DocId: id, ExternalId: external, Vector: w.vectors[from:len(w.vectors):len(w.vectors)],
		Metadata: raw, IfVersion: ifVersion,
	})
}

func (w *writer) insert(field string, r *collectionv1.InsertRequest) error {
	return w.document(field, fsmv1.Write_KIND_INSERT, r.GetDocId(), r.ExternalId, r.GetVector(), r.GetMetadata(), nil)
}

func (w *writer) upsert(field string, r *collectionv1.UpsertRequest) error {
	return w.document(field, fsmv1.Write_KIND_UPSERT, r.GetDocId(), r.ExternalId, r.GetVector(), r.GetMetadata(), r.IfVersion)
}

func (w *writer) patch(field string, r *collectionv1.PatchPayloadRequest) error {
	raw, err := payloadOf(join(field, "metadata"), r.GetMetadata())
	if err != nil {
		return err
	}
	if raw == nil {
		return invalid(join(field, "metadata"), "must be a JSON object")
	}
	return w.add(field, &fsmv1.Write{
		Kind: fsmv1.Write_KIND_PATCH, DocId: r.GetDocId(), Metadata: raw, IfVersion: r.IfVersion,
	})
}

func (w *writer) delete(field string, r *collectionv1.DeleteRequest) error {
	return w.add(field, &fsmv1.Write{Kind: fsmv1.Write_KIND_DELETE, DocId: r.GetDocId(), IfVersion: r.IfVersion})
}

func (w *writer) add(field string, one *fsmv1.Write) error {
	if err := checkDocID(join(field, "doc_id"), one.GetDocId()); err != nil {
		return err
	}
	if w.seen != nil {
		if first, ok := w.seen[one.GetDocId()]; ok {
			return invalidf(join(field, "doc_id"), "document %q is already written by position %d of the batch", one.GetDocId(), first)
		}
		w.seen[one.GetDocId()] = len(w.writes)
	}
	w.writes = append(w.writes, one)
	return nil
}

func (w *writer) command() *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_Write{Write: &fsmv1.WriteBatch{
		CollectionId: w.rec.GetCollectionId(), Writes: w.writes,
	}}}
}

// writeOne commits the one write that fill adds.
func (s *service) writeOne(ctx context.Context, r interface {
	request
	GetCollectionId() string
}, fill func(*writer) error) (*fsmv1.Result, *fsmv1.Write, error) {
	if err := s.check(r); err != nil {
		return nil, nil, err
	}
	ref, requestID := r.GetCollectionId(), r.GetRequestId()
	var one *fsmv1.Write
	res, err := s.proposeOn(ctx, ref, requestID, func(c *raftfsm.Collection) (*fsmv1.Command, error) {
		w := &writer{rec: c.Record(), requestID: requestID}
		if err := fill(w); err != nil {
			return nil, err
		}
		one = w.writes[0]
		return w.command(), nil
	})
	return res, one, err
}

// Insert implements collectionv1.CollectionServiceServer.
func (s *service) Insert(ctx context.Context, r *collectionv1.InsertRequest) (*collectionv1.InsertResponse, error) {
	watch := startWatch()
	res, one, err := s.writeOne(ctx, r, func(w *writer) error { return w.insert("", r) })
	if err != nil {
		return nil, err
	}
	sv := s.wrote(res.GetLogIndex())
	s.metrics.inserted(watch)
	return &collectionv1.InsertResponse{
		DocId: one.GetDocId(), LatencyMs: watch.ms(), Version: res.GetLogIndex(),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

// Upsert implements collectionv1.CollectionServiceServer.
func (s *service) Upsert(ctx context.Context, r *collectionv1.UpsertRequest) (*collectionv1.UpsertResponse, error) {
	watch := startWatch()
	res, one, err := s.writeOne(ctx, r, func(w *writer) error { return w.upsert("", r) })
	if err != nil {
		return nil, err
	}
	sv := s.wrote(res.GetLogIndex())
	s.metrics.inserted(watch)
	return &collectionv1.UpsertResponse{
		DocId: one.GetDocId(), LatencyMs: watch.ms(), Version: res.GetLogIndex(), Created: created(res, 0),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

func created(res *fsmv1.Result, i int) bool {
	return i < len(res.GetWrites()) && res.GetWrites()[i].GetCreated()
}

// PatchPayload implements collectionv1.CollectionServiceServer.
func (s *service) PatchPayload(ctx context.Context, r *collectionv1.PatchPayloadRequest) (*collectionv1.PatchPayloadResponse, error) {
	watch := startWatch()
	res, one, err := s.writeOne(ctx, r, func(w *writer) error { return w.patch("", r) })
	if err != nil {
		return nil, err
	}
	sv := s.wrote(res.GetLogIndex())
	return &collectionv1.PatchPayloadResponse{
		DocId: one.GetDocId(), LatencyMs: watch.ms(), Version: res.GetLogIndex(),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

// Delete implements collectionv1.CollectionServiceServer.
func (s *service) Delete(ctx context.Context, r *collectionv1.DeleteRequest) (*collectionv1.DeleteResponse, error) {
	watch := startWatch()
	res, _, err := s.writeOne(ctx, r, func(w *writer) error { return w.delete("", r) })
	if err != nil {
		return nil, err
	}
	sv := s.wrote(res.GetLogIndex())
	return &collectionv1.DeleteResponse{
		LatencyMs:    watch.ms(),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

// Batch implements collectionv1.CollectionServiceServer.
func (s *service) Batch(ctx context.Context, r *collectionv1.BatchRequest) (*collectionv1.BatchResponse, error) {
	watch := startWatch()
	if err := s.check(r); err != nil {
		return nil, err
	}
	if n := len(r.GetOps()); n < 1 || n > maxBatchWrites {
		return nil, invalidf("ops", "must have 1 to %d elements, not %d", maxBatchWrites, n)
	}
	if n := proto.Size(r); n > maxBatchBytes {
		return nil, invalidf("ops", "have %d bytes, more than %d; send smaller batches", n, maxBatchBytes)
	}
	var writes []*fsmv1.Write
	res, err := s.proposeOn(ctx, r.GetCollectionId(), r.GetRequestId(), func(c *raftfsm.Collection) (*fsmv1.Command, error) {
		w := &writer{rec: c.Record(), requestID: r.GetRequestId(), seen: make(map[string]int, len(r.GetOps()))}
		for i, op := range r.GetOps() {
			if err := w.op(at("", "ops", i), op); err != nil {
				return nil, err
			}
		}
		writes = w.writes
		cmd := w.command()
		if n := proto.Size(cmd); n > maxBatchBytes-1024 { // room for what the node adds
			return nil, invalidf("ops", "make an entry of %d bytes, more than %d; send smaller batches", n, maxBatchBytes-1024)
		}
		return cmd, nil
	})
	if err != nil {
		return nil, inBatch(res, err)
	}
	sv := s.wrote(res.GetLogIndex())
	out := &collectionv1.BatchResponse{
		LatencyMs: watch.ms(), Version: res.GetLogIndex(), Results: make([]*collectionv1.WriteResult, len(writes)),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}
	for i, one := range writes {
		out.Results[i] = &collectionv1.WriteResult{DocId: one.GetDocId(), Created: created(res, i)}
	}
	return out, nil
}

// inBatch says which write of a batch the state refused.
func inBatch(res *fsmv1.Result, err error) error {
	for _, sentinel := range []error{raftfsm.ErrDocumentExists, raftfsm.ErrDocumentNotFound, raftfsm.ErrVersionMismatch,
		raftfsm.ErrInvalid} {
		if res != nil && errors.Is(err, sentinel) {
			field := at("", "ops", int(res.GetFailedWrite()))
			return note(fmt.Errorf("%s: %w", field, err), "field", field)
		}
	}
	return err
}

func (w *writer) op(field string, op *collectionv1.WriteOp) error {
	var inner interface {
		request
		GetCollectionId() string
	}
	var err error
	switch o := op.GetOp().(type) {
	case *collectionv1.WriteOp_Insert:
		field, inner = field+".insert", o.Insert
		err = w.insert(field, o.Insert)
	case *collectionv1.WriteOp_Upsert:
		field, inner = field+".upsert", o.Upsert
		err = w.upsert(field, o.Upsert)
	case *collectionv1.WriteOp_Patch:
		field, inner = field+".patch", o.Patch
		err = w.patch(field, o.Patch)
	case *collectionv1.WriteOp_Delete:
		field, inner = field+".delete", o.Delete
		err = w.delete(field, o.Delete)
	default:
		return invalid(field, "needs one of insert, upsert, patch, delete")
	}
	if err != nil {
		return err
	}
	return checkInner(field, inner)
}
