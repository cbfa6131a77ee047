// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

func jsonText(s string) *collectionv1.Json { return &collectionv1.Json{Raw: []byte(s)} }

func (b *bench) upsert(collection, id string, vector []float32, metadata string) *collectionv1.UpsertResponse {
	b.t.Helper()
	r := &collectionv1.UpsertRequest{CollectionId: collection, DocId: id, Vector: vector}
	if metadata != "" {
		r.Metadata = jsonText(metadata)
	}
	out, err := b.docs.Upsert(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bench) count(collection string) uint64 {
	b.t.Helper()
	out, err := b.docs.Count(b.t.Context(), &collectionv1.CountRequest{CollectionId: collection})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.Count
}

func TestScoresPerMetric(t *testing.T) {
	b := newBench(t, nil)
	for _, k := range []struct {
		metric    string
		want      []string
		scores    []float64
		threshold float32
		within    int
	}{
		{"cosine", []string{"same", "right", "behind"}, []float64{1, 0, -1}, 0, 2},
		{"dot", []string{"same", "right", "behind"}, []float64{8, 0, -4}, 0, 2},
		{"l2", []string{"same", "right", "behind"}, []float64{0, 5, 18}, 5, 2},
	} {
		b.create(k.metric, 2, k.metric)
		same := []float32{2, 2}
		right := map[string][]float32{"cosine": {1, -1}, "dot": {3, -3}, "l2": {1, 0}}[k.metric]
		b.upsert(k.metric, "same", same, "")
		b.upsert(k.metric, "right", right, "")
		b.upsert(k.metric, "behind", []float32{-1, -1}, "")
		q := &collectionv1.QueryRequest{CollectionId: k.metric, QueryVector: same, TopK: 3, IncludeVector: true}
		out, err := b.docs.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range out.Matches {
			if m.DocId != k.want[i] || math.Abs(float64(m.Distance)-k.scores[i]) > 1e-5 {
				t.Errorf("%s: match %d is %s with score %v, want %s with %v", k.metric, i, m.DocId, m.Distance, k.want[i], k.scores[i])
			}
		}
		if m := out.Matches[0]; len(m.Vector) != 2 || m.Vector[0] != 2 {
			t.Errorf("%s: vector came back as %v, not as it was written", k.metric, m.Vector)
		}
		q.ScoreThreshold = &k.threshold
		if out, err = b.docs.Query(t.Context(), q); err != nil || len(out.Matches) != k.within {
			t.Errorf("%s: %d matches within %v, want %d (%v)", k.metric, len(out.Matches), k.threshold, k.within, err)
		}
	}
}

func TestReadsOfManyDocuments(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	batch := &collectionv1.BatchRequest{CollectionId: "c"}
	for i := range 300 {
		batch.Ops = append(batch.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Insert{Insert: &collectionv1.InsertRequest{
			DocId: fmt.Sprintf("d%03d", i), Vector: []float32{float32(i)}, Metadata: jsonText(fmt.Sprintf(`{"n": %d, "even": %v, "s":"x"}`, i, i%2 == 0)),
		}}})
	}
	wrote, err := b.docs.Batch(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	if len(wrote.Results) != 300 || !wrote.Results[7].Created || wrote.Results[7].DocId != "d007" {
		t.Errorf("batch: %d results, %v", len(wrote.Results), wrote.Results[7])
	}
	even := &collectionv1.Filter{Must: []*collectionv1.Condition{{Key: "even", Match: &collectionv1.Match{
		Value: &collectionv1.Value{Kind: &collectionv1.Value_BoolValue{BoolValue: true}}}}}}
	n, err := b.docs.Count(t.Context(), &collectionv1.CountRequest{CollectionId: "c", Filter: even})
	if err != nil || n.Count != 150 {
		t.Errorf("count of the even ones: %v %v", n, err)
	}
	var ids []string
	pages := 0
	for cursor := ""; ; {
		page, err := b.docs.Scroll(t.Context(), &collectionv1.ScrollRequest{CollectionId: "c", Filter: even, Limit: 50, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			ids = append(ids, d.DocId)
			if d.Vector != nil || len(d.Metadata.GetRaw()) == 0 {
				t.Fatalf("scroll gave vector %v, metadata %s", d.Vector, d.Metadata.GetRaw())
			}
		}
		pages++
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if pages != 3 || len(ids) != 150 || ids[0] != "d000" || ids[149] != "d298" {
		t.Errorf("scroll: %d pages, %d documents from %s", pages, len(ids), ids[0])
	}
	no := false
	fetched, err := b.docs.Fetch(t.Context(), &collectionv1.FetchRequest{CollectionId: "c", DocIds: []string{"d002", "nobody", "d001"}, IncludeVector: &no})
	if err != nil || len(fetched.Documents) != 2 || fetched.Documents[1].DocId != "d001" || fetched.Documents[0].Vector != nil {
		t.Errorf("fetch: %v %v", fetched, err)
	}
	got, err := b.docs.QueryBatch(t.Context(), &collectionv1.QueryBatchRequest{CollectionId: "c", Queries: []*collectionv1.QueryRequest{
		{QueryVector: []float32{10.1}, TopK: 1}, {QueryVector: []float32{20.9}, TopK: 2, Filter: even, MetadataFields: []string{"n", "nobody"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got.Results[0].Matches[0].DocId != "d010" || got.Results[1].Matches[0].DocId != "d020" && got.Results[1].Matches[0].DocId != "d022" {
		t.Errorf("query batch: %v", got)
	}
	if raw := string(got.Results[1].Matches[0].Metadata.GetRaw()); raw != `{"n":20}` && raw != `{"n":22}` {
		t.Errorf("projection: %s", raw)
	}
	described, err := b.docs.Describe(t.Context(), &collectionv1.DescribeRequest{CollectionId: "c"})
	if err != nil || described.DocumentCount != 300 || described.Metric != "l2" || described.Index.GetM() != 16 {
		t.Errorf("describe: %v %v", described, err)
	}
}

func TestRequestIDsMakeWritesHappenOnce(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	const rid = "019a7c11-2233-7abc-8def-001122334455"
	insert := &collectionv1.InsertRequest{CollectionId: "c", Vector: []float32{1}, RequestId: rid}
	first, err := b.docs.Insert(t.Context(), insert)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.docs.Insert(t.Context(), insert)
	if err != nil || again.DocId != first.DocId || again.Version != first.Version {
		t.Errorf("again: %v %v, first %v", again, err, first)
	}
	if first.DocId[:13] != rid[:13] || first.DocId[14] != '7' {
		t.Errorf("minted %s of request id %s: want a UUIDv7 of the same time", first.DocId, rid)
	}
	insert.Vector = []float32{2}
	if _, err = b.docs.Insert(t.Context(), insert); status.Code(err) != codes.InvalidArgument || reasonOf(err) != "REQUEST_ID_REUSED" {
		t.Errorf("another request under the same id: %v", err)
	}
	create := &collectionv1.CreateCollectionRequest{Name: "d", Dimension: 1, Metric: "dot", RequestId: "create-d"}
	one, err := b.manage.CreateCollection(t.Context(), create)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := b.manage.CreateCollection(t.Context(), create); err != nil || two.CollectionId != one.CollectionId {
		t.Errorf("create again: %v %v", two, err)
	}
	if n := b.count("c"); n != 1 {
		t.Errorf("%d documents, want 1", n)
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i.GetReason()
		}
	}
	return ""
}

func metadataOf(err error, key string) string {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			return i.GetMetadata()[key]
		}
	}
	return ""
}

func TestDeleteManyByFilterSparesWhatCameLater(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	for i := range 5 {
		b.upsert("c", fmt.Sprint("old", i), []float32{1}, `{"k":"x"}`)
	}
	b.upsert("c", "other", []float32{1}, `{"k":"y"}`)
	filter := &collectionv1.Filter{Must: []*collectionv1.Condition{{Key: "k", Match: &collectionv1.Match{
		Value: &collectionv1.Value{Kind: &collectionv1.Value_StringValue{StringValue: "x"}}}}}}
	r := &collectionv1.DeleteManyRequest{CollectionId: "c", Filter: filter, RequestId: "del"}
	out, err := b.docs.DeleteMany(t.Context(), r)
	if err != nil || out.Deleted != 5 {
		t.Fatalf("first try: %v %v", out, err)
	}
	b.upsert("c", "new", []float32{1}, `{"k":"x"}`)
	if out, err = b.docs.DeleteMany(t.Context(), r); err != nil || out.Deleted != 0 {
		t.Errorf("the retry deleted what was written after the first try: %v %v", out, err)
	}
	if n := b.count("c"); n != 2 {
		t.Errorf("%d documents are left, want other and new", n)
	}
	r.RequestId = ""
	if out, err = b.docs.DeleteMany(t.Context(), r); err != nil || out.Deleted != 1 {
		t.Errorf("a new delete: %v %v", out, err)
	}
	out, err = b.docs.DeleteMany(t.Context(), &collectionv1.DeleteManyRequest{CollectionId: "c", DocIds: []string{"other", "nobody", "other"}, RequestId: "ids"})
	if err != nil || out.Deleted != 1 || b.count("c") != 0 {
		t.Errorf("delete by ids: %v %v", out, err)
	}
}

// ingest sends docs as one stream.
func (b *bench) ingest(docs []*collectionv1.InsertRequest) (*collectionv1.IngestResponse, error) {
	stream, err := b.docs.IngestBatch(b.t.Context())
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		if err := stream.Send(d); err != nil {
			if errors.Is(err, io.EOF) {
				break // the error is CloseAndRecv's
			}
			return nil, err
		}
	}
	return stream.CloseAndRecv()
}

func TestIngestAppliesAStreamOnce(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 2, "l2")
	var docs []*collectionv1.InsertRequest
	for i := range 2500 {
		docs = append(docs, &collectionv1.InsertRequest{DocId: fmt.Sprint("d", i%2400), Vector: []float32{float32(i), 1}})
	}
	docs[0].CollectionId, docs[0].RequestId = "c", "stream"
	docs[7].DocId = "" // minted, the same in both streams
	out, err := b.ingest(docs)
	if err != nil || out.Ingested != 2500 || out.Created != 2401 {
		t.Fatalf("ingest: %v %v", out, err)
	}
	versions := func() map[string]uint64 {
		page, err := b.docs.Scroll(t.Context(), &collectionv1.ScrollRequest{CollectionId: "c", Limit: 10_000})
		if err != nil {
			t.Fatal(err)
		}
		v := map[string]uint64{}
		for _, d := range page.Documents {
			v[d.DocId] = d.Version
		}
		return v
	}
	before := versions()
	again, err := b.ingest(docs)
	if err != nil || again.Ingested != 2500 || again.Created != out.Created {
		t.Errorf("the same stream again: %v %v", again, err)
	}
	after := versions()
	if len(before) != len(after) {
		t.Errorf("%d documents became %d", len(before), len(after))
	}
	for id, v := range before {
		if after[id] != v {
			t.Fatalf("document %s was written again: version %d became %d", id, v, after[id])
		}
	}
	bad := []*collectionv1.InsertRequest{}
	for i := range 1500 {
		bad = append(bad, &collectionv1.InsertRequest{CollectionId: "c", DocId: fmt.Sprint("e", i), Vector: []float32{1, 2}})
	}
	bad[1203].Vector = []float32{1, float32(math.NaN())}
	_, err = b.ingest(bad)
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "documents[1203].vector[1]") || metadataOf(err, "acknowledged") != "1000" {
		t.Errorf("bad row: %v, acknowledged %s", err, metadataOf(err, "acknowledged"))
	}
	if n := b.count("c"); n != uint64(len(after))+1000 {
		t.Errorf("%d documents; want %d and the 1000 acknowledged", n, len(after))
	}
	if _, err := b.ingest(nil); status.Code(err) != codes.InvalidArgument {
		t.Errorf("empty stream: %v", err)
	}
	if _, err := b.ingest([]*collectionv1.InsertRequest{{CollectionId: "nobody", Vector: []float32{1}}}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown collection: %v", err)
	}
}

func TestHealthAndReflection(t *testing.T) {
	b := newBench(t, nil)
	h := healthv1.NewHealthClient(b.conn)
	for _, service := range []string{"", "akidb.collection.v1.CollectionService", "akidb.cluster.v1.ClusterService"} {
		got, err := h.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil || got.Status != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v %v", service, got, err)
		}
	}
	if _, err := h.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nobody"}); status.Code(err) != codes.NotFound {
		t.Errorf("health of an unknown service: %v", err)
	}
	watch, err := h.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v %v", got, err)
	}
	stream, err := reflectionv1.NewServerReflectionClient(b.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil || !strings.Contains(list.String(), "akidb.collection.v1.CollectionManagementService") {
		t.Errorf("reflection: %v %v", list, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	st, err := b.ops.Status(t.Context(), &clusterv1.StatusRequest{})
	if err != nil || st.NodeId != "n1" || st.State != "leader" || !st.Ready || len(st.StateHash) != 32 {
		t.Errorf("status: %v %v", st, err)
	}
	members, err := b.ops.Members(t.Context(), &clusterv1.MembersRequest{})
	if err != nil || len(members.Members) != 1 || !members.Members[0].Leader {
		t.Errorf("members: %v %v", members, err)
	}
	if leader, err := b.ops.Leader(t.Context(), &clusterv1.LeaderRequest{}); err != nil || leader.NodeId != "n1" || leader.Term == 0 {
		t.Errorf("leader: %v %v", leader, err)
	}
	if v, err := b.ops.Verify(t.Context(), &clusterv1.VerifyRequest{}); err != nil || !v.Equal || len(v.Members) != 1 {
		t.Errorf("verify: %v %v", v, err)
	}
}

func TestStopEndsWatchesAndServing(t *testing.T) {
	b := newBench(t, nil)
	watch, err := healthv1.NewHealthClient(b.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.Status != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("before: %v %v", got, err)
	}
	if err := b.server.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if got, err := watch.Recv(); err != nil || got.Status != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("at the stop: %v %v", got, err)
	}
	if _, err := watch.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after it: %v", err)
	}
	if _, err := b.docs.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "a"}); status.Code(err) != codes.Unavailable {
		t.Errorf("a request after the stop: %v", err)
	}
}

