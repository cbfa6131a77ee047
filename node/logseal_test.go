// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A bit flips in the log of a stopped node, anywhere. It then either refuses to
// start, or reads what it wrote; at most it forgets the newest entries, as after
// a write that was torn. It never reads something else: that was applied, and
// the replica answered without an acknowledged document until the state check.
func TestFlippedBitInTheLogIsNeverApplied(t *testing.T) {
	for _, kind := range []string{logStoreWAL, logStoreBolt} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			store, err := openLogStore(nil, dir, kind, hclog.NewNullLogger())
			if err != nil {
				t.Fatal(err)
			}
			const entries = 40
			data := func(i uint64) []byte { return bytes.Repeat([]byte(fmt.Sprintf("entry %d ", i)), 20) }
			for i := uint64(1); i <= entries; i++ {
				if err := store.StoreLogs([]*raft.Log{{Index: i, Term: 3, Type: raft.LogCommand, Data: data(i)}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			refused, forgot := 0, 0
			for name, at := range places(t, dir, []byte("entry ")) {
				for _, off := range at {
					flipBit(t, name, off)
					last, err := readBack(dir, kind, data)
					switch {
					case err != nil && strings.Contains(err.Error(), "reads something else"):
						t.Errorf("a bit at %d of %s: %v", off, filepath.Base(name), err)
					case err != nil:
						refused++
						if !strings.Contains(err.Error(), dir) {
							t.Errorf("the refusal does not say where: %v", err)
						}
					case last < entries:
						forgot++
						flipBit(t, name, off)
						t.Skipf("opening took %d entries back as torn; what is left is another log", entries-last)
					}
					flipBit(t, name, off)
				}
			}
			t.Logf("refused %d times, forgot the end %d times", refused, forgot)
			if refused == 0 {
				t.Error("no flipped bit was noticed")
			}
		})
	}
}

// readBack opens the log and compares what it holds; it returns the last index.
func readBack(dir, kind string, data func(uint64) []byte) (uint64, error) {
	under, err := openLogStore(nil, dir, kind, hclog.NewNullLogger())
	if err != nil {
		return 0, err
	}
	defer under.Close()
	s, err := newLogStore(under, retention{entries: 1000, bytes: 1 << 20})
	if err != nil {
		return 0, err
	}
	last, err := s.LastIndex()
	if err != nil {
		return 0, err
	}
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			return 0, err
		}
		if l.Index != i || l.Term != 3 || len(l.Extensions) != 0 || !bytes.Equal(l.Data, data(i)) {
			return 0, fmt.Errorf("entry %d reads something else: %q", i, l.Data)
		}
	}
	return last, nil
}

// places finds where a file below dir holds what, every fiftieth of them.
func places(t *testing.T, dir string, what []byte) map[string][]int64 {
	t.Helper()
	found := make(map[string][]int64)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for n, at := 0, 0; ; n++ {
			i := bytes.Index(b[at:], what)
			if i < 0 {
				return nil
			}
			if n%50 == 7 {
				found[path] = append(found[path], int64(at+i+2))
			}
			at += i + len(what)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func flipBit(t *testing.T, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}
