// SPDX-License-Identifier: Apache-2.0

// Package node is one running member of a cluster: Raft, its log, transport and
// snapshots, gossip, membership, proposals and the read barrier. It never looks
// into a command or a document; that is raftfsm's business.
package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/akidb/akidb/internal/storage"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// Config is fixed for the life of a node; Open validates it.
type Config struct {
	NodeID  string
	DataDir string
	// RaftAddr is listened on; AdvertiseAddr (default RaftAddr), best a DNS
	// name, is what peers dial. One port carries everything between nodes.
	RaftAddr      string
	AdvertiseAddr string
	// GossipAddr is listened on with UDP and TCP; empty turns gossip off.
	GossipAddr          string
	AdvertiseGossipAddr string
	GossipKeys          [][]byte
	// GRPCAddr and RESTAddr are told to clients and peers.
	GRPCAddr, RESTAddr string
	Zone, Version      string
	// Peers are raft addresses ("host:port") or one DNS name that resolves to
	// all of them. Bootstrap waits until BootstrapExpect nodes see each other
	// and none of them belongs to a cluster; 0 is 1 without peers, and with
	// peers means that this node founds none and waits for one to join. With
	// peers 1 waits for all of them to answer.
	Peers           []string
	BootstrapExpect int
	MaxVoters       int
	// TLS is mutual between nodes; nil is only for tests.
	ServerTLS, ClientTLS *tls.Config
	// PeerRoots, if not nil, takes the place of ClientTLS.RootCAs each time a peer is
	// dialled: authorities are replaced while nodes run.
	PeerRoots         func() *x509.CertPool
	LogStore          string // "wal" (default) or "bolt"
	HeartbeatTimeout  time.Duration
	ElectionTimeout   time.Duration
	SnapshotInterval  time.Duration
	SnapshotThreshold uint64
	TrailingLogs      uint64 // entries kept behind a snapshot
	TrailingLogBytes  int64
	// Budgets; the leader refuses writes beyond them.
	MaxMemoryBytes  int64
	MinFreeDisk     int64
	MaxIndexBacklog int
	IndexWorkers    int
	// MaxApplyLag bounds the committed entries not applied yet.
	MaxApplyLag uint64
	// ReadReplica keeps this node a non-voter for good.
	ReadReplica bool
	// RemoveDeadAfter takes a failed member out of the configuration after
	// that time, as long as a majority remains; negative for never.
	RemoveDeadAfter time.Duration
	// StabilizationTime is how long a new member must be healthy before it is
	// given a vote.
	StabilizationTime time.Duration
	// StateCheckInterval is how often the leader commits its state hash for
	// the others to compare; negative for never.
	StateCheckInterval time.Duration
	// ScrubInterval is how often each node reads all it has stored and compares
	// it with the checksums; negative for never.
	ScrubInterval time.Duration
	Logger        *slog.Logger
	Registerer    prometheus.Registerer
	// Net is how the network is reached; the zero value is the real one.
	Net Net
	// Pace multiplies the intervals at which the node's own routines look around,
	// as far as no other field sets them, and the time for which request ids are
	// remembered; 0 is 1. It is for simulations in which a heartbeat takes
	// minutes and the hours between cost as little: every member must have the
	// same, for ever.
	Pace int
	// FS is where files are kept; nil is the disk. With another one, which only
	// tests have a use for, LogStore must be "wal", the stable store is a file,
	// graphs are not kept, and free space is not watched.
	FS storage.FS

	// openMachine replaces raftfsm in tests of this package.
	openMachine func(ctx context.Context, dir string) (machine, error)
	// residentBytes replaces the kernel's count of this process's memory in tests
	// of this package.
	residentBytes func() int64
	// wrapLog puts a failing disk below the log in tests of this package.
	wrapLog func(closableLogStore) closableLogStore
}

// Node is a running member.
type Node struct {
	cfg  *Config
	log  *slog.Logger
	met  *metrics
	mux  *mux
	rpc  *rpcClient
	book *addressBook
	g    *group

	gossip  *gossip // nil if turned off
	budgets *budgets
	pilot   *pilot
	started time.Time

	ctx     context.Context
	cancel  context.CancelFunc
	wg      crew
	closing atomic.Bool
	// wasListed is set once the leader's configuration was seen to hold this
	// node, see rejoin.
	wasListed atomic.Bool
	joinTurn  chan struct{} // holds a token while this node asks to join
	leaving   atomic.Bool   // see endJoining
	caughtUp  atomic.Bool   // see catchUp
	removed   atomic.Bool   // see askIfRemoved
	findNow   chan struct{}
	suspected chan struct{}          // wakes scrub
	seeking   atomic.Pointer[string] // why this node is no member yet, see findCluster
	// purged is the generation up to which a collection was purged by this
	// node as leader; only housekeeping touches it.
	purged map[string]uint64
	choice atomic.Pointer[[]string] // the founders this node would pick, see choose
	fence  atomic.Pointer[fence]    // why this replica is out of service
	// successor says that the cluster was recovered without this node; see meet.
	successor   atomic.Pointer[string]
	strangersMu sync.Mutex // guards strangers
	strangers   map[string]bool
	membership  chan struct{} // holds a token while a member is admitted, removed or given a vote
	ending      ending
}

// groupID is the one group there is now; it names a directory and is part of
// each connection's preamble.
const groupID = "1"

