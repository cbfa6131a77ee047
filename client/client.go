// SPDX-License-Identifier: Apache-2.0

// Package client talks to an AkiDB cluster: it finds the leader, fails over,
// sends a request id with every write so that a retry happens once, and carries
// a session token so that reads see the writes before them. It imports neither
// Raft nor storage.
package client

import (
	"context"
	"crypto/tls"
	"time"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Config says how to reach a cluster; Open validates it.
type Config struct {
	// Endpoints are gRPC addresses ("host:port"), or "dns:///name:port".
	Endpoints []string
	TLS       *tls.Config // nil dials without TLS: only for tests
	// Timeout bounds a call with all its retries if its context has no
	// deadline; default 30 s.
	Timeout time.Duration
	// Consistency of reads: "" is linearizable.
	Consistency  string
	MaxStaleness time.Duration
	// HedgeAfter sends a read to a second replica after this long; 0: never.
	HedgeAfter time.Duration
	// Pin keeps all calls on the first endpoint, without forwarding on failure:
	// for tests that ask one replica.
	Pin    bool
	APIKey string
}

// Client is safe for concurrent use.
type Client struct{}

// Open returns at once; connections are made as calls need them.
func Open(cfg Config) (*Client, error) { panic("client: to be built") }

// Close closes the connections.
func (c *Client) Close() error { panic("to be built") }

// Session returns a client on the same connections with a session token of its
// own: its reads see its writes and never go back.
func (c *Client) Session() *Client { panic("to be built") }

// Token is the newest session token seen.
func (c *Client) Token() string { panic("to be built") }

// Insert and its siblings fill in the request id if it is empty, retry while
// that is safe, and return errors that IsRetryable, IsUnknown and Code read.
func (c *Client) Insert(ctx context.Context, r *collectionv1.InsertRequest) (*collectionv1.InsertResponse, error) {
	panic("to be built")
}

// Upsert, PatchPayload, Delete, DeleteMany, Batch, Query, QueryBatch, Get,
// Fetch, Count, Scroll, Describe, CreateCollection, ListCollections,
// GetCollection and DeleteCollection follow the same shape.

// Status asks one endpoint for its own status, without retry.
func (c *Client) Status(ctx context.Context, endpoint string) (*clusterv1.StatusResponse, error) {
	panic("to be built")
}
