// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/internal/storage"
)

// A Raft snapshot never copies the data: the store itself is the snapshot, once
// it is flushed. What goes to the snapshot sink is a small Manifest. For a member
// that lags too far behind, Export makes a directory of hard links with a
// manifest that lists the files and their checksums; the files are carried over
// by whoever transports snapshots, and RestoreDir takes them in.

// ManifestFormat is the version of Manifest.
const ManifestFormat = 1

// ManifestName is the file in an exported directory that holds the manifest.
const ManifestName = "SNAPSHOT"

// Manifest describes a snapshot. Its encoding is MarshalManifest.
type Manifest struct {
	Format    int    `json:"format"`
	Applied   uint64 `json:"applied"`
	Term      uint64 `json:"term"`
	StateHash string `json:"state_hash"`
	ClusterID string `json:"cluster_id"`
	// Files are what an exported directory holds beside the manifest, by name;
	// none in the manifest of a local snapshot.
	Files []ManifestFile `json:"files,omitempty"`
	// Dir is where the files are on this machine. It is set by the transport when
	// it hands a received snapshot to Restore, and is not part of what is sent.
	Dir string `json:"dir,omitempty"`
}

// ManifestFile is a file of an exported directory.
type ManifestFile struct {
	Name string `json:"name"` // a plain file name
	Size int64  `json:"size"`
	XXH3 string `json:"xxh3"` // 128 bits in hex
}

// MarshalManifest encodes a manifest with a checksum of itself.
func MarshalManifest(m *Manifest) ([]byte, error) { return sealLine(m) }

// UnmarshalManifest decodes and checks a manifest: ErrCorrupt.
func UnmarshalManifest(b []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := openLine(b, m); err != nil {
		return nil, fmt.Errorf("raftfsm: snapshot manifest: %w", err)
	}
	if m.Format != ManifestFormat {
		return nil, fmt.Errorf("raftfsm: snapshot manifest has format %d, this version knows %d", m.Format, ManifestFormat)
	}
	for i, f := range m.Files {
		if f.Name == "" || strings.ContainsAny(f.Name, "/\\") || f.Name == "." || f.Name == ".." || f.Name == ManifestName || f.Size < 0 {
			return nil, fmt.Errorf("raftfsm: snapshot manifest: %w: bad file name %q", ErrCorrupt, f.Name)
		}
		if i > 0 && m.Files[i-1].Name >= f.Name {
			return nil, fmt.Errorf("raftfsm: snapshot manifest: %w: files out of order", ErrCorrupt)
		}
	}
	return m, nil
}

// Snapshot returns at once; Persist makes the state durable up to it.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	st := f.acquire()
	defer f.release(st)
	return &snapshot{f: f, m: Manifest{
		Format: ManifestFormat, Applied: st.applied, Term: st.term,
		StateHash: st.hash.String(), ClusterID: st.clusterID,
	}}, nil
}

// snapshot is the state of one applied index on its way to disk.
type snapshot struct {
	f *FSM
	m Manifest
}

// Persist flushes the store, beside Apply, and writes the manifest. The store
// then holds this index or a later one; the log from this index on leads to the
// same state, since entries at or below the applied index are skipped.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	err := func() error {
		durable, err := s.f.Flush()
		if err != nil {
			return err
		}
		if durable < s.m.Applied {
			return fmt.Errorf("raftfsm: flushed up to log index %d only, the snapshot is of %d", durable, s.m.Applied)
		}
		b, err := MarshalManifest(&s.m)
		if err != nil {
			return err
		}
		_, err = sink.Write(b)
		return err
	}()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release does nothing: a snapshot holds nothing.
func (s *snapshot) Release() {}

// Restore replaces the state by the one whose manifest it reads, after verifying
// it. A manifest without Dir is of a local snapshot: the store holds its state
// already, or is damaged.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return fmt.Errorf("raftfsm: read snapshot manifest: %w", err)
	}
	m, err := UnmarshalManifest(b)
	if err != nil {
		return err
	}
	if m.Dir != "" {
		return f.RestoreDir(context.Background(), m.Dir)
	}
	if f.eng.applied < m.Applied {
		return fmt.Errorf("raftfsm: restore: %w: the store in %s is at log index %d, but a snapshot of %d was made of it; "+
			"if the other replicas are healthy, move this node's data directory away and let the node join again", ErrCorrupt, f.cfg.Dir, f.eng.applied, m.Applied)
	}
	return nil
}

// Export makes a directory with a copy of the durable state, by hard links, and
// its manifest, also in the file ManifestName. The directory must not exist and
// must be on the same file system. Apply goes on meanwhile.
func (f *FSM) Export(dir string) (*Manifest, error) {
	f.restoreMu.RLock()
	defer f.restoreMu.RUnlock()
	st := f.acquire()
	defer f.release(st)
	if st.eng == nil {
		return nil, ErrClosed
	}
	if _, err := f.cfg.FS.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("raftfsm: export to %s: %w", dir, errors.Join(fs.ErrExist, err))
	}
	// Graphs first: one that is ahead of the store would not be trusted.
	graphs := f.exportGraphs(st)
	m, err := f.export(st, dir, graphs)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raftfsm: export to %s: %w", dir, err), f.cfg.FS.RemoveAll(dir))
	}
	return m, nil
}

