// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"go.etcd.io/bbolt"

	"github.com/akidb/akidb/internal/mutants"
	"github.com/akidb/akidb/internal/storage"
)

// Names of the log stores in Config.LogStore.
const (
	logStoreWAL  = "wal"
	logStoreBolt = "bolt"
)

// closableLogStore is what both log stores are.
type closableLogStore interface {
	raft.LogStore
	io.Closer
}

// logDir is where a kind of log store lives in a group's directory; which one
// exists says which kind the group uses.
func logDir(groupDir, kind string) string { return filepath.Join(groupDir, "log-"+kind) }

// openLogStore opens the log of kind in groupDir. It refuses to start a second
// log beside one of the other kind, which would look like an empty node.
func openLogStore(fsys storage.FS, groupDir, kind string, log hclog.Logger) (closableLogStore, error) {
	if fsys != nil {
		dir := logDir(groupDir, kind)
		if err := mkdirAll(fsys, dir); err != nil {
			return nil, fmt.Errorf("node: log store: %w", err)
		}
		return seal(openFSLog(fsys, dir, log))(dir)
	}
	other := logStoreBolt
	if kind == logStoreBolt {
		other = logStoreWAL
	}
	if _, err := os.Stat(logDir(groupDir, other)); err == nil {
		return nil, fmt.Errorf("node: %s holds a %q log but log store %q is configured: migrate it (akidb raft migrate-log) or configure %q",
			logDir(groupDir, other), other, kind, other)
	}
	return seal(openLogDir(logDir(groupDir, kind), kind, log))(logDir(groupDir, kind))
}

func openLogDir(dir, kind string, log hclog.Logger) (closableLogStore, error) {
	if err := mkdirAll(storage.Disk(), dir); err != nil {
		return nil, fmt.Errorf("node: log store: %w", err)
	}
	switch kind {
	case logStoreWAL:
		if err := boltWhole(filepath.Join(dir, metadb.FileName)); err != nil {
			return nil, fmt.Errorf("node: open log %s: %s: %w; remove this node's data directory and let it rejoin", dir, metadb.FileName, err)
		}
		meta := &metadb.BoltMetaDB{}
		fsys := storage.Disk()
		if mutants.SkipFsync {
			fsys = storage.ForgetSync(fsys)
		}
		old := newShrinker(log)
		w, err := openWAL(fsys, dir, segment.NewFiler(dir, walFS{fsys, int64(wal.DefaultSegmentSize), old}), meta, wal.DefaultSegmentSize, log)
		if err != nil {
			old.close()
			return nil, fmt.Errorf("node: open log %s: %w; if it is damaged, remove this node's data directory and let it rejoin", dir, err)
		}
		return walStore{w, meta, old}, nil
	case logStoreBolt:
		b, err := openBolt(filepath.Join(dir, "log.db"), mutants.SkipFsync)
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	return nil, fmt.Errorf("node: unknown log store %q: use %q or %q", kind, logStoreWAL, logStoreBolt)
}

// walStore closes the metadata too, which wal.WAL (0.4) leaves open and
// locked.
type walStore struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
	old  *shrinker // of its segments
}

func (s walStore) Close() error {
	err := errors.Join(s.WAL.Close(), s.meta.Close())
	s.old.close()
	return err
}

func openBolt(path string, noSync bool) (*raftboltdb.BoltStore, error) {
	if err := boltWhole(path); err != nil {
		return nil, boltOpenError(path, err)
	}
	return openWholeBolt(path, noSync)
}

// openWholeBolt is openBolt for a file that boltWhole has looked at.
func openWholeBolt(path string, noSync bool) (*raftboltdb.BoltStore, error) {
	b, err := raftboltdb.New(raftboltdb.Options{Path: path, NoSync: noSync, BoltOptions: boltOptions()})
	if err != nil {
		return nil, boltOpenError(path, err)
	}
	return b, nil
}

func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout: time.Second,
		// The free list is rebuilt at open; writing it with each append
		// costs as much as the entries once the file has holes.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	}
}

func boltOpenError(path string, err error) error {
	if errors.Is(err, bbolt.ErrTimeout) {
		return fmt.Errorf("node: %s is in use by another process", path)
	}
	return fmt.Errorf("node: open %s: %w; if it is damaged, remove this node's data directory and let it rejoin", path, err)
}

// retention says what a log keeps behind a snapshot: entries while they are
// within both limits.
type retention struct {
	entries uint64
	bytes   int64
}

