// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"

	"github.com/akidb/akidb/client"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// It is compiled, not run: it needs the cluster that `akidb dev` starts.
func Example() {
	pem, err := os.ReadFile("ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c, err := client.Open(client.Config{
		Endpoints: []string{"a:9443", "b:9443", "c:9443"}, // or "dns:///akidb:9443"
		TLS:       &tls.Config{RootCAs: pool},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	_, err = c.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: "notes", DocId: "1", Vector: []float32{1, 0, 0}})
	if client.IsUnknown(err) {
		fmt.Println("it may have been applied:", err)
	}
	res, err := c.Query(ctx, &collectionv1.QueryRequest{CollectionId: "notes", QueryVector: []float32{1, 0, 0}, TopK: 10})
	if err != nil {
		log.Print(err)
		return
	}
	for _, m := range res.Matches {
		fmt.Println(m.DocId, m.Distance)
	}
}