// Open starts the node. It returns once storage is open and Raft runs, with or
// without a leader; errors name the file or setting that is wrong.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := claimDataDir(c.files(), c.DataDir, c.NodeID); err != nil {
		return nil, err
	}
	n := &Node{cfg: c, log: c.Logger.With("node", c.NodeID), started: time.Now(), ending: ending{done: make(chan struct{})}, findNow: make(chan struct{}, 1), suspected: make(chan struct{}, 1), joinTurn: make(chan struct{}, 1), membership: make(chan struct{}, 1), purged: make(map[string]uint64)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if n.met, err = newMetrics(c.Registerer, n); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.cancel()
			n.met.unregister()
		}
	}()
	if n.mux, err = newMux(c.Net, c.RaftAddr, c.ServerTLS, c.ClientTLS, n.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.mux.cut()
		}
	}()
	n.mux.peerRoots = c.PeerRoots
	if _, port, _ := net.SplitHostPort(c.AdvertiseAddr); port == "0" {
		c.AdvertiseAddr = n.mux.ln.Addr().String()
	}
	n.rpc = newRPCClient(n.mux.dialRPC)
	n.book = newAddressBook(c.NodeID)
	n.rpc.ofNow = n.book.ofNow
	dir := filepath.Join(c.DataDir, "groups", groupID)
	if err := mkdirAll(c.files(), dir); err != nil {
		return nil, fmt.Errorf("node: group directory: %w", err)
	}
	m, err := c.openMachine(ctx, dir)
	if err != nil {
		return nil, err
	}
	if v := m.Facts().clusterVersion; v > maxClusterVersion {
		m.Close()
		return nil, fmt.Errorf("node: %s: %w", c.DataDir, tooOld(v, maxClusterVersion))
	}
	n.g = &group{id: groupID, dir: dir, cfg: c, self: n.selfInfo, log: n.log, met: n.met, m: m, mux: n.mux, rpc: n.rpc, staging: make(chan struct{}, 1), book: n.book, onLeader: n.leaderDuties}
	n.mux.announced = n.g.announced
	n.g.ctx, n.g.cancel = context.WithCancel(context.Background())
	n.budgets = newBudgets(n)
	n.pilot = newPilot(n)
	if err := openGroup(n.g); err != nil {
		n.g.cancel()
		m.Close()
		return nil, err
	}
	if err := n.loadFence(); err != nil {
		_ = n.shutdown(context.WithoutCancel(ctx))
		return nil, err
	}
	n.serve()
	if c.GossipAddr != "" {
		if n.gossip, err = startGossip(n); err != nil {
			_ = n.shutdown(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	n.wg.Named("the search for the cluster", n.findCluster)
	n.wg.Named("a read", n.catchUp)
	n.wg.Named("the membership", n.watchMembership)
	n.wg.Named("the budgets", n.budgets.run)
	n.wg.Named("the record of this node", n.keepRecord)
	n.wg.Named("a checkpoint of a graph", n.keepCheckpoints)
	n.wg.Named("the scrub", n.scrub)
	n.wg.Named("the fence", n.keepFence)
	return n, nil
}

// serve wires the streams to their handlers.
func (n *Node) serve() {
	srv := &rpcServer{log: n.log, serve: n.serveRPC, ctx: n.ctx, leader: func() *nodev1.NodeInfo {
		return infoOf(n.g.leaderMember())
	}}
	n.mux.handlers[streamRPC] = srv.handle
	n.mux.handlers[streamRaft] = func(p preamble, c net.Conn) {
		// A stream outlives the moment in which a node becomes a member, and what
		// its cluster is must be known when it is taken: until then there is none.
		if core := n.g.core.Load(); core != nil && n.g.member.Load() && n.ours(p, c) {
			core.stream.offer(c)
			return
		}
		c.Close()
	}
	n.mux.handlers[streamFetch] = func(p preamble, c net.Conn) {
		if !n.ours(p, c) {
			c.Close()
			return
		}
		n.g.snaps.serveFetch(c)
	}
	n.mux.serve()
}

// ours reports whether a stream comes from this group's own cluster.
func (n *Node) ours(p preamble, c net.Conn) bool {
	if p.group != n.g.id {
		return false
	}
	if err := n.g.sameCluster(p.cluster); err != nil {
		n.log.Debug("stream refused", "remote", c.RemoteAddr().String(), "err", err)
		return false
	}
	return true
}

func (n *Node) isClosing() bool { return n.closing.Load() }

// ID is the node's id.
func (n *Node) ID() string { return n.cfg.NodeID }

// LeaderID is the id of the leader as known here, empty if none is. It is cheap.
func (n *Node) LeaderID() string {
	id, _ := n.g.leader()
	return id
}

// RaftAddr is the address other nodes reach this one at.
func (n *Node) RaftAddr() string { return n.cfg.AdvertiseAddr }

func (n *Node) selfInfo() *nodev1.NodeInfo {
	gossipAddr := n.cfg.AdvertiseGossipAddr
	setDefault(&gossipAddr, n.cfg.GossipAddr)
	var joined *uint64
	if n.g.member.Load() {
		joined = new(n.g.joinedIndex.Load())
	}
	return &nodev1.NodeInfo{
		GossipAddr: gossipAddr, JoinedIndex: joined,
		NodeId: n.cfg.NodeID, RaftAddr: n.cfg.AdvertiseAddr, GrpcAddr: n.cfg.GRPCAddr, RestAddr: n.cfg.RESTAddr,
		Zone: n.cfg.Zone, Version: n.cfg.Version, MaxClusterVersion: maxClusterVersion,
		ReadReplica: n.cfg.ReadReplica,
	}
}
