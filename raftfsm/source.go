// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/internal/storage"
)

// source reads the slots of one collection for its index.
type source struct {
	db        *storage.DB
	number    uint32
	dimension int
	sealed    atomic.Uint64 // log index at which the current generation was sealed
}

var _ index.Source = (*source)(nil)

// Scan calls fn for the slots of the current generation: dead ones too, unless
// they were dead when it was sealed, so that what a graph is built of does not
// depend on when.
func (s *source) Scan(from index.Slot, fn func(index.Entry) error) (err error) {
	snap := s.db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	vectors, err := s.vectors(snap, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vectors.Close()) }()
	vec := make([]float32, s.dimension)
	return scanSlots(snap, s.number, from, func(slot index.Slot, deadAt uint64, value func() ([]byte, error)) error {
		if deadAt != 0 && deadAt <= s.sealed.Load() {
			return nil
		}
		rec, err := value()
		if err != nil {
			return err
		}
		sr, err := decodeSlot(rec)
		if err != nil {
			return err
		}
		if err := s.nextVector(vectors, slot, vec); err != nil {
			return err
		}
		return fn(index.Entry{Slot: slot, Vector: vec, Payload: sr.metadata, DeadAt: deadAt})
	})
}

func (s *source) vectors(r storage.Reader, from index.Slot) (*storage.Iterator, error) {
	_, upper := numberRange(prefixVector, s.number)
	return r.Iterate(appendSlotKey(nil, prefixVector, s.number, from), upper)
}

// nextVector moves to the vector of a slot, which is most often the next one.
func (s *source) nextVector(it *storage.Iterator, slot index.Slot, dst []float32) error {
	for it.Next() {
		at, err := slotOfKey(it.Key())
		if err != nil {
			return err
		}
		if at < slot {
			continue
		}
		v, err := it.Value()
		if err != nil {
			return err
		}
		if at > slot || len(v) != 4*len(dst) {
			return s.badVector(slot, len(v), len(dst))
		}
		decodeVector(dst, v)
		return nil
	}
	return s.badVector(slot, 0, len(dst))
}

func (s *source) badVector(slot index.Slot, have, dimension int) error {
	return fmt.Errorf("%w: vector of slot %d of collection %d is missing or has %d bytes instead of %d", ErrCorrupt, slot, s.number, have, 4*dimension)
}

// Vector reads one vector.
func (s *source) Vector(slot index.Slot, dst []float32) error {
	return s.readVector(s.db, slot, dst)
}

func (s *source) readVector(r storage.Reader, slot index.Slot, dst []float32) error {
	var keyBuf [slotKeyLen]byte
	b, ok, err := r.Get(appendSlotKey(keyBuf[:0], prefixVector, s.number, slot), make([]byte, 0, 4*len(dst)))
	if err != nil {
		return err
	}
	if !ok || len(b) != 4*len(dst) {
		return s.badVector(slot, len(b), len(dst))
	}
	decodeVector(dst, b)
	return nil
}

// scanSlots walks over the slot records >= from in order, with the log index of
// each slot's delete. The value is valid until fn returns.
func scanSlots(r storage.Reader, number uint32, from index.Slot, fn func(slot index.Slot, deadAt uint64, value func() ([]byte, error)) error) (err error) {
	lower, upper := numberRange(prefixSlot, number)
	slots, err := r.Iterate(lower, upper)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, slots.Close()) }()
	tomb, err := newTombstones(r, number, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tomb.close()) }()
	for ok := slots.Seek(appendSlotKey(nil, prefixSlot, number, from)); ok; ok = slots.Next() {
		slot, err := slotOfKey(slots.Key())
		if err != nil {
			return err
		}
		deadAt, err := tomb.deadAt(slot)
		if err != nil {
			return err
		}
		if err := fn(slot, deadAt, slots.Value); err != nil {
			return err
		}
	}
	return nil
}

// tombstones walks over the tombstones of a collection beside its slots.
type tombstones struct {
	it   *storage.Iterator
	ok   bool
	slot index.Slot
}

func newTombstones(r storage.Reader, number uint32, from index.Slot) (*tombstones, error) {
	_, upper := numberRange(prefixTombstone, number)
	it, err := r.Iterate(appendSlotKey(nil, prefixTombstone, number, from), upper)
	if err != nil {
		return nil, err
	}
	t := &tombstones{it: it}
	return t, t.next()
}

func (t *tombstones) next() (err error) {
	if t.ok = t.it.Next(); t.ok {
		t.slot, err = slotOfKey(t.it.Key())
	}
	return err
}

// deadAt is asked with increasing slots.
func (t *tombstones) deadAt(slot index.Slot) (uint64, error) {
	for t.ok && t.slot < slot {
		if err := t.next(); err != nil {
			return 0, err
		}
	}
	if !t.ok || t.slot != slot {
		return 0, nil
	}
	v, err := t.it.Value()
	if err != nil {
		return 0, err
	}
	return decodeTombstone(v)
}

func (t *tombstones) close() error { return t.it.Close() }

func decodeTombstone(v []byte) (uint64, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: tombstone of %d bytes", ErrCorrupt, len(v))
	}
	return binary.LittleEndian.Uint64(v), nil
}
