// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/storage"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// RecoverConfirmation names what is about to be done; Recover compares it with
// what it finds, so that it cannot run by accident or on the wrong machine.
type RecoverConfirmation struct {
	ClusterID string // of the cluster that lost its quorum
	NodeID    string // the survivor, which will be the only member
	// Gone are members whose address is answered by something that cannot be told
	// to be a node: somebody made sure that it is not the member. One that answers
	// as a member is never overridden: it can be stopped.
	Gone []string
}

// Recovered says what Recover kept.
type Recovered struct {
	LogIndex uint64 // of the last entry kept
	Term     uint64
	// Unconfirmed is the number of entries that this node held without knowing
	// whether they were committed. They are kept: one of them may have been
	// acknowledged.
	Unconfirmed uint64
	NodeID      string
	ClusterID   string   // the new one
	Silent      []string // the other members, none of which answered with data of this cluster
}

// ErrMembersLive is why Recover refuses: others of the cluster can be reached.
var ErrMembersLive = errors.New("other members answer")

// Recover makes a member of a cluster that has lost its quorum for good the only
// member of a new cluster with its data. The node must be stopped, and none of the
// others may answer. Writes acknowledged by others that never reached this node are
// lost; the others are refused with the data they have. Run it on the survivor with
// the highest last term and log index (Inspect shows them), start it, and let
// emptied nodes join.
//
// NodeID, LogStore and AdvertiseAddr (and RaftAddr) may be left out: the data
// directory tells them.
func Recover(ctx context.Context, cfg Config, confirm RecoverConfirmation) (Recovered, error) {
	var out Recovered
	s, err := openOffline(ctx, cfg)
	if err != nil {
		return out, err
	}
	defer s.close()
	if confirm.NodeID != s.cfg.NodeID {
		return out, fmt.Errorf("node: recover: this is node %q, the confirmation names %q: nothing was changed", s.cfg.NodeID, confirm.NodeID)
	}
	old := s.g.clusterID()
	if old == "" || confirm.ClusterID != old {
		return out, fmt.Errorf("node: recover: this node belongs to cluster %q, the confirmation names %q: nothing was changed", old, confirm.ClusterID)
	}
	servers, err := s.servers()
	if err != nil {
		return out, err
	}
	addr := s.addrIn(servers, cfg)
	if addr == "" {
		return out, fmt.Errorf("node: recover: the configuration does not say where %s is: give the address that others dial: nothing was changed", s.cfg.NodeID)
	}
	silent, err := s.askOthers(ctx, servers, confirm.Gone)
	if err != nil {
		return out, fmt.Errorf("node: recover: %w: nothing was changed", err)
	}
	// From here on this is no member of the old cluster any more, even if the
	// process ends on the next line: the node will not start, and Recover goes on
	// from anywhere.
	id := identity{Member: true, ClusterID: old, Recovering: s.g.identity.Recovering}
	setDefault(&id.Recovering, recoveredID(old))
	if err := s.setIdentity(id); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	if out, err = s.replay(); err != nil {
		return out, err
	}
	out.NodeID, out.ClusterID, out.Silent = s.cfg.NodeID, id.Recovering, silent
	if err := s.g.m.Refound(id.Recovering); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	if _, err := s.g.m.Flush(); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	conf := raft.Configuration{Servers: []raft.Server{{ID: s.g.raftID(), Address: raft.ServerAddress(addr)}}}
	sink, err := s.g.snaps.Create(raft.SnapshotVersionMax, out.LogIndex, out.Term, conf, out.LogIndex, nil)
	if err != nil {
		return out, err
	}
	if err := sink.Close(); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	// The snapshot covers the log; what was in it may name the old members.
	if err := s.ls.clear(); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	if err := s.setIdentity(identity{Member: true, ClusterID: id.Recovering}); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	return out, nil
}

func (s *offline) setIdentity(id identity) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	return s.g.storeIdentityLocked(id)
}

// addrIn is where others dial this node: what was given, else what they know.
func (s *offline) addrIn(servers []raft.Server, given Config) string {
	if given.AdvertiseAddr != "" {
		return given.AdvertiseAddr
	}
	if given.RaftAddr != "" {
		return given.RaftAddr
	}
	for _, srv := range servers {
		if srv.ID == s.g.raftID() {
			return string(srv.Address)
		}
	}
	return ""
}

// askRounds is how often a member is asked before it counts as silent.
const askRounds = 3

