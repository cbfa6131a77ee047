// SPDX-License-Identifier: Apache-2.0

package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// CreateCollection creates a collection.
func (d *DB) CreateCollection(_ context.Context, r *cv1.CreateCollectionRequest) (*cv1.CreateCollectionResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.CreateCollectionResponse, error) {
		if s.collections[r.GetName()] != nil {
			return nil, fail(codes.AlreadyExists, "COLLECTION_EXISTS", "permanent")
		}
		c := &collection{id: fmt.Sprintf("id-%d", index), model: r.GetEmbeddingModel(), dims: r.GetDimension(), docs: map[string]document{}}
		if old := d.state.collections["dropped "+r.GetName()]; d.fault == LeakyCatalog && old != nil {
			c.docs = old.docs
		}
		s.collections[r.GetName()] = c
		return &cv1.CreateCollectionResponse{CollectionId: c.id, Name: r.GetName(), AppliedIndex: index}, nil
	})
}

// DeleteCollection drops a collection.
func (d *DB) DeleteCollection(_ context.Context, r *cv1.DeleteCollectionRequest) (*cv1.DeleteCollectionResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.DeleteCollectionResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		for name, other := range s.collections {
			if other == c {
				delete(s.collections, name)
				if d.fault == LeakyCatalog {
					s.collections["dropped "+name] = c
				}
			}
		}
		return &cv1.DeleteCollectionResponse{Success: true, AppliedIndex: index}, nil
	})
}

// ListCollections lists the collections by name.
func (d *DB) ListCollections(_ context.Context, r *cv1.ListCollectionsRequest) (*cv1.ListCollectionsResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.ListCollectionsResponse, error) {
		out := &cv1.ListCollectionsResponse{AppliedIndex: s.index}
		for _, name := range slices.Sorted(maps.Keys(s.collections)) {
			c := s.collections[name]
			out.Collections = append(out.Collections, &cv1.CollectionInfo{CollectionId: c.id, Name: name, EmbeddingModel: c.model})
		}
		return out, nil
	})
}

// GetCollection finds one collection.
func (d *DB) GetCollection(_ context.Context, r *cv1.GetCollectionRequest) (*cv1.GetCollectionResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.GetCollectionResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		return &cv1.GetCollectionResponse{Collection: &cv1.CollectionInfo{CollectionId: c.id, EmbeddingModel: c.model}, AppliedIndex: s.index}, nil
	})
}

func (d *DB) insert(s *state, r *cv1.InsertRequest, index uint64) (string, error) {
	c, err := s.find(r.GetCollectionId())
	if err != nil {
		return "", err
	}
	id := r.GetDocId()
	if id == "" {
		id = fmt.Sprintf("minted-%d", index)
	}
	if _, there := c.docs[id]; there {
		return "", fail(codes.AlreadyExists, "DOCUMENT_EXISTS", "permanent")
	}
	return id, c.put(d, id, r.GetVector(), r.GetMetadata().GetRaw(), index)
}

func (d *DB) upsert(s *state, r *cv1.UpsertRequest, index uint64) error {
	c, err := s.find(r.GetCollectionId())
	if err != nil {
		return err
	}
	if err := c.meets(d, r.GetDocId(), r.IfVersion); err != nil {
		return err
	}
	return c.put(d, r.GetDocId(), r.GetVector(), r.GetMetadata().GetRaw(), index)
}

func (d *DB) delete(s *state, r *cv1.DeleteRequest) error {
	c, err := s.find(r.GetCollectionId())
	if err != nil {
		return err
	}
	doc, there := c.docs[r.GetDocId()]
	if !there {
		return fail(codes.NotFound, "DOCUMENT_NOT_FOUND", "permanent")
	}
	if err := c.meets(d, r.GetDocId(), r.IfVersion); err != nil {
		return err
	}
	delete(c.docs, r.GetDocId())
	d.limbo[c.id+"/"+doc.id] = doc
	return nil
}

// Insert stores a new document.
func (d *DB) Insert(_ context.Context, r *cv1.InsertRequest) (*cv1.InsertResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.InsertResponse, error) {
		id, err := d.insert(s, r, index)
		if err != nil {
			return nil, err
		}
		return &cv1.InsertResponse{DocId: id, Version: index, AppliedIndex: index, SessionToken: token(index)}, nil
	})
}

