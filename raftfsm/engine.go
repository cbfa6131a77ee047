// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sort"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/index/distance"
	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// engine is one opened store with what is derived from it: the image in RAM of
// the small replicated state, and the indexes. A restore makes a new engine and
// leaves the old one to its last reader. Only Apply (and opening) touches the
// fields; readers see what publish put into a state.
type engine struct {
	db    *storage.DB
	store storeRef
	cfg   *Config

	applied, term uint64
	sum           sum
	meta          metaState
	metaHashed    []byte // the value of keyState that is part of sum

	alarms  map[string]Alarm // by key
	nodes   map[string]*fsmv1.NodeRecord
	byID    map[string]*collection
	byName  map[string]*collection
	dropped map[string]*droppedCollection // by id
	// requests are the ids of the remembered requests.
	requests idSet
	// leaving are collections dropped by the run that is being applied; the run
	// takes them out when readers cannot get at them any more.
	leaving []*collection
}

type droppedCollection struct {
	number uint32
	droppedRecord
}

// collection is the working state of one collection.
type collection struct {
	number     uint32
	rec        *fsmv1.CollectionRecord // never changed, only replaced
	cnt        counters
	cntHashed  []byte // the value of the counters key that is part of sum
	cntUnsaved bool
	table      slotTable
	ids        idSet // of the live documents
	idx        *index.Index
	src        *source
}

func nameKey(tenant, database, name string) string {
	return tenant + "\x00" + database + "\x00" + name // names have no control characters
}

func recordNameKey(r *fsmv1.CollectionRecord) string {
	return nameKey(r.GetTenant(), r.GetDatabase(), r.GetName())
}

// openEngine opens a store that must exist and builds what is derived from it.
func openEngine(ctx context.Context, cfg *Config, ref storeRef) (_ *engine, err error) {
	db, err := storage.Open(ref.path(cfg), storage.Options{
		FS: cfg.FS, MustExist: true, Logger: cfg.Logger,
		CacheBytes: cfg.CacheBytes, MemTableBytes: cfg.MemTableBytes,
	})
	if err != nil {
		return nil, damaged(ref.path(cfg), err)
	}
	e := &engine{
		db: db, store: ref, cfg: cfg,
		alarms: make(map[string]Alarm), nodes: make(map[string]*fsmv1.NodeRecord),
		byID: make(map[string]*collection), byName: make(map[string]*collection),
		dropped: make(map[string]*droppedCollection),
	}
	defer func() {
		if err != nil {
			err = errors.Join(damaged(ref.path(cfg), err), e.closeIndexes(), db.Abandon())
		}
	}()
	if err := e.loadMeta(); err != nil {
		return nil, err
	}
	if err := e.loadCatalog(); err != nil {
		return nil, err
	}
	if err := loadRequestIDs(db, &e.requests); err != nil {
		return nil, err
	}
	e.removeOtherGraphs()
	return e, e.openCollections(ctx)
}

// removeOtherGraphs removes the checkpoints of collections that are not there: of
// one that was dropped just before a crash or, in an export, while it was made.
func (e *engine) removeOtherGraphs() {
	root := e.store.indexRoot(e.cfg)
	if root == "" {
		return
	}
	keep := make(map[string]bool, len(e.byID))
	for _, c := range e.byID {
		keep[numberName(c.number)] = true
	}
	names, err := e.cfg.FS.List(root)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	for _, n := range names {
		if !keep[n] {
			err = errors.Join(err, e.cfg.FS.RemoveAll(e.cfg.FS.PathJoin(root, n)))
		}
	}
	if err != nil {
		e.cfg.Logger.Warn("raftfsm: remove left-over graphs", "error", err)
	}
}

// damaged says what to do about a store that cannot be trusted.
func damaged(path string, err error) error {
	if err = markCorrupt(err); !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("raftfsm: open %s: %w", path, err)
	}
	return fmt.Errorf("raftfsm: open %s: %w; the store is damaged and was left as it is: "+
		"if the other replicas are healthy, move this node's data directory away, remove the node from the cluster and let it join again; "+
		"otherwise restore a backup", path, err)
}

// markCorrupt makes ErrCorrupt of damage that the store met.
func markCorrupt(err error) error {
	if errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// load reads a key that must be there.
func (e *engine) load(key string) ([]byte, error) {
	v, ok, err := e.db.Get([]byte(key), nil)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: the store has no key %q", ErrCorrupt, key)
	}
	return v, nil
}

func (e *engine) loadMeta() error {
	v, err := e.load(keyState)
	if err != nil {
		return err
	}
	if e.meta, err = decodeMetaState(v); err != nil {
		return err
	}
	e.metaHashed = v
	if v, err = e.load(keyApplied); err != nil {
		return err
	}
	a, err := decodeApplied(v)
	e.applied, e.term, e.sum = a.applied, a.term, sumOf(a.hash)
	return err
}

// each calls fn for the keys with a prefix.
func each(r storage.Reader, prefix []byte, fn func(key, value []byte) error) (err error) {
	it, err := r.Iterate(prefixRange(prefix))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		v, err := it.Value()
		if err != nil {
			return err
		}
		if err := fn(it.Key(), v); err != nil {
			return err
		}
	}
	return nil
}