// logStore is the log Raft uses: monotonic whatever is below it (which keeps
// Raft from the snapshot livelock of hashicorp/raft issue 697), with the newest
// entries in RAM, and with truncation that counts bytes. The first failing
// write is reported, and the store then refuses everything: after a failed
// append Raft's idea of the last entry can be wrong, so the log must be opened
// anew (see group.reopen).
type logStore struct {
	under    closableLogStore
	keep     retention
	onFail   func(error)
	observe  func(entries, bytes int, d time.Duration)
	holdBack func() uint64 // entries above this index must stay; 0 for no limit
	ahead    *ahead
	patience time.Duration // with one flush; see diskPatience

	mu     sync.Mutex // guards the fields below
	cache  []*raft.Log
	bytes  int
	sizes  sizeRing
	failed error
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
)

func newLogStore(under closableLogStore, keep retention) (*logStore, error) {
	s := &logStore{
		under: under, keep: keep, onFail: func(error) {}, observe: func(int, int, time.Duration) {},
		patience: diskPatience, holdBack: func() uint64 { return 0 },
	}
	first, err := under.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := under.LastIndex()
	if err != nil {
		return nil, err
	}
	s.ahead = newAhead(last)
	// The sizes of old entries are needed for the byte budget only.
	var l raft.Log
	for i := first; i != 0 && i <= last; i++ {
		if err := under.GetLog(i, &l); err != nil {
			return nil, fmt.Errorf("node: log entry %d of %d to %d cannot be read: %w; remove this node's data directory and let it rejoin", i, first, last, err)
		}
		s.sizes.push(i, len(l.Data))
	}
	return s, nil
}

// IsMonotonic makes Raft clear the log after an installed snapshot instead of
// leaving a gap.
func (s *logStore) IsMonotonic() bool { return true }

// FirstIndex is the oldest entry there is, 0 for none.
func (s *logStore) FirstIndex() (uint64, error) {
	if err := s.ahead.drain(); err != nil {
		return 0, err
	}
	return s.under.FirstIndex()
}

// LastIndex is the newest entry there is, 0 for none.
func (s *logStore) LastIndex() (uint64, error) {
	if err := s.ahead.drain(); err != nil {
		return 0, err
	}
	return s.under.LastIndex()
}

// start begins to write ahead; stop ends it, before the log is closed.
func (s *logStore) start() {
	go s.ahead.run(s.under.StoreLogs, func(n, bytes int, d time.Duration) { s.observe(n, bytes, d) }, s.fail, s.patience)
}

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	if n := len(s.cache); n > 0 && index >= s.cache[0].Index && index <= s.cache[n-1].Index {
		*l = *s.cache[index-s.cache[0].Index]
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	return s.under.GetLog(index, l)
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs returns when the entries are on the disk, or, on an established
// leader, when the writer has them; see ahead.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if err := s.failure(); err != nil {
		return err
	}
	// In the cache first: replication may ask for an entry at once, and until it
	// is flushed the cache is the only place that has it.
	keep := make([]*raft.Log, len(logs))
	copies := make([]raft.Log, len(logs))
	for i, l := range logs {
		copies[i] = *l
		keep[i] = &copies[i]
	}
	if s.writesAhead(keep) {
		return nil
	}
	if err := s.ahead.drain(); err != nil {
		return s.fail(fmt.Errorf("node: append to log: %w", err))
	}
	start := time.Now()
	hung := time.AfterFunc(s.patience, func() { _ = s.fail(errHung(s.patience)) })
	err := s.under.StoreLogs(logs)
	hung.Stop()
	if err != nil {
		return s.fail(fmt.Errorf("node: append to log: %w", err))
	}
	s.ahead.flushed(logs[len(logs)-1].Index)
	s.mu.Lock()
	bytes := s.rememberAll(keep)
	s.mu.Unlock()
	s.observe(len(logs), bytes, time.Since(start))
	return nil
}

// writesAhead leaves the entries to the writer, if they may be.
func (s *logStore) writesAhead(logs []*raft.Log) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ahead.take(logs) {
		return false
	}
	s.rememberAll(logs)
	return true
}

// rememberAll takes note of new entries; the caller holds mu.
func (s *logStore) rememberAll(logs []*raft.Log) (bytes int) {
	durable := s.ahead.commitLimit()
	for _, l := range logs {
		s.remember(l, durable)
		s.sizes.push(l.Index, len(l.Data))
		bytes += len(l.Data)
	}
	return bytes
}

