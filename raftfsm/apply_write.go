// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"fmt"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

type docKey struct {
	number uint32
	id     string
}

// docState is a document as this run of entries left it.
type docState struct {
	docRecord
	exists bool
	// The command that wrote it, to tell a conflict within an entry.
	logIndex uint64
	ordinal  int
	// What its slot holds; the slot cannot be read back before the commit.
	externalID *string
	vector     []byte
	metadata   []byte
}

// plannedWrite is a write that was found good.
type plannedWrite struct {
	w      *fsmv1.Write
	old    docState
	vector []byte // of the new slot
	meta   []byte
	ext    *string
	skip   bool
}

// write applies a batch: first everything is checked against the state, then all
// of it is carried out, so that a refusal leaves no trace.
func (a *applier) write(w *fsmv1.WriteBatch, nowMs uint64, bytes int) (*fsmv1.Result, error) {
	c := a.e.byID[w.GetCollectionId()]
	if c == nil {
		return a.noCollection(w.GetCollectionId()), nil
	}
	n := len(w.GetWrites())
	switch {
	case n == 0:
		return a.refuse(fsmv1.Status_STATUS_INVALID, "a batch without writes"), nil
	case n > MaxBatchWrites:
		return a.refuse(fsmv1.Status_STATUS_INVALID, "a batch of %d writes, at most %d are allowed", n, MaxBatchWrites), nil
	case bytes > MaxBatchBytes:
		return a.refuse(fsmv1.Status_STATUS_INVALID, "a batch of %d bytes, at most %d are allowed", bytes, MaxBatchBytes), nil
	case uint64(c.cnt.nextSlot)+uint64(n) > MaxSlots:
		return a.refuse(fsmv1.Status_STATUS_INVALID, "collection %q has used up its slots; copy it into a new one", c.rec.GetName()), nil
	}
	clear(a.plan)
	a.plan = a.plan[:0]
	var seen map[string]struct{}
	if n > 1 {
		seen = make(map[string]struct{}, n)
	}
	for i, one := range w.GetWrites() {
		if seen != nil {
			if _, twice := seen[one.GetDocId()]; twice {
				res := a.refuse(fsmv1.Status_STATUS_INVALID, "document %q is written twice in one batch", one.GetDocId())
				res.FailedWrite = uint32(i)
				return res, nil
			}
			seen[one.GetDocId()] = struct{}{}
		}
		p, res, err := a.planWrite(c, one)
		if err != nil {
			return nil, err
		}
		if res != nil {
			res.FailedWrite = uint32(i)
			return res, nil
		}
		a.plan = append(a.plan, p)
	}
	return a.carryOut(c, nowMs)
}

// planWrite checks one write; the result says why it is refused.
func (a *applier) planWrite(c *collection, w *fsmv1.Write) (p plannedWrite, refused *fsmv1.Result, err error) {
	if err := ValidateWrite(w, c.rec.GetDimension(), c.rec.GetMetric()); err != nil {
		return p, a.invalid(err), nil
	}
	p.w = w
	if p.old, err = a.document(c, w.GetDocId()); err != nil {
		return p, nil, err
	}
	if p.old.logIndex == a.logIndex && p.old.ordinal != a.ordinal {
		return p, a.refuse(fsmv1.Status_STATUS_ENTRY_CONFLICT, "document %q", w.GetDocId()), nil
	}
	if res := a.precondition(w, p.old); res != nil {
		if p.skip = w.GetSkipIfUnmet(); p.skip {
			return p, nil, nil
		}
		return p, res, nil
	}
	switch w.GetKind() {
	case fsmv1.Write_KIND_INSERT, fsmv1.Write_KIND_UPSERT:
		p.vector, p.meta, p.ext = w.GetVector(), w.GetMetadata(), w.ExternalId
	case fsmv1.Write_KIND_PATCH:
		if err := a.contents(c, &p.old); err != nil {
			return p, nil, err
		}
		p.vector, p.ext = p.old.vector, p.old.externalID
		if p.meta, err = mergePatch(p.old.metadata, w.GetMetadata()); err != nil {
			return p, nil, fmt.Errorf("%w: metadata of document %q: %w", ErrCorrupt, w.GetDocId(), err)
		}
		if len(p.meta) > MaxMetadataBytes {
			return p, a.refuse(fsmv1.Status_STATUS_INVALID, "metadata of document %q would have %d bytes, at most %d are allowed", w.GetDocId(), len(p.meta), MaxMetadataBytes), nil
		}
	}
	return p, nil, nil
}

// precondition says why the state does not admit the write.
func (a *applier) precondition(w *fsmv1.Write, old docState) *fsmv1.Result {
	id := w.GetDocId()
	switch w.GetKind() {
	case fsmv1.Write_KIND_INSERT:
		if old.exists {
			return a.refuse(fsmv1.Status_STATUS_DOCUMENT_EXISTS, "document %q, version %d", id, old.version)
		}
	case fsmv1.Write_KIND_PATCH, fsmv1.Write_KIND_DELETE:
		if !old.exists {
			return a.refuse(fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND, "document %q", id)
		}
	}
	if w.IfVersion == nil {
		return nil
	}
	have := uint64(0)
	if old.exists {
		have = old.version
	}
	switch want := w.GetIfVersion(); {
	case have == want:
		return nil
	case want == 0:
		return a.refuse(fsmv1.Status_STATUS_VERSION_MISMATCH, "document %q exists with version %d", id, have)
	case have == 0:
		return a.refuse(fsmv1.Status_STATUS_VERSION_MISMATCH, "document %q does not exist, version %d was asked for", id, want)
	default:
		return a.refuse(fsmv1.Status_STATUS_VERSION_MISMATCH, "document %q has version %d, version %d was asked for", id, have, want)
	}
}