// askOthers asks the other members whether they live, at the addresses of the
// configuration and those that they recorded of themselves. It returns those that
// do not answer with data of this cluster, or an error that names the ones that do.
func (s *offline) askOthers(ctx context.Context, servers []raft.Server, gone []string) (silent []string, err error) {
	d := &countingDialer{net: s.cfg.Net}
	m := &mux{net: Net{Dial: d.dial}.withDefaults(), clientTLS: s.cfg.ClientTLS, conns: make(map[net.Conn]struct{})}
	rpc := newRPCClient(m.dialRPC)
	defer rpc.close()
	known := make(map[string]bool)
	var refused []error
	for _, srv := range servers {
		id := string(srv.ID)
		known[id] = true
		if id == s.cfg.NodeID {
			continue
		}
		lives, something := "", error(nil)
		for _, addr := range s.addrsOf(srv) {
			r, reached, err := askWho(ctx, rpc, d, addr)
			switch {
			case err == nil && s.isMember(r):
				lives = addr
			case err != nil && reached:
				something = fmt.Errorf("something answers at %s, the address of %s, and cannot be asked what it is (%w): give the TLS settings that the nodes are served with; if it is not %s, name it as gone (--gone %s)", addr, id, err, id, id)
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case lives != "":
			refused = append(refused, fmt.Errorf("%w: %s answers at %s and has data of this cluster: while a majority lives nothing is lost and this node is to be started again or emptied; if the majority is gone for good, stop %s first and compare what it holds", ErrMembersLive, id, lives, id))
		case something != nil && !slices.Contains(gone, id):
			refused = append(refused, fmt.Errorf("%w: %w", ErrMembersLive, something))
		default:
			silent = append(silent, id)
		}
	}
	for _, id := range gone {
		if !known[id] {
			refused = append(refused, fmt.Errorf("there is no member %q that could be gone", id))
		}
	}
	return silent, errors.Join(refused...)
}

// isMember reports whether a node holds data of this cluster, of before or after
// a recovery of it. One that is empty, or of some other cluster, does not.
func (s *offline) isMember(r *nodev1.HelloReply) bool {
	return r.Member && (r.ClusterId == "" || lineageOf(r.ClusterId).founded == lineageOf(s.g.identity.ClusterID).founded)
}

func (s *offline) addrsOf(srv raft.Server) []string {
	addrs := []string{string(srv.Address)}
	for _, r := range s.g.m.Facts().nodes {
		if r.NodeId == string(srv.ID) && r.RaftAddr != "" && r.RaftAddr != addrs[0] {
			addrs = append(addrs, r.RaftAddr)
		}
	}
	return addrs
}

// askWho says hello without a name of its own; reached is true if anything
// accepted a connection.
func askWho(ctx context.Context, rpc *rpcClient, d *countingDialer, addr string) (r *nodev1.HelloReply, reached bool, err error) {
	before := d.accepted.Load()
	for i := range askRounds {
		if i > 0 {
			pause(ctx, helloPause)
		}
		r = new(nodev1.HelloReply)
		ask, cancel := context.WithTimeout(ctx, 2*dialTimeout)
		err = rpc.call(ask, addr, laneControl, methodHello, &nodev1.HelloRequest{}, r)
		cancel()
		if err == nil {
			break
		}
	}
	return r, d.accepted.Load() > before, err
}

// countingDialer tells nobody there from somebody who cannot be understood.
type countingDialer struct {
	net      Net
	accepted atomic.Int64
}

func (d *countingDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := d.net.Dial(ctx, network, addr)
	if err == nil {
		d.accepted.Add(1)
	}
	return c, err
}

// Owner is the id of the node whose data a directory holds.
func Owner(dataDir string) (string, error) { return ownerOf(storage.Disk(), dataDir) }

// Inspection is what a stopped node holds.
type Inspection struct {
	NodeID, ClusterID string
	// LastLogIndex and LastTerm are of the last entry that the node holds, in its
	// log or, where that is ahead, in its state.
	Applied, FirstLogIndex, LastLogIndex uint64
	SnapshotIndex, LastTerm              uint64
	Servers                              []raft.Server
	// Recovering: a recovery was begun here and not finished.
	Recovering bool
}

// Inspect reads what a stopped node holds, to compare survivors before Recover.
func Inspect(ctx context.Context, cfg Config) (Inspection, error) {
	var out Inspection
	s, err := openOffline(ctx, cfg)
	if err != nil {
		return out, err
	}
	defer s.close()
	out = Inspection{NodeID: s.cfg.NodeID, ClusterID: s.g.clusterID(), Applied: s.g.m.Applied()}
	if out.FirstLogIndex, err = s.ls.FirstIndex(); err != nil {
		return out, err
	}
	if out.LastLogIndex, err = s.ls.LastIndex(); err != nil {
		return out, err
	}
	out.LastTerm = s.ls.termAt(out.LastLogIndex)
	out.Recovering = s.g.identity.Recovering != ""
	if s.snap != nil {
		out.SnapshotIndex = s.snap.Meta.Index
		if out.LastLogIndex == 0 {
			out.LastLogIndex, out.LastTerm = out.SnapshotIndex, s.snap.Meta.Term
		}
	}
	out.LastLogIndex, out.LastTerm = s.reaches(out.LastLogIndex, out.LastTerm)
	out.Servers, err = s.servers()
	return out, err
}

// servers is the newest configuration that the node holds.
func (s *offline) servers() (out []raft.Server, err error) {
	var after uint64
	if s.snap != nil {
		out, after = s.snap.Meta.Configuration.Servers, s.snap.Meta.Index
	}
	first, err := s.ls.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := s.ls.LastIndex()
	if err != nil {
		return nil, err
	}
	var l raft.Log
	for i := max(first, after+1); first != 0 && i <= last; i++ {
		if err := s.ls.GetLog(i, &l); err != nil {
			return nil, err
		}
		if l.Type == raft.LogConfiguration {
			out = raft.DecodeConfiguration(l.Data).Servers
		}
	}
	return out, nil
}

// offline is a group opened without Raft.
type offline struct {
	cfg  *Config
	g    *group
	ls   *logStore
	snap *snapshotFile
}

// openOffline opens what a stopped node holds. What cfg leaves out and the data
// directory tells is taken from there.
func openOffline(ctx context.Context, cfg Config) (_ *offline, err error) {
	if cfg.NodeID == "" {
		if cfg.NodeID, err = ownerOf(cfg.files(), cfg.DataDir); err != nil {
			return nil, err
		}
	}
	if cfg.LogStore == "" && cfg.FS == nil {
		if _, err := os.Stat(logDir(filepath.Join(cfg.DataDir, "groups", groupID), logStoreBolt)); err == nil {
			cfg.LogStore = logStoreBolt
		}
	}
	setDefault(&cfg.RaftAddr, "localhost:0") // nothing listens
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.DataDir, "groups", groupID)
	if _, err := c.files().Stat(identityPath(dir)); err != nil {
		return nil, fmt.Errorf("node: %s holds no member of a cluster: %w", c.DataDir, err)
	}
	if err := claimDataDir(c.files(), c.DataDir, c.NodeID); err != nil {
		return nil, err
	}
	g := &group{id: groupID, dir: dir, cfg: c, log: c.Logger}
	s := &offline{cfg: c, g: g}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if g.identity, err = loadIdentity(c.files(), dir); err != nil {
		return nil, err
	}
	// Taking the stable store first makes sure that the node is stopped.
	stable, err := openStable(c.FS, dir)
	if err != nil {
		return nil, err // g.stable stays nil: a nil store in the interface is not
	}
	g.stable = stable
	if g.m, err = c.openMachine(ctx, dir); err != nil {
		return nil, err
	}
	if g.snaps, err = newSnapshotStore(c.files(), filepath.Join(dir, "snapshots"), g.m, c.Logger); err != nil {
		return nil, err
	}
	g.ad = &adapter{m: g.m, snaps: g.snaps}
	g.ad.advance(g.m.Applied())
	under, err := openLogStore(c.FS, dir, c.LogStore, raftLogger(c.Logger))
	if err != nil {
		return nil, err
	}
	if s.ls, err = newLogStore(under, retention{c.TrailingLogs, c.TrailingLogBytes}); err != nil {
		under.Close()
		return nil, err
	}
	if err := g.fitLog(s.ls); err != nil {
		return nil, err
	}
	files, err := g.snaps.list()
	if err != nil {
		return nil, err
	}
	if len(files) > 0 {
		s.snap = &files[0]
	}
	return s, nil
}

