// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// DeleteMany implements collectionv1.CollectionServiceServer.
func (s *service) DeleteMany(ctx context.Context, r *collectionv1.DeleteManyRequest) (*collectionv1.DeleteManyResponse, error) {
	watch := startWatch()
	if err := s.check(r); err != nil {
		return nil, err
	}
	var deleted uint64
	var logIndex uint64
	var err error
	switch ids := r.GetDocIds(); {
	case len(ids) > 0 && r.GetFilter() != nil:
		return nil, invalid("filter", "must not be given together with doc_ids")
	case len(ids) > 0:
		deleted, logIndex, err = s.deleteIDs(ctx, r)
	case r.GetFilter() == nil:
		return nil, invalid("doc_ids", "must not be empty, unless a filter is given")
	case isEmpty(r.GetFilter()):
		return nil, invalid("filter", "is empty and would match every document; to be rid of all of them, delete the collection and create it again")
	default:
		deleted, logIndex, err = s.deleteMatching(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	sv := s.wrote(logIndex)
	return &collectionv1.DeleteManyResponse{
		Deleted: deleted, LatencyMs: watch.ms(),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

func isEmpty(f *collectionv1.Filter) bool {
	return len(f.GetMust())+len(f.GetShould())+len(f.GetMustNot()) == 0
}

func (s *service) deleteIDs(ctx context.Context, r *collectionv1.DeleteManyRequest) (deleted, logIndex uint64, err error) {
	ids := r.GetDocIds()
	if len(ids) > maxBatchWrites {
		return 0, 0, invalidf("doc_ids", "must have 1 to %d elements, not %d", maxBatchWrites, len(ids))
	}
	seen := make(map[string]bool, len(ids))
	var writes []*fsmv1.Write
	for i, id := range ids {
		if err := checkDocID(at("", "doc_ids", i), id); err != nil {
			return 0, 0, err
		}
		if !seen[id] {
			seen[id] = true
			writes = append(writes, &fsmv1.Write{Kind: fsmv1.Write_KIND_DELETE, DocId: id, SkipIfUnmet: true})
		}
	}
	// The state tells deletes that may be passed over apart by their request id alone.
	requestID := chunkID(r.GetRequestId(), writes)
	res, err := s.proposeOn(ctx, r.GetCollectionId(), requestID, func(c *raftfsm.Collection) (*fsmv1.Command, error) {
		return (&writer{rec: c.Record(), writes: writes}).command(), nil
	})
	return applied(res), res.GetLogIndex(), err
}

// applied counts the writes that were not passed over.
func applied(res *fsmv1.Result) (n uint64) {
	for _, w := range res.GetWrites() {
		if w.GetApplied() {
			n++
		}
	}
	return n
}

// deleteMatching resolves the filter at one view and deletes what it found, a
// batch an entry, each document only in the version that was found. A delete of
// a version happens at most once whatever is sent again, but the filter must not
// be resolved anew by a retry: documents written since the first try are not
// meant. So a request id first commits a marker, a delete that is always refused;
// its log index, the same for every try, bounds the versions to delete.
func (s *service) deleteMatching(ctx context.Context, r *collectionv1.DeleteManyRequest) (deleted, logIndex uint64, err error) {
	if err := checkRef(r.GetCollectionId()); err != nil {
		return 0, 0, err
	}
	filter, err := filterOf("filter", r.GetFilter())
	if err != nil {
		return 0, 0, err
	}
	newest, before := ^uint64(0), false
	options := node.ReadOptions{Consistency: node.Linearizable}
	if r.GetRequestId() != "" {
		if newest, before, err = s.mark(ctx, r); err != nil {
			return 0, 0, err
		}
		options = node.ReadOptions{Consistency: node.Session, MinIndex: newest}
	}
	v, err := s.readWith(ctx, options)
	if err != nil {
		return 0, 0, err
	}
	defer v.Close()
	// An attempt before this one may have deleted documents of a collection that is gone.
	failed := func(err error) error {
		if before && errors.Is(err, raftfsm.ErrCollectionNotFound) {
			err = &carriedError{err: err, logIndex: newest}
		}
		return noteCount(err, "deleted", deleted)
	}
	c, err := v.collection(r.GetCollectionId())
	if err != nil {
		return 0, 0, failed(err)
	}
	logIndex = v.applied
	for after := ""; ; {
		writes, last, err := matching(ctx, c, filter, after, newest)
		if err != nil {
			return deleted, logIndex, failed(err)
		}
		if len(writes) > 0 {
			cmd := (&writer{rec: c.Record(), writes: writes}).command()
			cmd.RequestId = chunkID(r.GetRequestId(), writes)
			res, err := s.propose(ctx, cmd)
			if err != nil {
				return deleted, logIndex, failed(err)
			}
			deleted += applied(res)
			logIndex = max(logIndex, res.GetLogIndex())
		}
		if last == "" {
			return deleted, logIndex, nil
		}
		after = last
	}
}

// mark commits the marker: a delete of a document that must not exist, named by the
// filter. The state always refuses it, and remembers that; another filter under the
// same request id is another command, and REQUEST_ID_REUSED. before is true if an
// earlier attempt has committed it.
func (s *service) mark(ctx context.Context, r *collectionv1.DeleteManyRequest) (logIndex uint64, before bool, err error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.GetFilter())
	if err != nil {
		return 0, false, err
	}
	sum, absent := sha256.Sum256(text), uint64(0)
	res, err := s.proposeOn(ctx, r.GetCollectionId(), r.GetRequestId()+markSuffix, func(c *raftfsm.Collection) (*fsmv1.Command, error) {
		return (&writer{rec: c.Record(), writes: []*fsmv1.Write{{
			Kind: fsmv1.Write_KIND_DELETE, DocId: "filter " + hex.EncodeToString(sum[:16]), IfVersion: &absent,
		}}}).command(), nil
	})
	if marked(err) {
		err = nil
	}
	return res.GetLogIndex(), res.GetReplayed(), err
}

// marked reports whether err is how the state refuses a marker.
func marked(err error) bool {
	return errors.Is(err, raftfsm.ErrDocumentNotFound) || errors.Is(err, raftfsm.ErrVersionMismatch)
}

// matching finds the deletes of one batch; last is empty at the end of the
// collection.
func matching(ctx context.Context, c *raftfsm.Collection, f *index.Filter, after string, newest uint64) (writes []*fsmv1.Write, last string, err error) {
	docs, err := c.Scroll(ctx, f, after, maxBatchWrites, raftfsm.Projection{})
	if err != nil {
		return nil, "", err
	}
	for i := range docs {
		if d := &docs[i]; d.Version <= newest {
			writes = append(writes, &fsmv1.Write{
				Kind: fsmv1.Write_KIND_DELETE, DocId: d.ID, IfVersion: &d.Version, SkipIfUnmet: true,
			})
		}
	}
	if len(docs) == maxBatchWrites {
		last = docs[len(docs)-1].ID
	}
	return writes, last, nil
}

// chunkID names a batch by its content: a retry that finds fewer documents makes
// other batches, and must not take one for another.
func chunkID(requestID string, writes []*fsmv1.Write) string {
	if requestID == "" {
		return ""
	}
	h := sha256.New()
	var version [8]byte
	for _, w := range writes {
		binary.LittleEndian.PutUint64(version[:], w.GetIfVersion())
		h.Write(version[:])
		h.Write([]byte(w.GetDocId()))
		h.Write([]byte{0})
	}
	return requestID + "/" + hex.EncodeToString(h.Sum(nil)[:8])
}