func TestBatchesUpToTheirBounds(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	insert := func(n int, prefix string) *collectionv1.BatchRequest {
		r := &collectionv1.BatchRequest{CollectionId: "c"}
		for i := range n {
			r.Ops = append(r.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Upsert{Upsert: &collectionv1.UpsertRequest{
				DocId: fmt.Sprint(prefix, i), Vector: []float32{float32(i)}, Metadata: jsonText(`{"p":"` + prefix + `"}`)}}})
		}
		return r
	}
	if _, err := b.docs.Batch(t.Context(), insert(10_000, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.docs.Batch(t.Context(), insert(1_000, "b")); err != nil {
		t.Fatal(err)
	}
	fat := insert(600, "c")
	for _, op := range fat.Ops {
		op.GetUpsert().Metadata = jsonText(`{"a":"` + strings.Repeat("x", 60<<10) + `"}`)
	}
	if _, err := b.docs.Batch(t.Context(), fat); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "ops") {
		t.Errorf("batch of 35 MiB: %.200v", err)
	}
	all := &collectionv1.Filter{MustNot: []*collectionv1.Condition{{Key: "p", Match: &collectionv1.Match{
		Value: &collectionv1.Value{Kind: &collectionv1.Value_StringValue{StringValue: "c"}}}}}}
	out, err := b.docs.DeleteMany(t.Context(), &collectionv1.DeleteManyRequest{CollectionId: "c", Filter: all, RequestId: "all"})
	if err != nil || out.Deleted != 11_000 || b.count("c") != 0 {
		t.Errorf("delete of more than one entry takes: %v %v", out, err)
	}
}

