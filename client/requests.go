// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// The requests below are copied field by field when something has to be filled
// in, so that the caller's stay as they are: sending one struct twice means two
// writes, with a request id each, unless the caller sets the id. Vectors and
// payloads are shared with the copy. TestCopiesKeepEveryField keeps the lists
// of fields complete.

// readArgs are the fields that all reads have in common.
type readArgs struct {
	consistency, token string
	maxStalenessMS     uint32
}

// fill completes what a read asks for; changed is false if it was complete.
func (c *Client) fill(a readArgs) (_ readArgs, changed bool) {
	before := a
	if a.consistency == "" {
		a.consistency = c.core.cfg.Consistency
		if a.consistency == "" && c.bound {
			a.consistency = Session
		}
	}
	if a.consistency == Session && a.token == "" {
		a.token = c.session.token()
	}
	if a.consistency == Bounded && a.maxStalenessMS == 0 {
		a.maxStalenessMS = uint32(c.core.cfg.MaxStaleness / time.Millisecond)
	}
	return a, a != before
}

// tokened is any response.
type tokened interface{ GetSessionToken() string }

// seen notes the response's token in the session.
func (c *Client) seen(r tokened) { c.session.observe(r.GetSessionToken()) }

// Insert stores a new document; ALREADY_EXISTS if its id is taken.
func (c *Client) Insert(ctx context.Context, r *collectionv1.InsertRequest) (*collectionv1.InsertResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.InsertRequest{
			CollectionId:   r.CollectionId,
			DocId:          r.DocId,
			ExternalId:     r.ExternalId,
			Vector:         r.Vector,
			Metadata:       r.Metadata,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.InsertResponse](ctx, c.core, method{collectionv1.CollectionService_Insert_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Upsert stores a document, replacing the one that has its id.
func (c *Client) Upsert(ctx context.Context, r *collectionv1.UpsertRequest) (*collectionv1.UpsertResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.UpsertRequest{
			CollectionId:   r.CollectionId,
			DocId:          r.DocId,
			ExternalId:     r.ExternalId,
			Vector:         r.Vector,
			Metadata:       r.Metadata,
			IfVersion:      r.IfVersion,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.UpsertResponse](ctx, c.core, method{collectionv1.CollectionService_Upsert_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// PatchPayload merges fields into a document's payload.
func (c *Client) PatchPayload(ctx context.Context, r *collectionv1.PatchPayloadRequest) (*collectionv1.PatchPayloadResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.PatchPayloadRequest{
			CollectionId:   r.CollectionId,
			DocId:          r.DocId,
			Metadata:       r.Metadata,
			IfVersion:      r.IfVersion,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.PatchPayloadResponse](ctx, c.core, method{collectionv1.CollectionService_PatchPayload_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Delete removes one document; NOT_FOUND if there is none.
func (c *Client) Delete(ctx context.Context, r *collectionv1.DeleteRequest) (*collectionv1.DeleteResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.DeleteRequest{
			CollectionId:   r.CollectionId,
			DocId:          r.DocId,
			IfVersion:      r.IfVersion,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.DeleteResponse](ctx, c.core, method{collectionv1.CollectionService_Delete_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// DeleteMany removes documents by ids or by filter.
func (c *Client) DeleteMany(ctx context.Context, r *collectionv1.DeleteManyRequest) (*collectionv1.DeleteManyResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.DeleteManyRequest{
			CollectionId:   r.CollectionId,
			DocIds:         r.DocIds,
			Filter:         r.Filter,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.DeleteManyResponse](ctx, c.core, method{collectionv1.CollectionService_DeleteMany_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Batch applies up to 10,000 writes in one log entry: all of them or none.
func (c *Client) Batch(ctx context.Context, r *collectionv1.BatchRequest) (*collectionv1.BatchResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.BatchRequest{
			CollectionId:   r.CollectionId,
			Ops:            r.Ops,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.BatchResponse](ctx, c.core, method{collectionv1.CollectionService_Batch_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// CreateCollection makes a collection; ALREADY_EXISTS if its name is taken.
func (c *Client) CreateCollection(ctx context.Context, r *collectionv1.CreateCollectionRequest) (*collectionv1.CreateCollectionResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.CreateCollectionRequest{
			Name:           r.Name,
			Dimension:      r.Dimension,
			Metric:         r.Metric,
			EmbeddingModel: r.EmbeddingModel,
			Index:          r.Index,
			PayloadIndexes: r.PayloadIndexes,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.CreateCollectionResponse](ctx, c.core, method{collectionv1.CollectionManagementService_CreateCollection_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// DeleteCollection drops a collection with its documents.
func (c *Client) DeleteCollection(ctx context.Context, r *collectionv1.DeleteCollectionRequest) (*collectionv1.DeleteCollectionResponse, error) {
	if r.RequestId == "" {
		r = &collectionv1.DeleteCollectionRequest{
			CollectionId:   r.CollectionId,
			Consistency:    r.Consistency,
			SessionToken:   r.SessionToken,
			MaxStalenessMs: r.MaxStalenessMs,
			RequestId:      NewRequestID(),
		}
	}
	out, err := do[collectionv1.DeleteCollectionResponse](ctx, c.core, method{collectionv1.CollectionManagementService_DeleteCollection_FullMethodName, write}, r, r.RequestId)
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Query returns the documents nearest to a vector.
func (c *Client) Query(ctx context.Context, r *collectionv1.QueryRequest) (*collectionv1.QueryResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.QueryRequest{
			CollectionId:    r.CollectionId,
			QueryVector:     r.QueryVector,
			TopK:            r.TopK,
			Filter:          r.Filter,
			IncludeMetadata: r.IncludeMetadata,
			IncludeVector:   r.IncludeVector,
			MetadataFields:  r.MetadataFields,
			ScoreThreshold:  r.ScoreThreshold,
			Ef:              r.Ef,
			Exact:           r.Exact,
			Rescore:         r.Rescore,
			RecallTarget:    r.RecallTarget,
			Consistency:     a.consistency,
			SessionToken:    a.token,
			MaxStalenessMs:  a.maxStalenessMS,
			RequestId:       r.RequestId,
		}
	}
	out, err := do[collectionv1.QueryResponse](ctx, c.core, method{collectionv1.CollectionService_Query_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// QueryBatch answers several queries at one applied index.
func (c *Client) QueryBatch(ctx context.Context, r *collectionv1.QueryBatchRequest) (*collectionv1.QueryBatchResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.QueryBatchRequest{
			CollectionId:   r.CollectionId,
			Queries:        r.Queries,
			Consistency:    a.consistency,
			SessionToken:   a.token,
			MaxStalenessMs: a.maxStalenessMS,
			RequestId:      r.RequestId,
		}
	}
	out, err := do[collectionv1.QueryBatchResponse](ctx, c.core, method{collectionv1.CollectionService_QueryBatch_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Get returns one document; its Document is nil if there is none.
func (c *Client) Get(ctx context.Context, r *collectionv1.GetRequest) (*collectionv1.GetResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.GetRequest{
			CollectionId:   r.CollectionId,
			DocId:          r.DocId,
			Consistency:    a.consistency,
			SessionToken:   a.token,
			MaxStalenessMs: a.maxStalenessMS,
			RequestId:      r.RequestId,
		}
	}
	out, err := do[collectionv1.GetResponse](ctx, c.core, method{collectionv1.CollectionService_Get_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Fetch returns documents by ids at one applied index.
func (c *Client) Fetch(ctx context.Context, r *collectionv1.FetchRequest) (*collectionv1.FetchResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.FetchRequest{
			CollectionId:    r.CollectionId,
			DocIds:          r.DocIds,
			IncludeVector:   r.IncludeVector,
			IncludeMetadata: r.IncludeMetadata,
			Consistency:     a.consistency,
			SessionToken:    a.token,
			MaxStalenessMs:  a.maxStalenessMS,
			RequestId:       r.RequestId,
		}
	}
	out, err := do[collectionv1.FetchResponse](ctx, c.core, method{collectionv1.CollectionService_Fetch_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Count counts the documents that match a filter.
func (c *Client) Count(ctx context.Context, r *collectionv1.CountRequest) (*collectionv1.CountResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.CountRequest{
			CollectionId:   r.CollectionId,
			Filter:         r.Filter,
			Consistency:    a.consistency,
			SessionToken:   a.token,
			MaxStalenessMs: a.maxStalenessMS,
			RequestId:      r.RequestId,
		}
	}
	out, err := do[collectionv1.CountResponse](ctx, c.core, method{collectionv1.CollectionService_Count_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Scroll lists documents in the order of their ids, a page a call.
func (c *Client) Scroll(ctx context.Context, r *collectionv1.ScrollRequest) (*collectionv1.ScrollResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.ScrollRequest{
			CollectionId:    r.CollectionId,
			Filter:          r.Filter,
			Limit:           r.Limit,
			Cursor:          r.Cursor,
			IncludeVector:   r.IncludeVector,
			IncludeMetadata: r.IncludeMetadata,
			Consistency:     a.consistency,
			SessionToken:    a.token,
			MaxStalenessMs:  a.maxStalenessMS,
			RequestId:       r.RequestId,
		}
	}
	out, err := do[collectionv1.ScrollResponse](ctx, c.core, method{collectionv1.CollectionService_Scroll_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// Describe returns the definition and size of a collection.
func (c *Client) Describe(ctx context.Context, r *collectionv1.DescribeRequest) (*collectionv1.DescribeResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.DescribeRequest{
			CollectionId:   r.CollectionId,
			Consistency:    a.consistency,
			SessionToken:   a.token,
			MaxStalenessMs: a.maxStalenessMS,
			RequestId:      r.RequestId,
		}
	}
	out, err := do[collectionv1.DescribeResponse](ctx, c.core, method{collectionv1.CollectionService_Describe_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// ListCollections lists all collections.
func (c *Client) ListCollections(ctx context.Context, r *collectionv1.ListCollectionsRequest) (*collectionv1.ListCollectionsResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.ListCollectionsRequest{
			Consistency:    a.consistency,
			SessionToken:   a.token,
			MaxStalenessMs: a.maxStalenessMS,
			RequestId:      r.RequestId,
		}
	}
	out, err := do[collectionv1.ListCollectionsResponse](ctx, c.core, method{collectionv1.CollectionManagementService_ListCollections_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}

// GetCollection returns one collection by id or name.
func (c *Client) GetCollection(ctx context.Context, r *collectionv1.GetCollectionRequest) (*collectionv1.GetCollectionResponse, error) {
	if a, changed := c.fill(readArgs{r.Consistency, r.SessionToken, r.MaxStalenessMs}); changed {
		r = &collectionv1.GetCollectionRequest{
			CollectionId:   r.CollectionId,
			Consistency:    a.consistency,
			SessionToken:   a.token,
			MaxStalenessMs: a.maxStalenessMS,
			RequestId:      r.RequestId,
		}
	}
	out, err := do[collectionv1.GetCollectionResponse](ctx, c.core, method{collectionv1.CollectionManagementService_GetCollection_FullMethodName, read}, r, "")
	if err != nil {
		return nil, err
	}
	c.seen(out)
	return out, nil
}
