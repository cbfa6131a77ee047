// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// firstGeneration is the generation of a new collection's graph.
const firstGeneration = 1

func (a *applier) createCollection(op *fsmv1.CreateCollection, nowMs uint64) (*fsmv1.Result, error) {
	if err := ValidateCreate(op); err != nil {
		return a.invalid(err), nil
	}
	e := a.e
	rec := &fsmv1.CollectionRecord{
		CollectionId: op.GetCollectionId(), Tenant: op.GetTenant(), Database: op.GetDatabase(), Name: op.GetName(),
		Dimension: op.GetDimension(), Metric: op.GetMetric(), EmbeddingModel: op.GetEmbeddingModel(),
		Index: op.GetIndex(), PayloadIndexes: op.GetPayloadIndexes(),
		CreatedAtMs: nowMs, CreatedIndex: a.logIndex, Generation: firstGeneration,
	}
	name := recordNameKey(rec)
	_, dropped := e.dropped[rec.CollectionId]
	switch {
	case e.byName[name] != nil:
		return a.refuse(fsmv1.Status_STATUS_COLLECTION_EXISTS, "collection %q", rec.Name), nil
	case e.byID[rec.CollectionId] != nil || dropped:
		return a.refuse(fsmv1.Status_STATUS_COLLECTION_EXISTS, "collection id %q", rec.CollectionId), nil
	case len(e.byID)+len(e.dropped) >= MaxCollections:
		return a.refuse(fsmv1.Status_STATUS_INVALID, "there are %d collections, with those not purged yet; no more are allowed", MaxCollections), nil
	}
	c := &collection{number: e.meta.nextNumber, rec: rec}
	e.meta.nextNumber++
	if err := a.setRecord(c, nil); err != nil {
		return nil, err
	}
	e.byID[rec.CollectionId], e.byName[name] = c, c
	a.touch(c)
	a.catalogChanged = true
	a.indexOps = append(a.indexOps, indexOp{kind: indexOpen, c: c})
	res := a.ok()
	res.Collection = proto.CloneOf(rec)
	return res, nil
}

// setRecord writes the catalog record of c; old is the one before, or nil.
func (a *applier) setRecord(c *collection, old *fsmv1.CollectionRecord) error {
	var was []byte
	var err error
	if old != nil {
		if was, err = marshalCanonical(old); err != nil {
			return err
		}
	}
	now, err := marshalCanonical(c.rec)
	if err != nil {
		return err
	}
	return a.set(appendNumberKey(a.key[:0], prefixCollection, c.number), was, now)
}

// openEmptyIndex opens the index of a collection that was created just now. It
// must not see slots that are already stored: the run tells it of them.
func (e *engine) openEmptyIndex(ctx context.Context, c *collection) error {
	c.src = &source{db: e.db, number: c.number, dimension: int(c.rec.GetDimension())}
	idx, err := index.Open(ctx, e.indexConfig(c), firstGeneration, emptySource{c.src})
	if err != nil {
		return err
	}
	c.idx = idx
	return nil
}

// emptySource is a source whose first scan finds nothing.
type emptySource struct{ *source }

func (emptySource) Scan(index.Slot, func(index.Entry) error) error { return nil }

// dropCollection takes a collection out of the catalog at once. Its keys stay
// until PurgeCollection has taken them away.
func (a *applier) dropCollection(op *fsmv1.DropCollection) (*fsmv1.Result, error) {
	e := a.e
	// A name is resolved here and not by the proposer: two concurrent drops of
	// one name must not both succeed, and a retry must be the same command even
	// if the name belongs to another collection by then.
	c := e.byID[op.GetCollectionId()]
	if c == nil {
		c = e.byName[nameKey(DefaultTenant, DefaultDatabase, op.GetCollectionId())]
	}
	if c == nil {
		return a.noCollection(op.GetCollectionId()), nil
	}
	rec, err := marshalCanonical(c.rec)
	if err != nil {
		return nil, err
	}
	if err := a.remove(appendNumberKey(a.key[:0], prefixCollection, c.number), rec); err != nil {
		return nil, err
	}
	if c.cntHashed != nil { // not if it was created by this very entry
		if err := a.remove(appendNumberKey(a.key[:0], prefixCounters, c.number), c.cntHashed); err != nil {
			return nil, err
		}
	}
	d := &droppedCollection{number: c.number, droppedRecord: droppedRecord{droppedIndex: a.logIndex, id: c.rec.GetCollectionId()}}
	if err := a.set(appendNumberKey(a.key[:0], prefixDropped, c.number), nil, d.append(nil)); err != nil {
		return nil, err
	}
	delete(a.changed, c)
	delete(e.byID, d.id)
	delete(e.byName, recordNameKey(c.rec))
	e.dropped[d.id] = d
	a.catalogChanged = true
	e.leaving = append(e.leaving, c)
	res := a.ok()
	res.More = true
	return res, nil
}

// purgeOnce says whether this entry may purge a collection: purging reads
// storage, which does not have the changes of this entry yet.
func (a *applier) purgeOnce(number uint32, id string) *fsmv1.Result {
	if a.purged[number] {
		return a.refuse(fsmv1.Status_STATUS_ENTRY_CONFLICT, "two purges of collection %q in one entry", id)
	}
	a.purged[number] = true
	return nil
}

