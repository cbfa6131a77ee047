// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/internal/storage"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// snapshotStore keeps Raft's snapshots without copying the state. A local
// snapshot is a small file of metadata, written after the machine was flushed.
// Only when a member needs one is the state exported (hard links), and then
// the Raft stream carries nothing but the list of files, which the member
// fetches itself (transfer.go) before Raft hears of the installation.
//
//	<dir>/<id>.json     metadata, newest two
//	<dir>/exports/<id>  states being fetched by members; removed at start
//	<dir>/incoming/     what this node is fetching; objects/ by checksum
type snapshotStore struct {
	fs        storage.FS
	dir       string
	m         machine
	log       *slog.Logger
	advertise func() string
	// stale reports that an installation must not happen, because this node
	// already holds what the snapshot covers. Called on Raft's main loop.
	stale func(index, term uint64) bool

	mu      sync.Mutex // guards the fields below
	exports map[string]*export
	nextID  uint64
	sums    map[sumKey][]byte
	pending map[string]*nodev1.Manifest // installations by snapshot id
}

// export is a state that members fetch from.
type export struct {
	dir   string
	index uint64 // of the Raft snapshot: later entries must stay in the log
	man   *nodev1.Manifest
}

// snapshotFile is the content of <id>.json.
type snapshotFile struct {
	Meta raft.SnapshotMeta
	// Staged is not empty while an installed state is not yet the machine's.
	Staged string `json:",omitempty"`
	// Applied is the log index of an installed state, at or after Meta.Index.
	Applied uint64 `json:",omitempty"`
	// Sum is the checksum of the rest, empty if a version without one wrote it.
	Sum string `json:",omitempty"`
}

// seal gives the file its checksum.
func (f *snapshotFile) seal() error {
	f.Sum = ""
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	f.Sum = fmt.Sprintf("%016x", xxh3.Hash(b))
	return nil
}

// check takes the checksum away again.
func (f *snapshotFile) check() error {
	sum := f.Sum
	if err := f.seal(); err != nil {
		return err
	}
	if sum != "" && sum != f.Sum {
		return errors.New("it does not match its checksum")
	}
	f.Sum = ""
	return nil
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

const keepSnapshots = 2

func newSnapshotStore(fsys storage.FS, dir string, m machine, log *slog.Logger) (*snapshotStore, error) {
	s := &snapshotStore{
		fs: fsys, dir: dir, m: m, log: log,
		advertise: func() string { return "" },
		stale:     func(uint64, uint64) bool { return false },
		exports:   make(map[string]*export), sums: make(map[sumKey][]byte),
		pending: make(map[string]*nodev1.Manifest),
	}
	if err := s.fs.RemoveAll(filepath.Join(dir, "exports")); err != nil {
		return nil, err
	}
	for _, d := range []string{dir, filepath.Join(dir, "exports"), s.incoming(), s.objects()} {
		if err := mkdirAll(s.fs, d); err != nil {
			return nil, fmt.Errorf("node: snapshot store: %w", err)
		}
	}
	return s, nil
}

func (s *snapshotStore) incoming() string             { return filepath.Join(s.dir, "incoming") }
func (s *snapshotStore) objects() string              { return filepath.Join(s.incoming(), "objects") }
func (s *snapshotStore) stagedDir(name string) string { return filepath.Join(s.incoming(), name) }

// Create begins a snapshot: a local one if nothing is written to the sink, an
// installation if a manifest is.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration,
	confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{s: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%020d-%020d", index, term), Index: index, Term: term,
		Configuration: conf, ConfigurationIndex: confIndex,
	}}, nil
}

// List returns the metadata, newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	files, err := s.list()
	if err != nil {
		return nil, err
	}
	metas := make([]*raft.SnapshotMeta, len(files))
	for i := range files {
		metas[i] = &files[i].Meta
	}
	return metas, nil
}

func (s *snapshotStore) list() ([]snapshotFile, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return filepath.Ext(n) != ".json" })
	sort.Sort(sort.Reverse(sort.StringSlice(names)))
	var out []snapshotFile
	for _, name := range names {
		name = filepath.Join(s.dir, name)
		b, err := storage.ReadFile(s.fs, name, maxJSONBytes)
		if err != nil {
			return nil, fmt.Errorf("node: read snapshot metadata: %w", err)
		}
		var f snapshotFile
		if err = json.Unmarshal(b, &f); err == nil {
			err = f.check()
		}
		if err != nil {
			return nil, fmt.Errorf("node: snapshot metadata %s is damaged: %w; remove this node's data directory and let it rejoin", name, err)
		}
		out = append(out, f)
	}
	return out, nil
}

