// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// RecoverConfirmation names what is about to be done; Recover compares it with
// what it finds, so that it cannot run by accident or on the wrong machine.
type RecoverConfirmation struct {
	ClusterID string // of the cluster that lost its quorum
	NodeID    string // the survivor, which will be its only member
}

// Recovered says what Recover kept.
type Recovered struct {
	LogIndex uint64 // of the last entry kept
	Term     uint64
	// Unconfirmed is the number of entries that this node held without knowing
	// whether they were committed. They are kept: one of them may have been
	// acknowledged.
	Unconfirmed uint64
}

// Recover makes a member of a cluster that has lost its quorum for good the
// only member of that cluster. The node must be stopped. Writes acknowledged by
// others that never reached this node are lost; the other members must never
// start again with their data. Run it on the survivor with the highest log
// index (Inspect shows it), start it, and let emptied nodes join.
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
	if id := s.g.clusterID(); id == "" || confirm.ClusterID != id {
		return out, fmt.Errorf("node: recover: this node belongs to cluster %q, the confirmation names %q: nothing was changed", id, confirm.ClusterID)
	}
	out, err = s.replay()
	if err != nil {
		return out, err
	}
	conf := raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(s.cfg.NodeID), Address: raft.ServerAddress(s.cfg.AdvertiseAddr),
	}}}
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
	return out, nil
}

// Inspection is what a stopped node holds.
type Inspection struct {
	NodeID, ClusterID                    string
	Applied, FirstLogIndex, LastLogIndex uint64
	SnapshotIndex, LastTerm              uint64
	Servers                              []raft.Server
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
	if s.snap != nil {
		out.SnapshotIndex, out.Servers = s.snap.Meta.Index, s.snap.Meta.Configuration.Servers
		if out.LastLogIndex == 0 {
			out.LastLogIndex, out.LastTerm = out.SnapshotIndex, s.snap.Meta.Term
		}
	}
	var l raft.Log
	for i := out.FirstLogIndex; i != 0 && i <= out.LastLogIndex; i++ {
		if err := s.ls.GetLog(i, &l); err != nil {
			return out, err
		}
		if l.Type == raft.LogConfiguration {
			out.Servers = raft.DecodeConfiguration(l.Data).Servers
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

func openOffline(ctx context.Context, cfg Config) (_ *offline, err error) {
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
			out.Unconfirmed++
		}
		out.LogIndex, out.Term = max(out.LogIndex, i), l.Term
	}
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
