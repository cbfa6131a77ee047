// SPDX-License-Identifier: Apache-2.0

// Package storage keeps an ordered keyspace on disk with atomic batches,
// snapshots and checkpoints. It is the only importer of Pebble and knows
// nothing of what the keys mean.
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// ErrCorrupt marks a store whose files are missing or do not hold what they
// should. The text names the file, if it is known which.
var ErrCorrupt = errors.New("storage: corrupt")

// Options of a store; the zero value is good for production.
type Options struct {
	FS FS // nil is the disk
	// MustExist fails with ErrCorrupt if there is no store in the directory.
	MustExist bool
	// ReadOnly neither writes nor compacts.
	ReadOnly bool
	// CacheBytes bounds the block cache; 0 is DefaultCacheBytes.
	CacheBytes int64
	// MemTableBytes is the size of one memtable; 0 is DefaultMemTableBytes. A
	// store keeps up to memTables of them in RAM while the disk is behind.
	MemTableBytes int
	// Logger gets what the store does in background; nil logs nothing.
	Logger *slog.Logger
}

// Sizes. Vectors are read from RAM by searches, so the block cache only serves
// point reads of records and payloads.
const (
	DefaultCacheBytes    = 64 << 20
	DefaultMemTableBytes = 64 << 20

	memTables         = 4
	l0CompactionFiles = 8
	l0StopWrites      = 64
	bloomBitsPerKey   = 10
	maxOpenFiles      = 1000
	blockBytes        = 32 << 10
	tableBytesL0      = 4 << 20
	lBaseBytes        = 256 << 20
)

// formatVersion is Pebble's on-disk format. It is raised by an ADR only: an
// older binary cannot open a store of a newer format.
const formatVersion = pebble.FormatColumnarBlocks

// DB is an open store. Its methods may be called by several goroutines.
type DB struct {
	db  *pebble.DB
	dir string
	fs  FS

	pace       *pacer
	background atomic.Pointer[error] // of the last flush or compaction
	mu         sync.Mutex            // guards failing
	failing    chan struct{}         // closed and replaced when background work fails

	closeOnce sync.Once
	closeErr  error
}

// Open opens the store in dir, or makes one if there is none and
// Options.MustExist is false. It fails with ErrCorrupt if files are missing or
// damaged.
func Open(dir string, o Options) (*DB, error) {
	if o.FS == nil {
		o.FS = Disk()
	}
	if !o.ReadOnly {
		if err := o.FS.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("storage: create %s: %w", dir, err)
		}
	}
	cache := pebble.NewCache(orDefault(o.CacheBytes, DefaultCacheBytes))
	defer cache.Unref() // the DB holds its own reference
	d := &DB{dir: dir, fs: o.FS, pace: newPacer(), failing: make(chan struct{})}
	var err error
	po := d.pebbleOptions(o, cache)
	if o.FS == Disk() {
		po.FS = pacedFS{o.FS, d.pace}
	} else {
		// A file system of a test's own: there Pebble's looking around ten times a
		// second is most of what a simulated hour costs. Compactions are asked for
		// by flushes and by the end of other compactions all the same.
		po.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	}
	if d.db, err = pebble.Open(dir, po); err != nil {
		return nil, openError(dir, err)
	}
	d.pace.begin(func() (memtables int, debt uint64) {
		m := d.db.Metrics()
		return int(m.MemTable.Size / po.MemTableSize), m.Compact.EstimatedDebt
	})
	return d, nil
}

func (d *DB) pebbleOptions(o Options, cache *pebble.Cache) *pebble.Options {
	po := &pebble.Options{
		FS:                          o.FS,
		Cache:                       cache,
		DisableWAL:                  true, // the Raft log is the redo log
		ErrorIfNotExists:            o.MustExist,
		ReadOnly:                    o.ReadOnly,
		FormatMajorVersion:          formatVersion,
		MemTableSize:                uint64(orDefault(int64(o.MemTableBytes), DefaultMemTableBytes)),
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       16,
		L0CompactionFileThreshold:   l0CompactionFiles * 64,
		L0StopWritesThreshold:       l0StopWrites,
		LBaseMaxBytes:               lBaseBytes,
		MaxOpenFiles:                maxOpenFiles,
		BytesPerSync:                256 << 10,
		Logger:                      logger{o.Logger},
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
		EventListener:               d.listener(o),
	}
	for i := range po.Levels {
		l := &po.Levels[i]
		l.BlockSize = blockBytes
		l.IndexBlockSize = 256 << 10
		l.FilterPolicy = bloom.FilterPolicy(bloomBitsPerKey)
		// Most bytes are vectors, which hardly shrink, and most tables above the
		// last level soon are rewritten.
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		if i == len(po.Levels)-1 {
			l.Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
		}
		po.TargetFileSizes[i] = tableBytesL0 << min(i, 4)
	}
	return po
}

