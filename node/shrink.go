// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/akidb/akidb/internal/storage"
)

const (
	// shrinkStep is how much of a file is given back at a time, and shrinkPause how
	// long syncs then have the disk for themselves.
	shrinkStep  = 1 << 20
	shrinkPause = 10 * time.Millisecond
	// shrinkBacklog files may wait to shrink; while there are more, they are removed
	// whole: the disk must not fill up.
	shrinkBacklog = 8
)

// shrinker removes large files that nobody needs any more a little at a time: a
// file system that gives back 64 MiB at once keeps every sync on it waiting
// meanwhile, some 50 ms on ext4. A file whose shrinking a crash cut short is found
// and removed by who opens the log next.
type shrinker struct {
	log  hclog.Logger
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	waiting []string
	running bool
	closed  bool
}

func newShrinker(log hclog.Logger) *shrinker {
	return &shrinker{log: log, stop: make(chan struct{})}
}

// remove takes the file away soon, or at once when there are many, or after close.
func (s *shrinker) remove(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.waiting) >= shrinkBacklog {
		return unlink(path)
	}
	s.waiting = append(s.waiting, path)
	if !s.running {
		s.running = true
		s.done.Go(s.run)
	}
	return nil
}

func (s *shrinker) run() {
	for {
		s.mu.Lock()
		if len(s.waiting) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		path := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.mu.Unlock()
		if err := errors.Join(s.shrink(path), unlink(path)); err != nil {
			s.log.Error("failed to remove an old segment of the log", "file", path, "error", err)
		}
	}
}

// shrink ends early when the shrinker is closed.
func (s *shrinker) shrink(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t := time.NewTimer(0)
	defer t.Stop()
	for size := st.Size() - shrinkStep; size > 0; size -= shrinkStep {
		if err := os.Truncate(path, size); err != nil {
			return err
		}
		t.Reset(shrinkPause)
		select {
		case <-t.C:
		case <-s.stop:
			return nil
		}
	}
	return nil
}

// close removes what waits and returns when nothing is under way.
func (s *shrinker) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	s.mu.Unlock()
	s.done.Wait()
}

// unlink removes a file and makes that durable. One that is gone is no error.
func unlink(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := storage.SyncDir(storage.Disk(), filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
