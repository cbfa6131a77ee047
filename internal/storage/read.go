// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// Reader is what a DB and a Snapshot have in common.
type Reader interface {
	Get(key, dst []byte) (value []byte, ok bool, err error)
	Iterate(lower, upper []byte) (*Iterator, error)
}

var (
	_ Reader = (*DB)(nil)
	_ Reader = (*Snapshot)(nil)
)

// Snapshot is the store at one moment. Its methods may be called by several
// goroutines; Close must come after all of them.
type Snapshot struct{ s *pebble.Snapshot }

// Get is DB.Get at the moment of the snapshot.
func (s *Snapshot) Get(key, dst []byte) (value []byte, ok bool, err error) { return get(s.s, key, dst) }

// Iterate is DB.Iterate at the moment of the snapshot.
func (s *Snapshot) Iterate(lower, upper []byte) (*Iterator, error) { return iterate(s.s, lower, upper) }

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.s.Close() }

func get(r pebble.Reader, key, dst []byte) ([]byte, bool, error) {
	v, closer, err := r.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return dst, false, nil
		}
		return dst, false, mapError(err)
	}
	dst = append(dst, v...)
	return dst, true, closer.Close()
}

func iterate(r pebble.Reader, lower, upper []byte) (*Iterator, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, mapError(err)
	}
	return &Iterator{it: it}, nil
}

// Finder looks up keys at the moment it was made, many of which are not there.
// Other than DB.Get it asks the filters of the largest level too, where all of a
// young store is: a miss there costs a block read and unpacked instead. It is
// used by one goroutine.
type Finder struct{ it *pebble.Iterator }

// NewFinder returns a finder; Close it.
func (d *DB) NewFinder() (*Finder, error) {
	it, err := d.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, mapError(err)
	}
	return &Finder{it: it}, nil
}

// Get appends the value of key to dst. ok is false if there is none.
func (f *Finder) Get(key, dst []byte) (value []byte, ok bool, err error) {
	// Without a Split of its own the comparer takes all of a key as its prefix.
	// Pebble takes an empty prefix for none, on an iterator that is new.
	if !f.it.SeekPrefixGE(key) || len(f.it.Key()) != len(key) {
		return dst, false, mapError(f.it.Error())
	}
	v, err := f.it.ValueAndErr()
	if err != nil {
		return dst, false, mapError(err)
	}
	return append(dst, v...), true, nil
}

// Close releases the finder.
func (f *Finder) Close() error { return mapError(f.it.Close()) }

// Iterator walks over keys in increasing order. It is used by one goroutine.
type Iterator struct {
	it      *pebble.Iterator
	started bool
}

// Next moves to the next key, at first to the first one; false at the end or on
// an error, which Close returns.
func (i *Iterator) Next() bool {
	if !i.started {
		i.started = true
		return i.it.First()
	}
	return i.it.Next()
}

// Seek moves to the first key >= key.
func (i *Iterator) Seek(key []byte) bool {
	i.started = true
	return i.it.SeekGE(key)
}

// Key is valid until the next move.
func (i *Iterator) Key() []byte { return i.it.Key() }

// Value is valid until the next move.
func (i *Iterator) Value() ([]byte, error) {
	v, err := i.it.ValueAndErr()
	return v, mapError(err)
}

// Close releases the iterator and returns its first error.
func (i *Iterator) Close() error {
	err := i.it.Error()
	return mapError(errors.Join(err, i.it.Close()))
}

// Batch collects changes that are committed together. It is used by one
// goroutine.
type Batch struct {
	b    *pebble.Batch
	pace *pacer
}

// Set sets key to value; both are copied.
func (b *Batch) Set(key, value []byte) error { return b.b.Set(key, value, nil) }

// Delete removes key, if it is there.
func (b *Batch) Delete(key []byte) error { return b.b.Delete(key, nil) }

// Empty reports whether nothing was set or deleted.
func (b *Batch) Empty() bool { return b.b.Empty() }

// Bytes is the size of the batch.
func (b *Batch) Bytes() int { return b.b.Len() }

// Commit makes the changes visible, all at once; they become durable with a
// later flush. The batch is empty afterwards.
func (b *Batch) Commit() error {
	n := b.b.Len()
	if err := b.b.Commit(pebble.NoSync); err != nil {
		return mapError(err)
	}
	b.pace.commit(n)
	b.b.Reset()
	return nil
}

// Discard forgets the changes and gives the batch back.
func (b *Batch) Discard() error { return b.b.Close() }
