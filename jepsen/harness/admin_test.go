// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/jepsen/cluster"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// verifier is a leader that says what it was told of the replicas.
type verifier struct {
	clusterv1.UnimplementedClusterServiceServer
	says *clusterv1.VerifyResponse
}

func (v *verifier) Status(context.Context, *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	return &clusterv1.StatusResponse{State: "leader", Term: 1}, nil
}

func (v *verifier) Verify(context.Context, *clusterv1.VerifyRequest) (*clusterv1.VerifyResponse, error) {
	return v.says, nil
}

// Replicas are equal if every one of them answered and none differs: of one that did
// not answer nothing is known.
func TestReplicasThatDoNotAnswerAreNotEqual(t *testing.T) {
	c, err := cluster.New(cluster.Config{Nodes: 3, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v, srv := &verifier{}, grpc.NewServer()
	clusterv1.RegisterClusterServiceServer(srv, v)
	go func() { _ = srv.Serve(lis) }()
	defer srv.Stop()
	a := newAdmin(c, "")
	defer a.close()
	for _, n := range c.Nodes() {
		n.GRPCAddr = lis.Addr().String() // all are the one that leads
	}
	cl, err := client.Open(client.Config{Endpoints: []string{lis.Addr().String()}, Pin: true})
	if err != nil {
		t.Fatal(err)
	}
	a.clients[lis.Addr().String()] = cl
	for _, tt := range []struct {
		name string
		says *clusterv1.VerifyResponse
		ok   bool
	}{
		{"all agree", &clusterv1.VerifyResponse{Equal: true, Members: []*clusterv1.MemberHash{{NodeId: "n1"}, {NodeId: "n2"}, {NodeId: "n3"}}}, true},
		{"one says nothing", &clusterv1.VerifyResponse{Equal: true, Members: []*clusterv1.MemberHash{{NodeId: "n1"}, {NodeId: "n2"}, {NodeId: "n3", Error: "no answer"}}}, false},
		{"one is not asked", &clusterv1.VerifyResponse{Equal: true, Members: []*clusterv1.MemberHash{{NodeId: "n1"}, {NodeId: "n2"}}}, false},
		{"graphs are not built", &clusterv1.VerifyResponse{Equal: true, Building: true, Members: []*clusterv1.MemberHash{{NodeId: "n1"}, {NodeId: "n2"}, {NodeId: "n3"}}}, false},
		{"one differs", &clusterv1.VerifyResponse{Members: []*clusterv1.MemberHash{{NodeId: "n1"}, {NodeId: "n2"}, {NodeId: "n3"}}}, false},
	} {
		v.says = tt.says
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		differ, err := a.verify(ctx)
		cancel()
		if (err == nil) != tt.ok || (differ == "") != tt.ok {
			t.Errorf("%s: %q, %v", tt.name, differ, err)
		}
	}
}