func TestTheGuardKeepsRequestsApart(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := newBench(t, func(c *Config) {
		c.MaxInFlight = 1
		c.UnaryInterceptors = []grpc.UnaryServerInterceptor{
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				switch r := req.(type) {
				case *collectionv1.GetRequest:
					if r.DocId == "panic" {
						panic("on purpose")
					}
					if r.DocId == "elsewhere" {
						failed := make(chan error)
						go func() {
							var err error
							defer func() { failed <- err }()
							defer carry(&err)
							panic("on purpose")
						}()
						return nil, throw(<-failed)
					}
				case *collectionv1.CountRequest:
					entered <- struct{}{}
					<-release
				}
				return next(ctx, req)
			}}
	})
	b.create("c", 1, "l2")
	_, err := b.docs.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "panic"})
	if status.Code(err) != codes.Internal || reasonOf(err) != "PANIC" {
		t.Errorf("panic over gRPC: %v", err)
	}
	_, err = b.docs.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "elsewhere"})
	if status.Code(err) != codes.Internal || reasonOf(err) != "PANIC" {
		t.Errorf("panic of a goroutine of the request: %v", err)
	}
	if r := b.do("GET", "/api/v1/collections/c/docs/panic", ""); r.status != 500 || r.at("error", "details", "reason") != "PANIC" {
		t.Errorf("panic over REST: %d %s", r.status, r.text)
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.docs.Count(t.Context(), &collectionv1.CountRequest{CollectionId: "c"})
		done <- err
	}()
	<-entered
	_, err = b.docs.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "a"})
	if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "TOO_MANY_REQUESTS" {
		t.Errorf("second request: %v", err)
	}
	if r := b.do("GET", "/api/v1/collections/c/docs/a", ""); r.status != 429 || r.header.Get("Retry-After") != "1" {
		t.Errorf("second request over REST: %d %s", r.status, r.text)
	}
	if _, err := b.ops.Status(t.Context(), &clusterv1.StatusRequest{}); err != nil {
		t.Errorf("status of a busy server: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestProtobufThatCannotBeDecoded(t *testing.T) {
	b := newBench(t, nil)
	for _, damaged := range [][]byte{{0xff, 0xff, 0xff}, {0x0a, 5, 'a'}, {0}, {0x0a, 1, 0xff}} {
		for _, method := range []string{collectionv1.CollectionService_Query_FullMethodName, collectionv1.CollectionService_Upsert_FullMethodName,
			healthv1.Health_Check_FullMethodName} {
			err := b.conn.Invoke(t.Context(), method, &rawMessage{damaged}, &rawMessage{}, grpc.ForceCodec(rawCodec{}))
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "could not be decoded") {
				t.Errorf("damaged message % x to %s: %v", damaged, method, err)
			}
		}
		stream, err := b.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true},
			collectionv1.CollectionService_IngestBatch_FullMethodName, grpc.ForceCodec(rawCodec{}))
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SendMsg(&rawMessage{damaged}) // the answer says more
		_ = stream.CloseSend()
		if err := stream.RecvMsg(&rawMessage{}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "could not be decoded") {
			t.Errorf("damaged message % x in a stream: %v", damaged, err)
		}
	}
	if _, err := b.manage.ListCollections(t.Context(), &collectionv1.ListCollectionsRequest{}); err != nil {
		t.Errorf("the server does not answer afterwards: %v", err)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

type rawMessage struct{ b []byte }

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.(*rawMessage).b, nil }
func (rawCodec) Unmarshal(data []byte, v any) error { v.(*rawMessage).b = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

// A score can be given back as the threshold, with distances of codes too, which
// have more digits than their scores.
func TestScoreOfCodesReachesItself(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 8, "cosine")
	rng := rand.New(rand.NewPCG(1, 2))
	vector := func() []float32 {
		v := make([]float32, 8)
		for i := range v {
			v[i] = rng.Float32() - 0.5
		}
		return v
	}
	batch := &collectionv1.BatchRequest{CollectionId: "c"}
	for i := range 2000 {
		batch.Ops = append(batch.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Insert{Insert: &collectionv1.InsertRequest{
			DocId: fmt.Sprint("d", i), Vector: vector()}}})
	}
	if _, err := b.docs.Batch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	b.eventually("the graph is built", func() bool {
		st, err := b.ops.Status(t.Context(), &clusterv1.StatusRequest{})
		return err == nil && st.GraphIdle
	})
	no := false
	for range 20 {
		q := &collectionv1.QueryRequest{CollectionId: "c", QueryVector: vector(), TopK: 5, Rescore: &no, Ef: 500}
		out, err := b.docs.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range out.Matches {
			q.ScoreThreshold = &m.Distance
			within, err := b.docs.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if len(within.Matches) <= i {
				t.Errorf("%s is match %d with score %v, but with that for threshold there are %d", m.DocId, i+1, m.Distance, len(within.Matches))
			}
		}
	}
}