// document finds the state of a document before this command.
func (a *applier) document(c *collection, id string) (docState, error) {
	if d, ok := a.docs[docKey{c.number, id}]; ok {
		return d, nil
	}
	var d docState
	if !c.ids.may(id) {
		return d, nil
	}
	a.key = appendDocKey(a.key[:0], c.number, id)
	v, ok, err := a.find(a.key, a.val[:0])
	if a.val = v; err != nil || !ok {
		return d, err
	}
	d.exists = true
	d.docRecord, err = decodeDoc(v)
	return d, err
}

// contents reads what the slot of a document holds, unless this run wrote it.
func (a *applier) contents(c *collection, d *docState) error {
	if d.vector != nil {
		return nil
	}
	b, ok, err := a.e.db.Get(appendSlotKey(a.key[:0], prefixSlot, c.number, d.slot), nil)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: slot %d of collection %q is missing", ErrCorrupt, d.slot, c.rec.GetName())
	}
	s, err := decodeSlot(b)
	if err != nil {
		return err
	}
	d.externalID, d.metadata = s.externalID, s.metadata
	d.vector, ok, err = a.e.db.Get(appendSlotKey(a.key[:0], prefixVector, c.number, d.slot), nil)
	if err == nil && (!ok || len(d.vector) != 4*int(c.rec.GetDimension())) {
		err = fmt.Errorf("%w: vector of slot %d of collection %q is missing or cut off", ErrCorrupt, d.slot, c.rec.GetName())
	}
	return err
}

func (a *applier) carryOut(c *collection, nowMs uint64) (*fsmv1.Result, error) {
	res := a.ok()
	slab := make([]fsmv1.WriteOutcome, len(a.plan))
	res.Writes = make([]*fsmv1.WriteOutcome, len(a.plan))
	for i := range a.plan {
		p := &a.plan[i]
		o := &slab[i]
		res.Writes[i] = o
		if p.skip {
			continue
		}
		o.Applied = true
		o.Created = !p.old.exists
		var err error
		if p.w.GetKind() == fsmv1.Write_KIND_DELETE {
			err = a.deleteDocument(c, p)
		} else {
			err = a.putDocument(c, p, nowMs)
		}
		if err != nil {
			return nil, err
		}
	}
	a.touch(c)
	return res, nil
}

// putDocument gives a document a new slot.
func (a *applier) putDocument(c *collection, p *plannedWrite, nowMs uint64) error {
	id := p.w.GetDocId()
	slot := index.Slot(c.cnt.nextSlot)
	c.cnt.nextSlot++
	d := docState{
		docRecord: docRecord{slot: slot, version: a.logIndex, insertedAt: nowMs},
		exists:    true, logIndex: a.logIndex, ordinal: a.ordinal,
		externalID: p.ext, vector: p.vector, metadata: p.meta,
	}
	var old []byte
	if p.old.exists {
		d.insertedAt = p.old.insertedAt
		var buf [20]byte
		old = p.old.append(buf[:0])
		if err := a.bury(c, p.old.slot); err != nil {
			return err
		}
	} else {
		c.cnt.live++
		c.ids.add(id)
	}
	s := slotRecord{id: id, externalID: p.ext, version: d.version, insertedAt: d.insertedAt, updatedAt: nowMs}
	a.val = append(s.appendHead(a.val[:0]), p.meta...)
	if err := a.set(appendSlotKey(a.key[:0], prefixSlot, c.number, slot), nil, a.val); err != nil {
		return err
	}
	if err := a.set(appendSlotKey(a.key[:0], prefixVector, c.number, slot), nil, p.vector); err != nil {
		return err
	}
	a.key = appendDocKey(a.key[:0], c.number, id)
	a.val = d.append(a.val[:0])
	if err := a.set(a.key, old, a.val); err != nil {
		return err
	}
	a.docs[docKey{c.number, id}] = d
	c.table.put(slot, id, p.ext, d.version)
	a.indexOps = append(a.indexOps, indexOp{kind: indexAppend, c: c, slot: slot, vector: p.vector, metadata: p.meta})
	return nil
}

func (a *applier) deleteDocument(c *collection, p *plannedWrite) error {
	id := p.w.GetDocId()
	if err := a.bury(c, p.old.slot); err != nil {
		return err
	}
	c.cnt.live--
	c.ids.remove(id)
	var buf [20]byte
	a.key = appendDocKey(a.key[:0], c.number, id)
	a.docs[docKey{c.number, id}] = docState{logIndex: a.logIndex, ordinal: a.ordinal}
	return a.remove(a.key, p.old.append(buf[:0]))
}

// bury marks a slot dead from this log index on.
func (a *applier) bury(c *collection, slot index.Slot) error {
	var buf [8]byte
	binary.LittleEndian.PutUint64(buf[:], a.logIndex)
	c.cnt.tombstones++
	a.indexOps = append(a.indexOps, indexOp{kind: indexDelete, c: c, slot: slot, at: a.logIndex})
	return a.set(appendSlotKey(a.key[:0], prefixTombstone, c.number, slot), nil, buf[:])
}
