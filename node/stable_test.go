// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/akidb/akidb/internal/storage"
)

// vote is what a stable store holds.
type vote struct {
	term, voteTerm uint64
	cand           string
}

func (v vote) write(s closableStable) error {
	if err := s.SetUint64([]byte(keyTerm), v.term); err != nil {
		return err
	}
	if err := s.SetUint64([]byte(keyVoteTerm), v.voteTerm); err != nil {
		return err
	}
	return s.Set([]byte(keyVoteCand), []byte(v.cand))
}

func readVote(s closableStable) (v vote, err error) {
	if v.term, err = s.GetUint64([]byte(keyTerm)); err != nil {
		return v, err
	}
	if v.voteTerm, err = s.GetUint64([]byte(keyVoteTerm)); err != nil {
		return v, err
	}
	cand, err := s.Get([]byte(keyVoteCand))
	return vote{v.term, v.voteTerm, string(cand)}, err
}

// storeVote makes a store with a vote and returns its file.
func storeVote(t *testing.T, dir string, v vote) (path string) {
	t.Helper()
	s, err := openStable(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := v.write(s); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "stable.db")
}

func mustVote(t *testing.T, dir string, want vote) {
	t.Helper()
	s, err := openStable(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := readVote(s); err != nil || got != want {
		t.Fatalf("%+v, %v; want %+v", got, err, want)
	}
}

// Goal: whatever bit flips in the store of term and vote, the node knows them as
// they were or does not start. Method: bits of every part of the file that is in
// use, one at a time, in a process that begins behind the last one if it dies: bbolt
// panics at some of what it finds, in goroutines of its own, which is no start either.
func TestFlippedBitsNeverChangeAVote(t *testing.T) {
	const env = "AKIDB_TEST_FLIPS" // directory, and which flip is the first
	want := vote{7, 7, "127.0.0.1:7001"}
	if arg := os.Getenv(env); arg != "" {
		dir, first, _ := strings.Cut(arg, "\n")
		flipBits(t, dir, first, want)
		return
	}
	dir := t.TempDir()
	s, err := openStable(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []vote{{3, 3, "127.0.0.1:7000"}, {6, 5, "127.0.0.1:7002"}, want} {
		if err := v.write(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustVote(t, dir, want)
	if err := os.Rename(filepath.Join(dir, "stable.db"), filepath.Join(dir, "sound")); err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]int{}
	for next := 0; ; {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s\n%d", env, dir, next))
		out, err := cmd.CombinedOutput()
		done := false
		for line := range strings.Lines(string(out)) {
			word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch word {
			case "refused", "same":
				next++
			case "changed":
				next++
				t.Error(rest)
			case "end":
				done = true
				continue
			default:
				continue
			}
			outcomes[word]++
		}
		if done {
			break
		}
		if _, died := errors.AsType[*exec.ExitError](err); !died {
			t.Fatalf("%v: %s", err, out)
		}
		outcomes["died"]++
		next++
	}
	t.Logf("flips: %v", outcomes)
	if outcomes["refused"] < 50 || outcomes["same"] == 0 {
		t.Errorf("flips: %v", outcomes)
	}
}

// flipBits flips bits of the store dir/sound from the first-th on and prints what
// came of it.
func flipBits(t *testing.T, dir, first string, want vote) {
	skip, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "sound"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(96, 1))
	n := 0
	for at, b := range whole {
		bit := r.IntN(8)
		// All of what is in use, and a little of the rest.
		if b == 0 && r.IntN(100) > 0 {
			continue
		}
		if n++; n <= skip {
			continue
		}
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1 << bit
		if err := os.WriteFile(filepath.Join(dir, "stable.db"), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openStable(nil, dir)
		if err == nil {
			var got vote
			if got, err = readVote(s); err == nil && got == want {
				fmt.Println("same")
			} else if err == nil {
				fmt.Printf("changed bit %d of byte %d: %+v\n", bit, at, got)
			}
			s.Close()
		}
		if err != nil {
			fmt.Println("refused", err)
		}
	}
	fmt.Println("end")
}

// Goal: a version without checksums may have written the store, all of it or last,
// and what it finds is no other vote than was given.
func TestStableStoresWithoutChecksums(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "stable.db")
	before := func(v vote, parts int) {
		t.Helper()
		old, err := openBolt(path, false)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		for i, write := range []func() error{
			func() error { return old.SetUint64([]byte(keyTerm), v.term) },
			func() error { return old.SetUint64([]byte(keyVoteTerm), v.voteTerm) },
			func() error { return old.Set([]byte(keyVoteCand), []byte(v.cand)) },
		} {
			if i < parts {
				if err := write(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	before(vote{4, 4, "a:1"}, 3)
	mustVote(t, dir, vote{4, 4, "a:1"})
	mustVote(t, dir, vote{4, 4, "a:1"})
	before(vote{5, 5, "b:1"}, 3) // went back to the version before
	mustVote(t, dir, vote{5, 5, "b:1"})
	before(vote{6, 0, ""}, 1) // it heard of a term
	mustVote(t, dir, vote{6, 5, "b:1"})
	before(vote{7, 7, ""}, 2) // and died before it had written its vote
	mustVote(t, dir, vote{7, 7, "b:1"})
	old, err := openBolt(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if term, err := old.GetUint64([]byte(keyTerm)); err != nil || term != 7 {
		t.Errorf("the version before reads term %d, %v", term, err)
	}
	if cand, err := old.Get([]byte(keyVoteCand)); err != nil || string(cand) == "b:1" || !strings.HasPrefix(string(cand), "b:1") {
		t.Errorf("the version before reads %q, %v", cand, err)
	}
}

// Goal: a store in which a value lost its name is refused, and says which.
func TestStableStoreRefusesWhatIsMissing(t *testing.T) {
	for _, key := range []string{keyTerm, keyVoteTerm, keyVoteCand} {
		dir := t.TempDir()
		path := storeVote(t, dir, vote{9, 9, "a:1"})
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		other := []byte(key)
		other[0]++ // a key that nobody asks for
		if err := os.WriteFile(path, bytes.ReplaceAll(whole, []byte(key), other), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openStable(nil, dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("damaged: key %q", other)) {
			t.Errorf("without %s: %v", key, err)
		}
	}
}

// cachedDisk is a store whose failed writes are read all the same, as pages of a file
// are that a flush did not take to the disk.
type cachedDisk struct {
	*fileStable
	fail bool
}

var errNoDisk = errors.New("input/output error")

func (d *cachedDisk) Set(key, val []byte) error {
	d.Values[string(key)] = bytes.Clone(val)
	if d.fail {
		return errNoDisk
	}
	return nil
}

// A vote that could not be stored was not given. If it were read all the same, the same
// candidate would get it at its next request, and after a crash another one: two votes
// in one term.
func TestVoteThatWasNotStoredIsNotSeen(t *testing.T) {
	disk := &cachedDisk{fileStable: &fileStable{Values: map[string][]byte{}}}
	s := newSealedStable(disk, "stable.db")
	want := vote{4, 4, "a:1"}
	if err := want.write(s); err != nil {
		t.Fatal(err)
	}
	disk.fail = true
	if err := s.SetUint64([]byte(keyVoteTerm), 5); !errors.Is(err, errNoDisk) {
		t.Fatal(err)
	}
	if got, err := readVote(s); err != nil || got != want {
		t.Errorf("after a write that failed: %+v, %v; want %+v", got, err, want)
	}
	if err := s.SetUint64([]byte(keyTerm), 6); !errors.Is(err, errNoDisk) {
		t.Fatal(err)
	}
	disk.fail = false
	want.term = 7
	if err := s.SetUint64([]byte(keyTerm), 7); err != nil {
		t.Fatal(err)
	}
	if got, err := readVote(s); err != nil || got != want {
		t.Errorf("once the disk takes writes: %+v, %v; want %+v", got, err, want)
	}
	if again := newSealedStable(disk, "stable.db"); again.load() != nil {
		t.Error(again.load())
	} else if got, err := readVote(again); err != nil || got != want {
		t.Errorf("what is stored: %+v, %v; want %+v", got, err, want)
	}
}

// The same of the store that simulations use.
func TestVoteThatWasNotStoredIsNotSeenInAFile(t *testing.T) {
	failing := false
	disk := storage.FailingFS(storage.NewCrashFS(), func(write bool, _, _ string) bool { return write && failing })
	if err := mkdirAll(disk, "/data"); err != nil {
		t.Fatal(err)
	}
	s, err := openStable(disk, "/data")
	if err != nil {
		t.Fatal(err)
	}
	want := vote{4, 4, "a:1"}
	if err := want.write(s); err != nil {
		t.Fatal(err)
	}
	failing = true
	if s.SetUint64([]byte(keyVoteTerm), 5) == nil || s.Set([]byte(keyVoteCand), []byte("b:1")) == nil || s.Set([]byte("new"), nil) == nil {
		t.Fatal("stored on a disk that takes no writes")
	}
	if got, err := readVote(s); err != nil || got != want {
		t.Errorf("after writes that failed: %+v, %v; want %+v", got, err, want)
	}
	if _, err := s.Get([]byte("new")); err == nil {
		t.Error("a value that was never stored is there")
	}
}

// What an open finds may be there in memory only: the process before could not write
// it, and the next flush says nothing of that. It is written anew.
func TestStableStoreIsWrittenAnewByEachOpen(t *testing.T) {
	dir := t.TempDir()
	path := storeVote(t, dir, vote{9, 9, "a:1"})
	before := boltRoot(t, path)
	mustVote(t, dir, vote{9, 9, "a:1"})
	if after := boltRoot(t, path); after == before {
		t.Errorf("the values are where they were, on page %d", before)
	}
}

// boltRoot is the page at which a bbolt file of few values has all of them. Whatever is
// written moves them.
func boltRoot(t *testing.T, path string) uint64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	newest := b[:size]
	if second := b[size : 2*size]; binary.LittleEndian.Uint64(second[boltTxAt:]) > binary.LittleEndian.Uint64(newest[boltTxAt:]) {
		newest = second
	}
	return binary.LittleEndian.Uint64(newest[32:])
}