// A NUL ends no payload: what stands behind it is text after the JSON value.
func TestNullAndMoreIsNoPayload(t *testing.T) {
	for _, text := range []string{"null\x00", "null\x00{}", "{}\x00", "null{}"} {
		if raw, err := payloadOf("metadata", jsonText(text)); err == nil {
			t.Errorf("%q is taken for %q", text, raw)
		}
	}
}

func TestPatchThatGrowsTooLargeNamesItsPlaceInTheBatch(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	half := strings.Repeat("x", 40<<10)
	b.upsert("c", "a", []float32{1}, `{"a":"`+half+`"}`)
	r := b.do("POST", "/api/v1/collections/c/batch",
		`{"ops":[{"upsert":{"doc_id":"b","vector":[1]}},{"patch":{"doc_id":"a","metadata":{"b":"`+half+`"}}}]}`)
	if r.status != 400 || r.at("error", "details", "field") != "ops[1]" {
		t.Errorf("%d %.300s", r.status, r.text)
	}
}

// lateContext says that its time is up once late does.
type lateContext struct {
	context.Context
	late func() bool
}

func (c lateContext) Err() error {
	if c.late() {
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

func TestBrokenOffDeleteSaysHowMany(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	for part := range 2 {
		batch := &collectionv1.BatchRequest{CollectionId: "c"}
		for i := range 6000 {
			batch.Ops = append(batch.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Insert{Insert: &collectionv1.InsertRequest{
				DocId: fmt.Sprintf("d%d-%04d", part, i), Vector: []float32{float32(i)}, Metadata: jsonText(`{"a":1}`)}}})
		}
		if _, err := b.docs.Batch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	s := &service{node: b.node, metrics: b.server.metrics}
	left := func() int {
		v, err := b.node.Read(context.Background(), node.ReadOptions{Consistency: node.Eventual})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		c, err := v.Collection("c")
		if err != nil {
			t.Fatal(err)
		}
		return c.Len()
	}
	ctx := lateContext{t.Context(), func() bool { return left() < 12000 }}
	_, err := s.DeleteMany(ctx, &collectionv1.DeleteManyRequest{CollectionId: "c", Filter: &collectionv1.Filter{
		MustNot: []*collectionv1.Condition{{Key: "b", Match: &collectionv1.Match{Value: &collectionv1.Value{Kind: &collectionv1.Value_IntValue{IntValue: 1}}}}}}})
	st := statusOf(err)
	if got := metadataOf(st.Err(), "deleted"); got != "10000" {
		t.Errorf("%d are left; %v; deleted: %q", left(), err, got)
	}
}

// What was partly done is not of the class that says that nothing happened.
func TestPartlyDoneIsOfUnknownOutcome(t *testing.T) {
	for _, err := range []error{&node.OverloadedError{Budget: "disk", RetryAfter: time.Second}, node.ErrNoLeader, index.ErrViewTooOld} {
		_, info, _, _ := details(t, noteCount(err, "deleted", 0))
		if info.GetMetadata()["class"] != "not_applied" || info.GetMetadata()["deleted"] != "0" {
			t.Errorf("%v with nothing done: %v", err, info)
		}
		code, info, _, _ := details(t, noteCount(err, "deleted", 7))
		if code != codes.Unknown || info.GetReason() != "UNKNOWN_OUTCOME" || info.GetMetadata()["class"] != "unknown" || info.GetMetadata()["deleted"] != "7" {
			t.Errorf("%v with 7 deleted: %v %v", err, code, info)
		}
	}
}

// Calls that only wait for our health take no room from the others.
func TestWatchersLeaveRoom(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxInFlight = 3 })
	b.create("c", 1, "l2")
	h := healthv1.NewHealthClient(b.conn)
	for range 3 {
		w, err := h.Watch(t.Context(), &healthv1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.docs.Count(t.Context(), &collectionv1.CountRequest{CollectionId: "c"}); err != nil {
		t.Errorf("one request beside three idle health watches, bound 3: %v", err)
	}
}

// The fields of a payload that a query asks for are a bounded list: each name of
// each payload found is looked up in it.
func TestMetadataFieldsAreBounded(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	b.upsert("c", "a", []float32{1}, `{"f1":1,"g":2,"f2":3}`)
	q := &collectionv1.QueryRequest{CollectionId: "c", QueryVector: []float32{1}, TopK: 1}
	for i := range maxMetadataFields {
		q.MetadataFields = append(q.MetadataFields, fmt.Sprint("f", i))
	}
	out, err := b.docs.Query(t.Context(), q)
	if err != nil || string(out.Matches[0].Metadata.GetRaw()) != `{"f1":1,"f2":3}` {
		t.Errorf("%v %v", out, err)
	}
	q.MetadataFields = append(q.MetadataFields, "g")
	if _, err = b.docs.Query(t.Context(), q); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "metadata_fields") {
		t.Errorf("one more than the bound: %v", err)
	}
}

// What queries may ask for together is bounded by its bytes, payloads included.
func TestReplyOfQueriesIsBounded(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	for part := range 2 {
		batch := &collectionv1.BatchRequest{CollectionId: "c"}
		for i := range 100 {
			batch.Ops = append(batch.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Insert{Insert: &collectionv1.InsertRequest{
				DocId: fmt.Sprintf("d%d-%03d", part, i), Vector: []float32{float32(i)}, Metadata: jsonText(`{"a":"` + strings.Repeat("x", 60<<10) + `"}`),
			}}})
		}
		if _, err := b.docs.Batch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	q := &collectionv1.QueryBatchRequest{CollectionId: "c"}
	for range 25 {
		q.Queries = append(q.Queries, &collectionv1.QueryRequest{QueryVector: []float32{1}, TopK: 200, IncludeMetadata: true})
	}
	_, err := b.docs.QueryBatch(t.Context(), q)
	if status.Code(err) != codes.InvalidArgument || reasonOf(err) != "INVALID_ARGUMENT" {
		t.Errorf("gRPC: %s, reason %q: %v", status.Code(err), reasonOf(err), err)
	}
	r := b.do("POST", "/api/v1/collections/c/query_batch", `{"queries":[`+strings.Repeat(`{"query_vector":[1],"top_k":200,"include_metadata":true},`, 24)+`{"query_vector":[1],"top_k":200,"include_metadata":true}]}`)
	if r.status != 400 {
		t.Errorf("REST: %d, %d MiB", r.status, len(r.text)>>20)
	}
}

// A retry finds what the first try wrote, though a lagging replica took that for
// another collection at first.
func TestRetryAfterALateReplica(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	s := &service{node: b.node, metrics: b.server.metrics}
	req := &collectionv1.UpsertRequest{CollectionId: "c", DocId: "a", Vector: []float32{1}, RequestId: "x"}
	first := true
	// What a replica does that has not applied a drop and create of the name yet.
	res, err := s.proposeOn(t.Context(), "c", "x", func(c *raftfsm.Collection) (*fsmv1.Command, error) {
		w := &writer{rec: c.Record(), requestID: "x"}
		if err := w.upsert("", req); err != nil {
			return nil, err
		}
		if first {
			first = false
			b.must("DELETE", "/api/v1/collections/c", "")
			b.create("c", 1, "l2")
		}
		return w.command(), nil
	})
	if err != nil || b.count("c") != 1 {
		t.Fatal(res, err)
	}
	again, err := b.docs.Upsert(t.Context(), req)
	if err != nil || again.Version != res.LogIndex {
		t.Errorf("the first try wrote version %d; sent again: %v %v", res.LogIndex, again, err)
	}
	req.Vector = []float32{2}
	if _, err = b.docs.Upsert(t.Context(), req); reasonOf(err) != "REQUEST_ID_REUSED" {
		t.Errorf("another request under the same id: %v", err)
	}
}

func TestRequestIDOfFilterIsRefusedForAnother(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	b.upsert("c", "a", []float32{1}, `{"k":"a"}`)
	f := func(v string) *collectionv1.Filter {
		return &collectionv1.Filter{Must: []*collectionv1.Condition{{Key: "k", Match: &collectionv1.Match{
			Value: &collectionv1.Value{Kind: &collectionv1.Value_StringValue{StringValue: v}}}}}}
	}
	if out, err := b.docs.DeleteMany(t.Context(), &collectionv1.DeleteManyRequest{CollectionId: "c", Filter: f("a"), RequestId: "x"}); err != nil || out.Deleted != 1 {
		t.Fatal(out, err)
	}
	b.upsert("c", "b", []float32{1}, `{"k":"b"}`)
	out, err := b.docs.DeleteMany(t.Context(), &collectionv1.DeleteManyRequest{CollectionId: "c", Filter: f("b"), RequestId: "x"})
	if reasonOf(err) != "REQUEST_ID_REUSED" {
		t.Errorf("filter: %v %v; %d documents are there", out, err, b.count("c"))
	}
}

// Deletes by other ids under a request id that was used are not taken for those of
// the first, and the same ones sent again are.
func TestRequestIDOfDeletesIsOfTheirIDs(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	b.upsert("c", "a", []float32{1}, "")
	b.upsert("c", "b", []float32{1}, "")
	for range 2 {
		out, err := b.docs.DeleteMany(t.Context(), &collectionv1.DeleteManyRequest{CollectionId: "c", DocIds: []string{"a"}, RequestId: "x"})
		if err != nil || out.Deleted != 1 {
			t.Fatal(out, err)
		}
		b.upsert("c", "a", []float32{1}, "")
	}
	if n := b.count("c"); n != 2 {
		t.Errorf("%d documents: the retry deleted what was written after the first try", n)
	}
	out, err := b.docs.DeleteMany(t.Context(), &collectionv1.DeleteManyRequest{CollectionId: "c", DocIds: []string{"b"}, RequestId: "x"})
	if err == nil && b.count("c") != 1 {
		t.Errorf("acknowledged with deleted=%d, but the document is there", out.Deleted)
	}
}
