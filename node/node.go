// SPDX-License-Identifier: Apache-2.0

// Package node is one running member of a cluster: Raft, its log, transport and
// snapshots, gossip, membership, proposals and the read barrier. It never looks
// into a command or a document; that is raftfsm's business.
package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
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
	// and none of them belongs to a cluster.
	Peers           []string
	BootstrapExpect int
	MaxVoters       int
	// TLS is mutual between nodes; nil is only for tests.
	ServerTLS, ClientTLS *tls.Config
	LogStore             string // "wal" (default) or "bolt"
	HeartbeatTimeout     time.Duration
	ElectionTimeout      time.Duration
	SnapshotInterval     time.Duration
	SnapshotThreshold    uint64
	TrailingLogs         uint64 // entries kept behind a snapshot
	TrailingLogBytes     int64
	// Budgets; the leader refuses writes beyond them.
	MaxMemoryBytes  int64
	MinFreeDisk     int64
	MaxIndexBacklog int
	IndexWorkers    int
	Logger          *slog.Logger
	Registerer      prometheus.Registerer
}

// Node is a running member.
type Node struct{}

// Open starts the node. It returns once storage is open and Raft runs, with or
// without a leader; errors name the file or setting that is wrong.
func Open(ctx context.Context, cfg Config) (*Node, error) { panic("node: to be built") }

// Close hands leadership over, stops everything it started and waits for it.
func (n *Node) Close(ctx context.Context) error { panic("to be built") }

// Propose commits cmd (stamping proposed_at_ms) and returns its outcome, on any
// node: a follower forwards to the leader. Errors: ErrNotLeader, ErrNoLeader,
// ErrOverloaded, ErrFenced, ErrClosed: not applied. ErrUnknownOutcome: it may
// have been applied; retry only with its request id. A refusal by the state is
// not an error here: see raftfsm.ResultError.
func (n *Node) Propose(ctx context.Context, cmd *fsmv1.Command) (*fsmv1.Result, error) {
	panic("to be built")
}

// ProposeLocal is Propose without forwarding: ErrNotLeader with a hint.
func (n *Node) ProposeLocal(ctx context.Context, cmd *fsmv1.Command) (*fsmv1.Result, error) {
	panic("to be built")
}

// Consistency of a read; see docs/consistency.md.
type Consistency string

// The consistencies.
const (
	Linearizable Consistency = "linearizable"
	Session      Consistency = "session"
	Bounded      Consistency = "bounded"
	Eventual     Consistency = "eventual"
)

// ReadOptions says what a read must see.
type ReadOptions struct {
	Consistency  Consistency   // "" is Linearizable
	MinIndex     uint64        // Session: the token's log index
	MaxStaleness time.Duration // Bounded
}

// Read waits until this replica can serve the read and returns its view, which
// the caller closes. Errors, nothing served: ErrNoLeader, ErrTooStale,
// ErrFenced, ErrClosed, the context's error.
func (n *Node) Read(ctx context.Context, o ReadOptions) (*raftfsm.View, error) { panic("to be built") }

// Token and its parsing tie a log index to this cluster: "<cluster id prefix>.<index>".
func (n *Node) Token(logIndex uint64) string { panic("to be built") }

// ParseToken returns the log index; ErrBadToken for another cluster's or a
// malformed one. "" is 0.
func (n *Node) ParseToken(token string) (uint64, error) { panic("to be built") }

// ID is the node's id.
func (n *Node) ID() string { panic("to be built") }

// Leader describes the leader as known here; ErrNoLeader.
func (n *Node) Leader() (Member, error) { panic("to be built") }

// Member is what is known here of a member.
type Member struct {
	NodeID, RaftAddr, GRPCAddr, RESTAddr string
	Zone, Version, Health                string
	Voter, Leader                        bool
	AppliedIndex                         uint64
	LastContact                          time.Duration
}

// Members lists the Raft configuration, joined with gossip and autopilot.
func (n *Node) Members() []Member { panic("to be built") }

// Status describes this node; it works without a leader.
type Status struct {
	NodeID, ClusterID, State, LeaderID         string
	Voter                                      bool
	Term, CommitIndex, AppliedIndex            uint64
	FirstLogIndex, LastLogIndex, SnapshotIndex uint64
	Ready                                      bool
	NotReadyReason                             string
	Uptime                                     time.Duration
	ClusterVersion, MaxClusterVersion          uint32
}

// Status is cheap.
func (n *Node) Status() Status { panic("to be built") }

// Ready is nil if this replica can serve: a leader is known, it has caught up,
// its state hash agrees, its storage is writable.
func (n *Node) Ready() error { panic("to be built") }

// AddMember, RemoveMember, PromoteMember and TransferLeader change membership
// through the leader, from any node.
func (n *Node) AddMember(ctx context.Context, nodeID, raftAddr string, voter bool) error {
	panic("to be built")
}

// RemoveMember takes a member out of the configuration.
func (n *Node) RemoveMember(ctx context.Context, nodeID string) error { panic("to be built") }

// PromoteMember makes a non-voter a voter.
func (n *Node) PromoteMember(ctx context.Context, nodeID string) error { panic("to be built") }

// TransferLeader hands leadership to nodeID, or to any voter if it is empty.
func (n *Node) TransferLeader(ctx context.Context, nodeID string) error { panic("to be built") }

// Snapshot takes a Raft snapshot now and returns its index and term.
func (n *Node) Snapshot(ctx context.Context) (index, term uint64, err error) { panic("to be built") }

// MemberHash is one member's part in Verify.
type MemberHash struct {
	NodeID, StateHash, GraphHash, Err string
	AppliedIndex                      uint64
}

// Verify compares the hashes of all members at one applied index.
func (n *Node) Verify(ctx context.Context) ([]MemberHash, error) { panic("to be built") }
