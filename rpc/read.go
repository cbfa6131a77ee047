// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/base64"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Query implements collectionv1.CollectionServiceServer.
func (s *service) Query(ctx context.Context, r *collectionv1.QueryRequest) (*collectionv1.QueryResponse, error) {
	watch := startWatch()
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	q, err := queryOf("", r)
	if err != nil {
		return nil, err
	}
	v, c, err := s.readCollection(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if err := q.fit("", c.Record()); err != nil {
		return nil, err
	}
	matches, err := q.run(ctx, c, new(replyBytes), "top_k")
	if err != nil {
		return nil, err
	}
	s.metrics.searched(watch)
	return &collectionv1.QueryResponse{
		Matches: matches, LatencyMs: watch.ms(),
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}, nil
}

// QueryBatch implements collectionv1.CollectionServiceServer.
func (s *service) QueryBatch(ctx context.Context, r *collectionv1.QueryBatchRequest) (*collectionv1.QueryBatchResponse, error) {
	watch := startWatch()
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	if n := len(r.GetQueries()); n < 1 || n > maxQueries {
		return nil, invalidf("queries", "must have 1 to %d elements, not %d", maxQueries, n)
	}
	queries := make([]*query, len(r.GetQueries()))
	for i, one := range r.GetQueries() {
		field := at("", "queries", i)
		if err := checkInner(field, one); err != nil {
			return nil, err
		}
		q, err := queryOf(field, one)
		if err != nil {
			return nil, err
		}
		queries[i] = q
	}
	v, c, err := s.readCollection(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	vectorBytes := 0
	for i, q := range queries {
		if err := q.fit(at("", "queries", i), c.Record()); err != nil {
			return nil, err
		}
		if vectorBytes += q.vectorBytes(c.Record()); vectorBytes > maxReplyVectorBytes {
			return nil, invalidf("queries", "the vectors of the reply could exceed %d bytes; ask for fewer", maxReplyVectorBytes)
		}
	}
	results := make([]*collectionv1.QueryResult, len(queries))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var reply replyBytes
	for i, q := range queries {
		group.Go(func() (err error) {
			defer carry(&err)
			matches, err := q.run(gctx, c, &reply, "queries")
			results[i] = &collectionv1.QueryResult{Matches: matches}
			return err
		})
	}
	if err := throw(group.Wait()); err != nil {
		return nil, err
	}
	s.metrics.searched(watch)
	return &collectionv1.QueryBatchResponse{
		Results: results, LatencyMs: watch.ms(),
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}, nil
}

// query is a checked query.
type query struct {
	index.Query
	project   raftfsm.Projection
	fields    map[string]bool // of the payload; nil: all
	threshold *float32
	metric    fsmv1.Metric
}

// queryOf checks what can be checked without the collection; fit does the rest.
func queryOf(field string, r *collectionv1.QueryRequest) (*query, error) {
	if len(r.GetQueryVector()) == 0 {
		return nil, invalid(join(field, "query_vector"), "must not be empty")
	}
	if err := checkFinite(join(field, "query_vector"), r.GetQueryVector()); err != nil {
		return nil, err
	}
	if k := r.GetTopK(); k < 1 || k > maxTopK {
		return nil, invalidf(join(field, "top_k"), "must be from 1 to %d, not %d", maxTopK, k)
	}
	if r.GetEf() > maxEf {
		return nil, invalidf(join(field, "ef"), "must be at most %d, not %d", maxEf, r.GetEf())
	}
	filter, err := filterOf(join(field, "filter"), r.GetFilter())
	if err != nil {
		return nil, err
	}
	q := &query{
		Query: index.Query{
			Vector: r.GetQueryVector(), K: int(r.GetTopK()), Ef: int(r.GetEf()), Exact: r.GetExact(),
			NoRescore: r.Rescore != nil && !*r.Rescore, Filter: filter,
		},
		project:   raftfsm.Projection{Vector: r.GetIncludeVector(), Metadata: r.GetIncludeMetadata()},
		threshold: r.ScoreThreshold,
	}
	switch r.GetRecallTarget() {
	case "":
	case "0.95":
		q.RecallTarget = 0.95
	case "0.99":
		q.RecallTarget = 0.99
	case "exact":
		q.RecallTarget = 1
	default:
		return nil, invalidf(join(field, "recall_target"), `%q is none of "0.95", "0.99", "exact"`, r.GetRecallTarget())
	}
	if t := q.threshold; t != nil {
		if err := checkFinite(join(field, "score_threshold"), []float32{*t}); err != nil {
			return nil, invalid(join(field, "score_threshold"), "must be a finite number")
		}
	}
	if len(r.GetMetadataFields()) > 0 {
		if n := len(r.GetMetadataFields()); n > maxMetadataFields {
			return nil, invalidf(join(field, "metadata_fields"), "must have at most %d elements, not %d", maxMetadataFields, n)
		}
		q.project.Metadata = true
		q.fields = make(map[string]bool, len(r.GetMetadataFields()))
		for i, f := range r.GetMetadataFields() {
			if f == "" || len(f) > maxPathBytes {
				return nil, invalidf(at(field, "metadata_fields", i), "must have 1 to %d bytes", maxPathBytes)
			}
			q.fields[f] = true
		}
	}
	return q, nil
}

// fit checks the query against its collection.
func (q *query) fit(field string, rec *fsmv1.CollectionRecord) error {
	if err := checkVector(join(field, "query_vector"), q.Vector, rec); err != nil {
		return err
	}
	if q.vectorBytes(rec) > maxReplyVectorBytes {
		return invalidf(join(field, "top_k"), "%d vectors of dimension %d exceed the %d bytes of a reply; ask without include_vector and fetch them",
			q.K, rec.GetDimension(), maxReplyVectorBytes)
	}
	q.metric = rec.GetMetric()
	if q.threshold != nil {
		q.MaxDistance, q.HasMaxDistance = distanceBound(q.metric, *q.threshold), true
	}
	return nil
}

func (q *query) vectorBytes(rec *fsmv1.CollectionRecord) int {
	if !q.project.Vector {
		return 0
	}
	return q.K * 4 * int(rec.GetDimension())
}

// replyBytes counts what the matches of one reply take.
type replyBytes struct{ n atomic.Int64 }

// add refuses field, the part of the request that asks for too much.
func (r *replyBytes) add(field string, d *raftfsm.Document) error {
	if r.n.Add(int64(documentBytes(d))) > maxReplyBytes {
		return invalidf(field, "the matches exceed the %d bytes of a reply; ask for fewer, or for less of each", maxReplyBytes)
	}
	return nil
}

// run searches. Matches are cut down and counted as they are read, so that what is
// too much for a reply is never held; the error then names field.
func (q *query) run(ctx context.Context, c *raftfsm.Collection, reply *replyBytes, field string) ([]*collectionv1.VectorMatch, error) {
	project := q.project
	project.Each = func(d *raftfsm.Document) error {
		if q.fields != nil {
			d.Metadata = projectJSON(d.Metadata, q.fields)
		}
		return reply.add(field, d)
	}
	found, _, err := c.Search(ctx, q.Query, project)
	if err != nil {
		return nil, err
	}
	matches := make([]*collectionv1.VectorMatch, 0, len(found))
	slab := make([]collectionv1.VectorMatch, len(found))
	for i := range found {
		f := &found[i]
		score := scoreOf(q.metric, f.Distance)
		if q.threshold != nil && !reachesScore(q.metric, score, *q.threshold) {
			continue
		}
		m := &slab[i]
		m.DocId, m.ExternalId, m.Distance, m.Version = f.ID, f.ExternalID, score, f.Version
		m.Vector = f.Vector
		if q.project.Metadata {
			m.Metadata = jsonOf(f.Metadata)
		}
		matches = append(matches, m)
	}
	return matches, nil
}

// Get implements collectionv1.CollectionServiceServer.
func (s *service) Get(ctx context.Context, r *collectionv1.GetRequest) (*collectionv1.GetResponse, error) {
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	if err := checkDocID("doc_id", r.GetDocId()); err != nil {
		return nil, err
	}
	v, c, err := s.readCollection(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	d, err := c.Get(r.GetDocId(), raftfsm.Projection{Vector: true, Metadata: true})
	if err != nil {
		return nil, err
	}
	out := &collectionv1.GetResponse{
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}
	if d != nil {
		out.Document = vectorDocument(d)
	}
	return out, nil
}

// wanted reads an optional flag whose default is true.
func wanted(flag *bool) bool { return flag == nil || *flag }

// Fetch implements collectionv1.CollectionServiceServer.
func (s *service) Fetch(ctx context.Context, r *collectionv1.FetchRequest) (*collectionv1.FetchResponse, error) {
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	ids := r.GetDocIds()
	if n := len(ids); n < 1 || n > maxFetchIDs {
		return nil, invalidf("doc_ids", "must have 1 to %d elements, not %d", maxFetchIDs, n)
	}
	for i, id := range ids {
		if err := checkDocID(at("", "doc_ids", i), id); err != nil {
			return nil, err
		}
	}
	v, c, err := s.readCollection(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	project := raftfsm.Projection{Vector: wanted(r.IncludeVector), Metadata: wanted(r.IncludeMetadata)}
	if project.Vector && len(ids)*4*int(c.Record().GetDimension()) > maxReplyVectorBytes {
		return nil, invalidf("doc_ids", "%d vectors of dimension %d exceed the %d bytes of a reply; fetch fewer",
			len(ids), c.Record().GetDimension(), maxReplyVectorBytes)
	}
	out := &collectionv1.FetchResponse{
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}
	size := 0
	for i, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := c.Get(id, project)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		if size += documentBytes(d); size > maxReplyBytes {
			return nil, invalidf(at("", "doc_ids", i), "the documents up to here exceed the %d bytes of a reply; fetch fewer", maxReplyBytes)
		}
		out.Documents = append(out.Documents, vectorDocument(d))
	}
	return out, nil
}

func documentBytes(d *raftfsm.Document) int {
	return len(d.ID) + 4*len(d.Vector) + len(d.Metadata) + 64
}

// Count implements collectionv1.CollectionServiceServer.
func (s *service) Count(ctx context.Context, r *collectionv1.CountRequest) (*collectionv1.CountResponse, error) {
	watch := startWatch()
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	filter, err := filterOf("filter", r.GetFilter())
	if err != nil {
		return nil, err
	}
	v, c, err := s.readCollection(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	n := c.Len()
	if filter != nil {
		if n, err = c.Count(ctx, filter); err != nil {
			return nil, err
		}
	}
	return &collectionv1.CountResponse{
		Count: uint64(n), LatencyMs: watch.ms(),
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}, nil
}

// scrollStep is how many documents a scroll reads before it looks at the bytes.
// Every step of a filtered scroll evaluates the filter anew, so it is large.
func scrollStep(rec *fsmv1.CollectionRecord, vectors bool) int {
	if !vectors {
		return 4096
	}
	return max(16, min(4096, pageBytes/(4*int(rec.GetDimension()))))
}

// Scroll implements collectionv1.CollectionServiceServer.
func (s *service) Scroll(ctx context.Context, r *collectionv1.ScrollRequest) (*collectionv1.ScrollResponse, error) {
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = defaultScrollLimit
	}
	if limit > maxScrollLimit {
		return nil, invalidf("limit", "must be from 1 to %d, not %d", maxScrollLimit, limit)
	}
	after, err := readCursor(r.GetCursor())
	if err != nil {
		return nil, err
	}
	filter, err := filterOf("filter", r.GetFilter())
	if err != nil {
		return nil, err
	}
	v, c, err := s.readCollection(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	defer v.Close()
	out := &collectionv1.ScrollResponse{
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}
	project := raftfsm.Projection{Vector: r.GetIncludeVector(), Metadata: wanted(r.IncludeMetadata)}
	for size, stepMax := 0, scrollStep(c.Record(), project.Vector); ; {
		// One more than is wanted tells whether there is a next page.
		step := min(stepMax, limit+1-len(out.Documents))
		docs, err := c.Scroll(ctx, filter, after, step, project)
		if err != nil {
			return nil, err
		}
		for i := range docs {
			if len(out.Documents) == limit || size >= pageBytes {
				out.NextCursor = cursorAfter(after)
				return out, nil
			}
			out.Documents = append(out.Documents, vectorDocument(&docs[i]))
			size += documentBytes(&docs[i])
			after = docs[i].ID
		}
		if len(docs) < step {
			return out, nil
		}
	}
}

// A cursor is a version byte and the last id of the page before, in base64url.
const cursorVersion = "1"

func cursorAfter(id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorVersion + id))
}

func readCursor(cursor string) (after string, err error) {
	if cursor == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) < 2 || len(b) > 1+maxDocIDBytes || string(b[:1]) != cursorVersion {
		return "", invalid("cursor", "is not the next_cursor of a page")
	}
	return string(b[1:]), nil
}

// Describe implements collectionv1.CollectionServiceServer.
func (s *service) Describe(ctx context.Context, r *collectionv1.DescribeRequest) (*collectionv1.DescribeResponse, error) {
	info, sv, err := s.describe(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	return &collectionv1.DescribeResponse{
		CollectionId: info.CollectionId, Name: info.Name, Dimension: info.Dimension, Metric: info.Metric,
		DocumentCount: info.DocumentCount, CreatedAt: info.CreatedAt, Index: info.Index,
		IndexStatus: info.IndexStatus, PayloadIndexes: info.PayloadIndexes, EmbeddingModel: info.EmbeddingModel,
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

func (s *service) describe(ctx context.Context, r request, ref string) (*collectionv1.CollectionInfo, served, error) {
	if err := checkRef(ref); err != nil {
		return nil, served{}, err
	}
	v, c, err := s.readCollection(ctx, r, ref)
	if err != nil {
		return nil, served{}, err
	}
	defer v.Close()
	return collectionInfo(c), v.served, nil
}
