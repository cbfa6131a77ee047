// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
	"github.com/akidb/akidb/internal/storage"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Goal: a replica whose state is not the leader's is found, takes itself out of
// service and says so to everybody, also after a restart; the manual's way back
// works. Method: change one byte of a document in the store of a stopped follower,
// then write that document again: the follower computes another hash.
func TestDivergedReplicaFencesItself(t *testing.T) {
	x := startTrial(t, 3, 2, "--state-check-interval", "200ms")
	x.other()
	write := func() {
		t.Helper()
		_, err := x.cl.Upsert(x.ctx(), &collectionv1.UpsertRequest{CollectionId: "other", DocId: "changed-on-the-disk", Vector: make([]float32, ledgerDim)})
		x.must(err)
	}
	write()
	n := x.follower()
	x.wait("the document on "+n.ID, func() (bool, string) {
		_, err := x.on(n).Get(x.ctx(), &collectionv1.GetRequest{CollectionId: "other", DocId: "changed-on-the-disk"})
		return err == nil, ""
	})
	x.must(n.Stop(x.ctx()))
	changeDocument(t, n, "changed-on-the-disk")
	x.restart(n)
	write()

	fenced := func() (bool, string) {
		st := x.status(n)
		if st == nil {
			return false, "no answer"
		}
		return !st.Ready && strings.Contains(st.NotReadyReason, "state hash"), st.NotReadyReason
	}
	cfg, err := x.c.ClientConfig()
	x.must(err)
	cfg.Endpoints, cfg.Pin, cfg.MaxAttempts = []string{n.GRPC}, true, 1
	cl, err := client.Open(cfg)
	x.must(err)
	defer cl.Close()
	for _, when := range []string{"found", "restarted"} {
		x.wait(n.ID+" to fence itself, "+when, fenced)
		_, err := cl.Count(x.ctx(), &collectionv1.CountRequest{CollectionId: "ledger", Consistency: client.Eventual})
		if client.Reason(err) != "FENCED" {
			t.Errorf("%s, it answered a read: %v", when, err)
		}
		x.wait("the alarm", func() (bool, string) { a := x.alarms(); return a["DIVERGED "+n.ID], "" })
		if when == "found" {
			out, _, status := akidb(t, "cluster", "verify", "--endpoints", strings.Join(x.c.Endpoints(), ","), "--ca-cert", x.c.CACert)
			if status == 0 || !strings.Contains(out, "NOT EQUAL") {
				t.Errorf("verify ends with %d: %s", status, out)
			}
			// Nothing is written that a check could compare: it must remember.
			x.load.stop()
			n.Kill()
			x.must(n.Start())
		}
	}

	// The manual: remove the data, let it rejoin, clear the alarm.
	n.Kill()
	x.must(n.Wipe())
	x.restart(n)
	if _, stderr, status := akidb(t, "cluster", "alarms", "--clear", "DIVERGED,"+n.ID, "--endpoints", strings.Join(x.c.Endpoints(), ","), "--ca-cert", x.c.CACert); status != 0 {
		t.Errorf("clear: %s", stderr)
	}
	x.wait("no alarm", func() (bool, string) { return len(x.alarms()) == 0, "" })
	x.finish()
	if out, stderr, status := akidb(t, "cluster", "verify", "--endpoints", strings.Join(x.c.Endpoints(), ","), "--ca-cert", x.c.CACert); status != 0 {
		t.Errorf("verify: %s%s", out, stderr)
	}
}

// changeDocument changes the time stamp of a document behind the back of a stopped
// node: the last eight bytes of the value of its key.
func changeDocument(t *testing.T, n *localcluster.Node, id string) {
	t.Helper()
	stores, err := filepath.Glob(filepath.Join(n.DataDir(), "groups", "1", "store-*"))
	if err != nil || len(stores) != 1 {
		t.Fatalf("%v, %v", stores, err)
	}
	db, err := storage.Open(stores[0], storage.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	it, err := db.Iterate([]byte("D"), []byte("E"))
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	for it.Next() {
		if key := it.Key(); strings.HasSuffix(string(key), id) {
			value, err := it.Value()
			if err != nil {
				t.Fatal(err)
			}
			value = append([]byte(nil), value...)
			value[len(value)-8] ^= 1
			if err := b.Set(append([]byte(nil), key...), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := it.Close(); err != nil || b.Empty() {
		t.Fatalf("document %q: %v", id, err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
}