// remember appends to the cache, which loses its oldest entries for that unless
// they are nowhere else; the caller holds mu.
func (s *logStore) remember(l *raft.Log, durable uint64) {
	if n := len(s.cache); n > 0 && l.Index != s.cache[n-1].Index+1 {
		s.cache, s.bytes = nil, 0
	}
	s.cache = append(s.cache, l)
	s.bytes += len(l.Data)
	drop := 0
	for len(s.cache)-drop > 1 && s.cache[drop].Index <= durable && (len(s.cache)-drop > logCacheEntries || s.bytes > logCacheBytes) {
		s.bytes -= len(s.cache[drop].Data)
		s.cache[drop] = nil
		drop++
	}
	s.cache = s.cache[drop:]
}

// DeleteRange removes a suffix that a new leader overwrites, everything after
// a snapshot was installed, or the oldest entries. For the last Raft asks for
// all entries that its snapshot covers but the newest (its own trailing count
// is 1, so that such a range never reaches the end of the log), and the
// retention decides how many of them go.
func (s *logStore) DeleteRange(lo, hi uint64) error {
	if err := s.failure(); err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return s.fail(err)
	}
	if hi < last {
		if hi = s.retain(lo, hi, last); hi < lo {
			return nil
		}
	}
	if err := s.under.DeleteRange(lo, hi); err != nil {
		return s.fail(fmt.Errorf("node: truncate log: %w", err))
	}
	if hi >= last {
		s.ahead.flushed(lo - 1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if hi >= last {
		s.sizes.truncate(lo)
	} else {
		s.sizes.dropThrough(hi)
	}
	if len(s.cache) > 0 && lo <= s.cache[len(s.cache)-1].Index && hi >= s.cache[0].Index {
		s.cache, s.bytes = nil, 0
	}
	return nil
}

// retain lowers hi so that the entries within the retention stay.
func (s *logStore) retain(lo, hi, last uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept int64
	keepFrom := last + 1
	for i := last; i >= lo && i > 0; i-- {
		kept += int64(s.sizes.at(i))
		if last-i+1 > s.keep.entries || kept > s.keep.bytes {
			break
		}
		keepFrom = i
	}
	hi = min(hi, keepFrom-1)
	if hold := s.holdBack(); hold > 0 {
		hi = min(hi, hold)
	}
	return hi
}

// bytesAfter is the size of the entries after index.
func (s *logStore) bytesAfter(index uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes.after(index)
}

func (s *logStore) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *logStore) fail(err error) error {
	s.mu.Lock()
	first := s.failed == nil
	if first {
		s.failed = err
	}
	s.mu.Unlock()
	if first {
		s.onFail(err)
	}
	return err
}

// termAt returns the term of an entry, 0 if the log does not have it.
func (s *logStore) termAt(index uint64) uint64 {
	var l raft.Log
	if err := s.GetLog(index, &l); err != nil {
		return 0
	}
	return l.Term
}

// clear removes every entry.
func (s *logStore) clear() error {
	first, err := s.under.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.under.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	if err := s.under.DeleteRange(first, last); err != nil {
		return err
	}
	s.mu.Lock()
	s.cache, s.bytes, s.sizes = nil, 0, sizeRing{}
	s.mu.Unlock()
	return nil
}

// sizeRing holds the sizes of the entries from first on, with running totals.
type sizeRing struct {
	first uint64
	sizes []uint32
	total int64
}

func (r *sizeRing) push(index uint64, n int) {
	if len(r.sizes) == 0 || index != r.first+uint64(len(r.sizes)) {
		*r = sizeRing{first: index}
	}
	r.sizes = append(r.sizes, uint32(n))
	r.total += int64(n)
}

func (r *sizeRing) at(index uint64) uint32 {
	if index < r.first || index >= r.first+uint64(len(r.sizes)) {
		return 0
	}
	return r.sizes[index-r.first]
}

func (r *sizeRing) dropThrough(index uint64) {
	for len(r.sizes) > 0 && r.first <= index {
		r.total -= int64(r.sizes[0])
		r.sizes = r.sizes[1:]
		r.first++
	}
}

func (r *sizeRing) truncate(from uint64) {
	for n := len(r.sizes); n > 0 && r.first+uint64(n)-1 >= from; n-- {
		r.total -= int64(r.sizes[n-1])
		r.sizes = r.sizes[:n-1]
	}
}

func (r *sizeRing) after(index uint64) int64 {
	if index < r.first {
		return r.total
	}
	var n int64
	for i := index + 1; i < r.first+uint64(len(r.sizes)); i++ {
		n += int64(r.sizes[i-r.first])
	}
	return n
}