// graphFile is a checkpoint of a graph that is exported under another name.
type graphFile struct{ path, name string }

// graphPrefix begins the names of graphs in an exported directory; the
// collection's number, a dash and the name of the checkpoint follow.
const (
	graphPrefix = "graph-"
	graphSuffix = ".graph" // of the index's checkpoints
)

// exportGraphs writes the graphs to disk and lists the files. Graphs only save
// time, so what goes wrong is logged and left out.
func (f *FSM) exportGraphs(st *state) (out []graphFile) {
	for _, c := range st.colls {
		dir := st.eng.store.indexPath(&f.cfg, c.c.number)
		if dir == "" {
			return nil
		}
		err := c.c.idx.Checkpoint(context.Background())
		names, listErr := f.cfg.FS.List(dir)
		if err = errors.Join(err, listErr); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				f.cfg.Logger.Warn("raftfsm: graph is not exported", "collection", c.rec.GetName(), "error", err)
			}
			continue
		}
		for _, name := range names {
			if !strings.HasSuffix(name, graphSuffix) {
				continue // being written
			}
			out = append(out, graphFile{f.cfg.FS.PathJoin(dir, name), graphPrefix + numberName(c.c.number) + "-" + name})
		}
	}
	return out
}

// graphTarget is where a file of an exported directory goes if it is a graph.
func (f *FSM) graphTarget(ref storeRef, name string) (path string, isGraph bool) {
	rest, ok := strings.CutPrefix(name, graphPrefix)
	if !ok {
		return "", false
	}
	number, file, ok := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil || file == "" || f.cfg.noIndexDir {
		return "", true // not for us
	}
	return f.cfg.FS.PathJoin(ref.indexPath(&f.cfg, uint32(n)), file), true
}

func (f *FSM) export(st *state, dir string, graphs []graphFile) (*Manifest, error) {
	fsys := f.cfg.FS
	if err := st.eng.db.Flush(); err != nil {
		return nil, err
	}
	if err := st.eng.db.Checkpoint(dir); err != nil {
		return nil, err
	}
	m, err := describeStore(fsys, dir)
	if err != nil {
		return nil, err
	}
	for _, g := range graphs {
		// The index may have replaced the file meanwhile.
		if err := fsys.Link(g.path, fsys.PathJoin(dir, g.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	for _, name := range names {
		if name == lockName {
			if err := fsys.Remove(fsys.PathJoin(dir, name)); err != nil {
				return nil, err
			}
			continue
		}
		mf, err := describeFile(fsys, dir, name)
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, mf)
	}
	b, err := MarshalManifest(m)
	if err != nil {
		return nil, err
	}
	return m, storage.WriteFile(fsys, fsys.PathJoin(dir, ManifestName), b)
}

const lockName = "LOCK"

// describeStore reads what a store says of itself.
func describeStore(fsys storage.FS, dir string) (m *Manifest, err error) {
	db, err := storage.Open(dir, storage.Options{FS: fsys, MustExist: true, ReadOnly: true, CacheBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Abandon()) }()
	e := &engine{db: db}
	if err := e.loadMeta(); err != nil {
		return nil, err
	}
	return &Manifest{
		Format: ManifestFormat, Applied: e.applied, Term: e.term,
		StateHash: e.sum.stateHash().String(), ClusterID: e.meta.clusterID,
	}, nil
}

func describeFile(fsys storage.FS, dir, name string) (mf ManifestFile, err error) {
	file, err := fsys.Open(fsys.PathJoin(dir, name))
	if err != nil {
		return mf, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	h := xxh3.New()
	n, err := io.Copy(h, file)
	sum := h.Sum128().Bytes()
	return ManifestFile{Name: name, Size: n, XXH3: fmt.Sprintf("%x", sum)}, err
}

// RestoreDir replaces the state by the one in an exported directory. Every file
// is verified, the new store is opened beside the old one, and only then is it
// made the one that counts; if anything fails, or the process dies, the old
// state stays. Readers keep what they are reading. The directory is left alone.
func (f *FSM) RestoreDir(ctx context.Context, dir string) error {
	f.restoreMu.Lock()
	defer f.restoreMu.Unlock()
	if err := f.restoreDir(ctx, dir); err != nil {
		return fmt.Errorf("raftfsm: restore from %s: %w", dir, err)
	}
	return nil
}

func (f *FSM) restoreDir(ctx context.Context, dir string) error {
	m, err := f.verifyDir(ctx, dir)
	if err != nil {
		return err
	}
	if f.isAhead(m) {
		f.cfg.Logger.Info("raftfsm: the store is ahead of the snapshot; keeping it", "applied", f.eng.applied, "snapshot", m.Applied)
		return nil
	}
	old := f.eng
	ref := storeRef{n: old.store.n + 1}
	eng, err := f.takeIn(ctx, m, dir, ref)
	if err == nil {
		if err = writeCurrent(&f.cfg, current{Store: ref.n}); err == nil {
			f.failed = nil
			f.damage.Store(nil)
			f.diverged.Store(nil)
			f.use(eng)
			f.retireEngine(old)
			return nil
		}
		err = errors.Join(err, eng.closeIndexes(), eng.db.Abandon())
		// CURRENT may name the new store all the same: the rename can have
		// happened before what failed.
		if back := writeCurrent(&f.cfg, current{Store: old.store.n}); back != nil {
			f.fail(old.applied, errors.Join(err, back))
			return err
		}
	}
	return errors.Join(err, f.removeStore(ref))
}

// isAhead reports whether the store has the snapshot's state in its own past, so
// that taking it in would only lose ground.
func (f *FSM) isAhead(m *Manifest) bool {
	e := f.eng
	return f.failed == nil && f.diverged.Load() == nil &&
		e.meta.clusterID != "" && e.meta.clusterID == m.ClusterID &&
		(e.applied > m.Applied || e.applied == m.Applied && e.sum.stateHash().String() == m.StateHash)
}

// verifyDir checks that a directory holds what its manifest says, no more and no
// less.
func (f *FSM) verifyDir(ctx context.Context, dir string) (*Manifest, error) {
	fsys := f.cfg.FS
	b, err := storage.ReadFile(fsys, fsys.PathJoin(dir, ManifestName), maxManifestBytes)
	if err != nil {
		return nil, err
	}
	m, err := UnmarshalManifest(b)
	if err != nil {
		return nil, err
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == ManifestName })
	if len(names) != len(m.Files) {
		return nil, fmt.Errorf("%w: %d files, the manifest lists %d", ErrCorrupt, len(names), len(m.Files))
	}
	for _, want := range m.Files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		got, err := describeFile(fsys, dir, want.Name)
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("%w: %s has %d bytes with checksum %s instead of %d with %s", ErrCorrupt, want.Name, got.Size, got.XXH3, want.Size, want.XXH3)
		}
	}
	return m, nil
}

