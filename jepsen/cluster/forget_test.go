// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// mountTest mounts a forgetful disk, or skips the test where that is impossible.
func mountTest(t *testing.T) (*forgetfulFS, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
	root := t.TempDir()
	dir := filepath.Join(root, "data", "n1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := mountForgetful("jepsen-test", filepath.Join(root, "backing", "n1"), dir)
	if err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { f.unmount() })
	return f, dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What was synced survives a power failure; of what was not, each file keeps a
// prefix of the writes. Renames carry their notes along.
func TestPowerFailureTakesBackWhatWasNotSynced(t *testing.T) {
	f, dir := mountTest(t)
	name := filepath.Join(dir, "log.tmp")
	w, err := os.Create(name)
	must(t, err)
	_, err = w.WriteString("synced")
	must(t, err)
	must(t, w.Sync())
	_, err = w.WriteAt([]byte("SYNCED and more"), 0)
	must(t, err)
	must(t, w.Close())
	must(t, os.Rename(name, filepath.Join(dir, "log")))
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	must(t, err)
	if string(b) != "SYNCED and more" {
		t.Fatalf("before: %q", b)
	}
	// A file without any unsynced write is left alone.
	must(t, os.WriteFile(filepath.Join(dir, "other"), []byte("x"), 0o600))
	o, err := os.OpenFile(filepath.Join(dir, "other"), os.O_RDWR, 0)
	must(t, err)
	must(t, o.Sync())
	must(t, o.Close())

	outcomes := map[string]bool{}
	for seed := range uint64(8) {
		must(t, os.WriteFile(filepath.Join(dir, "again"), []byte("lost?"), 0o600))
		if _, err := f.losePower(seed); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(f.backing, "again"))
		must(t, err)
		outcomes[string(b)] = true
		must(t, os.Remove(filepath.Join(dir, "again")))
	}
	if b, _ := os.ReadFile(filepath.Join(f.backing, "log")); string(b) != "synced" && string(b) != "SYNCED and more" {
		t.Errorf("after: %q", b)
	}
	if b, _ := os.ReadFile(filepath.Join(f.backing, "other")); string(b) != "x" {
		t.Errorf("a synced file lost its content: %q", b)
	}
	if !outcomes[""] || !outcomes["lost?"] {
		t.Errorf("eight power failures had only these outcomes: %v", outcomes)
	}
}

// boltWriterEnv makes the test binary write a bolt database and exit.
const boltWriterEnv = "AKIDB_TEST_BOLT_WRITER"

// TestMain is the database process of TestBoltSurvivesThePowerFailure, if asked
// to be. That one cannot live in the process that serves the disk: a page fault
// on the mapped file would wait for a server that waits for the fault.
func TestMain(m *testing.M) {
	if name := os.Getenv(boltWriterEnv); name != "" {
		if err := writeBolt(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func writeBolt(name string) error {
	db, err := bolt.Open(name, 0o600, nil)
	if err != nil {
		return err
	}
	for i := range byte(40) {
		err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put([]byte{i}, make([]byte, 1000))
		})
		if err != nil {
			return err
		}
	}
	return db.Close()
}

// A database that syncs properly survives any power failure: bbolt, which maps
// its file into memory and is known to sync, is the witness for the file system.
func TestBoltSurvivesThePowerFailure(t *testing.T) {
	f, dir := mountTest(t)
	writer := exec.Command(os.Args[0])
	writer.Env = append(os.Environ(), boltWriterEnv+"="+filepath.Join(dir, "bolt.db"))
	if out, err := writer.CombinedOutput(); err != nil {
		t.Fatalf("writing the database: %v: %s", err, out)
	}
	if _, err := f.losePower(1); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(f.backing, "bolt.db"), 0o600, nil)
	must(t, err)
	defer db.Close()
	must(t, db.View(func(tx *bolt.Tx) error {
		if n := tx.Bucket([]byte("b")).Stats().KeyN; n != 40 {
			t.Errorf("%d keys survived, want 40", n)
		}
		return nil
	}))
}
