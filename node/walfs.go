// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/hashicorp/raft-wal/types"

	"github.com/akidb/akidb/internal/storage"
)

// walFS is the file system under raft-wal. It differs from raft-wal's own in what
// a sync costs: an append is synced by fdatasync, and into a part of the segment
// that was written before, as zeros. Where space is only reserved, the file
// system must note with each sync that the blocks now have contents, which on
// ext4 is a commit of its journal beside the write of the entry: 0.34 ms instead
// of 0.20 for 3 KiB (ADR 0086).
type walFS struct {
	fs           storage.FS
	segmentBytes int64
	shrinker     *shrinker // nil: files are removed at once
}

var _ types.VFS = walFS{}

func (w walFS) ListDir(dir string) ([]string, error) {
	names, err := w.fs.List(dir)
	slices.Sort(names)
	return names, err
}

// Create reserves size bytes, so that a disk that fills up stops a log at a new
// segment and not in the middle of one.
func (w walFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	path := w.fs.PathJoin(dir, name)
	if _, err := w.fs.Stat(path); err == nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	f, err := w.fs.Create(path, "raft-log")
	if err != nil {
		return nil, err
	}
	// A file system that cannot reserve is left to grow the file.
	if err := f.Preallocate(0, int64(size)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, errors.Join(err, f.Close(), w.fs.Remove(path))
	}
	return &walFile{File: f, fs: w.fs, newIn: dir, size: w.segmentBytes}, nil
}

// Delete is called when the log's metadata name the segment no more. What a crash
// leaves of it is removed by the next open.
func (w walFS) Delete(dir, name string) error {
	path := w.fs.PathJoin(dir, name)
	if w.shrinker != nil {
		return w.shrinker.remove(path)
	}
	if err := w.fs.Remove(path); err != nil {
		return err
	}
	return storage.SyncDir(w.fs, dir)
}

func (w walFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return w.fs.Open(w.fs.PathJoin(dir, name))
}

func (w walFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	path := w.fs.PathJoin(dir, name)
	if _, err := w.fs.Stat(path); err != nil {
		return nil, err
	}
	f, err := w.fs.OpenReadWrite(path, "raft-log")
	if err != nil {
		return nil, err
	}
	return &walFile{File: f, fs: w.fs, size: w.segmentBytes}, nil
}

// walFile is a segment being written. raft-wal appends only: what lies behind the
// end of a write is never part of the log, so it may be made zero at any time.
type walFile struct {
	storage.File
	fs    storage.FS
	newIn string // the directory to sync with the first sync
	size  int64  // zeros are written up to here at most
	// Invariant: what lies behind the last write and below zeroed is zero on the
	// disk, or will be with the next sync. 0 after an open, when nothing is known.
	zeroed int64
}

const (
	// zeroAhead is how much is zeroed at a time. The sync that writes it takes
	// longer, one of about 300 of 3 KiB.
	zeroAhead = 1 << 20
	// maxZeroedAppend bounds the appends for which zeros pay: larger ones would
	// write twice as much, and share the price of a journal commit among many
	// entries as it is.
	maxZeroedAppend = 64 << 10
)

// WriteAt appends. Zeros follow in the same call, so that the file's end is
// settled by the next sync whatever comes after.
func (f *walFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	end := off + int64(n)
	if err != nil || end <= f.zeroed {
		return n, err
	}
	f.zeroed = end
	if ahead := min(f.size-end, zeroAhead); len(b) <= maxZeroedAppend && ahead > 0 {
		if _, err := f.File.WriteAt(make([]byte, ahead), end); err != nil {
			return 0, err
		}
		f.zeroed = end + ahead
	}
	return n, nil
}

// Sync makes what was written durable, and the name of a new file.
func (f *walFile) Sync() error {
	if f.newIn == "" {
		return f.File.SyncData()
	}
	if err := f.File.Sync(); err != nil {
		return err
	}
	dir := f.newIn
	f.newIn = ""
	return storage.SyncDir(f.fs, dir)
}
