// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nemesis

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/akidb/akidb/jepsen/cluster"
)

func TestNamesAreFound(t *testing.T) {
	for alias, name := range aliases() {
		found, err := Find(alias)
		if err != nil || found[0].Name != name {
			t.Errorf("%s: %v, %v", alias, found, err)
		}
	}
	if list, err := Find("kill-all,slow"); err != nil || len(list) != 2 {
		t.Errorf("two names: %v, %v", list, err)
	}
	if _, err := Find("kill-all,no-such-thing"); err == nil {
		t.Error("a name that does not exist was found")
	}
}

func TestNeedsThatExcludeEachOther(t *testing.T) {
	list, err := Find("disk-full,power-all")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(list); err == nil {
		t.Error("two kinds of disk at once were accepted")
	}
	list, err = Find("slow,memory,snapshots,power")
	if err != nil {
		t.Fatal(err)
	}
	needs, err := Merge(list)
	if err != nil || !needs.Delays || !needs.Root || !needs.Crashes || needs.Disk != cluster.DiskFuse || len(needs.Args) == 0 {
		t.Errorf("%+v, %v", needs, err)
	}
}

// A flipped bit is in the part of a file that holds something, and only one flips.
func TestDamageChangesWhatIsUsed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	name := filepath.Join(t.TempDir(), "log")
	before := append([]byte("some records"), make([]byte, 1<<16)...) // preallocated
	for range 20 {
		if err := os.WriteFile(name, before, 0o600); err != nil {
			t.Fatal(err)
		}
		did, err := flip(name, r)
		if err != nil && strings.Contains(err.Error(), "nothing but zeros") {
			continue // it did not meet the records; possible, if unlikely
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed := 0
		for i := range before {
			if before[i] != after[i] {
				changed++
				if before[i] == 0 {
					t.Errorf("%s: a bit of unused space", did)
				}
			}
		}
		if changed != 1 || len(after) != len(before) {
			t.Errorf("%s: %d bytes changed", did, changed)
		}
		if did, err = cutOff(name, r); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(name); err != nil || st.Size() >= int64(len(before)) {
			t.Errorf("%s: %v, %v", did, st, err)
		}
	}
}

func TestEverySeedGivesTheSamePauses(t *testing.T) {
	draw := func() (d []int64) {
		r := rand.New(rand.NewPCG(7, hash("kill-all")))
		for range 10 {
			d = append(d, int64(between(r, 6e9)))
		}
		return d
	}
	if a, b := draw(), draw(); !slices.Equal(a, b) {
		t.Errorf("%v and %v", a, b)
	}
	for _, d := range draw() {
		if d < 3e9 || d > 6e9 {
			t.Errorf("%d is not between half of it and the whole", d)
		}
	}
}
