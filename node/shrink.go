// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
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
	ctx  context.Context // ends at close
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex // guards the fields below, and that done does not grow once ctx has ended
	waiting []string
	running bool
}

func newShrinker(log hclog.Logger) *shrinker {
	ctx, end := context.WithCancel(context.Background())
	return &shrinker{log: log, ctx: ctx, end: end}
}

// remove takes the file away soon, or at once when there are many, or after close.
func (s *shrinker) remove(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || len(s.waiting) >= shrinkBacklog {
		return removeAll(path)
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
		if err := errors.Join(s.shrink(path), removeAll(path)); err != nil {
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
	for size := st.Size() - shrinkStep; size > 0 && s.ctx.Err() == nil; size -= shrinkStep {
		if err := os.Truncate(path, size); err != nil {
			return err
		}
		pause(s.ctx, shrinkPause)
	}
	return nil
}

// close removes what waits and returns when nothing is under way.
func (s *shrinker) close() {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.done.Wait()
}
