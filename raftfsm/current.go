// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/akidb/akidb/internal/storage"
)

// The directory of a group holds
//
//	CURRENT             which store counts, and whether its making was finished
//	store-<n>/          the keyspace
//	index-<n>/<number>/ checkpoints of the graphs of that store
//
// A restore makes store-<n+1>, verifies it, and only then replaces CURRENT, so
// that a crash at any point leaves one store that counts. Other stores are left
// over and removed at the next start.

const (
	currentName   = "CURRENT"
	currentFormat = 1
	storePrefix   = "store-"
	indexPrefix   = "index-"
)

// storeRef names a store.
type storeRef struct{ n uint64 }

func (r storeRef) name() string { return fmt.Sprintf("%s%06d", storePrefix, r.n) }

func (r storeRef) path(cfg *Config) string { return cfg.FS.PathJoin(cfg.Dir, r.name()) }

// indexRoot is "" if graphs are not kept: the index writes to the disk itself,
// not through Config.FS.
func (r storeRef) indexRoot(cfg *Config) string {
	if cfg.noIndexDir {
		return ""
	}
	return filepath.Join(cfg.Dir, fmt.Sprintf("%s%06d", indexPrefix, r.n))
}

func (r storeRef) indexPath(cfg *Config, number uint32) string {
	if cfg.noIndexDir {
		return ""
	}
	return filepath.Join(r.indexRoot(cfg), numberName(number))
}

// current is the contents of CURRENT: one line of JSON and its checksum.
type current struct {
	Format int    `json:"format"`
	Store  uint64 `json:"store"`
	// Creating is true until the very first store holds its first records; such
	// a store holds nothing that was acknowledged and is made anew.
	Creating bool `json:"creating,omitempty"`
}

func sealLine(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s\n%016x\n", b, xxh3.Hash(b)), nil
}

// openLine checks what sealLine made and decodes it.
func openLine(b []byte, v any) error {
	line, check, ok := strings.Cut(string(b), "\n")
	if !ok || check != fmt.Sprintf("%016x\n", xxh3.HashString(line)) {
		return fmt.Errorf("%w: the checksum does not match", ErrCorrupt)
	}
	if err := json.Unmarshal([]byte(line), v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

func writeCurrent(cfg *Config, c current) error {
	c.Format = currentFormat
	b, err := sealLine(c)
	if err != nil {
		return err
	}
	name := cfg.FS.PathJoin(cfg.Dir, currentName)
	if err := storage.WriteFile(cfg.FS, name, b); err != nil {
		return fmt.Errorf("raftfsm: write %s: %w", name, err)
	}
	return nil
}

// readCurrent returns false if the directory has never held a store. If it did,
// a missing or damaged CURRENT is ErrCorrupt: starting empty would forget
// acknowledged writes.
func readCurrent(cfg *Config) (current, bool, error) {
	name := cfg.FS.PathJoin(cfg.Dir, currentName)
	var c current
	b, err := storage.ReadFile(cfg.FS, name, maxPointerBytes)
	if errors.Is(err, fs.ErrNotExist) {
		names, err := cfg.FS.List(cfg.Dir)
		if err != nil {
			return c, false, fmt.Errorf("raftfsm: list %s: %w", cfg.Dir, err)
		}
		for _, n := range names {
			if strings.HasPrefix(n, storePrefix) {
				return c, false, damaged(name, fmt.Errorf("%w: the file is missing, but %s is there", ErrCorrupt, n))
			}
		}
		return c, false, nil
	}
	if err != nil {
		return c, false, fmt.Errorf("raftfsm: read %s: %w", name, err)
	}
	if err := openLine(b, &c); err != nil {
		return c, false, damaged(name, err)
	}
	if c.Format != currentFormat {
		return c, false, fmt.Errorf("raftfsm: %s has format %d, this version knows %d: run a newer akidb", name, c.Format, currentFormat)
	}
	return c, true, nil
}

// openCurrent opens the store that counts, or makes the first one.
func openCurrent(cfg *Config) (storeRef, error) {
	if err := cfg.FS.MkdirAll(cfg.Dir, 0o755); err != nil {
		return storeRef{}, fmt.Errorf("raftfsm: create %s: %w", cfg.Dir, err)
	}
	c, found, err := readCurrent(cfg)
	if err != nil {
		return storeRef{}, err
	}
	if found && !c.Creating {
		ref := storeRef{n: c.Store}
		if _, err := cfg.FS.Stat(ref.path(cfg)); errors.Is(err, fs.ErrNotExist) {
			return ref, damaged(ref.path(cfg), fmt.Errorf("%w: the directory is missing, but %s names it", ErrCorrupt, currentName))
		}
		return ref, removeOthers(cfg, ref)
	}
	ref := storeRef{n: 1}
	return ref, createStore(cfg, ref)
}

func createStore(cfg *Config, ref storeRef) error {
	if err := storage.SyncDir(cfg.FS, cfg.FS.PathDir(cfg.Dir)); err != nil {
		return fmt.Errorf("raftfsm: sync the directory above %s: %w", cfg.Dir, err)
	}
	if err := writeCurrent(cfg, current{Store: ref.n, Creating: true}); err != nil {
		return err
	}
	if err := cfg.FS.RemoveAll(ref.path(cfg)); err != nil {
		return fmt.Errorf("raftfsm: remove unfinished store: %w", err)
	}
	db, err := storage.Open(ref.path(cfg), storage.Options{FS: cfg.FS, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	if err := errors.Join(initStore(db), db.Close(), storage.SyncDir(cfg.FS, cfg.Dir)); err != nil {
		return fmt.Errorf("raftfsm: make %s: %w", ref.path(cfg), err)
	}
	return writeCurrent(cfg, current{Store: ref.n})
}

// removeOthers removes what restores left over.
func removeOthers(cfg *Config, keep storeRef) error {
	names, err := cfg.FS.List(cfg.Dir)
	if err != nil {
		return fmt.Errorf("raftfsm: list %s: %w", cfg.Dir, err)
	}
	for _, n := range names {
		isStore := strings.HasPrefix(n, storePrefix) && n != keep.name()
		isIndex := strings.HasPrefix(n, indexPrefix) && !cfg.noIndexDir && n != filepath.Base(keep.indexRoot(cfg))
		if isStore || isIndex {
			if err := cfg.FS.RemoveAll(cfg.FS.PathJoin(cfg.Dir, n)); err != nil {
				return fmt.Errorf("raftfsm: remove left-over %s: %w", n, err)
			}
		}
	}
	return nil
}
