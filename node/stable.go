// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"

	"github.com/akidb/akidb/internal/storage"
)

// closableStable is what both stable stores are.
type closableStable interface {
	raft.StableStore
	io.Closer
}

// What Raft keeps in its stable store (raft.go, keyCurrentTerm and the others), and
// raft-boltdb in a bucket of its own.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"

	bucketConf = "conf"
	bucketLogs = "logs" // unused
	// bucketSealed is there since all values are, each with its checksum.
	bucketSealed = "akidb"
)

// openStable opens Raft's term and vote. It refuses a store of which a part is
// damaged or missing: a node that forgot its vote could give another one in the
// same term.
func openStable(fsys storage.FS, groupDir string) (closableStable, error) {
	if fsys != nil {
		return openFileStable(fsys, filepath.Join(groupDir, "stable.json"))
	}
	path := filepath.Join(groupDir, "stable.db")
	if err := boltWhole(path); err != nil {
		return nil, boltOpenError(path, err)
	}
	db, err := bbolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return nil, boltOpenError(path, err)
	}
	if err := errors.Join(sealValues(db), db.Close()); err != nil {
		return nil, fmt.Errorf("node: open %s: %w; remove this node's data directory and let it rejoin", path, err)
	}
	under, err := openWholeBolt(path, false)
	if err != nil {
		return nil, err
	}
	s := newSealedStable(under, path)
	if err := s.load(); err != nil {
		under.Close()
		return nil, err
	}
	return s, nil
}

// sealedStable ends every value with a checksum: bbolt has them for its two headers
// alone. A version before it reads the numbers as they are, takes a vote for one
// given to somebody else, and writes without checksums.
//
// It knows what is on the disk and answers from that. bbolt reads the pages of its
// file, and those of a write that failed at its last flush are there to be read. Raft
// goes on after a vote that it could not store: it would take it for given when the
// same candidate asks once more, and after a crash the node could give another in
// the same term. Nor does a later flush that succeeds mean that those pages are on the
// disk, for Linux gives them up. So what was there is written anew before anything else,
// which moves all values to another page.
type sealedStable struct {
	under closableStable
	path  string

	mu      sync.Mutex        // guards the fields below
	values  map[string][]byte // without checksums
	suspect bool              // a write failed, and what under holds is not values
}

var _ closableStable = (*sealedStable)(nil)

func newSealedStable(under closableStable, path string) *sealedStable {
	return &sealedStable{under: under, path: path, values: make(map[string][]byte)}
}

// load reads what was just written by sealValues.
func (s *sealedStable) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range []string{keyTerm, keyVoteTerm, keyVoteCand} {
		b, err := s.under.Get([]byte(key))
		if err != nil && err.Error() == errNotFound.Error() {
			continue
		}
		if err != nil {
			return fmt.Errorf("node: read %s: %w", s.path, err)
		}
		val, ok := unsealed([]byte(key), b)
		if !ok {
			return fmt.Errorf("node: %s is damaged: %q does not match its checksum", s.path, key)
		}
		s.values[key] = val
	}
	return nil
}

// loudStable says what comes of a term or a vote that cannot be stored, which Raft
// does not: it ends the process with a stack for the one, and goes on after the other.
type loudStable struct {
	raft.StableStore
	log *slog.Logger
}

func (s loudStable) Set(key, val []byte) error { return s.tell(key, s.StableStore.Set(key, val)) }

func (s loudStable) SetUint64(key []byte, val uint64) error {
	return s.tell(key, s.StableStore.SetUint64(key, val))
}

func (s loudStable) tell(key []byte, err error) error {
	switch {
	case err == nil:
	case string(key) == keyTerm:
		s.log.Error("the process ends: the term cannot be stored, and a node that forgets it could vote twice; look at the disk and start it again", "err", err)
	default:
		s.log.Error("no vote given: it cannot be stored", "err", err)
	}
	return err
}

// sealed is a value with its checksum, and unsealed the value again.
func sealed(key, val []byte) []byte {
	h := xxh3.New()
	_, _ = h.Write(key) // a hash never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(val)
	out := append(bytes.Clone(val), sealMagic[:]...)
	return binary.LittleEndian.AppendUint64(out, h.Sum64())
}

