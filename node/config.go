// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/akidb/akidb/internal/mutants"
	"github.com/akidb/akidb/internal/storage"
	"github.com/akidb/akidb/raftfsm"
)

// maxClusterVersion is the newest cluster version this binary knows. A feature
// that writes a new kind of command raises it and waits until all members know
// it (see maintain.go).
const maxClusterVersion = 1

// tooOld refuses a binary that does not know what the cluster's log may hold. The
// version was raised when every member knew it, so this one was put back since.
func tooOld(cluster, binary uint32) error {
	return fmt.Errorf("the cluster is at version %d and this binary knows %d: start a newer one", cluster, binary)
}

// withDefaults fills in defaults and says what is wrong, setting by setting.
func (cfg Config) withDefaults() (*Config, error) {
	c := cfg
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("node: "+format, args...)) }
	if c.NodeID == "" || len(c.NodeID) > 128 || strings.ContainsAny(c.NodeID, "/\\ \t\n") {
		bad("NodeID %q: want 1 to 128 characters without spaces and slashes", c.NodeID)
	}
	if c.DataDir == "" {
		bad("DataDir is empty")
	}
	if _, _, err := net.SplitHostPort(c.RaftAddr); err != nil {
		bad("RaftAddr %q: %w", c.RaftAddr, err)
	}
	setDefault(&c.AdvertiseAddr, c.RaftAddr)
	if host, _, err := net.SplitHostPort(c.AdvertiseAddr); err != nil {
		bad("AdvertiseAddr %q: %w", c.AdvertiseAddr, err)
	} else if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		bad("AdvertiseAddr %q cannot be dialled by other nodes: set it to this node's name or address", c.AdvertiseAddr)
	}
	setDefault(&c.LogStore, logStoreWAL)
	if c.LogStore != logStoreWAL && c.LogStore != logStoreBolt {
		bad("LogStore %q: want %q or %q", c.LogStore, logStoreWAL, logStoreBolt)
	}
	if c.FS != nil {
		if mutants.SkipFsync {
			c.FS = storage.ForgetSync(c.FS)
		}
		if c.LogStore != logStoreWAL {
			bad("LogStore %q cannot be kept on Config.FS", c.LogStore)
		}
	}
	for _, k := range c.GossipKeys {
		if len(k) != 16 && len(k) != 24 && len(k) != 32 {
			bad("GossipKeys: a key has %d bytes: want 16, 24 or 32", len(k))
		}
	}
	setDefault(&c.MaxVoters, 5)
	if len(c.Peers) == 0 {
		setDefault(&c.BootstrapExpect, 1)
	}
	if c.BootstrapExpect < 0 {
		bad("BootstrapExpect is %d: want the number of founders, or 0 to found none", c.BootstrapExpect)
	}
	if c.BootstrapExpect > 1 && len(c.Peers) == 0 {
		bad("BootstrapExpect is %d but Peers is empty: name the peers or their common DNS name", c.BootstrapExpect)
	}
	setDefault(&c.HeartbeatTimeout, 250*time.Millisecond)
	setDefault(&c.ElectionTimeout, c.HeartbeatTimeout)
	if c.ElectionTimeout < c.HeartbeatTimeout {
		bad("ElectionTimeout %v is below HeartbeatTimeout %v", c.ElectionTimeout, c.HeartbeatTimeout)
	}
	setDefault(&c.Pace, 1)
	setDefault(&c.SnapshotInterval, 30*time.Second)
	setDefault(&c.SnapshotThreshold, 16384)
	setDefault(&c.TrailingLogs, 65536)
	setDefault(&c.TrailingLogBytes, 256<<20)
	setDefault(&c.MinFreeDisk, 256<<20)
	setDefault(&c.MaxApplyLag, 16384)
	setDefault(&c.MaxIndexBacklog, 2_000_000)
	setDefault(&c.RemoveDeadAfter, 24*time.Hour)
	setDefault(&c.StabilizationTime, 2*time.Second)
	setDefault(&c.StateCheckInterval, 5*time.Second)
	setDefault(&c.ScrubInterval, 24*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	c.Net = c.Net.withDefaults()
	if c.residentBytes == nil {
		c.residentBytes = residentBytes
	}
	if c.openMachine == nil {
		c.openMachine = c.openFSM
	}
	return &c, errors.Join(errs...)
}

