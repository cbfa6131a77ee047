// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/akidb/akidb/internal/localport"
	"github.com/akidb/akidb/node"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// bench is a node with its API on loopback ports.
type bench struct {
	t      testing.TB
	node   *node.Node
	server *Server
	rest   string // http://host:port
	conn   *grpc.ClientConn
	docs   collectionv1.CollectionServiceClient
	manage collectionv1.CollectionManagementServiceClient
	ops    clusterv1.ClusterServiceClient
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

func freeAddr(t testing.TB) string {
	t.Helper()
	r, err := localport.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r.Addr(0)
}

// newBench opens a cluster of one and waits until it serves.
func newBench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{
		NodeID: "n1", DataDir: t.TempDir(), RaftAddr: freeAddr(t), BootstrapExpect: 1,
		HeartbeatTimeout: 100 * time.Millisecond, Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("close the node: %v", err)
		}
	})
	b := serve(t, n, change)
	b.settled()
	return b
}

// settled waits until the node is ready and has served a linearizable read, for
// which its leader must be established.
func (b *bench) settled() {
	b.t.Helper()
	b.eventually("the node serves", func() bool {
		if b.node.Ready() != nil {
			return false
		}
		v, err := b.node.Read(b.t.Context(), node.ReadOptions{Consistency: node.Linearizable})
		if err != nil {
			return false
		}
		v.Close()
		return true
	})
}

// serve puts the API over a node.
func serve(t testing.TB, n *node.Node, change func(*Config)) *bench {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg := Config{Node: n, Version: "test", Registerer: reg, Gatherer: reg}
	if change != nil {
		change(&cfg)
	}
	b := &bench{t: t, node: n}
	var err error
	if b.server, err = NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	grpcLis, restLis := listen(t), listen(t)
	ended := make(chan error, 2)
	go func() { ended <- b.server.ServeGRPC(grpcLis) }()
	go func() { ended <- b.server.ServeREST(restLis) }()
	b.rest = "http://" + restLis.Addr().String()
	if b.conn, err = grpc.NewClient(grpcLis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxSendBytes), grpc.MaxCallSendMsgSize(maxSendBytes))); err != nil {
		t.Fatal(err)
	}
	b.docs = collectionv1.NewCollectionServiceClient(b.conn)
	b.manage = collectionv1.NewCollectionManagementServiceClient(b.conn)
	b.ops = clusterv1.NewClusterServiceClient(b.conn)
	t.Cleanup(func() {
		b.conn.Close()
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.server.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	return b
}

// eventually polls a condition until it holds.
func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// reply is an HTTP response.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (b *bench) do(method, path, body string) reply {
	b.t.Helper()
	return b.send(method, path, body, nil)
}

func (b *bench) send(method, path, body string, header http.Header) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.rest+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if len(bytes.TrimSpace(text)) > 0 && resp.Header.Get("Content-Type") == "application/json" {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&r.body); err != nil {
			b.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return r
}

// must is do for requests that succeed.
func (b *bench) must(method, path, body string) reply {
	b.t.Helper()
	r := b.do(method, path, body)
	if r.status >= 300 {
		b.t.Fatalf("%s %s %.200s: %d %s", method, path, body, r.status, r.text)
	}
	return r
}

// at walks a path of names and indexes into the body, as text.
func (r reply) at(path ...any) any {
	var v any = r.body
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	if n, ok := v.(json.Number); ok {
		return n.String()
	}
	return v
}

func (b *bench) create(name string, dimension int, metric string) {
	b.t.Helper()
	body, err := json.Marshal(map[string]any{"name": name, "dimension": dimension, "metric": metric})
	if err != nil {
		b.t.Fatal(err)
	}
	b.must("POST", "/api/v1/collections", string(body))
}
