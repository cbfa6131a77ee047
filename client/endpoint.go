// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// endpoint is one server as the client sees it: its connections, and what the
// last health check and the last calls said. Its own goroutine checks it.
type endpoint struct {
	addr       string
	serverName string // of a DNS endpoint: the name looked up
	conns      []*conn
	first      atomic.Uint32 // the connection preferred among equally busy ones

	inflight  atomic.Int64
	rtt       atomic.Int64           // ns, smoothed; 0: never measured
	ready     atomic.Int32           // of the last health check: readyUnknown, readyYes, readyNo
	downUntil atomic.Int64           // ns since core.epoch; passed over until then
	nodeID    atomic.Pointer[string] // nil: not known yet
	gone      atomic.Pointer[ending] // of the attempts under way

	kick   chan struct{} // capacity 1: check now
	cancel context.CancelFunc
	done   chan struct{}
}

// conn is a connection and the calls under way on it.
type conn struct {
	*grpc.ClientConn
	calls atomic.Int64
}

// ending ends the attempts that began under it.
type ending struct {
	ctx context.Context
	end context.CancelFunc
}

// abandon ends the attempts under way that may be made elsewhere.
func (e *endpoint) abandon() {
	ctx, cancel := context.WithCancel(context.Background())
	e.gone.Swap(&ending{ctx, cancel}).end()
}

const (
	readyUnknown = iota
	readyYes
	readyNo
)

// newEndpoint makes the connections, which dial when first used, and starts the
// health checks unless the client is pinned.
func (k *core) newEndpoint(t target) (*endpoint, error) {
	e := &endpoint{addr: t.addr, serverName: t.serverName, kick: make(chan struct{}, 1), done: make(chan struct{})}
	begin, end := context.WithCancel(context.Background())
	e.gone.Store(&ending{begin, end})
	opts := k.dialOptions(t.serverName)
	for range k.cfg.ConnsPerEndpoint {
		// passthrough: the name is resolved at every dial, so a pod that
		// returns with another address is found.
		cc, err := grpc.NewClient("passthrough:///"+t.addr, opts...)
		if err != nil {
			end()
			e.closeConns()
			return nil, err
		}
		e.conns = append(e.conns, &conn{ClientConn: cc})
	}
	ctx, cancel := context.WithCancel(k.ctx)
	e.cancel = cancel
	if k.cfg.Pin {
		close(e.done)
	} else {
		go k.watch(ctx, e)
	}
	return e, nil
}

func (k *core) dialOptions(serverName string) []grpc.DialOption {
	creds := insecure.NewCredentials()
	if k.cfg.TLS != nil {
		conf := k.cfg.TLS
		if conf.ServerName == "" && serverName != "" {
			conf = conf.Clone()
			conf.ServerName = serverName
		}
		creds = credentials.NewTLS(conf)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		// A node that restarts is used again within a second, not after the
		// minutes that the library's own backoff grows to.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		// Of fixed size, since the estimate of a connection's product of bandwidth and
		// delay costs a ping and its answer for each lone message.
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		// Retries are ours: they know the request id and the error's class.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	}
	if k.cfg.APIKey != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer{
			header: map[string]string{"authorization": "Bearer " + k.cfg.APIKey}, secure: k.cfg.TLS != nil}))
	}
	if k.cfg.Dial != nil {
		opts = append(opts, grpc.WithContextDialer(k.cfg.Dial))
	}
	return opts
}

// bearer sends the API key with every call.
type bearer struct {
	header map[string]string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return b.header, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }

// invoke makes a call on the connection with the fewest under way. A lone caller
// stays on one, whose goroutines and buffers are warm; a large message delays
// nobody who finds another. After a connection failed another one is preferred.
func (e *endpoint) invoke(ctx context.Context, method string, req, out any, opts ...grpc.CallOption) error {
	c := e.idlest()
	c.calls.Add(1)
	defer c.calls.Add(-1)
	err := c.Invoke(ctx, method, req, out, opts...)
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		e.first.Add(1)
	}
	return err
}

func (e *endpoint) idlest() *conn {
	n := uint32(len(e.conns))
	first := e.first.Load() % n
	best := e.conns[first]
	least := best.calls.Load()
	for i := uint32(1); i < n && least > 0; i++ {
		c := e.conns[(first+i)%n]
		if calls := c.calls.Load(); calls < least {
			best, least = c, calls
		}
	}
	return best
}

// close stops the health checks, waits for them, and closes the connections.
func (e *endpoint) close() error {
	e.cancel()
	<-e.done
	e.gone.Load().end()
	return e.closeConns()
}

