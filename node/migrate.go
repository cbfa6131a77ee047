// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/storage"
)

// MigrateLog turns the logs in a stopped node's data directory from one kind of
// log store into another ("wal", "bolt"). The new log is complete and durable
// before the old one is removed, and an interrupted migration is finished by
// running it again; a node refuses to start in between. It returns the number
// of entries carried over.
func MigrateLog(dataDir, from, to string) (entries uint64, err error) {
	if from == to || (from != logStoreWAL && from != logStoreBolt) || (to != logStoreWAL && to != logStoreBolt) {
		return 0, fmt.Errorf("node: migrate log from %q to %q: want %q and %q in either order", from, to, logStoreWAL, logStoreBolt)
	}
	dirs, err := filepath.Glob(filepath.Join(dataDir, "groups", "*"))
	if err != nil {
		return 0, err
	}
	if len(dirs) == 0 {
		return 0, fmt.Errorf("node: %s is no data directory of a node: it has no groups", dataDir)
	}
	for _, dir := range dirs {
		n, err := migrateGroup(dir, from, to)
		entries += n
		if err != nil {
			return entries, err
		}
	}
	return entries, nil
}

func migrateGroup(dir, from, to string) (n uint64, err error) {
	// The stable store's lock shows that the node is stopped.
	stable, err := openBolt(filepath.Join(dir, "stable.db"), false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stable.Close()) }()
	oldDir, newDir, tmp := logDir(dir, from), logDir(dir, to), logDir(dir, to)+".tmp"
	_, oldErr := os.Stat(oldDir)
	_, newErr := os.Stat(newDir)
	switch {
	case errors.Is(oldErr, fs.ErrNotExist) && newErr == nil:
		return 0, fmt.Errorf("node: the log in %s is of kind %q already", dir, to)
	case oldErr != nil:
		return 0, fmt.Errorf("node: no %q log: %w", from, oldErr)
	case newErr == nil:
		// The new log was complete; only the removal of the old is left.
		return 0, removeAll(oldDir)
	}
	if err := os.RemoveAll(tmp); err != nil {
		return 0, err
	}
	if n, err = copyLog(oldDir, from, tmp, to); err != nil {
		return 0, fmt.Errorf("node: migrate log in %s: %w", dir, err)
	}
	if err := os.Rename(tmp, newDir); err != nil {
		return 0, err
	}
	if err := storage.SyncDir(storage.Disk(), dir); err != nil {
		return 0, err
	}
	return n, removeAll(oldDir)
}

// removeAll removes a file or a directory and makes that durable. One that is gone
// is no error.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return storage.SyncDir(storage.Disk(), filepath.Dir(path))
}

// copyLog copies all entries and reads them back.
func copyLog(fromDir, fromKind, toDir, toKind string) (n uint64, err error) {
	src, err := openLogDir(fromDir, fromKind, hclog.NewNullLogger())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := openLogDir(toDir, toKind, hclog.NewNullLogger())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	first, err := src.FirstIndex()
	if err != nil {
		return 0, err
	}
	last, err := src.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	var batch []*raft.Log
	bytes := 0
	for i := first; i <= last; i++ {
		l := new(raft.Log)
		if err := src.GetLog(i, l); err != nil {
			return 0, fmt.Errorf("read entry %d: %w", i, err)
		}
		batch = append(batch, l)
		if bytes += len(l.Data); bytes < 4<<20 && len(batch) < 1024 && i < last {
			continue
		}
		if err := dst.StoreLogs(batch); err != nil {
			return 0, fmt.Errorf("write entries to %d: %w", i, err)
		}
		batch, bytes = nil, 0
	}
	gotFirst, err := dst.FirstIndex()
	if err != nil {
		return 0, err
	}
	gotLast, err := dst.LastIndex()
	if err != nil {
		return 0, err
	}
	if gotFirst != first || gotLast != last {
		return 0, fmt.Errorf("the copy holds entries %d to %d instead of %d to %d", gotFirst, gotLast, first, last)
	}
	return last - first + 1, nil
}
