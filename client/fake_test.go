// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// fault is what a fake node does with one request instead of answering it.
type fault struct {
	apply bool  // the write is applied all the same
	err   error // returned to the client
	hang  bool  // never answer; err is what is left when the client gives up
	kill  bool  // close every connection instead of answering
}

// fakeCluster is a second implementation of the service, small enough to be
// seen to be right, that fails where it is told to: replicas share one state at
// once, and outcomes are remembered by request id.
type fakeCluster struct {
	nodes []*fakeNode

	mu       sync.Mutex // guards the fields below
	index    uint64
	docs     map[string]uint64 // id → version
	writes   map[string]int    // id → how often it was written
	order    []string          // ids in the order of their writes
	outcomes map[string]uint64 // request id → log index
	leader   int               // -1: none
	removed  map[string]bool   // members taken out
}

type fakeNode struct {
	collectionv1.UnimplementedCollectionServiceServer
	collectionv1.UnimplementedCollectionManagementServiceServer
	clusterv1.UnimplementedClusterServiceServer

	fc   *fakeCluster
	id   string
	addr string
	lis  *bufconn.Listener
	srv  *grpc.Server

	mu       sync.Mutex // guards the fields below
	faults   []fault    // of the next requests
	random   func() *fault
	notReady bool
	silent   bool   // as a paused process: health checks get no answer
	stale    bool   // it knows no leader
	leads    string // who leads, in the trailers of writes
	served   int
	dials    int
	keys     []string // authorization headers seen
	tokens   []string // session tokens that reads carried
	applied  uint64   // 0: as the cluster; else stuck at this index
	live     map[net.Conn]struct{}
}

func newFakeCluster(t *testing.T, n int) *fakeCluster {
	fc := &fakeCluster{docs: map[string]uint64{}, writes: map[string]int{}, outcomes: map[string]uint64{}, removed: map[string]bool{}}
	for i := range n {
		node := &fakeNode{fc: fc, id: fmt.Sprintf("n%d", i), addr: fmt.Sprintf("n%d.test:9443", i), live: map[net.Conn]struct{}{}}
		node.start()
		fc.nodes = append(fc.nodes, node)
		t.Cleanup(func() { node.srv.Stop() })
	}
	return fc
}

func (n *fakeNode) start() {
	lis, srv := bufconn.Listen(1<<20), grpc.NewServer(grpc.MaxRecvMsgSize(64<<20))
	collectionv1.RegisterCollectionServiceServer(srv, n)
	collectionv1.RegisterCollectionManagementServiceServer(srv, n)
	clusterv1.RegisterClusterServiceServer(srv, n)
	n.mu.Lock()
	n.lis, n.srv = lis, srv
	n.mu.Unlock()
	go func() { _ = srv.Serve(lis) }()
}

// dial is Config.Dial: it finds nodes by address.
func (fc *fakeCluster) dial(ctx context.Context, addr string) (net.Conn, error) {
	for _, n := range fc.nodes {
		if n.addr != addr {
			continue
		}
		n.mu.Lock()
		lis := n.lis
		n.dials++
		n.mu.Unlock()
		c, err := lis.DialContext(ctx)
		if err == nil {
			n.mu.Lock()
			n.live[c] = struct{}{}
			n.mu.Unlock()
		}
		return c, err
	}
	return nil, fmt.Errorf("no such host: %s", addr)
}

// config names all nodes; health checks and waits are the client's own.
func (fc *fakeCluster) config() Config {
	cfg := Config{Dial: fc.dial, ConnsPerEndpoint: 1}
	for _, n := range fc.nodes {
		cfg.Endpoints = append(cfg.Endpoints, n.addr)
	}
	return cfg
}

// open returns a client that knows the cluster's leader, and does not wait
// between attempts; waits are counted.
func (fc *fakeCluster) open(t *testing.T, change func(*Config)) *Client {
	cfg := fc.config()
	if change != nil {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	k := newCore(cfg)
	k.sleep = func(ctx context.Context, d time.Duration) error { return sleepFor(ctx, min(d, time.Millisecond)) }
	k.start()
	c := &Client{core: k, session: new(session)}
	t.Cleanup(func() { _ = c.Close() })
	if !cfg.Pin {
		waitFor(t, func() bool {
			for _, e := range c.Endpoints() {
				if e.NodeID == "" {
					return false
				}
			}
			return fc.leaderNow() < 0 || c.core.leader.Load() != nil
		})
	}
	return c
}

// waitFor polls a condition; the test fails only if it never comes true.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("condition never came true")
		}
	}
}

func (fc *fakeCluster) leaderNow() int {
	fc.mu.Lock()
	defer fc.mu.Unlock()
	return fc.leader
}

func (fc *fakeCluster) setLeader(i int) {
	fc.mu.Lock()
	defer fc.mu.Unlock()
	fc.leader = i
	fc.index++
}

func (n *fakeNode) inject(f ...fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = append(n.faults, f...)
}

func (n *fakeNode) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.served
}

// next takes the fault of this request, if there is one.
func (n *fakeNode) next(ctx context.Context) *fault {
	md, _ := metadata.FromIncomingContext(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.served++
	n.keys = append(n.keys, md.Get("authorization")...)
	if len(n.faults) > 0 {
		f := n.faults[0]
		n.faults = n.faults[1:]
		return &f
	}
	if n.random != nil {
		return n.random()
	}
	return nil
}

// kill closes the connections under the requests, as SIGKILL does.
func (n *fakeNode) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.live {
		_ = c.Close()
	}
	clear(n.live)
}

