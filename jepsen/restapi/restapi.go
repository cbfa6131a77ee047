// SPDX-License-Identifier: Apache-2.0

// Package restapi is a client of AkiDB on plain net/http, written from docs/rest.md
// alone: it shares no code with the Go client or the server, and never retries.
package restapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/akidb/akidb/jepsen/workload"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

var _ workload.DB = (*Client)(nil)

// Client asks one of its addresses at a time; after a failure the next call goes
// to the next one.
type Client struct {
	workload.DB // nil: methods that are not here are not offered

	hosts  []string
	at     atomic.Uint64
	http   *http.Client
	apiKey string
}

// New makes a client of the hosts ("host:port").
func New(hosts []string, t *tls.Config, apiKey string) *Client {
	return &Client{hosts: hosts, apiKey: apiKey, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: t, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is a refusal, with what the body says about it.
type Error struct {
	Status  int
	Message string
	Details map[string]string
}

func (e *Error) Error() string { return fmt.Sprintf("rest: %d: %s %v", e.Status, e.Message, e.Details) }

// ErrorInfo gives the details the shape that workload.Classify reads.
func (e *Error) ErrorInfo() *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: e.Details["reason"], Metadata: e.Details}
}

// errorBody is the JSON of a refusal.
type errorBody struct {
	Error struct {
		Code    string                     `json:"code"`
		Message string                     `json:"message"`
		Details map[string]json.RawMessage `json:"details"`
	} `json:"error"`
}

// do sends a request once and decodes the answer. An error without a body that
// says otherwise leaves the outcome unknown.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	host := c.hosts[c.at.Load()%uint64(len(c.hosts))]
	req, err := http.NewRequestWithContext(ctx, method, "https://"+host+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.apiKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.at.Add(1)
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			// Without a connection nothing was sent: that much is certain.
			return &Error{Message: err.Error(), Details: map[string]string{"class": "not_applied"}}
		}
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.at.Add(1)
		return err
	}
	if resp.StatusCode/100 != 2 {
		if resp.StatusCode >= 500 {
			c.at.Add(1)
		}
		return refusal(resp.StatusCode, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("rest: answer %.200q: %w", b, err)
	}
	return nil
}

func refusal(status int, body []byte) error {
	var e errorBody
	if err := json.Unmarshal(body, &e); err != nil {
		return &Error{Status: status, Message: fmt.Sprintf("%.200q", body)}
	}
	r := &Error{Status: status, Message: e.Error.Message, Details: make(map[string]string)}
	for k, raw := range e.Error.Details {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			r.Details[k] = s
		}
	}
	return r
}

// doc is a document in requests and replies.
type doc struct {
	DocID     string          `json:"doc_id,omitempty"`
	Vector    []float32       `json:"vector,omitempty"`
	Metadata  json.RawMessage `json:"metadata,omitempty"`
	IfVersion *uint64         `json:"if_version,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	Version   uint64          `json:"version,omitempty"`
}

// written is the reply to a write.
type written struct {
	DocID        string `json:"doc_id"`
	Version      uint64 `json:"version"`
	AppliedIndex uint64 `json:"applied_index"`
}

func collectionPath(name string) string { return "/api/v1/collections/" + url.PathEscape(name) }

// CreateCollection creates a collection.
func (c *Client) CreateCollection(ctx context.Context, r *cv1.CreateCollectionRequest) (*cv1.CreateCollectionResponse, error) {
	var out struct {
		CollectionID string `json:"collection_id"`
	}
	err := c.do(ctx, http.MethodPost, "/api/v1/collections", map[string]any{
		"name": r.GetName(), "dimension": r.GetDimension(), "metric": r.GetMetric(),
	}, &out)
	if err != nil {
		return nil, err
	}
	return &cv1.CreateCollectionResponse{CollectionId: out.CollectionID}, nil
}

// Insert stores a new document.
func (c *Client) Insert(ctx context.Context, r *cv1.InsertRequest) (*cv1.InsertResponse, error) {
	var out written
	err := c.do(ctx, http.MethodPost, collectionPath(r.GetCollectionId())+"/insert",
		doc{DocID: r.GetDocId(), Vector: r.GetVector(), Metadata: r.GetMetadata().GetRaw(), RequestID: r.GetRequestId()}, &out)
	if err != nil {
		return nil, err
	}
	return &cv1.InsertResponse{DocId: out.DocID, Version: out.Version, AppliedIndex: out.AppliedIndex}, nil
}

// Upsert stores a document.
func (c *Client) Upsert(ctx context.Context, r *cv1.UpsertRequest) (*cv1.UpsertResponse, error) {
	var out written
	err := c.do(ctx, http.MethodPost, collectionPath(r.GetCollectionId())+"/upsert",
		doc{DocID: r.GetDocId(), Vector: r.GetVector(), Metadata: r.GetMetadata().GetRaw(), IfVersion: r.IfVersion, RequestID: r.GetRequestId()}, &out)
	if err != nil {
		return nil, err
	}
	return &cv1.UpsertResponse{DocId: out.DocID, Version: out.Version, AppliedIndex: out.AppliedIndex}, nil
}

// PatchPayload merges into a payload.
func (c *Client) PatchPayload(ctx context.Context, r *cv1.PatchPayloadRequest) (*cv1.PatchPayloadResponse, error) {
	var out written
	err := c.do(ctx, http.MethodPost, collectionPath(r.GetCollectionId())+"/patch",
		doc{DocID: r.GetDocId(), Metadata: r.GetMetadata().GetRaw(), IfVersion: r.IfVersion, RequestID: r.GetRequestId()}, &out)
	if err != nil {
		return nil, err
	}
	return &cv1.PatchPayloadResponse{DocId: out.DocID, Version: out.Version, AppliedIndex: out.AppliedIndex}, nil
}

// Delete removes a document.
func (c *Client) Delete(ctx context.Context, r *cv1.DeleteRequest) (*cv1.DeleteResponse, error) {
	q := url.Values{}
	if r.IfVersion != nil {
		q.Set("if_version", strconv.FormatUint(*r.IfVersion, 10))
	}
	if r.GetRequestId() != "" {
		q.Set("request_id", r.GetRequestId())
	}
	path := collectionPath(r.GetCollectionId()) + "/docs/" + url.PathEscape(r.GetDocId())
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	var out written
	if err := c.do(ctx, http.MethodDelete, path, nil, &out); err != nil {
		return nil, err
	}
	return &cv1.DeleteResponse{AppliedIndex: out.AppliedIndex}, nil
}

// Get reads one document.
func (c *Client) Get(ctx context.Context, r *cv1.GetRequest) (*cv1.GetResponse, error) {
	if r.GetSessionToken() != "" {
		return nil, errors.New("rest: this client knows no sessions")
	}
	var out struct {
		Document     *doc   `json:"document"`
		AppliedIndex uint64 `json:"applied_index"`
		ServedBy     string `json:"served_by"`
	}
	path := collectionPath(r.GetCollectionId()) + "/docs/" + url.PathEscape(r.GetDocId())
	if r.GetConsistency() != "" {
		path += "?consistency=" + url.QueryEscape(r.GetConsistency())
	}
	if err := c.do(ctx, http.MethodGet, path, nil, &out); err != nil {
		return nil, err
	}
	resp := &cv1.GetResponse{AppliedIndex: out.AppliedIndex, ServedBy: out.ServedBy}
	if d := out.Document; d != nil {
		resp.Document = &cv1.VectorDocument{DocId: d.DocID, Vector: d.Vector, Version: d.Version, Metadata: &cv1.Json{Raw: d.Metadata}}
	}
	return resp, nil
}
