// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/akidb/akidb/node"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// newCluster opens three members with their APIs and waits until all serve.
func newCluster(t *testing.T) []*bench {
	t.Helper()
	var peers []string
	for range 3 {
		peers = append(peers, freeAddr(t))
	}
	var out []*bench
	for i, addr := range peers {
		n, err := node.Open(t.Context(), node.Config{
			NodeID: fmt.Sprint("n", i+1), DataDir: t.TempDir(), RaftAddr: addr, Peers: peers, BootstrapExpect: 3,
			HeartbeatTimeout: 200 * time.Millisecond, GRPCAddr: fmt.Sprint("grpc", i+1), RESTAddr: fmt.Sprint("rest", i+1), Version: "test",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := n.Close(ctx); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		out = append(out, serve(t, n, nil))
	}
	for _, b := range out {
		b.settled()
	}
	return out
}

// TestEveryNodeTakesEverything writes through one node and at once reads through
// another, which may lag behind.
func TestEveryNodeTakesEverything(t *testing.T) {
	nodes := newCluster(t)
	for i := range 60 {
		w, r := nodes[i%3], nodes[(i+1+i/3%2)%3]
		name := fmt.Sprint("c", i%4)
		if i < 4 {
			w.create(name, 2, "l2")
		}
		// Collections are known on every node as soon as their creation is answered.
		id := fmt.Sprint("d", i)
		if _, err := r.docs.Insert(t.Context(), &collectionv1.InsertRequest{CollectionId: name, DocId: id, Vector: []float32{float32(i), 1}}); err != nil {
			t.Fatalf("insert %d through %s: %v", i, r.node.ID(), err)
		}
		got, err := w.docs.Query(t.Context(), &collectionv1.QueryRequest{CollectionId: name, QueryVector: []float32{float32(i), 1}, TopK: 1})
		if err != nil || len(got.Matches) != 1 || got.Matches[0].DocId != id || got.ServedBy != w.node.ID() {
			t.Fatalf("query %d through %s: %v %v", i, w.node.ID(), got, err)
		}
	}
	// A wrong dimension is found by the replica's own catalog, whoever leads.
	for _, b := range nodes {
		_, err := b.docs.Insert(t.Context(), &collectionv1.InsertRequest{CollectionId: "c0", Vector: []float32{1}})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("wrong dimension through %s: %v", b.node.ID(), err)
		}
	}
	// A collection that is dropped and made anew with another dimension is taken
	// as it is now by every node.
	for i := range 6 {
		w, r := nodes[i%3], nodes[(i+1)%3]
		if _, err := w.manage.DeleteCollection(t.Context(), &collectionv1.DeleteCollectionRequest{CollectionId: "c0"}); err != nil {
			t.Fatal(err)
		}
		w.create("c0", 3+i, "dot")
		r.upsert("c0", "a", make([]float32, 3+i), "")
	}
	old, err := nodes[0].node.Leader()
	if err != nil {
		t.Fatal(err)
	}
	moved, err := nodes[0].ops.TransferLeader(t.Context(), &clusterv1.TransferLeaderRequest{})
	if err != nil || moved.LeaderId == old.NodeID || moved.LeaderId == "" {
		t.Errorf("leadership went from %s to %v: %v", old.NodeID, moved, err)
	}
	var verify *clusterv1.VerifyResponse
	nodes[0].eventually("a verification under one leader", func() bool {
		verify, err = nodes[0].ops.Verify(t.Context(), &clusterv1.VerifyRequest{})
		return status.Code(err) != codes.Unavailable
	})
	if err != nil || !verify.Equal || len(verify.Members) != 3 {
		t.Errorf("verify: %v %v", verify, err)
	}
}

func TestFollowerGivesAHintWhenAsked(t *testing.T) {
	nodes := newCluster(t)
	nodes[0].create("c", 1, "l2")
	leader, err := nodes[0].node.Leader()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range nodes {
		if b.node.ID() == leader.NodeID {
			continue
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), noForwardKey, "1")
		var trailer metadata.MD
		_, err := b.docs.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: "c", Vector: []float32{1}}, grpc.Trailer(&trailer))
		if status.Code(err) != codes.Unavailable || reasonOf(err) != "NOT_LEADER" || metadataOf(err, "leader_id") != leader.NodeID {
			t.Errorf("write without forwarding: %v", err)
		}
		if got := trailer.Get(leaderIDKey); len(got) != 1 || got[0] != leader.NodeID {
			t.Errorf("trailers: %v", trailer)
		}
		r := b.send("POST", "/api/v1/collections/c/upsert", `{"vector":[1]}`, http.Header{"X-Akidb-No-Forward": {"1"}})
		if r.status != 503 || r.header.Get("X-Akidb-Leader-Id") != leader.NodeID || r.header.Get("X-Akidb-Leader-Rest") != leader.RESTAddr ||
			r.at("error", "details", "class") != "not_applied" {
			t.Errorf("REST: %d %v %s", r.status, r.header, r.text)
		}
		b.must("POST", "/api/v1/collections/c/upsert", `{"vector":[1]}`)
		// A write that was forwarded names the leader too.
		b.eventually("a write that names the leader", func() bool {
			var trailer metadata.MD
			_, err := b.docs.Upsert(t.Context(), &collectionv1.UpsertRequest{CollectionId: "c", DocId: "d", Vector: []float32{1}}, grpc.Trailer(&trailer))
			now, lerr := b.node.Leader()
			got := trailer.Get(leaderIDKey)
			return err == nil && lerr == nil && len(got) == 1 && got[0] == now.NodeID
		})
	}
}