// serve runs one request through the faults.
func (n *fakeNode) serve(ctx context.Context, apply func()) error {
	f := n.next(ctx)
	if f == nil || f.apply {
		apply()
	}
	switch {
	case f == nil:
		return nil
	case f.kill:
		n.kill()
		<-ctx.Done()
		return ctx.Err()
	case f.hang:
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

func (n *fakeNode) write(ctx context.Context, requestID string, ids []string) (uint64, error) {
	var at uint64
	n.mu.Lock()
	if n.leads != "" {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(trailerLeaderID, n.leads))
	}
	n.mu.Unlock()
	err := n.serve(ctx, func() {
		n.fc.mu.Lock()
		defer n.fc.mu.Unlock()
		if old, ok := n.fc.outcomes[requestID]; ok {
			at = old
			return
		}
		n.fc.index++
		at = n.fc.index
		n.fc.outcomes[requestID] = at
		for _, id := range ids {
			n.fc.docs[id] = at
			n.fc.writes[id]++
			n.fc.order = append(n.fc.order, id)
		}
	})
	return at, err
}

func token(index uint64) string { return fmt.Sprintf("c1.%d", index) }

func (n *fakeNode) Upsert(ctx context.Context, r *collectionv1.UpsertRequest) (*collectionv1.UpsertResponse, error) {
	at, err := n.write(ctx, r.RequestId, []string{r.DocId})
	if err != nil {
		return nil, err
	}
	return &collectionv1.UpsertResponse{DocId: r.DocId, Version: at, ServedBy: n.id, SessionToken: token(at)}, nil
}

func (n *fakeNode) Batch(ctx context.Context, r *collectionv1.BatchRequest) (*collectionv1.BatchResponse, error) {
	var ids []string
	out := &collectionv1.BatchResponse{ServedBy: n.id}
	for _, op := range r.Ops {
		ids = append(ids, op.GetUpsert().DocId)
		out.Results = append(out.Results, &collectionv1.WriteResult{DocId: op.GetUpsert().DocId, Created: true})
	}
	at, err := n.write(ctx, r.RequestId, ids)
	if err != nil {
		return nil, err
	}
	out.Version, out.SessionToken = at, token(at)
	return out, nil
}

func (n *fakeNode) Get(ctx context.Context, r *collectionv1.GetRequest) (*collectionv1.GetResponse, error) {
	out := &collectionv1.GetResponse{ServedBy: n.id, Consistency: r.Consistency}
	err := n.serve(ctx, func() {
		n.mu.Lock()
		n.tokens = append(n.tokens, r.SessionToken)
		n.mu.Unlock()
		n.fc.mu.Lock()
		defer n.fc.mu.Unlock()
		out.SessionToken = token(n.fc.index)
		if at, ok := n.fc.docs[r.DocId]; ok {
			out.Document = &collectionv1.VectorDocument{DocId: r.DocId, Version: at}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (n *fakeNode) Status(ctx context.Context, _ *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	n.mu.Lock()
	notReady, silent := n.notReady, n.silent
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n.fc.mu.Lock()
	defer n.fc.mu.Unlock()
	st := &clusterv1.StatusResponse{NodeId: n.id, Ready: !notReady, Term: n.fc.index, State: "follower"}
	if n.fc.leader >= 0 {
		st.LeaderId = n.fc.nodes[n.fc.leader].id
		if st.LeaderId == n.id {
			st.State = "leader"
		}
	}
	return st, nil
}

func (n *fakeNode) AddMember(ctx context.Context, _ *clusterv1.AddMemberRequest) (*clusterv1.AddMemberResponse, error) {
	return &clusterv1.AddMemberResponse{}, n.serve(ctx, func() {})
}

func (n *fakeNode) TransferLeader(ctx context.Context, _ *clusterv1.TransferLeaderRequest) (*clusterv1.TransferLeaderResponse, error) {
	return &clusterv1.TransferLeaderResponse{}, n.serve(ctx, func() {})
}

func (n *fakeNode) Verify(ctx context.Context, _ *clusterv1.VerifyRequest) (*clusterv1.VerifyResponse, error) {
	return &clusterv1.VerifyResponse{Equal: true}, n.serve(ctx, func() {})
}

func (n *fakeNode) Members(ctx context.Context, _ *clusterv1.MembersRequest) (*clusterv1.MembersResponse, error) {
	n.mu.Lock()
	stale := n.stale
	n.mu.Unlock()
	return &clusterv1.MembersResponse{ServedBy: n.id, Stale: stale}, n.serve(ctx, func() {})
}

// refusal is a server's status with ErrorInfo; pairs are its metadata.
func refusal(code codes.Code, reason string, pairs ...string) error {
	md := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		md[pairs[i]] = pairs[i+1]
	}
	s, err := status.New(code, reason).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "akidb", Metadata: md})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func overloaded(after time.Duration) error {
	s, err := status.New(codes.ResourceExhausted, "overloaded").WithDetails(
		&errdetails.ErrorInfo{Reason: "OVERLOADED", Domain: "akidb"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// RemoveMember refuses who is no member, as the servers do.
func (n *fakeNode) RemoveMember(ctx context.Context, r *clusterv1.RemoveMemberRequest) (*clusterv1.RemoveMemberResponse, error) {
	gone := false
	err := n.serve(ctx, func() {
		n.fc.mu.Lock()
		defer n.fc.mu.Unlock()
		gone = n.fc.removed[r.NodeId]
		n.fc.removed[r.NodeId] = true
	})
	if err == nil && gone {
		err = refusal(codes.NotFound, "MEMBER_NOT_FOUND", "class", "permanent")
	}
	return &clusterv1.RemoveMemberResponse{}, err
}
