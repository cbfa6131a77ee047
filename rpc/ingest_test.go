// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// A message above the bound ends the stream as any other message that is refused: it
// is named, and what was acknowledged before it is told and there, and nothing else.
func TestIngestNamesTheMessageThatIsTooLarge(t *testing.T) {
	b := newBench(t, nil)
	b.create("c", 1, "l2")
	docs := make([]*collectionv1.InsertRequest, 1500)
	for i := range docs {
		docs[i] = &collectionv1.InsertRequest{CollectionId: "c", DocId: fmt.Sprint("d", i), Vector: []float32{1}}
	}
	large := docs[1203]
	large.Metadata = jsonText(`{"a":"` + strings.Repeat("x", maxMessageBytes) + `"}`)
	_, err := b.ingest(docs)
	if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "REQUEST_TOO_LARGE" || metadataOf(err, "class") != "permanent" ||
		metadataOf(err, "field") != "documents[1203]" || metadataOf(err, "acknowledged") != "1000" {
		t.Errorf("message too large: %v, reason %s, class %s, field %s, acknowledged %s", err, reasonOf(err),
			metadataOf(err, "class"), metadataOf(err, "field"), metadataOf(err, "acknowledged"))
	}
	if n := b.count("c"); n != 1000 {
		t.Errorf("%d documents; want the 1000 acknowledged", n)
	}
	_, err = b.ingest([]*collectionv1.InsertRequest{large})
	if reasonOf(err) != "REQUEST_TOO_LARGE" || metadataOf(err, "field") != "documents[0]" || metadataOf(err, "acknowledged") != "0" {
		t.Errorf("first message too large: %v, reason %s, field %s, acknowledged %s", err, reasonOf(err),
			metadataOf(err, "field"), metadataOf(err, "acknowledged"))
	}
	_, err = b.docs.Insert(t.Context(), large)
	if status.Code(err) != codes.ResourceExhausted || reasonOf(err) != "REQUEST_TOO_LARGE" || metadataOf(err, "class") != "permanent" {
		t.Errorf("request too large: %v, reason %s, class %s", err, reasonOf(err), metadataOf(err, "class"))
	}
}

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
