// SPDX-License-Identifier: Apache-2.0

// Package raftfsm applies committed commands to the replicated state: the same
// log gives the same state, byte for byte, on every replica. It never looks at
// a clock, draws a random number, or knows who leads.
package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/akidb/akidb/internal/storage"
)

// Config is fixed for the life of an FSM; Open validates it.
type Config struct {
	Dir          string // the group's directory: CURRENT, stores and graphs live in it
	Logger       *slog.Logger
	Registerer   prometheus.Registerer // nil: no metrics
	IndexWorkers int

	// MaxRequests and RequestTTLms bound the remembered request ids. They decide
	// replicated state, so they must be the same on every member for ever: leave
	// them 0 outside of tests.
	MaxRequests  int   // 0 is DefaultMaxRequests
	RequestTTLms int64 // by proposer time; 0 is DefaultRequestTTLms

	// Fatal is called when a committed entry cannot be applied, for another reason
	// than damage of what is stored here (see Damaged); going on would make this
	// replica differ from the others. It must not return; the default panics. In
	// tests it may return, and nothing is applied from then on.
	Fatal func(logIndex uint64, err error)

	// FS is the file system of the store; nil is the disk. With another one the
	// graphs are not kept on disk.
	FS            storage.FS
	CacheBytes    int64 // block cache; 0 is storage.DefaultCacheBytes
	MemTableBytes int   // 0 is storage.DefaultMemTableBytes

	noIndexDir bool // set by Open
}

