// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// A client that pauses hears of a batch that was not committed, without sending more.
func TestIngestEndsWhenACommitFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		fail   func(*bench)
		code   codes.Code
		reason string
	}{
		{"refused", func(b *bench) { b.must("DELETE", "/api/v1/collections/c", "") }, codes.NotFound, "COLLECTION_NOT_FOUND"},
		{"lost", func(b *bench) {
			if err := b.node.Close(context.Background()); err != nil {
				b.t.Error(err)
			}
		}, codes.Unknown, "UNKNOWN_OUTCOME"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			b.create("c", 1, "l2")
			stream, err := b.docs.IngestBatch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// A batch is committed once the first document of the next has come.
			sent := 0
			send := func(until int) {
				for ; sent < until; sent++ {
					err := stream.Send(&collectionv1.InsertRequest{CollectionId: "c", DocId: fmt.Sprint("d", sent), Vector: []float32{1}})
					if err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
				}
			}
			send(ingestBatchDocs + 1)
			b.eventually("the first batch is committed", func() bool { return b.count("c") == ingestBatchDocs })
			c.fail(b)
			send(2*ingestBatchDocs + 1)
			err = stream.RecvMsg(&collectionv1.IngestResponse{})
			if status.Code(err) != c.code || reasonOf(err) != c.reason || metadataOf(err, "acknowledged") != "1000" {
				t.Errorf("%v, reason %s, acknowledged %s", err, reasonOf(err), metadataOf(err, "acknowledged"))
			}
		})
	}
}