func (e *engine) loadCatalog() error {
	err := each(e.db, []byte{prefixAlarm}, func(k, v []byte) error {
		a, err := decodeAlarm(k, v)
		e.alarms[string(k)] = a
		return err
	})
	if err != nil {
		return err
	}
	err = each(e.db, []byte{prefixNode}, func(k, v []byte) error {
		n := &fsmv1.NodeRecord{}
		e.nodes[string(k[1:])] = n
		return unmarshalRecord(v, n, "node")
	})
	if err != nil {
		return err
	}
	err = each(e.db, []byte{prefixDropped}, func(k, v []byte) error {
		number, err := numberOfKey(k)
		if err != nil {
			return err
		}
		d, err := decodeDropped(v)
		e.dropped[d.id] = &droppedCollection{number: number, droppedRecord: d}
		return err
	})
	if err != nil {
		return err
	}
	return each(e.db, []byte{prefixCollection}, func(k, v []byte) error {
		number, err := numberOfKey(k)
		if err != nil {
			return err
		}
		c := &collection{number: number, rec: &fsmv1.CollectionRecord{}}
		if err := unmarshalRecord(v, c.rec, "collection"); err != nil {
			return err
		}
		e.byID[c.rec.GetCollectionId()] = c
		e.byName[recordNameKey(c.rec)] = c
		return nil
	})
}

// openCollections builds the indexes, a bounded number at a time.
func (e *engine) openCollections(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, runtime.GOMAXPROCS(0)))
	for _, c := range e.sorted() {
		g.Go(func() error {
			if err := e.openCollection(ctx, c); err != nil {
				return fmt.Errorf("collection %q: %w", c.rec.GetName(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (e *engine) openCollection(ctx context.Context, c *collection) error {
	v, ok, err := e.db.Get(appendNumberKey(nil, prefixCounters, c.number), nil)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: its counters are missing", ErrCorrupt)
	}
	if c.cnt, err = decodeCounters(v); err != nil {
		return err
	}
	c.cntHashed = v
	var found counters
	err = scanSlots(e.db, c.number, 0, func(slot index.Slot, deadAt uint64, value func() ([]byte, error)) error {
		if uint32(slot) >= c.cnt.nextSlot {
			return fmt.Errorf("%w: slot %d is not below the next slot %d", ErrCorrupt, slot, c.cnt.nextSlot)
		}
		if deadAt != 0 {
			found.tombstones++
			return nil
		}
		found.live++
		b, err := value()
		if err != nil {
			return err
		}
		s, err := decodeSlot(b)
		if err != nil {
			return err
		}
		c.table.put(slot, s.id, s.externalID, s.version)
		c.ids.add(s.id)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if found.live != c.cnt.live || found.tombstones != c.cnt.tombstones {
		return fmt.Errorf("%w: it has %d live and %d deleted slots instead of %d and %d",
			ErrCorrupt, found.live, found.tombstones, c.cnt.live, c.cnt.tombstones)
	}
	return e.openIndex(ctx, c)
}

func (e *engine) openIndex(ctx context.Context, c *collection) error {
	c.src = &source{db: e.db, number: c.number, dimension: int(c.rec.GetDimension())}
	c.src.sealed.Store(c.rec.GetSealedIndex())
	idx, err := index.Open(ctx, e.indexConfig(c), c.rec.GetGeneration(), c.src)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	c.idx = idx
	return nil
}

func (e *engine) indexConfig(c *collection) index.Config {
	p := c.rec.GetIndex()
	name := c.rec.GetName() // Apply replaces c.rec when it seals the collection
	ic := index.Config{
		Dimension:      int(c.rec.GetDimension()),
		Metric:         metricOf(c.rec.GetMetric()),
		M:              int(p.GetM()),
		EfConstruction: int(p.GetEfConstruction()),
		EfSearch:       int(p.GetEfSearch()),
		Quantization:   index.Quantization(p.GetQuantization()),
		VectorsOnDisk:  p.GetVectorsOnDisk(),
		Workers:        e.cfg.IndexWorkers,
		Dir:            e.store.indexPath(e.cfg, c.number),
		Warn: func(msg string, err error) {
			e.cfg.Logger.Warn("index: "+msg, "collection", name, "error", err)
		},
	}
	for _, f := range c.rec.GetPayloadIndexes() {
		ic.Fields = append(ic.Fields, index.Field{Key: f.GetKey(), Type: f.GetType()})
	}
	return ic
}

func metricOf(m fsmv1.Metric) distance.Metric {
	switch m {
	case fsmv1.Metric_METRIC_DOT:
		return distance.Dot
	case fsmv1.Metric_METRIC_L2:
		return distance.L2
	}
	return distance.Cosine
}

// sorted lists the collections in the order of tenant, database and name.
func (e *engine) sorted() []*collection {
	keys := make([]string, 0, len(e.byName))
	for k := range e.byName {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make([]*collection, len(keys))
	for i, k := range keys {
		out[i] = e.byName[k]
	}
	return out
}

func (e *engine) closeIndexes() error {
	var errs []error
	for _, c := range append(e.sorted(), e.leaving...) {
		if c.idx != nil {
			errs = append(errs, c.idx.Close())
		}
	}
	return errors.Join(errs...)
}

// initStore writes the first records of an empty store.
func initStore(db *storage.DB) error {
	meta := metaState{clusterVersion: 1, nextNumber: 1, requestHead: 1, requestTail: 1}.append(nil)
	var s sum
	s.add([]byte(keyState), meta)
	b := db.NewBatch()
	defer b.Discard()
	if err := b.Set([]byte(keyState), meta); err != nil {
		return err
	}
	if err := b.Set([]byte(keyApplied), appliedRecord{hash: s.stateHash()}.append(nil)); err != nil {
		return err
	}
	if err := b.Commit(); err != nil {
		return err
	}
	return db.Flush()
}

// rehash computes the state hash from the stored keys.
func rehash(ctx context.Context, r storage.Reader) (StateHash, error) {
	var s sum
	n := 0
	err := each(r, nil, func(k, v []byte) error {
		if string(k) != keyApplied {
			s.add(k, v)
		}
		if n++; n%1024 == 0 {
			return ctx.Err()
		}
		return nil
	})
	return s.stateHash(), err
}

func numberName(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