// takeIn links the files into a new store, opens it and compares it with the
// manifest.
func (f *FSM) takeIn(ctx context.Context, m *Manifest, dir string, ref storeRef) (*engine, error) {
	fsys, to := f.cfg.FS, ref.path(&f.cfg)
	if err := f.removeStore(ref); err != nil {
		return nil, err
	}
	if err := fsys.MkdirAll(to, 0o755); err != nil {
		return nil, err
	}
	for _, file := range m.Files {
		target, isGraph := f.graphTarget(ref, file.Name)
		switch {
		case !isGraph:
			target = fsys.PathJoin(to, file.Name)
		case target == "":
			continue
		default:
			if err := fsys.MkdirAll(fsys.PathDir(target), 0o755); err != nil {
				return nil, err
			}
		}
		if err := storage.CopyFile(fsys, fsys.PathJoin(dir, file.Name), target); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(storage.SyncDir(fsys, to), storage.SyncDir(fsys, f.cfg.Dir)); err != nil {
		return nil, err
	}
	eng, err := openEngine(ctx, &f.cfg, ref)
	if err != nil {
		return nil, err
	}
	// The sender's disk may have failed it before the checksums were made, so the
	// hash is taken from the keys, not from what the store says of itself.
	hash, err := rehash(ctx, eng.db)
	if err != nil {
		return nil, errors.Join(err, eng.closeIndexes(), eng.db.Abandon())
	}
	if got := hash.String(); eng.applied != m.Applied || got != m.StateHash || eng.meta.clusterID != m.ClusterID {
		err := fmt.Errorf("%w: the store is of log index %d with state hash %s, the manifest of %d with %s", ErrCorrupt, eng.applied, got, m.Applied, m.StateHash)
		return nil, errors.Join(err, eng.closeIndexes(), eng.db.Abandon())
	}
	return eng, nil
}

func (f *FSM) removeStore(ref storeRef) error {
	err := f.cfg.FS.RemoveAll(ref.path(&f.cfg))
	if root := ref.indexRoot(&f.cfg); root != "" {
		err = errors.Join(err, f.cfg.FS.RemoveAll(root))
	}
	return err
}

// retireEngine closes and removes the store before a restore, behind its last
// reader.
func (f *FSM) retireEngine(old *engine) {
	f.life.retire(func() {
		if err := errors.Join(old.closeIndexes(), old.db.Abandon(), f.removeStore(old.store)); err != nil {
			f.cfg.Logger.Warn("raftfsm: remove the store before the restore", "error", err)
		}
	})
}

var _ json.Marshaler = StateHash{}

// MarshalJSON writes the hash as hex digits.
func (h StateHash) MarshalJSON() ([]byte, error) { return json.Marshal(h.String()) }
