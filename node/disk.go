// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/akidb/akidb/internal/storage"
)

// mkdirAll makes a directory and every missing one above it, and makes their
// names durable: otherwise a power failure takes a directory with everything
// that was synced inside it, a vote perhaps, and the node comes back empty.
func mkdirAll(fsys storage.FS, dir string) error {
	var made []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := fsys.Stat(d); err == nil || !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			break
		}
		made = append(made, d)
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		if err := storage.SyncDir(fsys, filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

// fsSegmentBytes is the segment size of a log on a Config.FS: small, so that
// segments are sealed and removed all the time, which is when things go wrong.
const fsSegmentBytes = 32 << 10

func openFSLog(fsys storage.FS, dir string, log hclog.Logger) (closableLogStore, error) {
	return openWAL(fsys, dir, segment.NewFiler(dir, walFS{fs: fsys, segmentBytes: fsSegmentBytes}), &walMeta{fs: fsys}, fsSegmentBytes, log)
}

// openWAL opens a raft-wal log after mending what raft-wal 0.4 does not.
func openWAL(fsys storage.FS, dir string, filer types.SegmentFiler, meta types.MetaStore, segmentBytes int, log hclog.Logger) (*wal.WAL, error) {
	r := rotation{fs: fsys, dir: dir, filer: filer, meta: meta, segmentBytes: segmentBytes}
	if err := r.finish(); err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	w, err := wal.Open(dir, wal.WithSegmentFiler(filer), wal.WithMetaStore(meta), wal.WithSegmentSize(segmentBytes), wal.WithLogger(log))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return w, nil
}

// rotation finishes or undoes what a crash cut short. The append that fills a
// segment seals it by writing an index behind its entries, with one sync; that
// the segment is sealed, and which one follows, is recorded a moment later in
// the background. A log that died in between, or within that append, is opened
// by raft-wal 0.4, which takes the tail for sealed and refuses every append
// ("segment is sealed"), for good.
type rotation struct {
	fs           storage.FS
	dir          string
	filer        types.SegmentFiler
	meta         types.MetaStore
	segmentBytes int
}

func (r *rotation) finish() error {
	st, err := r.meta.Load(r.dir)
	if err != nil || len(st.Segments) == 0 {
		return err
	}
	// What was found may be in memory only, since its last flush failed; see settle.
	// A start after a crash would find the list before it, and remove every segment
	// that is newer, with all that was flushed to it meanwhile.
	if err := r.meta.CommitState(st); err != nil {
		return fmt.Errorf("node: write the list of segments of the log in %s: %w", r.dir, err)
	}
	tail := &st.Segments[len(st.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	if err := r.settle(*tail); err != nil {
		return err
	}
	w, err := r.filer.RecoverTail(*tail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the crash came before its first entry
	}
	if err != nil {
		return err
	}
	defer w.Close()
	sealed, indexStart, err := w.Sealed()
	if err != nil || !sealed {
		return err
	}
	next, open := *tail, *tail
	last := w.LastIndex()
	tail.SealTime, tail.MaxIndex, tail.IndexStart = tail.CreateTime, last, indexStart
	complete, err := r.complete(*tail, w)
	if err != nil {
		return err
	}
	if !complete {
		return r.unseal(open, indexStart)
	}
	next.ID, next.BaseIndex, next.MinIndex, next.SizeLimit = st.NextSegmentID, last+1, last+1, uint32(r.segmentBytes)
	st.NextSegmentID++
	st.Segments = append(st.Segments, next)
	if err := r.meta.CommitState(st); err != nil {
		return fmt.Errorf("node: finish rotation of the log in %s: %w", r.dir, err)
	}
	return nil
}

// complete reports whether the index of a sealed segment leads to the entries
// that were recovered by reading all of it. A disk that does not answer is an
// error: it says nothing about the index.
func (r *rotation) complete(sealed types.SegmentInfo, w types.SegmentWriter) (bool, error) {
	if sealed.MaxIndex < sealed.MinIndex {
		return false, nil
	}
	s, err := r.filer.Open(sealed)
	if err != nil {
		return false, err
	}
	defer s.Close()
	for i := sealed.MinIndex; i <= sealed.MaxIndex; i++ {
		same, err := sameEntry(s, w, i)
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func sameEntry(s types.SegmentReader, w types.SegmentWriter, index uint64) (bool, error) {
	want, err := w.GetLog(index)
	if err != nil {
		return false, err
	}
	defer want.Close()
	got, err := s.GetLog(index)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, wal.ErrCorrupt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer got.Close()
	return bytes.Equal(got.Bs, want.Bs), nil
}

// indexHeaderBytes stand before an index.
const indexHeaderBytes = 8

// unseal takes the torn index away: what follows the last complete append is
// void, and the segment takes entries again.
func (r *rotation) unseal(tail types.SegmentInfo, indexStart uint64) error {
	f, err := r.fs.OpenReadWrite(r.fs.PathJoin(r.dir, segment.FileName(tail)), "raft-log")
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, indexHeaderBytes), int64(indexStart)-indexHeaderBytes)
	return errors.Join(err, f.Sync(), f.Close())
}

// walMeta keeps raft-wal's list of segments on a Config.FS, in one file that is
// replaced whole.
type walMeta struct {
	fs   storage.FS
	path string
}

var _ types.MetaStore = (*walMeta)(nil)

func (m *walMeta) Load(dir string) (types.PersistentState, error) {
	m.path = m.fs.PathJoin(dir, "segments.json")
	var st types.PersistentState
	err := loadJSON(m.fs, m.path, &st)
	return st, err
}

func (m *walMeta) CommitState(st types.PersistentState) error { return storeJSON(m.fs, m.path, st) }

func (m *walMeta) GetStable([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }
func (m *walMeta) SetStable(_, _ []byte) error      { return errors.ErrUnsupported }
func (m *walMeta) Close() error                     { return nil }

// maxJSONBytes bounds the small files of a node.
const maxJSONBytes = 16 << 20

// loadJSON leaves v alone if there is no file.
func loadJSON(fsys storage.FS, path string, v any) error {
	b, err := storage.ReadFile(fsys, path, maxJSONBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("node: %s is damaged: %w", path, err)
	}
	return nil
}

func storeJSON(fsys storage.FS, path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return storage.WriteFile(fsys, path, b)
}

// fileStable is Raft's term and vote on a Config.FS, in one file that is
// replaced whole.
type fileStable struct {
	fs   storage.FS
	path string

	mu      sync.Mutex // guards the fields below
	Values  map[string][]byte
	Numbers map[string]uint64
}

var _ raft.StableStore = (*fileStable)(nil)

func openFileStable(fsys storage.FS, path string) (*fileStable, error) {
	s := &fileStable{fs: fsys, path: path, Values: make(map[string][]byte), Numbers: make(map[string]uint64)}
	return s, loadJSON(fsys, path, s)
}

// errNotFound has the text that Raft compares with.
var errNotFound = errors.New("not found")

// storeLocked writes the values with one more, and forgets that again if it fails: Raft
// may go on, and must not take for stored what was not. The caller holds mu.
func storeLocked[T any](s *fileStable, in map[string]T, key []byte, val T) error {
	old, there := in[string(key)]
	in[string(key)] = val
	err := storeJSON(s.fs, s.path, s)
	switch {
	case err == nil:
	case there:
		in[string(key)] = old
	default:
		delete(in, string(key))
	}
	return err
}

func (s *fileStable) Set(key, val []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return storeLocked(s, s.Values, key, slices.Clone(val))
}

func (s *fileStable) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.Values[string(key)]; ok {
		return slices.Clone(v), nil
	}
	return nil, errNotFound
}

func (s *fileStable) SetUint64(key []byte, val uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return storeLocked(s, s.Numbers, key, val)
}

func (s *fileStable) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.Numbers[string(key)]; ok {
		return v, nil
	}
	return 0, errNotFound
}

func (s *fileStable) Close() error { return nil }