func (a *applier) purgeCollection(op *fsmv1.PurgeCollection) (*fsmv1.Result, error) {
	d := a.e.dropped[op.GetCollectionId()]
	if d == nil {
		return a.noCollection(op.GetCollectionId()), nil
	}
	if res := a.purgeOnce(d.number, d.id); res != nil {
		return res, nil
	}
	res := a.ok()
	if d.droppedIndex == a.logIndex {
		res.More = true
		return res, nil
	}
	left := int(op.GetMaxKeys())
	if left == 0 {
		left = DefaultPurgeKeys
	}
	left = min(left, MaxPurgeKeys)
	for _, prefix := range []byte{prefixDocument, prefixSlot, prefixTombstone, prefixVector} {
		n, err := a.purgePrefix(prefix, d.number, left)
		if err != nil {
			return nil, err
		}
		if left -= n; left == 0 {
			res.More = true
			return res, nil
		}
	}
	delete(a.e.dropped, d.id)
	a.catalogChanged = true
	return res, a.remove(appendNumberKey(a.key[:0], prefixDropped, d.number), d.append(nil))
}

// purgePrefix deletes up to limit keys and returns how many.
func (a *applier) purgePrefix(prefix byte, number uint32, limit int) (n int, err error) {
	it, err := a.e.db.Iterate(numberRange(prefix, number))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for n < limit && it.Next() {
		v, err := it.Value()
		if err != nil {
			return n, err
		}
		if err := a.remove(it.Key(), v); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// sealGeneration begins a new generation of the graph, of the slots live at the
// end of this entry.
func (a *applier) sealGeneration(op *fsmv1.SealGeneration) (*fsmv1.Result, error) {
	c := a.e.byID[op.GetCollectionId()]
	if c == nil {
		return a.noCollection(op.GetCollectionId()), nil
	}
	if c.rec.GetGeneration() != op.GetFromGeneration() {
		return a.refuse(fsmv1.Status_STATUS_STALE, "collection %q is at generation %d, not %d", c.rec.GetName(), c.rec.GetGeneration(), op.GetFromGeneration()), nil
	}
	for _, s := range a.seals {
		if s == c {
			return a.refuse(fsmv1.Status_STATUS_STALE, "collection %q is sealed by this entry already", c.rec.GetName()), nil
		}
	}
	a.seals = append(a.seals, c)
	return a.ok(), nil
}

// endSeals carries out the seals of an entry at its end: a slot that a later
// command of the entry deletes has the same log index and is dead at the seal.
func (a *applier) endSeals() error {
	for _, c := range a.seals {
		if a.e.byID[c.rec.GetCollectionId()] != c {
			continue // dropped by the same entry
		}
		old := c.rec
		c.rec = proto.CloneOf(old)
		c.rec.Generation++
		c.rec.SealedIndex = a.logIndex
		c.rec.SealedSlots = c.cnt.nextSlot
		c.cnt.purgeCursor = 0
		a.touch(c)
		if err := a.setRecord(c, old); err != nil {
			return err
		}
		a.indexOps = append(a.indexOps, indexOp{kind: indexSeal, c: c, gen: c.rec.Generation, at: a.logIndex})
	}
	clear(a.seals)
	a.seals = a.seals[:0]
	return nil
}

// purgeSlots removes what is stored of slots that were dead at the last seal.
func (a *applier) purgeSlots(op *fsmv1.PurgeSlots) (*fsmv1.Result, error) {
	c := a.e.byID[op.GetCollectionId()]
	if c == nil {
		return a.noCollection(op.GetCollectionId()), nil
	}
	if res := a.purgeOnce(c.number, c.rec.GetCollectionId()); res != nil {
		return res, nil
	}
	limit := int(op.GetMaxSlots())
	if limit == 0 {
		limit = DefaultPurgeSlots
	}
	dead, more, err := a.deadSlots(c, min(limit, MaxPurgeSlots))
	if err != nil {
		return nil, err
	}
	for _, slot := range dead {
		for _, prefix := range []byte{prefixSlot, prefixTombstone, prefixVector} {
			a.key = appendSlotKey(a.key[:0], prefix, c.number, slot)
			v, ok, err := a.e.db.Get(a.key, a.val[:0])
			if a.val = v; err != nil {
				return nil, err
			}
			if ok {
				if err := a.remove(a.key, v); err != nil {
					return nil, err
				}
			}
		}
		c.cnt.tombstones--
	}
	c.table.purge(dead)
	a.touch(c)
	res := a.ok()
	res.More = more
	return res, nil
}

// deadSlots lists up to limit slots from the purge cursor on that were dead at
// the last seal, and moves the cursor behind what it looked at.
func (a *applier) deadSlots(c *collection, limit int) (dead []index.Slot, more bool, err error) {
	from := appendSlotKey(nil, prefixTombstone, c.number, index.Slot(c.cnt.purgeCursor))
	to := appendSlotKey(nil, prefixTombstone, c.number, index.Slot(c.rec.GetSealedSlots()))
	if string(from) >= string(to) {
		return nil, false, nil
	}
	it, err := a.e.db.Iterate(from, to)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	looked := 0
	for it.Next() {
		if len(dead) == limit || looked == limit*purgeScanFactor {
			return dead, true, nil
		}
		looked++
		slot, err := slotOfKey(it.Key())
		if err != nil {
			return nil, false, err
		}
		v, err := it.Value()
		if err != nil {
			return nil, false, err
		}
		at, err := decodeTombstone(v)
		if err != nil {
			return nil, false, err
		}
		if at <= c.rec.GetSealedIndex() {
			dead = append(dead, slot)
		}
		c.cnt.purgeCursor = uint32(slot) + 1
	}
	c.cnt.purgeCursor = c.rec.GetSealedSlots()
	return dead, false, nil
}