func unsealed(key, b []byte) (val []byte, ok bool) {
	n := len(b) - sealBytes
	if n < 0 || !bytes.Equal(b, sealed(key, b[:n])) {
		return nil, false
	}
	return b[:n], true
}

// Set stores a value, or leaves it as it was for all that is read here. A later
// start may find it: Raft takes what is there for a vote that was given, at worst one
// that was not.
func (s *sealedStable) Set(key, val []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suspect {
		for _, k := range slices.Sorted(maps.Keys(s.values)) {
			if err := s.under.Set([]byte(k), sealed([]byte(k), s.values[k])); err != nil {
				return err
			}
		}
		s.suspect = false
	}
	if err := s.under.Set(key, sealed(key, val)); err != nil {
		s.suspect = true
		return err
	}
	s.values[string(key)] = bytes.Clone(val)
	return nil
}

// SetUint64 is Set for a number.
func (s *sealedStable) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// Get returns what was stored last.
func (s *sealedStable) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	val, ok := s.values[string(key)]
	if !ok {
		return nil, errNotFound
	}
	return bytes.Clone(val), nil
}

// GetUint64 is Get for a number.
func (s *sealedStable) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("node: %s is damaged: %q is no number", s.path, key)
	}
	return binary.BigEndian.Uint64(b), nil
}

func (s *sealedStable) Close() error { return s.under.Close() }

// sealValues checks the values of a store and writes them: what is missing too, which
// is all in a new store and the checksums in one that a version without them wrote
// last, and what is there because it may be there in memory only. A process before
// this one may not have been able to flush it.
func sealValues(db *bbolt.DB) error {
	var values map[string][]byte
	if err := db.View(func(tx *bbolt.Tx) (err error) {
		values, err = sealedValues(tx)
		return err
	}); err != nil {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists([]byte(bucketSealed)); err != nil {
			return err
		}
		conf, err := tx.CreateBucketIfNotExists([]byte(bucketConf))
		if err != nil {
			return err
		}
		for key, val := range values {
			if err := conf.Put([]byte(key), val); err != nil {
				return err
			}
		}
		return nil
	})
}

// sealedValues are the values to be written. Everything is listed rather than looked
// up: where a key or a page is damaged, what is not found may be there.
func sealedValues(tx *bbolt.Tx) (map[string][]byte, error) {
	was := false // sealed
	values := map[string][]byte{}
	if err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if b == nil || tx.Bucket(name) == nil {
			return fmt.Errorf("damaged: %q", name)
		}
		switch string(name) {
		case bucketLogs:
		case bucketSealed:
			was = true
		case bucketConf:
			return b.ForEach(func(key, val []byte) error {
				switch string(key) {
				case keyTerm, keyVoteTerm, keyVoteCand:
					if bytes.Equal(b.Get(key), val) {
						values[string(key)] = bytes.Clone(val)
						return nil
					}
				}
				return fmt.Errorf("damaged: key %q", key)
			})
		default:
			return fmt.Errorf("damaged: bucket %q", name)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	// A version without checksums writes a vote's term and then its candidate.
	voted := len(values[keyVoteTerm]) == 8
	for _, key := range []string{keyTerm, keyVoteTerm, keyVoteCand} {
		number := key != keyVoteCand
		val, there := values[key]
		_, ok := unsealed([]byte(key), val)
		switch {
		case ok && was:
			out[key] = val
			continue
		case ok:
			return nil, fmt.Errorf("damaged: %q has a checksum, but there is no bucket %q", key, bucketSealed)
		case !there && was:
			return nil, fmt.Errorf("damaged: %q is missing", key)
		case !there && number:
			val = make([]byte, 8)
		case !there:
		case number && len(val) != 8, !number && was && !voted:
			return nil, fmt.Errorf("damaged: %q does not match its checksum", key)
		}
		out[key] = sealed([]byte(key), val)
	}
	return out, nil
}