// Open returns the manifest of a snapshot: of the one being installed for the
// machine's Restore, else of a fresh export for a member that needs it. The
// exported state may be newer than the snapshot's index; the member skips the
// entries it already holds.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	files, err := s.list()
	if err != nil {
		return nil, nil, err
	}
	var meta *raft.SnapshotMeta
	for i := range files {
		if files[i].Meta.ID == id {
			meta = &files[i].Meta
		}
	}
	if meta == nil {
		return nil, nil, fmt.Errorf("node: no snapshot %s", id)
	}
	s.mu.Lock()
	man := s.pending[id]
	s.mu.Unlock()
	release := func() {}
	if man == nil {
		if man, release, err = s.export(meta.Index); err != nil {
			return nil, nil, err
		}
	}
	b, err := proto.Marshal(man)
	if err != nil {
		release()
		return nil, nil, err
	}
	m := *meta
	m.Size = int64(len(b))
	return &m, &releaseReader{Reader: bytes.NewReader(b), release: release}, nil
}

type releaseReader struct {
	*bytes.Reader
	release func()
	once    sync.Once
}

func (r *releaseReader) Close() error {
	r.once.Do(r.release)
	return nil
}

// export makes the current state available to a member.
func (s *snapshotStore) export(index uint64) (*nodev1.Manifest, func(), error) {
	s.mu.Lock()
	s.nextID++
	id := fmt.Sprintf("%d-%d", index, s.nextID)
	e := &export{dir: filepath.Join(s.dir, "exports", id), index: index}
	s.exports[id] = e
	s.mu.Unlock()
	release := func() {
		s.mu.Lock()
		delete(s.exports, id)
		s.mu.Unlock()
		if err := s.fs.RemoveAll(e.dir); err != nil {
			s.log.Warn("export not removed", "dir", e.dir, "err", err)
		}
	}
	applied, err := s.m.Export(e.dir)
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("node: export state: %w", err)
	}
	man := &nodev1.Manifest{Format: 1, AppliedIndex: applied, ExportId: id, SourceAddr: s.advertise()}
	if man.Files, err = s.sumFiles(e.dir); err != nil {
		release()
		return nil, nil, err
	}
	s.mu.Lock()
	e.man = man
	s.mu.Unlock()
	return man, release, nil
}

// oldestExport is the log index after which entries must stay in the log for
// members that are fetching a state; 0 if there are none.
func (s *snapshotStore) oldestExport() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest uint64
	for _, e := range s.exports {
		if oldest == 0 || e.index < oldest {
			oldest = e.index
		}
	}
	return oldest
}

// exportPath resolves a file of an export that is being fetched.
func (s *snapshotStore) exportPath(id, path string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.exports[id]
	if e == nil || e.man == nil {
		return "", fmt.Errorf("%w: no export %q", errInvalid, id)
	}
	for _, f := range e.man.Files {
		if f.Path == path {
			return filepath.Join(e.dir, filepath.FromSlash(path)), nil
		}
	}
	return "", fmt.Errorf("%w: no file %q in export %q", errInvalid, path, id)
}

// snapshotSink is a local snapshot until bytes are written, then a manifest.
type snapshotSink struct {
	s    *snapshotStore
	meta raft.SnapshotMeta
	buf  bytes.Buffer
	done bool
}

func (k *snapshotSink) ID() string { return k.meta.ID }

func (k *snapshotSink) Write(p []byte) (int, error) {
	if k.buf.Len()+len(p) > maxManifestBytes {
		return 0, fmt.Errorf("node: snapshot manifest is larger than %d bytes", maxManifestBytes)
	}
	return k.buf.Write(p)
}

// Close makes the snapshot the newest one. For an installation the files have
// been staged already; what is durable after Close says that they are to become
// the machine's state, which finishInstall completes after a crash.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	f := snapshotFile{Meta: k.meta}
	// An installed state may be ahead of Raft's index, and stays so when a local
	// snapshot, perhaps of the same index, takes its place.
	older, err := k.s.list()
	if err != nil {
		return err
	}
	for i := range older {
		f.Applied = max(f.Applied, older[i].Applied)
	}
	if k.buf.Len() > 0 {
		man, err := readManifest(&k.buf)
		if err != nil {
			return err
		}
		if k.s.stale(k.meta.Index, k.meta.Term) {
			return fmt.Errorf("node: snapshot at log index %d is older than what this node holds", k.meta.Index)
		}
		f.Staged, f.Applied = stagedName(man), max(f.Applied, man.AppliedIndex)
		if _, err := k.s.fs.Stat(k.s.stagedDir(f.Staged)); err != nil {
			return fmt.Errorf("node: snapshot files were not staged: %w", err)
		}
		k.s.mu.Lock()
		k.s.pending[k.meta.ID] = man
		k.s.mu.Unlock()
	}
	if err := k.s.writeMeta(f); err != nil {
		return err
	}
	return k.s.prune()
}

// Cancel drops the snapshot.
func (k *snapshotSink) Cancel() error {
	k.done = true
	return nil
}

