// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
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
	return sealedStable{under, path}, nil
}

// sealedStable ends every value with a checksum: bbolt has them for its two headers
// alone. A version before it reads the numbers as they are, takes a vote for one
// given to somebody else, and writes without checksums.
type sealedStable struct {
	*raftboltdb.BoltStore
	path string
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

func (s sealedStable) Set(key, val []byte) error { return s.BoltStore.Set(key, sealed(key, val)) }

func (s sealedStable) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

func (s sealedStable) Get(key []byte) ([]byte, error) {
	b, err := s.BoltStore.Get(key)
	if err != nil {
		return nil, err
	}
	val, ok := unsealed(key, b)
	if !ok {
		return nil, fmt.Errorf("node: %s is damaged: %q does not match its checksum", s.path, key)
	}
	return val, nil
}

func (s sealedStable) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("node: %s is damaged: %q is no number", s.path, key)
	}
	return binary.BigEndian.Uint64(b), nil
}

// sealValues checks the values of a store and writes what is missing: all in a new
// store, checksums in one that a version without them wrote last.
func sealValues(db *bbolt.DB) error {
	var missing map[string][]byte
	if err := db.View(func(tx *bbolt.Tx) (err error) {
		missing, err = missingValues(tx)
		return err
	}); err != nil || len(missing) == 0 {
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
		for key, val := range missing {
			if err := conf.Put([]byte(key), val); err != nil {
				return err
			}
		}
		return nil
	})
}

// missingValues is what has to be written. Everything is listed rather than looked
// up: where a key or a page is damaged, what is not found may be there.
func missingValues(tx *bbolt.Tx) (map[string][]byte, error) {
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
	missing := map[string][]byte{}
	// A version without checksums writes a vote's term and then its candidate.
	voted := len(values[keyVoteTerm]) == 8
	for _, key := range []string{keyTerm, keyVoteTerm, keyVoteCand} {
		number := key != keyVoteCand
		val, there := values[key]
		_, ok := unsealed([]byte(key), val)
		switch {
		case ok && was:
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
		missing[key] = sealed([]byte(key), val)
	}
	return missing, nil
}