func (e *endpoint) closeConns() error {
	var first error
	for _, cc := range e.conns {
		if err := cc.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// check asks for a health check soon.
func (e *endpoint) check() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// checkAll asks for a health check of every endpoint soon.
func (k *core) checkAll() {
	for _, e := range k.set.Load().list {
		e.check()
	}
}

// awaitReady waits a moment for a node that is known to be ready, so that the
// first call does not go to one that is not.
func (k *core) awaitReady(ctx context.Context) {
	if k.cfg.Pin || len(k.set.Load().list) < 2 {
		return
	}
	t := time.NewTimer(readyWait)
	defer t.Stop()
	select {
	case <-k.someReady:
	case <-t.C:
	case <-ctx.Done():
	case <-k.ctx.Done():
	}
}

// watch checks the endpoint every probeInterval, and when kicked, until ctx ends.
func (k *core) watch(ctx context.Context, e *endpoint) {
	defer close(e.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-e.kick:
		}
		began := time.Now()
		k.probe(ctx, e)
		// A kick storm must not become a probe storm.
		if rest := probeMinInterval - time.Since(began); rest > 0 {
			timer.Reset(rest)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
		timer.Reset(probeInterval)
	}
}

// probe asks the endpoint for its status and notes what it says.
func (k *core) probe(ctx context.Context, e *endpoint) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var st clusterv1.StatusResponse
	began := time.Now()
	err := e.invoke(ctx, clusterv1.ClusterService_Status_FullMethodName, &clusterv1.StatusRequest{}, &st)
	took := time.Since(began)
	if err != nil {
		if v := judge(err, true); v.class == Permanent {
			// It answered, but does not tell us: take it as ready.
			e.measured(took)
			e.ready.Store(readyYes)
			return
		}
		if ctx.Err() == nil || took >= probeTimeout {
			e.ready.Store(readyNo)
			k.leader.CompareAndSwap(e, nil)
		}
		if took >= probeTimeout {
			e.abandon()
		}
		return
	}
	e.measured(took)
	if id := st.GetNodeId(); id != "" {
		if old := e.nodeID.Load(); old == nil || *old != id {
			e.nodeID.Store(&id)
		}
	}
	if st.GetReady() {
		e.ready.Store(readyYes)
		e.downUntil.Store(0)
	} else {
		e.ready.Store(readyNo)
	}
	k.noteLeader(e, &st)
	if st.GetReady() {
		k.readyOnce.Do(func() { close(k.someReady) })
	}
}

// noteLeader believes a leader's word about itself, and a follower's only while
// no leader is known, or of a newer term: a follower may be late. What waits on a
// leader that another one has followed is asked again elsewhere: it may be paused.
func (k *core) noteLeader(e *endpoint, st *clusterv1.StatusResponse) {
	switch {
	case st.GetLeaderId() == "":
		if st.GetState() != "leader" {
			k.deposed(e)
		}
	case st.GetLeaderId() == st.GetNodeId():
		if term := st.GetTerm(); term >= k.leaderTerm.Load() {
			k.leaderTerm.Store(term)
			k.replaceLeader(e)
		}
	default:
		k.deposed(e)
		term, known := st.GetTerm(), k.leaderTerm.Load()
		l := k.find(leaderHint{nodeID: st.GetLeaderId()})
		switch {
		case l == nil:
		case term > known:
			k.leaderTerm.Store(term)
			k.replaceLeader(l)
		case term == known:
			k.leader.CompareAndSwap(nil, l)
		}
	}
}

// deposed forgets a leader that says itself that it is none.
func (k *core) deposed(e *endpoint) {
	if k.leader.CompareAndSwap(e, nil) {
		e.abandon()
	}
}

func (k *core) replaceLeader(e *endpoint) {
	if old := k.leader.Swap(e); old != nil && old != e {
		old.abandon()
	}
}

// noteTrailer reads who leads from the answer to a call that e served, as its
// leader or by forwarding it.
func (k *core) noteTrailer(e *endpoint, md metadata.MD) {
	var h leaderHint
	if v := md.Get(trailerLeaderID); len(v) > 0 {
		h.nodeID = v[0]
	}
	if v := md.Get(trailerLeaderGRPC); len(v) > 0 {
		h.addr = v[0]
	}
	l := k.find(h)
	if l == nil {
		return
	}
	// Another one known meanwhile may be newer than this answer.
	if !k.leader.CompareAndSwap(nil, l) {
		k.leader.CompareAndSwap(e, l)
	}
}

// measured smooths the round trip time.
func (e *endpoint) measured(d time.Duration) {
	old := e.rtt.Load()
	if old == 0 {
		e.rtt.Store(max(int64(d), 1))
		return
	}
	e.rtt.Store(max(old+(int64(d)-old)/4, 1))
}

// endpointSet is the endpoints at one moment; never changed once published.
type endpointSet struct {
	list []*endpoint
}

// core is what a client and its sessions share.
type core struct {
	cfg    Config
	ctx    context.Context // ends at close
	cancel context.CancelFunc
	epoch  time.Time

	set        atomic.Pointer[endpointSet]
	leader     atomic.Pointer[endpoint] // nil: not known
	leaderTerm atomic.Uint64
	rotate     atomic.Uint32

	resolved  chan struct{} // closed when the first endpoint set is there
	someReady chan struct{} // closed when a health check first found a node ready
	readyOnce sync.Once
	wg        sync.WaitGroup
	once      sync.Once
	closeErr  error

	sleep  func(context.Context, time.Duration) error // replaced by tests
	lookup func(ctx context.Context, host string) ([]string, error)
	sent   func(proto.Message) // nil but in tests: sees every request
}

func newCore(cfg Config) *core {
	ctx, cancel := context.WithCancel(context.Background())
	k := &core{cfg: cfg, ctx: ctx, cancel: cancel, epoch: time.Now(),
		resolved: make(chan struct{}), someReady: make(chan struct{}), sleep: sleepFor, lookup: net.DefaultResolver.LookupHost}
	k.set.Store(&endpointSet{})
	return k
}

// close stops resolving first, so that no endpoint appears afterwards.
func (k *core) close() error {
	k.once.Do(func() {
		k.cancel()
		k.wg.Wait()
		for _, e := range k.set.Load().list {
			if err := e.close(); err != nil && k.closeErr == nil {
				k.closeErr = err
			}
		}
	})
	return k.closeErr
}

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
