// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/akidb/akidb/internal/storage"
)

func TestCrashForgetsWhatWasNotSynced(t *testing.T) {
	d := NewDisk(rand.New(rand.NewPCG(1, 0)))
	old := d.Mount()
	if err := storage.WriteFile(old, "/a.json", []byte("1")); err != nil {
		t.Fatal(err)
	}
	f, err := old.Create("/unsynced", "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	d.Crash(0)
	if err := storage.WriteFile(old, "/a.json", []byte("2")); err != nil { // by the process that is dead
		t.Fatal(err)
	}
	m := d.Mount()
	if b, err := storage.ReadFile(m, "/a.json", 10); err != nil || string(b) != "1" {
		t.Errorf("synced file after the crash: %q, %v; want 1", b, err)
	}
	if _, err := m.Stat("/unsynced"); err == nil {
		t.Error("a file that was never synced survived the crash")
	}
}

func TestForgetfulDiskLosesWhatItSaidWasSynced(t *testing.T) {
	d := NewDisk(rand.New(rand.NewPCG(1, 0)))
	if err := storage.WriteFile(storage.ForgetSync(d.Mount()), "/a.json", []byte("1")); err != nil {
		t.Fatal(err)
	}
	d.Crash(0)
	if _, err := d.Mount().Stat("/a.json"); err == nil {
		t.Error("the file survived")
	}
}

func TestFailingDiskRefusesWrites(t *testing.T) {
	d := NewDisk(rand.New(rand.NewPCG(1, 0)))
	m := d.Mount()
	d.Fail(1000)
	if err := storage.WriteFile(m, "/a.json", []byte("x")); !errors.Is(err, storage.ErrInjected()) {
		t.Errorf("write to a failing disk: %v", err)
	}
	d.Mend()
	if err := storage.WriteFile(m, "/a.json", []byte("x")); err != nil {
		t.Errorf("write to a mended disk: %v", err)
	}
}