func (s *snapshotStore) writeMeta(f snapshotFile) error {
	if err := f.seal(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return storage.WriteFile(s.fs, filepath.Join(s.dir, f.Meta.ID+".json"), b)
}

func (s *snapshotStore) prune() error {
	files, err := s.list()
	if err != nil {
		return err
	}
	for i := keepSnapshots; i < len(files); i++ {
		if err := s.fs.Remove(filepath.Join(s.dir, files[i].Meta.ID+".json")); err != nil {
			return err
		}
	}
	return nil
}

// install makes the staged state of man the machine's and forgets the rest.
func (s *snapshotStore) install(man *nodev1.Manifest, m machine) (uint64, error) {
	name := stagedName(man)
	if err := m.Import(s.stagedDir(name)); err != nil {
		return 0, fmt.Errorf("node: install snapshot: %w", err)
	}
	files, err := s.list()
	if err != nil {
		return 0, err
	}
	index := man.AppliedIndex
	for _, f := range files {
		if f.Staged != name {
			continue
		}
		index = max(index, f.Meta.Index)
		f.Staged = ""
		if err := s.writeMeta(f); err != nil {
			return 0, err
		}
		s.mu.Lock()
		delete(s.pending, f.Meta.ID)
		s.mu.Unlock()
	}
	return index, s.clearIncoming()
}

// abandon forgets an installation that failed and left the machine as it was. Raft goes
// on as before, and would send the snapshot to others, or another start look for its
// files, though one that covers less was installed meanwhile.
func (s *snapshotStore) abandon(man *nodev1.Manifest) error {
	files, err := s.list()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.Staged != stagedName(man) {
			continue
		}
		s.mu.Lock()
		delete(s.pending, f.Meta.ID)
		s.mu.Unlock()
		if err := s.fs.Remove(filepath.Join(s.dir, f.Meta.ID+".json")); err != nil {
			return err
		}
	}
	return storage.SyncDir(s.fs, s.dir)
}

// finishInstall completes an installation that a crash cut short: the metadata
// was durable but the machine still holds the older state. It returns the
// newest snapshot, nil if there is none.
func (s *snapshotStore) finishInstall(m machine) (*snapshotFile, error) {
	files, err := s.list()
	if err != nil || len(files) == 0 {
		return nil, err
	}
	f := files[0]
	if f.Staged != "" {
		b, err := storage.ReadFile(s.fs, s.stagedDir(f.Staged)+manifestSuffix, maxManifestBytes)
		if err != nil {
			return nil, fmt.Errorf("node: snapshot %s was being installed but its files are missing: %w; remove this node's data directory and let it rejoin", f.Meta.ID, err)
		}
		man, err := readManifest(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if m.Applied() < man.AppliedIndex {
			if _, err := s.install(man, m); err != nil {
				return nil, err
			}
		}
		f.Staged = ""
		if err := s.writeMeta(f); err != nil {
			return nil, err
		}
	}
	return &f, s.tidyIncoming(time.Now().Add(-keepFetched))
}

// keepFetched is how long files of a transfer that broke off are kept: what is
// fetched again after that is mostly another state.
const keepFetched = 24 * time.Hour

// tidyIncoming keeps what an interrupted transfer fetched since then, so that a
// restart does not begin it anew, and removes the rest. Files are named by their
// checksums and checked against them before use, whichever snapshot wants them, so
// files of two snapshots are not mixed up.
func (s *snapshotStore) tidyIncoming(since time.Time) error {
	names, err := s.fs.List(s.incoming())
	if err != nil {
		return err
	}
	for _, name := range names {
		if path := filepath.Join(s.incoming(), name); path != s.objects() {
			if err := s.fs.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	if names, err = s.fs.List(s.objects()); err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(s.objects(), name)
		info, err := s.fs.Stat(path)
		if err != nil {
			return err
		}
		if info.ModTime().Before(since) {
			if err := s.fs.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *snapshotStore) clearIncoming() error {
	if err := s.fs.RemoveAll(s.incoming()); err != nil {
		return err
	}
	return mkdirAll(s.fs, s.objects())
}

func stagedName(man *nodev1.Manifest) string {
	r := strings.NewReplacer(":", "_", "/", "_", "\\", "_", ".", "_")
	return "state-" + r.Replace(man.SourceAddr) + "-" + r.Replace(man.ExportId)
}

func readManifest(r io.Reader) (*nodev1.Manifest, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxManifestBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxManifestBytes {
		return nil, fmt.Errorf("node: snapshot manifest is larger than %d bytes", maxManifestBytes)
	}
	var man nodev1.Manifest
	if err := proto.Unmarshal(b, &man); err != nil {
		return nil, fmt.Errorf("node: decode snapshot manifest: %w", err)
	}
	if man.Format != 1 {
		return nil, fmt.Errorf("node: snapshot manifest has format %d, this binary reads 1", man.Format)
	}
	for _, f := range man.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) || len(f.Checksum) != 16 || f.Size < 0 {
			return nil, fmt.Errorf("node: snapshot manifest names a bad file %q", f.Path)
		}
	}
	return &man, nil
}