// Upsert stores a document.
func (d *DB) Upsert(_ context.Context, r *cv1.UpsertRequest) (*cv1.UpsertResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.UpsertResponse, error) {
		if err := d.upsert(s, r, index); err != nil {
			return nil, err
		}
		return &cv1.UpsertResponse{DocId: r.GetDocId(), Version: index, AppliedIndex: index, SessionToken: token(index)}, nil
	})
}

// PatchPayload merges into a payload. It leaves the vector as it is.
func (d *DB) PatchPayload(_ context.Context, r *cv1.PatchPayloadRequest) (*cv1.PatchPayloadResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.PatchPayloadResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		doc, there := c.docs[r.GetDocId()]
		if !there {
			return nil, fail(codes.NotFound, "DOCUMENT_NOT_FOUND", "permanent")
		}
		if err := c.meets(d, r.GetDocId(), r.IfVersion); err != nil {
			return nil, err
		}
		var patch map[string]json.RawMessage
		if err := json.Unmarshal(r.GetMetadata().GetRaw(), &patch); err != nil {
			return nil, fail(codes.InvalidArgument, "INVALID_ARGUMENT", "permanent")
		}
		doc.payload = maps.Clone(doc.payload)
		maps.Copy(doc.payload, patch)
		doc.version, doc.added = index, index
		c.docs[doc.id] = doc
		return &cv1.PatchPayloadResponse{DocId: doc.id, Version: index, AppliedIndex: index}, nil
	})
}

// Delete removes a document.
func (d *DB) Delete(_ context.Context, r *cv1.DeleteRequest) (*cv1.DeleteResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.DeleteResponse, error) {
		if err := d.delete(s, r); err != nil {
			return nil, err
		}
		return &cv1.DeleteResponse{AppliedIndex: index}, nil
	})
}

// Batch applies writes together.
func (d *DB) Batch(_ context.Context, r *cv1.BatchRequest) (*cv1.BatchResponse, error) {
	return write(d, r.GetRequestId(), func(s *state, index uint64) (*cv1.BatchResponse, error) {
		for i, op := range r.GetOps() {
			if i > 0 && d.fault == HalfBatch && d.warm() && d.chance(0.1) {
				break
			}
			var err error
			switch o := op.GetOp().(type) {
			case *cv1.WriteOp_Insert:
				o.Insert.CollectionId = r.GetCollectionId()
				_, err = d.insert(s, o.Insert, index)
			case *cv1.WriteOp_Upsert:
				o.Upsert.CollectionId = r.GetCollectionId()
				err = d.upsert(s, o.Upsert, index)
			case *cv1.WriteOp_Delete:
				o.Delete.CollectionId = r.GetCollectionId()
				err = d.delete(s, o.Delete)
			default:
				err = fail(codes.InvalidArgument, "INVALID_ARGUMENT", "permanent")
			}
			if err != nil {
				return nil, err
			}
		}
		return &cv1.BatchResponse{Version: index, AppliedIndex: index}, nil
	})
}

// Get reads one document.
func (d *DB) Get(_ context.Context, r *cv1.GetRequest) (*cv1.GetResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.GetResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		out := &cv1.GetResponse{AppliedIndex: s.index, SessionToken: token(s.index)}
		if doc, ok := c.docs[r.GetDocId()]; ok {
			out.Document = d.shown(doc)
		}
		return out, nil
	})
}

// Fetch reads several documents.
func (d *DB) Fetch(_ context.Context, r *cv1.FetchRequest) (*cv1.FetchResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.FetchResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		out := &cv1.FetchResponse{AppliedIndex: s.index}
		for _, id := range r.GetDocIds() {
			if doc, ok := c.docs[id]; ok && !(d.fault == ShortFetch && d.warm() && d.chance(0.05)) {
				out.Documents = append(out.Documents, d.shown(doc))
			}
		}
		return out, nil
	})
}

// Count counts all documents.
func (d *DB) Count(_ context.Context, r *cv1.CountRequest) (*cv1.CountResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.CountResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		return &cv1.CountResponse{Count: uint64(len(c.docs)), AppliedIndex: s.index}, nil
	})
}

// Scroll lists all documents on one page.
func (d *DB) Scroll(_ context.Context, r *cv1.ScrollRequest) (*cv1.ScrollResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.ScrollResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		out := &cv1.ScrollResponse{AppliedIndex: s.index}
		for _, id := range slices.Sorted(maps.Keys(c.docs)) {
			out.Documents = append(out.Documents, d.shown(c.docs[id]))
		}
		return out, nil
	})
}