// paced is an interval of production at this node's pace.
func (c *Config) paced(d time.Duration) time.Duration { return d * time.Duration(c.Pace) }

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) openFSM(ctx context.Context, dir string) (machine, error) {
	f, err := raftfsm.Open(ctx, raftfsm.Config{
		Dir: dir, Logger: c.Logger, Registerer: c.Registerer, IndexWorkers: c.IndexWorkers, FS: c.FS,
		RequestTTLms: int64(c.Pace) * raftfsm.DefaultRequestTTLms,
	})
	if err != nil {
		return nil, err
	}
	return fsmMachine{f}, nil
}

// files is the file system of everything but the log, the stable store and the
// state.
func (c *Config) files() storage.FS {
	if c.FS != nil {
		return c.FS
	}
	return storage.Disk()
}

// claimDataDir ties the data directory to a node id: starting one node's data
// under another's id would give one voter's vote to two.
func claimDataDir(fsys storage.FS, dir, nodeID string) error {
	if err := mkdirAll(fsys, dir); err != nil {
		return fmt.Errorf("node: data directory: %w", err)
	}
	path := filepath.Join(dir, "node.json")
	var have struct{ NodeID string }
	b, err := storage.ReadFile(fsys, path, maxJSONBytes)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &have); err != nil {
			return fmt.Errorf("node: %s is damaged: %w", path, err)
		}
		if have.NodeID != nodeID {
			return fmt.Errorf("node: %s belongs to node %q, not %q: use another data directory or the old id", dir, have.NodeID, nodeID)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	have.NodeID = nodeID
	if b, err = json.Marshal(have); err != nil {
		return err
	}
	return storage.WriteFile(fsys, path, b)
}

// ownerOf is the id of the node whose data a directory holds.
func ownerOf(fsys storage.FS, dir string) (string, error) {
	var have struct{ NodeID string }
	path := filepath.Join(dir, "node.json")
	if err := loadJSON(fsys, path, &have); err != nil {
		return "", err
	}
	if have.NodeID == "" {
		return "", fmt.Errorf("node: %s does not say whose it is (%s is missing): is this a data directory? If so, give the node id", dir, path)
	}
	return have.NodeID, nil
}

// identity says what cluster a group of this node belongs to; it is durable
// before the node votes or stores anything.
type identity struct {
	// Member is true once the node has bootstrapped or a leader admitted it.
	Member bool
	// ClusterID is empty between bootstrap and the first leader.
	ClusterID string
	// JoinedIndex and JoinedTerm are of the entry that took this node in without data,
	// 0 if it founded the cluster or a version before them took it in; see newcomer.go.
	JoinedIndex uint64 `json:",omitempty"`
	JoinedTerm  uint64 `json:",omitempty"`
	// Recovering is the id that a recovery which was begun gives the cluster. The
	// node does not start before it is finished: entries that were perhaps never
	// committed may be in the state.
	Recovering string `json:",omitempty"`
}

func identityPath(groupDir string) string { return filepath.Join(groupDir, "member.json") }

func loadIdentity(fsys storage.FS, groupDir string) (identity, error) {
	var id identity
	b, err := storage.ReadFile(fsys, identityPath(groupDir), maxJSONBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil
	}
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, fmt.Errorf("node: %s is damaged: %w", identityPath(groupDir), err)
	}
	return id, nil
}

// setIdentity makes the node a member of a cluster, for good.
func (g *group) setIdentity(id identity) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.identity.ClusterID != "" && id.ClusterID != g.identity.ClusterID {
		return fmt.Errorf("%w: %s, not %s", errWrongCluster, g.identity.ClusterID, id.ClusterID)
	}
	if id == g.identity {
		return nil
	}
	return g.storeIdentityLocked(id)
}

func (g *group) storeIdentityLocked(id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := storage.WriteFile(g.cfg.files(), identityPath(g.dir), b); err != nil {
		return err
	}
	g.takeIdentity(id)
	return nil
}

func (g *group) takeIdentity(id identity) {
	g.identity = id
	g.joinedIndex.Store(id.JoinedIndex)
	g.joinedTerm.Store(id.JoinedTerm)
	g.member.Store(id.Member)
}

// clusterID is the cluster's id, "" before the first leader was established.
func (g *group) clusterID() string {
	g.mu.Lock()
	id := g.identity.ClusterID
	g.mu.Unlock()
	if id != "" {
		return id
	}
	if id = g.m.Facts().clusterID; id == "" {
		return ""
	}
	if err := g.setIdentity(identity{Member: true, ClusterID: id}); err != nil {
		g.log.Error("cluster id not recorded", "err", err)
	}
	return id
}
