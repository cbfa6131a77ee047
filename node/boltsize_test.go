// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// A bolt file that lost its end or a header is refused by name: as the store of term
// and vote, as a log, and as what a WAL knows of its segments. Opening it would be
// the end of the process, or go back to what was before the last write.
func TestDamagedBoltFilesAreRefused(t *testing.T) {
	hlog := raftLogger(slog.New(slog.DiscardHandler))
	for _, file := range []string{"stable.db", filepath.Join("log-bolt", "log.db"), filepath.Join("log-wal", "wal-meta.db")} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			kind := logStoreWAL
			if filepath.Base(file) == "log.db" {
				kind = logStoreBolt
			}
			open := func() error {
				st, err := openStable(nil, dir)
				if err != nil {
					return err
				}
				defer st.Close()
				if err := st.SetUint64([]byte(keyTerm), 7); err != nil {
					return err
				}
				ls, err := openLogStore(nil, dir, kind, hlog)
				if err != nil {
					return err
				}
				defer ls.Close()
				last, err := ls.LastIndex()
				if err != nil {
					return err
				}
				return ls.StoreLogs([]*raft.Log{{Index: last + 1, Term: 7, Data: make([]byte, 9000)}})
			}
			for range 3 {
				if err := open(); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, file)
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			refused := 0
			for cut := len(whole) - 1; cut > 0; cut -= 1500 {
				if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
					t.Fatal(err)
				}
				err := boltWhole(path)
				if err == nil {
					continue // only pages that are not in use are missing, or there is no header
				}
				if !errors.Is(err, errFileCut) {
					t.Fatal(err)
				}
				if err := open(); !errors.Is(err, errFileCut) {
					t.Fatalf("%d of %d bytes: %v", cut, len(whole), err)
				}
				refused++
			}
			if refused == 0 {
				t.Errorf("no cut of %d bytes was refused", len(whole))
			}
			// A damaged header is no cut, and is not passed over for the older one.
			for _, header := range []int{0, os.Getpagesize()} {
				damaged := slices.Clone(whole)
				damaged[header+boltPagesAt+5] ^= 1
				if err := os.WriteFile(path, damaged, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := open(); !errors.Is(err, errBoltHeader) {
					t.Errorf("header at %d damaged: %v", header, err)
				}
				if err := os.WriteFile(path, damaged[:8192+100], 0o600); err != nil {
					t.Fatal(err)
				}
				if err := boltWhole(path); !errors.Is(err, errFileCut) {
					t.Errorf("header at %d damaged and the file cut: %v", header, err)
				}
			}
		})
	}
}
