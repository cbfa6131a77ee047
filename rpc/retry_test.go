// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// A write that was carried out and is sent again after its collection was dropped must
// not be told that nothing happened, whatever is there under the name by then; a write
// of which that is certain must be.
func TestRetryAfterADropIsNotToldThatNothingHappened(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	first := &collectionv1.UpsertRequest{CollectionId: "c", DocId: "a", Vector: []float32{1}, RequestId: "first"}
	out, err := b.docs.Upsert(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	b.upsert("c", "b", []float32{2}, `{"k":"x"}`)
	filter := &collectionv1.Filter{Must: []*collectionv1.Condition{{Key: "k", Match: &collectionv1.Match{
		Value: &collectionv1.Value{Kind: &collectionv1.Value_StringValue{StringValue: "x"}}}}}}
	del := &collectionv1.DeleteManyRequest{CollectionId: "c", Filter: filter, RequestId: "delete"}
	if out, err := b.docs.DeleteMany(t.Context(), del); err != nil || out.Deleted != 1 {
		t.Fatalf("%v %v", out, err)
	}
	refused := &collectionv1.DeleteRequest{CollectionId: "c", DocId: "nobody", RequestId: "refused"}
	if _, err := b.docs.Delete(t.Context(), refused); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	at := strconv.FormatUint(out.Version, 10)
	check := func(what string, err error, code codes.Code, reason, class, carried string) {
		t.Helper()
		if status.Code(err) != code || reasonOf(err) != reason || metadataOf(err, "class") != class || carried != "any" && metadataOf(err, "carried_out_at") != carried ||
			carried == "any" && metadataOf(err, "carried_out_at") == "" {
			t.Errorf("%s: %v, reason %s, class %s, carried out at %q", what, err, reasonOf(err), metadataOf(err, "class"), metadataOf(err, "carried_out_at"))
		}
	}
	upsert := func(requestID string, dims int) error {
		r := proto.CloneOf(first)
		r.RequestId, r.Vector = requestID, make([]float32, dims)
		r.Vector[0] = 1
		_, err := b.docs.Upsert(t.Context(), r)
		return err
	}
	deleteMany := func() error {
		_, err := b.docs.DeleteMany(t.Context(), del)
		return err
	}

	b.must("DELETE", "/api/v1/collections/c", "")
	check("dropped", upsert("first", 1), codes.NotFound, "COLLECTION_NOT_FOUND", "unknown", at)
	check("dropped, delete by filter", deleteMany(), codes.NotFound, "COLLECTION_NOT_FOUND", "unknown", "any")
	check("dropped, never sent before", upsert("other", 1), codes.NotFound, "COLLECTION_NOT_FOUND", "permanent", "")
	check("dropped, without a request id", upsert("", 1), codes.NotFound, "COLLECTION_NOT_FOUND", "permanent", "")
	_, err = b.docs.Delete(t.Context(), refused)
	check("dropped, refused before", err, codes.NotFound, "COLLECTION_NOT_FOUND", "permanent", "")
	r := b.do("POST", "/api/v1/collections/c/upsert", `{"doc_id":"a","vector":[1],"request_id":"first"}`)
	if r.status != 404 || r.at("error", "details", "class") != "unknown" || r.at("error", "details", "carried_out_at") != at {
		t.Errorf("over REST: %d %s", r.status, r.text)
	}

	b.create("c", 2, "l2")
	check("made anew with another dimension", upsert("first", 1), codes.InvalidArgument, "INVALID_ARGUMENT", "unknown", at)
	b.must("DELETE", "/api/v1/collections/c", "")
	b.create("c", 1, "l2")
	check("made anew", upsert("first", 1), codes.InvalidArgument, "REQUEST_ID_REUSED", "unknown", at)
	check("made anew, delete by filter", deleteMany(), codes.InvalidArgument, "REQUEST_ID_REUSED", "unknown", "any")
	if n := b.count("c"); n != 0 {
		t.Errorf("%d documents in the new collection", n)
	}
	if err := upsert("new", 1); err != nil {
		t.Fatal(err)
	}
	check("reused for what cannot be", upsert("new", 3), codes.InvalidArgument, "INVALID_ARGUMENT", "permanent", "")
	again := proto.CloneOf(first)
	again.DocId, again.RequestId = "z", "new"
	_, err = b.docs.Upsert(t.Context(), again)
	check("reused", err, codes.InvalidArgument, "REQUEST_ID_REUSED", "permanent", "")
}