// reaches is how far what the node holds goes: to the end of its log, or further if
// the state is ahead of it, as one is that a leader sent with more than its snapshot
// covers. A log that went on in between would give new entries the indexes of old
// ones, and the state skips those.
func (s *offline) reaches(index, term uint64) (uint64, uint64) {
	if f := s.g.m.Facts(); f.applied > index {
		return f.applied, max(term, f.term)
	}
	return index, term
}

// replay applies every entry of the log and makes the state durable.
func (s *offline) replay() (Recovered, error) {
	var out Recovered
	if s.snap != nil {
		out.LogIndex, out.Term = s.snap.Meta.Index, s.snap.Meta.Term
	}
	last, err := s.ls.LastIndex()
	if err != nil {
		return out, err
	}
	first, err := s.ls.FirstIndex()
	if err != nil {
		return out, err
	}
	applied := s.g.m.Applied()
	for i := max(first, 1); last > 0 && i <= last; i++ {
		l := new(raft.Log)
		if err := s.ls.GetLog(i, l); err != nil {
			return out, fmt.Errorf("node: recover: read log index %d: %w", i, err)
		}
		if i > applied && (l.Type == raft.LogCommand || l.Type == raft.LogConfiguration) {
			s.g.ad.ApplyBatch([]*raft.Log{l})
			if err := s.g.m.Damaged(); err != nil {
				return out, fmt.Errorf("node: recover: %w; what this node holds is not all there: recover on another survivor", err)
			}
			out.Unconfirmed++
		}
		out.LogIndex, out.Term = max(out.LogIndex, i), l.Term
	}
	out.LogIndex, out.Term = s.reaches(out.LogIndex, out.Term)
	if out.LogIndex == 0 {
		return out, errors.New("node: recover: there is nothing to recover: no log and no snapshot")
	}
	if _, err := s.g.m.Flush(); err != nil {
		return out, fmt.Errorf("node: recover: %w", err)
	}
	return out, nil
}

func (s *offline) close() {
	if s.ls != nil {
		_ = s.ls.under.Close()
	}
	if s.g.m != nil {
		if err := s.g.m.Close(); err != nil {
			s.cfg.Logger.Error("close state", "err", err)
		}
	}
	if s.g.stable != nil {
		_ = s.g.stable.Close()
	}
}