func (c *Config) complete() error {
	if c.Dir == "" {
		return errors.New("raftfsm: Config.Dir is empty")
	}
	if c.MaxRequests < 0 || c.RequestTTLms < 0 || c.IndexWorkers < 0 || c.CacheBytes < 0 || c.MemTableBytes < 0 {
		return errors.New("raftfsm: a number of Config is negative")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxRequests == 0 {
		c.MaxRequests = DefaultMaxRequests
	}
	if c.RequestTTLms == 0 {
		c.RequestTTLms = DefaultRequestTTLms
	}
	if c.Fatal == nil {
		c.Fatal = func(logIndex uint64, err error) {
			panic(fmt.Sprintf("raftfsm: log index %d cannot be applied: %v", logIndex, err))
		}
	}
	c.noIndexDir = c.FS != nil
	if c.FS == nil {
		c.FS = storage.Disk()
	}
	return nil
}

// FSM is the replicated state of one Raft group.
//
// One goroutine at a time calls Apply, ApplyBatch, Snapshot, Restore and
// RestoreDir (Raft does); it owns engine and applier. Everyone else reads the
// published state. Close comes after all of them.
type FSM struct {
	cfg     Config
	metrics *metrics

	eng    *engine
	apply  *applier
	failed error // why nothing is applied any more, see fail

	state    atomic.Pointer[state]
	diverged atomic.Pointer[error]
	damage   atomic.Pointer[error] // what Damaged says
	history  hashHistory
	life     lifetimes

	// restoreMu is held by RestoreDir and Close, and shared by exports.
	restoreMu sync.RWMutex
	closeOnce sync.Once
	closeErr  error
}

var _ raft.BatchingFSM = (*FSM)(nil)

// Open opens or creates the state in cfg.Dir. It fails with ErrCorrupt (naming
// the file) rather than start empty.
func Open(ctx context.Context, cfg Config) (*FSM, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	ref, err := openCurrent(&cfg)
	if err != nil {
		return nil, err
	}
	f := &FSM{cfg: cfg}
	eng, err := openEngine(ctx, &f.cfg, ref)
	if err != nil {
		return nil, err
	}
	f.metrics = newMetrics(f)
	if err := f.metrics.register(cfg.Registerer); err != nil {
		return nil, errors.Join(fmt.Errorf("raftfsm: %w", err), eng.closeIndexes(), eng.db.Abandon())
	}
	f.use(eng)
	return f, nil
}

// use makes eng the engine and publishes its state.
func (f *FSM) use(eng *engine) {
	f.eng = eng
	f.apply = newApplier(f, eng)
	f.publish()
}

// Applied is the log index up to which entries are applied and visible.
func (f *FSM) Applied() uint64 {
	st := f.acquire()
	defer f.release(st)
	return st.applied
}

// WaitApplied returns when Applied() >= logIndex, or with the context's error,
// or with ErrClosed.
func (f *FSM) WaitApplied(ctx context.Context, logIndex uint64) error {
	for {
		st := f.acquire()
		applied, superseded, closed := st.applied, st.superseded, st.eng == nil
		f.release(st)
		if applied >= logIndex {
			return nil
		}
		if closed {
			return ErrClosed
		}
		select {
		case <-superseded:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// HashAt is the state hash as it was at a log index, if this replica applied
// that entry since it was opened and not too long ago. With it members can be
// compared at one log index while writes go on.
func (f *FSM) HashAt(logIndex uint64) (StateHash, bool) { return f.history.at(logIndex) }

// StorageErr is not nil while the store cannot write in background, because the
// disk is full or damaged. Apply goes on in RAM until its memtables are full.
func (f *FSM) StorageErr() error {
	st := f.acquire()
	defer f.release(st)
	if st.eng == nil {
		return ErrClosed
	}
	return st.eng.db.Err()
}

// Flush makes the state durable and returns the log index it is durable up to.
// Apply goes on meanwhile.
func (f *FSM) Flush() (uint64, error) {
	st := f.acquire()
	defer f.release(st)
	if st.eng == nil {
		return 0, ErrClosed
	}
	if err := st.eng.db.Flush(); err != nil {
		return 0, fmt.Errorf("raftfsm: flush: %w", err)
	}
	return st.applied, nil
}

// CheckpointIndexes writes the graphs to disk, beside everything else. A graph
// may be ahead of what the store holds after a crash; the log then brings the
// store there, and Index.Open must not trust the part that the store lacks.
func (f *FSM) CheckpointIndexes(ctx context.Context) error {
	st := f.acquire()
	defer f.release(st)
	if st.eng == nil {
		return ErrClosed
	}
	var errs []error
	for i := range st.colls {
		if err := st.colls[i].c.idx.Checkpoint(ctx); err != nil {
			errs = append(errs, fmt.Errorf("raftfsm: checkpoint of collection %q: %w", st.colls[i].rec.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// Verify computes the state hash from the stored keys and compares it with the
// one that Apply kept: it reads everything. ErrCorrupt if they differ, or if
// something cannot be read because it is damaged.
func (f *FSM) Verify(ctx context.Context) error {
	st := f.acquire()
	defer f.release(st)
	if st.eng == nil {
		return ErrClosed
	}
	got, err := rehash(ctx, st.snap)
	if err != nil {
		return fmt.Errorf("raftfsm: verify: %w", markCorrupt(err))
	}
	if got != st.hash {
		return fmt.Errorf("raftfsm: verify: %w: the stored keys hash to %s, the state hash at log index %d is %s", ErrCorrupt, got, st.applied, st.hash)
	}
	return nil
}

// StorageStats describes the store of the published state.
func (f *FSM) StorageStats() storage.Stats {
	st := f.acquire()
	defer f.release(st)
	if st.eng == nil {
		return storage.Stats{}
	}
	return st.eng.db.Stats()
}

// Close makes the state durable and closes it. Apply must have ended; it waits
// for open views to be closed.
func (f *FSM) Close() error {
	f.closeOnce.Do(func() {
		f.metrics.unregister()
		f.restoreMu.Lock()
		defer f.restoreMu.Unlock()
		eng := f.eng
		f.publishClosed()
		f.life.wait()
		f.closeErr = errors.Join(eng.closeIndexes(), eng.db.Close())
	})
	return f.closeErr
}
