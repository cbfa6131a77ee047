// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/akidb/akidb/index"
)

// Document is a document as of a view.
type Document struct {
	ID           string
	ExternalID   *string
	Vector       []float32 // as it was written; nil unless asked for
	Metadata     []byte    // JSON object or nil
	Version      uint64
	InsertedAtMs uint64 // 0 in matches, unless metadata or times were asked for
	UpdatedAtMs  uint64
}

// Projection says what to read of a document beside its id, external id and
// version.
type Projection struct {
	Vector, Metadata bool
	Times            bool // InsertedAtMs and UpdatedAtMs of matches
	// Each, if there is one, is given each match as soon as it is read; it may cut
	// it down, and its error ends the search.
	Each func(*Document) error
}

// Match is a search result.
type Match struct {
	Document
	Distance float32
}

// Get reads a document; nil if there is none.
func (c *Collection) Get(id string, p Projection) (*Document, error) {
	slot, ok, err := c.slotOf(id)
	if err != nil || !ok {
		return nil, err
	}
	p.Times = true
	d := &Document{}
	return d, c.read(slot, p, d)
}

// Exists tells a document's version, without reading it.
func (c *Collection) Exists(id string) (version uint64, ok bool, err error) {
	d, ok, err := c.docRecord(id)
	return d.version, ok, err
}

func (c *Collection) slotOf(id string) (index.Slot, bool, error) {
	d, ok, err := c.docRecord(id)
	return d.slot, ok, err
}

func (c *Collection) docRecord(id string) (d docRecord, ok bool, err error) {
	var keyBuf [5 + MaxDocIDBytes]byte
	var valBuf [20]byte
	if len(id) > MaxDocIDBytes {
		return d, false, nil
	}
	v, ok, err := c.snap().Get(appendDocKey(keyBuf[:0], c.s.c.number, id), valBuf[:0])
	if err != nil || !ok {
		return d, false, c.readError(err)
	}
	d, err = decodeDoc(v)
	return d, err == nil, c.readError(err)
}

func (c *Collection) readError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("raftfsm: read collection %q: %w", c.s.rec.GetName(), markCorrupt(err))
}

// read fills d with what is known of a slot.
func (c *Collection) read(slot index.Slot, p Projection, d *Document) error {
	if p.Metadata || p.Times {
		var keyBuf [slotKeyLen]byte
		b, ok, err := c.snap().Get(appendSlotKey(keyBuf[:0], prefixSlot, c.s.c.number, slot), nil)
		if err == nil && !ok {
			err = fmt.Errorf("%w: slot %d is missing", ErrCorrupt, slot)
		}
		if err != nil {
			return c.readError(err)
		}
		s, err := decodeSlot(b)
		if err != nil {
			return c.readError(err)
		}
		d.ID, d.ExternalID, d.Version = s.id, s.externalID, s.version
		d.InsertedAtMs, d.UpdatedAtMs = s.insertedAt, s.updatedAt
		if p.Metadata && len(s.metadata) > 0 {
			d.Metadata = s.metadata
		}
	} else if !c.s.tbl.fill(slot, d) {
		return c.readError(fmt.Errorf("%w: slot %d has no document id", ErrCorrupt, slot))
	}
	if p.Vector {
		d.Vector = make([]float32, c.s.rec.GetDimension())
		if err := c.s.c.src.readVector(c.snap(), slot, d.Vector); err != nil {
			return c.readError(err)
		}
	}
	return nil
}

// Search returns the nearest documents, nearest first.
func (c *Collection) Search(ctx context.Context, q index.Query, p Projection) ([]Match, index.Stats, error) {
	found, stats, err := c.s.c.idx.Search(ctx, q, c.indexView(), make([]index.Result, 0, min(max(q.K, 0), 1024)))
	if err != nil {
		return nil, stats, markCorrupt(err)
	}
	out := make([]Match, len(found))
	for i, r := range found {
		out[i].Distance = r.Distance
		if i%256 == 0 && ctx.Err() != nil {
			return nil, stats, ctx.Err()
		}
		if err := c.read(r.Slot, p, &out[i].Document); err != nil {
			return nil, stats, err
		}
		if p.Each == nil {
			continue
		}
		if err := p.Each(&out[i].Document); err != nil {
			return nil, stats, err
		}
	}
	return out, stats, nil
}

