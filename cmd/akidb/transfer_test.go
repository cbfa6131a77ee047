// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/akidb/akidb/client"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// handingOver is a cluster that elects its own choice after a hand-over.
type handingOver struct {
	clusterv1.UnimplementedClusterServiceServer
	mu     sync.Mutex // guards the fields below
	leader string
	term   uint64
	elects string
}

func (h *handingOver) Status(context.Context, *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &clusterv1.StatusResponse{NodeId: "n1", LeaderId: h.leader, Term: h.term, Ready: true}, nil
}

func (h *handingOver) Leader(context.Context, *clusterv1.LeaderRequest) (*clusterv1.LeaderResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &clusterv1.LeaderResponse{NodeId: h.leader, Term: h.term}, nil
}

func (h *handingOver) TransferLeader(context.Context, *clusterv1.TransferLeaderRequest) (*clusterv1.TransferLeaderResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leader, h.term = h.elects, h.term+1
	return &clusterv1.TransferLeaderResponse{}, nil
}

// A hand-over is done when the node that was asked for leads: an election after it may
// be won by another one, and it may be an older term that is met first.
func TestTransferIsToTheNodeThatWasAskedFor(t *testing.T) {
	for _, tc := range []struct {
		want, elects, says string
	}{
		{"", "n3", "n3"},
		{"n2", "n2", "n2"},
		{"n2", "n3", "n3 leads, not n2"},
		{"n2", "", "n1 still leads"},
	} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h, srv := &handingOver{leader: "n1", term: 3, elects: tc.elects}, grpc.NewServer()
		clusterv1.RegisterClusterServiceServer(srv, h)
		go func() { _ = srv.Serve(lis) }()
		defer srv.Stop()
		cl, err := client.Open(client.Config{Endpoints: []string{lis.Addr().String()}, Pin: true})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		before, err := cl.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if tc.elects != "" {
			if _, err := cl.TransferLeader(t.Context(), &clusterv1.TransferLeaderRequest{NodeId: tc.want}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		got, err := leaderAfter(ctx, cl, before, tc.want)
		cancel()
		if err != nil {
			got = err.Error()
		}
		if got != tc.says {
			t.Errorf("to %q, %q is elected: %q, want %q", tc.want, tc.elects, got, tc.says)
		}
	}
}