// A node without a majority answers soon that it knows no leader, marks its list
// of members, and does not wait for the caller's patience to end.
func TestNodeWithoutALeaderSaysSo(t *testing.T) {
	nodes := newCluster(t)
	if out, err := nodes[0].ops.Members(t.Context(), &clusterv1.MembersRequest{}); err != nil || out.Stale {
		t.Fatalf("%v, %v", out, err)
	}
	for _, b := range nodes[1:] {
		if err := b.node.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	nodes[0].eventually("the list to be marked", func() bool {
		out, err := nodes[0].ops.Members(t.Context(), &clusterv1.MembersRequest{})
		return err == nil && out.Stale && len(out.Members) == 3
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := nodes[0].ops.PromoteMember(ctx, &clusterv1.PromoteMemberRequest{NodeId: "n2"}); reasonOf(err) != "NO_LEADER" || ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
}

// selfSigned is a certificate for loopback.
func selfSigned(t *testing.T) (server *tls.Config, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// TestServesOverTLS also shows that interceptors learn who asks, by both ways.
func TestServesOverTLS(t *testing.T) {
	server, pool := selfSigned(t)
	peers := make(chan string, 8)
	b := newBench(t, func(c *Config) {
		c.TLS = server
		c.UnaryInterceptors = []grpc.UnaryServerInterceptor{
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				p, _ := peer.FromContext(ctx)
				_, overTLS := p.AuthInfo.(credentials.TLSInfo)
				md, _ := metadata.FromIncomingContext(ctx)
				peers <- fmt.Sprint(info.FullMethod, " ", overTLS, " ", md.Get("x-api-key"), md.Get("authorization"))
				return next(ctx, req)
			}}
	})
	conn, err := grpc.NewClient(b.conn.Target(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-api-key", "k", "authorization", "Bearer b")
	if _, err := clusterv1.NewClusterServiceClient(conn).Status(ctx, &clusterv1.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if got, want := <-peers, "/akidb.cluster.v1.ClusterService/Status true [k] [Bearer b]"; got != want {
		t.Errorf("gRPC: interceptor saw %q, want %q", got, want)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https"+b.rest[len("http"):]+"/admin/cluster/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", "k")
	req.Header.Set("Authorization", "Bearer b")
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("REST: %v %v %v", resp.Proto, resp.Status, err)
	}
	if got, want := <-peers, "/akidb.cluster.v1.ClusterService/Status true [k] [Bearer b]"; got != want {
		t.Errorf("REST: interceptor saw %q, want %q", got, want)
	}
}

func TestVerifyResponse(t *testing.T) {
	for _, tc := range []struct {
		name            string
		members         []node.MemberHash
		equal, building bool
	}{
		{"nobody", nil, false, false},
		{"nobody answered", []node.MemberHash{{Err: "silent"}}, false, false},
		{"all agree", []node.MemberHash{{}, {}}, true, false},
		{"one is silent", []node.MemberHash{{}, {Err: "silent"}}, true, false},
		{"a graph is not complete", []node.MemberHash{{}, {Building: []node.GraphProgress{{Name: "c", Graphed: 64, Total: 200}}}}, true, true},
		{"a state differs", []node.MemberHash{{}, {Differs: []string{"state"}}}, false, false},
		{"equal again, but out of service", []node.MemberHash{{}, {Fenced: "diverged"}}, false, false},
	} {
		if out := verifyResponse(tc.members); out.Equal != tc.equal || out.Building != tc.building || len(out.Members) != len(tc.members) {
			t.Errorf("%s: %v", tc.name, out)
		}
	}
}

// A node that is out of service still lists the alarms, once: it is where an
// operator looks.
func TestFencedNodeListsAlarms(t *testing.T) {
	dir := t.TempDir()
	group := filepath.Join(dir, "groups", "1")
	if err := os.MkdirAll(group, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(group, "fenced.json"), []byte(`{"Diverged":"as a test wants it"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(t.Context(), node.Config{
		NodeID: "n1", DataDir: dir, RaftAddr: freeAddr(t), BootstrapExpect: 1, HeartbeatTimeout: 100 * time.Millisecond, Version: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	b := serve(t, n, nil)
	b.eventually("the alarm", func() bool {
		out, err := b.ops.ListAlarms(t.Context(), &clusterv1.ListAlarmsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.ops.Status(t.Context(), &clusterv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.Alarms) == 1 && out.Alarms[0].Kind == "DIVERGED" && len(st.Alarms) == 1
	})
}

// Goal: what is wrong by all that a replica knows is refused without a majority
// too, instead of waiting for a leader. Method: two of three nodes are closed; the
// call's deadline is far beyond what an answer needs.
func TestInvalidWritesNeedNoLeader(t *testing.T) {
	nodes := newCluster(t)
	nodes[0].create("c", 2, "l2")
	left := nodes[2]
	left.upsert("c", "a", []float32{1, 2}, "") // the catalog has reached it
	if _, err := left.docs.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, b := range nodes[:2] {
		if err := b.node.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := left.docs.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: "c", DocId: "a", Vector: []float32{1}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("wrong dimension without a majority: %v", err)
	}
}

// Every kind of alarm that a node raises can be cleared: of a member that is dead no
// alarm ends by itself.
func TestEveryKindOfAlarmCanBeCleared(t *testing.T) {
	b := newBench(t, nil)
	for _, kind := range []string{"NOSPACE", "MEMORY", "BACKLOG", "LAG", "CLOCK", "DIVERGED", "CORRUPT"} {
		if _, err := b.ops.ClearAlarm(t.Context(), &clusterv1.ClearAlarmRequest{Kind: kind, NodeId: "n9"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