// Count counts the documents a filter admits; all of them if it is nil.
func (c *Collection) Count(ctx context.Context, f *index.Filter) (int, error) {
	if f == nil {
		return c.s.live, nil
	}
	n, err := c.s.c.idx.Count(ctx, f, c.indexView())
	return n, markCorrupt(err)
}

// Scroll lists up to limit documents with id > after, by id.
func (c *Collection) Scroll(ctx context.Context, f *index.Filter, after string, limit int, p Projection) ([]Document, error) {
	if limit <= 0 {
		return nil, nil
	}
	p.Times = true
	slots, err := c.scrollSlots(ctx, f, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Document, len(slots))
	for i, slot := range slots {
		if err := c.read(slot, p, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// scrollSelective: if fewer than one document in this many matches a filter, the
// matching ids are sorted; else the documents are walked in order and tested.
const scrollSelective = 16

func (c *Collection) scrollSlots(ctx context.Context, f *index.Filter, after string, limit int) ([]index.Slot, error) {
	if f == nil {
		return c.walkDocuments(ctx, after, limit, func(index.Slot) bool { return true })
	}
	matching := roaring.New()
	err := c.s.c.idx.Match(ctx, f, c.indexView(), func(s index.Slot) bool {
		matching.Add(uint32(s))
		return true
	})
	if err != nil {
		return nil, markCorrupt(err)
	}
	if int(matching.GetCardinality()) >= c.s.live/scrollSelective {
		return c.walkDocuments(ctx, after, limit, func(s index.Slot) bool { return matching.Contains(uint32(s)) })
	}
	return c.smallestIDs(ctx, matching, after, limit)
}

// walkDocuments lists the slots of documents in the order of their ids.
func (c *Collection) walkDocuments(ctx context.Context, after string, limit int, admit func(index.Slot) bool) (slots []index.Slot, err error) {
	_, upper := numberRange(prefixDocument, c.s.c.number)
	lower := appendDocKey(nil, c.s.c.number, after)
	if after != "" {
		lower = append(lower, 0) // the smallest key above
	}
	it, err := c.snap().Iterate(lower, upper)
	if err != nil {
		return nil, c.readError(err)
	}
	defer func() { err = errors.Join(err, c.readError(it.Close())) }()
	for n := 0; len(slots) < limit && it.Next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		v, err := it.Value()
		if err != nil {
			return nil, c.readError(err)
		}
		d, err := decodeDoc(v)
		if err != nil {
			return nil, c.readError(err)
		}
		if admit(d.slot) {
			slots = append(slots, d.slot)
		}
	}
	return slots, nil
}

// smallestIDs lists the slots with the limit smallest ids above after. It holds
// no more than limit of them.
func (c *Collection) smallestIDs(ctx context.Context, matching *roaring.Bitmap, after string, limit int) ([]index.Slot, error) {
	h := idHeap{tbl: c.s.tbl}
	it := matching.Iterator()
	for n := 0; it.HasNext(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		slot := index.Slot(it.Next())
		id := h.tbl.idBytes(slot)
		if string(id) <= after {
			continue
		}
		if len(h.slots) < limit {
			heap.Push(&h, slot)
		} else if bytes.Compare(id, h.tbl.idBytes(h.slots[0])) < 0 {
			h.slots[0] = slot
			heap.Fix(&h, 0)
		}
	}
	sort.Slice(h.slots, func(i, j int) bool {
		return bytes.Compare(h.tbl.idBytes(h.slots[i]), h.tbl.idBytes(h.slots[j])) < 0
	})
	return h.slots, nil
}

// idHeap has the largest id on top.
type idHeap struct {
	tbl   slotView
	slots []index.Slot
}

func (h *idHeap) Len() int { return len(h.slots) }
func (h *idHeap) Less(i, j int) bool {
	return bytes.Compare(h.tbl.idBytes(h.slots[i]), h.tbl.idBytes(h.slots[j])) > 0
}
func (h *idHeap) Swap(i, j int) { h.slots[i], h.slots[j] = h.slots[j], h.slots[i] }
func (h *idHeap) Push(x any)    { h.slots = append(h.slots, x.(index.Slot)) }
func (h *idHeap) Pop() any {
	x := h.slots[len(h.slots)-1]
	h.slots = h.slots[:len(h.slots)-1]
	return x
}
