// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func upsert(id string) *collectionv1.UpsertRequest {
	return &collectionv1.UpsertRequest{CollectionId: "c", DocId: id, Vector: []float32{1}}
}

// Goal: the table of the package comment, row by row. Method: the leader fails
// the first attempt of one write; whatever happens then, the write is applied
// at most once, and once if the client says that it succeeded.
func TestEveryErrorOfAWrite(t *testing.T) {
	many := func(f fault) []fault { return []fault{f, f, f, f} }
	for _, tc := range []struct {
		name      string
		faults    []fault
		succeeds  bool
		class     Class
		attempts  int
		elsewhere bool // the second attempt goes to another node
		written   int
	}{
		{name: "no fault", succeeds: true, attempts: 1, written: 1},
		{name: "connection lost before", faults: []fault{{kill: true}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "connection lost after", faults: []fault{{kill: true, apply: true}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "no answer", faults: []fault{{hang: true, apply: true}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "not leader", faults: []fault{{err: refusal(codes.FailedPrecondition, "NOT_LEADER")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "not leader, hint by id", faults: []fault{{err: refusal(codes.Unavailable, "NOT_LEADER", "leader_id", "n2")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "not leader, hint by address", faults: []fault{{err: refusal(codes.Unavailable, "NOT_LEADER", "leader_grpc", "n2.test:9443")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "no leader", faults: []fault{{err: refusal(codes.Unavailable, "NO_LEADER")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "unknown, applied", faults: []fault{{apply: true, err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}}, succeeds: true, attempts: 2, written: 1},
		{name: "unknown, not applied", faults: []fault{{err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}}, succeeds: true, attempts: 2, written: 1},
		{name: "overloaded", faults: []fault{{err: overloaded(time.Millisecond)}}, succeeds: true, attempts: 2, written: 1},
		{name: "too large", faults: []fault{{err: status.Error(codes.ResourceExhausted, "message too large")}}, class: Permanent, attempts: 1},
		{name: "fenced", faults: []fault{{err: refusal(codes.Unavailable, "FENCED")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "damaged", faults: []fault{{err: refusal(codes.Unavailable, "CORRUPT")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "shutting down", faults: []fault{{err: refusal(codes.Unavailable, "SHUTTING_DOWN")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "stale", faults: []fault{{err: refusal(codes.Aborted, "STALE_PROPOSAL", "class", "not_applied")}}, succeeds: true, attempts: 2, written: 1},
		{name: "internal", faults: []fault{{apply: true, err: status.Error(codes.Internal, "odd")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "internal with a reason", faults: []fault{{apply: true, err: refusal(codes.Internal, "INTERNAL", "class", "unknown")}}, succeeds: true, attempts: 2, elsewhere: true, written: 1},
		{name: "too many requests", faults: []fault{{err: refusal(codes.ResourceExhausted, "TOO_MANY_REQUESTS", "class", "not_applied")}}, succeeds: true, attempts: 2, written: 1},
		{name: "invalid", faults: []fault{{err: refusal(codes.InvalidArgument, "INVALID")}}, class: Permanent, attempts: 1},
		{name: "exists", faults: []fault{{err: refusal(codes.AlreadyExists, "DOCUMENT_EXISTS")}}, class: Permanent, attempts: 1},
		{name: "version", faults: []fault{{err: refusal(codes.Aborted, "VERSION_MISMATCH")}}, class: Permanent, attempts: 1},
		{name: "unimplemented", faults: []fault{{err: status.Error(codes.Unimplemented, "what?")}}, class: Permanent, attempts: 1},
		{name: "class in metadata wins", faults: many(fault{err: refusal(codes.Unavailable, "NEW_REASON", "class", "permanent")}), class: Permanent, attempts: 1},
		{name: "request id of another command", faults: []fault{{err: refusal(codes.InvalidArgument, "REQUEST_ID_REUSED", "class", "permanent")}}, class: Permanent, attempts: 1},
		// The id is taken by what the lost attempt made of the same request: it happened.
		{name: "unknown, then its own request id", faults: []fault{{apply: true, err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}, {err: refusal(codes.InvalidArgument, "REQUEST_ID_REUSED", "class", "permanent")}}, class: Unknown, attempts: 2, written: 1},
		{name: "unknown, then refused by the state", faults: []fault{{err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}, {err: refusal(codes.AlreadyExists, "DOCUMENT_EXISTS")}}, class: Permanent, attempts: 2},
		// What is refused by a look at the catalog says nothing of the time before.
		{name: "unknown, then its collection is gone", faults: []fault{{apply: true, err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}, {err: refusal(codes.NotFound, "COLLECTION_NOT_FOUND", "class", "permanent")}}, class: Unknown, attempts: 2, written: 1},
		{name: "unknown, then its collection is another", faults: []fault{{apply: true, err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}, {err: refusal(codes.InvalidArgument, "INVALID_ARGUMENT", "class", "permanent")}}, class: Unknown, attempts: 2, written: 1},
		{name: "carried out by an earlier call", faults: []fault{{err: refusal(codes.NotFound, "COLLECTION_NOT_FOUND", "class", "unknown", "carried_out_at", "7")}}, class: Unknown, attempts: 1},
		{name: "unknown, then denied", faults: []fault{{apply: true, err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}, {err: status.Error(codes.PermissionDenied, "no")}}, class: Unknown, attempts: 2, written: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fc := newFakeCluster(t, 3)
			c := fc.open(t, func(cfg *Config) {
				if tc.name == "no answer" {
					cfg.AttemptTimeout = 20 * time.Millisecond
				}
			})
			if strings.HasPrefix(tc.name, "unknown, then ") {
				// The second attempt may go to any node: all of them refuse it.
				for _, n := range fc.nodes[1:] {
					n.inject(tc.faults[1])
				}
			}
			fc.nodes[0].inject(tc.faults...)
			out, err := c.Upsert(t.Context(), upsert("d"))
			if (err == nil) != tc.succeeds {
				t.Fatalf("got %v, %v", out, err)
			}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) || e.Class != tc.class || e.Attempts != tc.attempts || e.RequestID == "" {
					t.Fatalf("got %#v, want class %v after %d attempts", err, tc.class, tc.attempts)
				}
			} else if got := fc.nodes[0].count() + fc.nodes[1].count() + fc.nodes[2].count(); got != tc.attempts {
				t.Fatalf("%d attempts, want %d", got, tc.attempts)
			}
			if tc.elsewhere && out.ServedBy == "n0" {
				t.Fatal("tried again where it failed")
			}
			if fc.writes["d"] != tc.written {
				t.Fatalf("written %d times, want %d", fc.writes["d"], tc.written)
			}
		})
	}
}

func TestEveryErrorOfARead(t *testing.T) {
	for _, tc := range []struct {
		name     string
		fault    fault
		succeeds bool
		class    Class
	}{
		{"connection lost", fault{kill: true}, true, 0},
		{"no leader", fault{err: refusal(codes.Unavailable, "NO_LEADER")}, true, 0},
		{"fenced", fault{err: refusal(codes.Unavailable, "FENCED")}, true, 0},
		{"damaged", fault{err: refusal(codes.Unavailable, "CORRUPT")}, true, 0},
		{"too stale", fault{err: refusal(codes.Unavailable, "TOO_STALE")}, true, 0},
		{"internal", fault{err: status.Error(codes.Internal, "odd")}, true, 0},
		{"not found", fault{err: refusal(codes.NotFound, "COLLECTION_NOT_FOUND")}, false, Permanent},
		{"bad token", fault{err: refusal(codes.InvalidArgument, "BAD_TOKEN")}, false, Permanent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fc := newFakeCluster(t, 3)
			c := fc.open(t, nil)
			var once sync.Once
			for _, n := range fc.nodes { // only the first read anywhere fails
				n.random = func() (f *fault) { once.Do(func() { f = &tc.fault }); return f }
			}
			_, err := c.Get(t.Context(), &collectionv1.GetRequest{CollectionId: "c", DocId: "d"})
			if (err == nil) != tc.succeeds || err != nil && classOf(err) != tc.class {
				t.Fatalf("got %v (%v)", err, classOf(err))
			}
		})
	}
}

// An operation of the cluster has no request id: it is sent again once it may have
// been applied only if that changes nothing more.
func TestOperationsWhenUnknown(t *testing.T) {
	unknown := fault{err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")}
	noLeader := fault{err: refusal(codes.Unavailable, "NO_LEADER")}
	for _, tc := range []struct {
		name    string
		repeats bool
		call    func(context.Context, *Client) error
	}{
		{"add", true, func(ctx context.Context, c *Client) error {
			_, err := c.AddMember(ctx, &clusterv1.AddMemberRequest{NodeId: "x"})
			return err
		}},
		{"transfer to a node", true, func(ctx context.Context, c *Client) error {
			_, err := c.TransferLeader(ctx, &clusterv1.TransferLeaderRequest{NodeId: "x"})
			return err
		}},
		{"transfer to anybody", false, func(ctx context.Context, c *Client) error {
			_, err := c.TransferLeader(ctx, &clusterv1.TransferLeaderRequest{})
			return err
		}},
		{"verify", true, func(ctx context.Context, c *Client) error {
			_, err := c.Verify(ctx)
			return err
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fc := newFakeCluster(t, 3)
			c := fc.open(t, nil)
			fc.nodes[0].inject(unknown)
			if err := tc.call(t.Context(), c); (err == nil) != tc.repeats || err != nil && !IsUnknown(err) {
				t.Fatalf("outcome unknown: %v", err)
			}
			fc.nodes[0].inject(noLeader)
			if err := tc.call(t.Context(), c); err != nil {
				t.Fatalf("not applied: %v", err)
			}
		})
	}
}

// A member that the lost first attempt took out is gone: that the second finds none
// of the name is no refusal, and says of no attempt that it did nothing.
func TestRemovalThatHappenedIsNoRefusal(t *testing.T) {
	fc := newFakeCluster(t, 3)
	c := fc.open(t, nil)
	fc.nodes[0].inject(fault{apply: true, err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown")})
	if _, err := c.RemoveMember(t.Context(), &clusterv1.RemoveMemberRequest{NodeId: "x"}); err != nil {
		t.Fatalf("it is removed, yet: %v", err)
	}
	if _, err := c.RemoveMember(t.Context(), &clusterv1.RemoveMemberRequest{NodeId: "x"}); !IsPermanent(err) || Reason(err) != "MEMBER_NOT_FOUND" {
		t.Fatalf("a stranger: %v", err)
	}
}

// The first call of a new client finds the one node that can answer it.
func TestFirstOperationGoesToANodeThatIsReady(t *testing.T) {
	fc := newFakeCluster(t, 3)
	fc.setLeader(-1)
	for _, n := range []*fakeNode{fc.nodes[1], fc.nodes[2]} {
		n.notReady = true
		n.inject(fault{hang: true})
	}
	cfg := fc.config()
	cfg.MaxAttempts = 1
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A node that may be out of date does not tell who the members are if another one
// can; if none can, it does.
func TestMembersAreNotStaleIfOthersKnow(t *testing.T) {
	fc := newFakeCluster(t, 3)
	c := fc.open(t, nil)
	fc.nodes[0].stale, fc.nodes[1].stale = true, true
	for range 6 {
		out, err := c.Members(t.Context())
		if err != nil || out.Stale || out.ServedBy != "n2" {
			t.Fatalf("%v, %v", out, err)
		}
	}
	fc.nodes[2].mu.Lock()
	fc.nodes[2].stale = true
	fc.nodes[2].mu.Unlock()
	if out, err := c.Members(t.Context()); err != nil || !out.Stale {
		t.Fatalf("%v, %v", out, err)
	}
}

// A call whose node turns out to be paused, or to lead no longer, does not wait
// for the end of its attempt.
func TestAttemptsAtALostLeaderAreGivenUp(t *testing.T) {
	for _, tc := range []struct {
		name string
		lose func(*fakeCluster)
	}{
		{"silent", func(fc *fakeCluster) {
			fc.nodes[0].mu.Lock()
			defer fc.nodes[0].mu.Unlock()
			fc.nodes[0].silent = true
		}},
		{"followed by another", func(fc *fakeCluster) { fc.setLeader(1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fc := newFakeCluster(t, 3)
			c := fc.open(t, func(cfg *Config) { cfg.AttemptTimeout, cfg.Timeout = time.Hour, time.Hour })
			fc.nodes[0].inject(fault{hang: true, apply: true})
			type answer struct {
				out *collectionv1.UpsertResponse
				err error
			}
			done := make(chan answer, 1)
			go func() {
				out, err := c.Upsert(t.Context(), upsert("d"))
				done <- answer{out, err}
			}()
			waitFor(t, func() bool { return fc.nodes[0].count() == 1 })
			tc.lose(fc)
			if a := <-done; a.err != nil || a.out.ServedBy == "n0" || fc.writes["d"] != 1 {
				t.Fatalf("%v, %v, written %d times", a.out, a.err, fc.writes["d"])
			}
		})
	}
}

// A write that was forwarded tells where the next one should go.
func TestTrailersNameTheLeader(t *testing.T) {
	fc := newFakeCluster(t, 3)
	fc.setLeader(-1)
	c := fc.open(t, nil)
	for _, n := range fc.nodes {
		n.mu.Lock()
		n.leads = "n2"
		n.mu.Unlock()
	}
	waitFor(t, func() bool { // a health check may find no leader in between
		if _, err := c.Upsert(t.Context(), upsert("a")); err != nil {
			t.Fatal(err)
		}
		out, err := c.Upsert(t.Context(), upsert("b"))
		if err != nil {
			t.Fatal(err)
		}
		return out.ServedBy == "n2" && c.Endpoints()[2].Leader
	})
}

func TestCallEndsWithItsContext(t *testing.T) {
	fc := newFakeCluster(t, 3)
	c := fc.open(t, nil)
	for _, n := range fc.nodes {
		n.random = func() *fault { return &fault{err: refusal(codes.Unavailable, "NO_LEADER")} }
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Upsert(ctx, upsert("d")); !IsRetryable(err) {
		t.Fatalf("never sent on, yet %v", err)
	}
	for _, n := range fc.nodes {
		n.random = func() *fault { return &fault{hang: true} }
	}
	ctx, cancel = context.WithCancel(t.Context())
	base := fc.nodes[0].count() + fc.nodes[1].count() + fc.nodes[2].count()
	go func() {
		for fc.nodes[0].count()+fc.nodes[1].count()+fc.nodes[2].count() == base {
			runtime.Gosched()
		}
		cancel()
	}()
	if _, err := c.Upsert(ctx, upsert("d")); !IsUnknown(err) || !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled while waiting: %v", err)
	}
}

// A cluster that is not there refuses connections: certainly not applied.
func TestRefusedConnectionIsNotApplied(t *testing.T) {
	fc := newFakeCluster(t, 1)
	fc.nodes[0].srv.Stop()
	fc.leader = -1
	cfg := fc.config()
	cfg.MaxAttempts = 2
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Upsert(t.Context(), upsert("d")); !IsRetryable(err) || Code(err) != codes.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestReadsAvoidReplicasThatAreNotReady(t *testing.T) {
	fc := newFakeCluster(t, 3)
	fc.nodes[1].notReady = true
	c := fc.open(t, nil)
	waitFor(t, func() bool { return c.core.set.Load().list[1].ready.Load() == readyNo })
	for range 60 {
		if _, err := c.Get(t.Context(), &collectionv1.GetRequest{DocId: "d"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := fc.nodes[1].count(); n != 0 {
		t.Fatalf("%d reads went to the replica that is not ready", n)
	}
}

func TestReadsGoToTheNearest(t *testing.T) {
	k := &core{epoch: time.Now()}
	far, near, nearToo := &endpoint{addr: "far"}, &endpoint{addr: "near"}, &endpoint{addr: "near too"}
	far.rtt.Store(int64(40 * time.Millisecond))
	near.rtt.Store(int64(time.Millisecond))
	nearToo.rtt.Store(int64(2 * time.Millisecond))
	k.set.Store(&endpointSet{list: []*endpoint{far, near, nearToo}})
	seen := map[string]int{}
	for range 100 {
		seen[k.pick(false, nil).addr]++
	}
	if seen["far"] > 0 || seen["near"] == 0 || seen["near too"] == 0 {
		t.Fatalf("picked %v", seen)
	}
	near.inflight.Store(5)
	for range 10 {
		if e := k.pick(false, nil); e != nearToo {
			t.Fatalf("picked %s though near is busy", e.addr)
		}
	}
	near.ready.Store(readyNo)
	nearToo.downUntil.Store(k.now() + int64(time.Hour))
	if e := k.pick(false, nil); e != far {
		t.Fatalf("picked %s", e.addr)
	}
}

func TestPinDialsOneEndpoint(t *testing.T) {
	fc := newFakeCluster(t, 3)
	c := fc.open(t, func(cfg *Config) { cfg.Pin, cfg.MaxAttempts = true, 3 })
	fc.nodes[0].inject(fault{err: refusal(codes.Unavailable, "NO_LEADER")}, fault{err: refusal(codes.Unavailable, "NOT_LEADER", "leader_id", "n1")})
	out, err := c.Upsert(t.Context(), upsert("d"))
	if err != nil || out.ServedBy != "n0" {
		t.Fatal(out, err)
	}
	if fc.nodes[1].dials+fc.nodes[2].dials > 0 {
		t.Fatal("another endpoint was dialled")
	}
}

func TestSessionCarriesItsToken(t *testing.T) {
	fc := newFakeCluster(t, 1)
	c := fc.open(t, nil)
	s := c.Session()
	out, err := s.Upsert(t.Context(), upsert("d"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), &collectionv1.GetRequest{DocId: "d"})
	if err != nil || got.Consistency != Session || fc.nodes[0].tokens[0] != out.SessionToken {
		t.Fatalf("read at %q with %q: %v", got.GetConsistency(), fc.nodes[0].tokens, err)
	}
	if c.Token() != "" {
		t.Fatal("the session's token is the session's own")
	}
	if got, err = c.Get(t.Context(), &collectionv1.GetRequest{DocId: "d"}); err != nil || got.Consistency != "" {
		t.Fatalf("got %q, %v: the client's own reads are linearizable", got.GetConsistency(), err)
	}
	if c.Token() == "" {
		t.Fatal("no token after a read")
	}
}

func TestTokensOnlyGrow(t *testing.T) {
	var s session
	for _, step := range [][2]string{{"", ""}, {"a.5", "a.5"}, {"a.4", "a.5"}, {"a.12", "a.12"}, {"junk", "a.12"}, {"a.x", "a.12"}, {"b.1", "b.1"}} {
		if s.observe(step[0]); s.token() != step[1] {
			t.Fatalf("after %q: %q, want %q", step[0], s.token(), step[1])
		}
	}
}

func TestHedgedReadTakesTheFasterReplica(t *testing.T) {
	fc := newFakeCluster(t, 3)
	c := fc.open(t, func(cfg *Config) { cfg.HedgeAfter = time.Millisecond })
	var once sync.Once
	for _, n := range fc.nodes {
		n.random = func() (f *fault) { once.Do(func() { f = &fault{hang: true} }); return f }
	}
	if _, err := c.Get(t.Context(), &collectionv1.GetRequest{DocId: "d"}); err != nil {
		t.Fatal(err)
	}
	if got := fc.nodes[0].count() + fc.nodes[1].count() + fc.nodes[2].count(); got < 2 {
		t.Fatalf("%d attempts", got)
	}
}

func TestAPIKeyIsSent(t *testing.T) {
	fc := newFakeCluster(t, 1)
	c := fc.open(t, func(cfg *Config) { cfg.APIKey = "ak_x" })
	if _, err := c.Upsert(t.Context(), upsert("d")); err != nil {
		t.Fatal(err)
	}
	if k := fc.nodes[0].keys; len(k) != 1 || k[0] != "Bearer ak_x" {
		t.Fatalf("sent %q", k)
	}
}

// A DNS endpoint stands for all its addresses; a node that comes back with
// another address is found without a new client.
func TestDNSEndpointsFollowTheName(t *testing.T) {
	fc := newFakeCluster(t, 2)
	fc.nodes[0].addr, fc.nodes[1].addr = "10.0.0.1:9443", "10.0.0.2:9443"
	cfg, err := Config{Endpoints: []string{"dns:///db.test:9443"}, Dial: fc.dial}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	k := newCore(cfg)
	var mu sync.Mutex
	ips := []string{"10.0.0.1"}
	k.lookup = func(_ context.Context, host string) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		if host != "db.test" || ips == nil {
			return nil, errors.New("no such host")
		}
		return ips, nil
	}
	k.start()
	c := &Client{core: k, session: new(session)}
	defer c.Close()
	if _, err := c.Upsert(t.Context(), upsert("a")); err != nil {
		t.Fatal(err)
	}
	if got := k.targets(); len(got) != 1 || got[0] != (target{"10.0.0.1:9443", "db.test"}) {
		t.Fatalf("targets %v", got)
	}
	mu.Lock()
	ips = nil
	mu.Unlock()
	if got := k.targets(); len(got) != 1 {
		t.Fatalf("a failing look-up must keep what is known: %v", got)
	}
	mu.Lock()
	ips = []string{"10.0.0.2"}
	mu.Unlock()
	k.publish(k.targets())
	out, err := c.Upsert(t.Context(), upsert("b"))
	if err != nil || out.ServedBy != "n1" {
		t.Fatal(out, err)
	}
}

// Goal: a stream is applied once and in order whatever fails on the way.
// Method: every request anywhere may be refused, lost before or after it was
// applied, and the leader moves; some documents come several times.
func TestIngestIsExactlyOnceAndInOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("AKIDB_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("replay: AKIDB_SEED=%d go test ./client -run TestIngestIsExactlyOnceAndInOrder", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	fc := newFakeCluster(t, 3)
	c := fc.open(t, nil)
	var mu sync.Mutex // of rng
	for _, n := range fc.nodes {
		n.random = func() *fault {
			mu.Lock()
			defer mu.Unlock()
			switch rng.IntN(12) {
			case 0:
				return &fault{kill: true, apply: rng.IntN(2) == 0}
			case 1:
				return &fault{err: refusal(codes.Unknown, "UNKNOWN_OUTCOME", "class", "unknown"), apply: rng.IntN(2) == 0}
			case 2:
				return &fault{err: refusal(codes.Unavailable, "NO_LEADER")}
			case 3:
				return &fault{err: overloaded(time.Millisecond)}
			}
			return nil
		}
	}
	var acks []int
	in := c.Ingest(t.Context(), "c", IngestOptions{BatchDocs: 7, InFlight: 5, Acked: func(n int) { acks = append(acks, n) }})
	const docs = 700
	want := map[string]int{}
	last := map[string]int{}
	for i := range docs {
		id := fmt.Sprintf("d%d", i%523)
		want[id]++
		last[id] = i
		if err := in.Add(&collectionv1.UpsertRequest{DocId: id, Vector: []float32{float32(i)}}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 50 {
			fc.setLeader(i / 100 % 3)
		}
	}
	res, err := in.Close()
	if err != nil || res.Documents != docs {
		t.Fatalf("%+v, %v", res, err)
	}
	if !reflect.DeepEqual(fc.writes, want) {
		t.Fatalf("written %v", fc.writes)
	}
	for i := 1; i < len(acks); i++ {
		if acks[i] <= acks[i-1] {
			t.Fatalf("acknowledged %v", acks)
		}
	}
	if acks[len(acks)-1] != docs {
		t.Fatalf("acknowledged %v", acks)
	}
	if err := in.Add(upsert("late")); err == nil {
		t.Fatal("Add after Close")
	}
}

func TestIngestStopsAtARefusal(t *testing.T) {
	fc := newFakeCluster(t, 1)
	c := fc.open(t, nil)
	in := c.Ingest(t.Context(), "c", IngestOptions{BatchDocs: 2, InFlight: 1})
	for i := range 4 {
		if err := in.Add(&collectionv1.UpsertRequest{DocId: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return fc.nodes[0].count() == 1 })
	fc.nodes[0].inject(fault{err: refusal(codes.InvalidArgument, "INVALID")})
	_, err := in.Close()
	var ie *IngestError
	if !errors.As(err, &ie) || ie.Acked != 2 || ie.First != 2 || ie.Docs != 2 || !IsPermanent(err) {
		t.Fatalf("got %v", err)
	}
}

// A batch that is refused ends those behind it, and lets those before it finish.
func TestIngestFinishesWhatIsBeforeARefusal(t *testing.T) {
	fc := newFakeCluster(t, 1)
	c := fc.open(t, func(cfg *Config) { cfg.AttemptTimeout = 300 * time.Millisecond })
	fc.nodes[0].inject(fault{hang: true}, fault{err: refusal(codes.InvalidArgument, "INVALID")})
	in := c.Ingest(t.Context(), "c", IngestOptions{BatchDocs: 2, InFlight: 4})
	for i := range 4 {
		if i == 3 { // the first batch waits for its second attempt
			waitFor(t, func() bool { return fc.nodes[0].count() == 1 })
		}
		if err := in.Add(&collectionv1.UpsertRequest{DocId: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := in.Close()
	var ie *IngestError
	if !errors.As(err, &ie) || ie.Acked != 2 || ie.First != 2 || !IsPermanent(err) {
		t.Fatalf("got %v", err)
	}
}

// Goal: no field of a request is lost when the client copies it. Method: fill
// every field by reflection, copy, compare but for what the client fills in.
func TestCopiesKeepEveryField(t *testing.T) {
	c := &Client{core: &core{cfg: Config{Consistency: Session}, resolved: make(chan struct{})}, session: new(session)}
	c.session.observe("c1.7")
	close(c.core.resolved)
	c.core.set.Store(&endpointSet{})
	ctx := t.Context()
	v := reflect.ValueOf(c)
	checked := 0
	for i := range v.NumMethod() {
		m := v.Type().Method(i)
		if m.Type.NumIn() != 3 || m.Type.In(2).Kind() != reflect.Pointer {
			continue
		}
		req, ok := reflect.New(m.Type.In(2).Elem()).Interface().(proto.Message)
		if !ok {
			continue
		}
		fill(req.ProtoReflect(), 0)
		var filled []protoreflect.Name // by the client, where they are empty
		switch m.Name {
		case "Insert", "Upsert", "PatchPayload", "Delete", "DeleteMany", "Batch", "CreateCollection", "DeleteCollection":
			filled = []protoreflect.Name{"request_id"}
		case "Query", "QueryBatch", "Get", "Fetch", "Count", "Scroll", "Describe", "ListCollections", "GetCollection":
			filled = []protoreflect.Name{"consistency", "session_token"}
			req.ProtoReflect().Clear(req.ProtoReflect().Descriptor().Fields().ByName("max_staleness_ms"))
		}
		for _, name := range filled {
			req.ProtoReflect().Clear(req.ProtoReflect().Descriptor().Fields().ByName(name))
		}
		before := proto.Clone(req)
		var sent proto.Message
		c.core.ctx, c.core.cancel = context.WithCancel(context.Background())
		c.core.sent = func(m proto.Message) { sent = m }
		v.Method(i).Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(req)})
		c.core.cancel()
		if !proto.Equal(req, before) {
			t.Errorf("%s changed its argument", m.Name)
		}
		for _, name := range filled {
			fd := sent.ProtoReflect().Descriptor().Fields().ByName(name)
			if !sent.ProtoReflect().Has(fd) {
				t.Errorf("%s did not fill in %s", m.Name, name)
			}
			sent.ProtoReflect().Clear(fd)
		}
		if !proto.Equal(sent, before) {
			t.Errorf("%s sent\n%v\nof\n%v", m.Name, sent, before)
		}
		checked++
	}
	if checked < 17 {
		t.Fatalf("only %d methods checked", checked)
	}
}

// fill sets every field to something; nested messages two levels deep.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.ContainingOneof() != nil && !fd.ContainingOneof().IsSynthetic() && fd.Index() > 0 {
			continue
		}
		switch {
		case fd.IsList():
			l := m.Mutable(fd).List()
			if fd.Message() != nil {
				if depth < 2 {
					fill(l.AppendMutable().Message(), depth+1)
				}
			} else {
				l.Append(scalar(fd))
			}
		case fd.Message() != nil:
			if depth < 2 {
				fill(m.Mutable(fd).Message(), depth+1)
			}
		default:
			m.Set(fd, scalar(fd))
		}
	}
}

func scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("x" + string(fd.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(1.5)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(2.5)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(3)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(4)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(5)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(6)
	}
	panic(fd.Kind())
}

func TestRequestIDsAreUUIDv7(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 10_000 {
		id := NewRequestID()
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("bad or repeated %q", id)
		}
		seen[id] = true
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Endpoints: []string{"nowhere"}}, {Endpoints: []string{"a:1"}, Consistency: "strict"},
		{Endpoints: []string{"a:1"}, Timeout: -1}} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("Open(%+v) succeeded", cfg)
		}
	}
}

// Calls of one client spread over its connections only as far as they meet: a lone
// caller stays on one, and none waits behind another call while a connection is
// idle. After one failed, another is preferred.
func TestIdlestConnectionIsTaken(t *testing.T) {
	fc := newFakeCluster(t, 1)
	n := fc.nodes[0]
	c := fc.open(t, func(cfg *Config) { cfg.ConnsPerEndpoint, cfg.Pin = 4, true })
	dials := func() int {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.dials
	}
	put := func() {
		t.Helper()
		if _, err := c.Upsert(t.Context(), &collectionv1.UpsertRequest{CollectionId: "c", DocId: "d"}); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		put()
	}
	if d := dials(); d != 1 {
		t.Errorf("a lone caller used %d connections", d)
	}
	n.inject(fault{err: status.Error(codes.Unavailable, "no")})
	put()
	if d := dials(); d != 2 {
		t.Errorf("%d connections after one call failed", d)
	}
	for want := 2; want <= 4; want++ {
		served := n.count()
		n.inject(fault{hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: "c", DocId: "d"}); err == nil {
				t.Error("a call that was never answered succeeded")
			}
		})
		defer wg.Wait()
		defer cancel()
		waitFor(t, func() bool { return n.count() > served })
		if d := dials(); d != want {
			t.Errorf("%d calls under way on %d connections", want-1, d)
		}
	}
	put()
	if d := dials(); d != 4 {
		t.Errorf("%d connections, with 4 allowed", d)
	}
}
