// SPDX-License-Identifier: Apache-2.0

package restapi

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/workload"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// serve answers every request with a status and a body, and notes the request.
func serve(t *testing.T, status int, body string) (*Client, *string) {
	t.Helper()
	var got string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI() + " " + string(b)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	c := New([]string{strings.TrimPrefix(s.URL, "https://")}, &tls.Config{RootCAs: pool, ServerName: "example.com"}, "")
	t.Cleanup(c.Close)
	return c, &got
}

func TestRequestsFollowTheContract(t *testing.T) {
	c, got := serve(t, 200, `{"doc_id":"a","version":18446744073709551615,"document":{"doc_id":"a","vector":[1,2],"metadata":{"n":7},"version":9}}`)
	version := uint64(5)
	up, err := c.Upsert(t.Context(), &cv1.UpsertRequest{CollectionId: "c", DocId: "a", Vector: []float32{1, 0.5},
		Metadata: &cv1.Json{Raw: []byte(`{"n":7}`)}, IfVersion: &version})
	if err != nil || up.GetVersion() != 1<<64-1 {
		t.Fatalf("%v, %v", up, err)
	}
	if want := `POST /api/v1/collections/c/upsert {"doc_id":"a","vector":[1,0.5],"metadata":{"n":7},"if_version":5}`; *got != want {
		t.Errorf("sent %s\nwant %s", *got, want)
	}
	if _, err := c.Delete(t.Context(), &cv1.DeleteRequest{CollectionId: "c", DocId: "a/b", IfVersion: &version}); err != nil {
		t.Fatal(err)
	}
	if want := `DELETE /api/v1/collections/c/docs/a%2Fb?if_version=5 `; *got != want {
		t.Errorf("sent %s\nwant %s", *got, want)
	}
	doc, err := c.Get(t.Context(), &cv1.GetRequest{CollectionId: "c", DocId: "a"})
	if err != nil || doc.GetDocument().GetVersion() != 9 || string(doc.GetDocument().GetMetadata().GetRaw()) != `{"n":7}` {
		t.Fatalf("%v, %v", doc, err)
	}
}

func TestRefusalsKeepTheirClass(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   history.Type
		reason string
	}{
		{"refused", 503, `{"error":{"code":"UNAVAILABLE","message":"x","details":{"reason":"NO_LEADER","class":"not_applied"}}}`, history.Fail, "NO_LEADER"},
		{"mismatch", 412, `{"error":{"code":"FAILED_PRECONDITION","message":"x","details":{"reason":"VERSION_MISMATCH","class":"permanent","n":1}}}`, history.Fail, "VERSION_MISMATCH"},
		{"unknown", 500, `{"error":{"code":"UNKNOWN","message":"x","details":{"reason":"UNKNOWN_OUTCOME","class":"unknown"}}}`, history.Info, "UNKNOWN_OUTCOME"},
		{"a proxy's page", 502, `<html>`, history.Info, ""},
	} {
		c, _ := serve(t, tt.status, tt.body)
		_, err := c.Insert(t.Context(), &cv1.InsertRequest{CollectionId: "c"})
		if got := workload.Classify(false, err); got != tt.want || workload.Reason(err) != tt.reason {
			t.Errorf("%s: %s %q, want %s %q", tt.name, got, workload.Reason(err), tt.want, tt.reason)
		}
		var e *Error
		if !errors.As(err, &e) || e.Status != tt.status {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A connection that was refused carried nothing; one that broke may have.
func TestOnlyWhatWasNotSentFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			c.Close()
		}
	}()
	c := New([]string{addr}, &tls.Config{}, "")
	defer c.Close()
	_, err = c.Insert(t.Context(), &cv1.InsertRequest{CollectionId: "c"})
	if got := workload.Classify(false, err); got != history.Info {
		t.Errorf("a connection that broke: %s, want info (%v)", got, err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Insert(t.Context(), &cv1.InsertRequest{CollectionId: "c"})
	if got := workload.Classify(false, err); got != history.Fail {
		t.Errorf("a connection that was refused: %s, want fail (%v)", got, err)
	}
}
