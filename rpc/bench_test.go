// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"

	"google.golang.org/protobuf/proto"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

const benchDims = 768

// loaded is a node with n random documents.
func loaded(tb testing.TB, n int) (*bench, *rand.Rand) {
	tb.Helper()
	b := newBench(tb, nil)
	b.create("c", benchDims, "cosine")
	rng := rand.New(rand.NewPCG(1, 2))
	for from := 0; from < n; from += 500 {
		r := &collectionv1.BatchRequest{CollectionId: "c"}
		for i := from; i < min(n, from+500); i++ {
			r.Ops = append(r.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Insert{Insert: &collectionv1.InsertRequest{
				DocId: fmt.Sprint("d", i), Vector: randomVector(rng), Metadata: jsonText(`{"label":7,"title":"some text"}`)}}})
		}
		if _, err := b.docs.Batch(tb.Context(), r); err != nil {
			tb.Fatal(err)
		}
	}
	return b, rng
}

func randomVector(rng *rand.Rand) []float32 {
	v := make([]float32, benchDims)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// BenchmarkQuery compares what a query costs in process, by gRPC and by REST
// over a small collection, where the search itself costs little.
func BenchmarkQuery(b *testing.B) {
	t, rng := loaded(b, 200)
	q := &collectionv1.QueryRequest{CollectionId: "c", QueryVector: randomVector(rng), TopK: 10, Consistency: "eventual"}
	b.Run("inprocess", func(b *testing.B) {
		svc := &service{node: t.node, metrics: t.server.metrics}
		for b.Loop() {
			if _, err := svc.Query(b.Context(), q); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("grpc", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := t.docs.Query(b.Context(), q); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("rest", func(b *testing.B) {
		body := appendJSON(nil, (&collectionv1.QueryRequest{QueryVector: q.QueryVector, TopK: 10, Consistency: "eventual"}).ProtoReflect())
		body = bytes.Replace(body, []byte(`"collection_id":"",`), nil, 1)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				resp, err := http.Post(t.rest+"/api/v1/collections/c/query", "application/json", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
					b.Error(resp.Status, err)
				}
				resp.Body.Close()
			}
		})
	})
}

// BenchmarkUpsert is one document a log entry, as many callers as there are.
func BenchmarkUpsert(b *testing.B) {
	t, rng := loaded(b, 1)
	r := &collectionv1.UpsertRequest{CollectionId: "c", Vector: randomVector(rng)}
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := t.docs.Upsert(b.Context(), proto.CloneOf(r)); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkBatch writes 500 documents a log entry.
func BenchmarkBatch(b *testing.B) {
	t, rng := loaded(b, 1)
	r := &collectionv1.BatchRequest{CollectionId: "c"}
	for i := range 500 {
		r.Ops = append(r.Ops, &collectionv1.WriteOp{Op: &collectionv1.WriteOp_Upsert{Upsert: &collectionv1.UpsertRequest{
			DocId: fmt.Sprint("d", i), Vector: randomVector(rng), Metadata: jsonText(`{"label": 7, "title": "some text", "list": [1, 2, 3]}`)}}})
	}
	for b.Loop() {
		if _, err := t.docs.Batch(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(500*float64(b.N)/b.Elapsed().Seconds(), "docs/s")
}