// listener keeps Pebble's chatter out of the log and passes on what matters.
func (d *DB) listener(o Options) *pebble.EventListener {
	l := &pebble.EventListener{}
	report := func(err error) {
		err = mapError(err)
		d.background.Store(&err)
		if o.Logger != nil {
			o.Logger.Error("storage: background work failed", "dir", d.dir, "error", err)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		close(d.failing)
		d.failing = make(chan struct{})
	}
	l.BackgroundError = report
	l.DataCorruption = func(i pebble.DataCorruptionInfo) {
		report(fmt.Errorf("%w: %s: %v", ErrCorrupt, i.Path, i.Details))
	}
	l.FlushEnd = func(i pebble.FlushInfo) {
		// Pebble tries again; damage stays.
		if err := d.background.Load(); i.Err == nil && err != nil && !errors.Is(*err, ErrCorrupt) {
			d.background.CompareAndSwap(err, nil)
		}
	}
	if o.Logger != nil {
		l.WriteStallBegin = func(i pebble.WriteStallBeginInfo) {
			o.Logger.Warn("storage: writes wait for the disk", "dir", d.dir, "reason", i.Reason)
		}
	}
	return l
}

// Err is not nil while background work fails: nothing becomes durable, and
// commits will wait once the memtables are full.
func (d *DB) Err() error {
	if err := d.background.Load(); err != nil {
		return *err
	}
	return nil
}

func orDefault(v, d int64) int64 {
	if v == 0 {
		return d
	}
	return v
}

// Dir is the directory of the store.
func (d *DB) Dir() string { return d.dir }

// FS is the file system of the store.
func (d *DB) FS() FS { return d.fs }

// Get appends the value of key to dst. ok is false if there is none.
func (d *DB) Get(key, dst []byte) (value []byte, ok bool, err error) { return get(d.db, key, dst) }

// Iterate returns an iterator over the keys in [lower, upper); Close it.
func (d *DB) Iterate(lower, upper []byte) (*Iterator, error) { return iterate(d.db, lower, upper) }

// NewSnapshot returns a view that later writes do not change; Close it.
func (d *DB) NewSnapshot() *Snapshot {
	return &Snapshot{s: d.db.NewSnapshot()}
}

// NewBatch returns an empty batch. Batches are made one at a time and given
// back by Commit or Discard.
func (d *DB) NewBatch() *Batch { return &Batch{b: d.db.NewBatch(), pace: d.pace} }

// Flush makes durable what was committed before the call and waits for it, or until
// background work fails; Pebble tries again, for as long as it takes. It does not
// hold up commits.
func (d *DB) Flush() error {
	d.pace.asked.Add(1)
	defer d.pace.asked.Add(-1)
	done, err := d.db.AsyncFlush()
	if err != nil {
		return mapError(err)
	}
	for {
		d.mu.Lock()
		failing := d.failing
		d.mu.Unlock()
		select {
		case <-done:
			return nil
		case <-failing:
			if err := d.Err(); err != nil {
				return fmt.Errorf("storage: flush: %w", err)
			}
		}
	}
}

// Checkpoint makes a copy of the durable store in dir, which must not exist, by
// hard links. What was not flushed is not part of it.
func (d *DB) Checkpoint(dir string) error {
	if err := d.db.Checkpoint(dir); err != nil {
		return fmt.Errorf("storage: checkpoint to %s: %w", dir, mapError(err))
	}
	return nil
}

// Stats describes the store at the moment.
type Stats struct {
	DiskBytes      uint64 // on disk
	MemTableBytes  uint64
	CacheBytes     int64
	CompactionDebt uint64
	Flushes        int64
	Compactions    int64
	ReadAmp        int
}

// Stats costs little, but not nothing.
func (d *DB) Stats() Stats {
	m := d.db.Metrics()
	return Stats{
		DiskBytes:      m.DiskSpaceUsage(),
		MemTableBytes:  m.MemTable.Size,
		CacheBytes:     m.BlockCache.Size,
		CompactionDebt: m.Compact.EstimatedDebt,
		Flushes:        m.Flush.Count,
		Compactions:    m.Compact.Count,
		ReadAmp:        m.ReadAmp(),
	}
}

// Close flushes and closes the store. Snapshots and iterators must have been
// closed. Closing it again returns what the first call did.
func (d *DB) Close() error { return d.close(true) }

// Abandon closes the store without making anything durable.
func (d *DB) Abandon() error { return d.close(false) }

func (d *DB) close(flush bool) error {
	d.closeOnce.Do(func() {
		d.pace.end()
		var err error
		if flush {
			err = d.Flush()
			if errors.Is(err, pebble.ErrReadOnly) {
				err = nil
			}
		}
		d.closeErr = errors.Join(err, mapError(d.db.Close()))
	})
	return d.closeErr
}

// openError maps an error of opening: a file that is not there is damage.
func openError(dir string, err error) error {
	err = mapError(err)
	if !errors.Is(err, ErrCorrupt) &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, pebble.ErrDBDoesNotExist) ||
			// Pebble does not mark the error of a file that was cut off.
			strings.Contains(err.Error(), "object size mismatch")) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("storage: open %s: %w", dir, err)
}

// mapError marks Pebble's corruption errors with ErrCorrupt and the file.
func mapError(err error) error {
	if err == nil || errors.Is(err, ErrCorrupt) || !pebble.IsCorruptionError(err) {
		return err
	}
	if info := pebble.ExtractDataCorruptionInfo(err); info != nil && info.Path != "" {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, info.Path, err)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// logger passes on only Pebble's errors; Fatalf is called when going on would
// damage the store.
type logger struct{ l *slog.Logger }

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	if l.l != nil {
		l.l.Error("storage: " + fmt.Sprintf(format, args...))
	}
}

func (l logger) Fatalf(format string, args ...any) {
	msg := "storage: " + fmt.Sprintf(format, args...)
	if l.l != nil {
		l.l.Error(msg)
	}
	panic(msg)
}
