// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// smallDisk is enough for a node that does little, with the log it preallocates.
const smallDisk = 192 << 20

// startSmallDisks starts a trial whose nodes have a small disk each.
func startSmallDisks(t *testing.T, flags ...string) *trial {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts small disks, which only root may")
	}
	c, cl := startTestClusterWith(t, localcluster.Options{Nodes: 3, Flags: flags, Prepare: func(n *localcluster.Node) error {
		if err := os.MkdirAll(n.DataDir(), 0o700); err != nil {
			return err
		}
		if err := syscall.Mount("akidb-test", n.DataDir(), "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk)); err != nil {
			return err
		}
		t.Cleanup(func() { _ = syscall.Unmount(n.DataDir(), syscall.MNT_DETACH) })
		return nil
	}})
	return watch(t, c, cl, 4)
}

const filling = "filling"

// fill leaves free bytes on a node's disk; 0: not one.
func fill(n *localcluster.Node, free int64) error {
	f, err := os.OpenFile(filepath.Join(n.DataDir(), filling), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := int64(1 << 20); size > 0; {
		var st syscall.Statfs_t
		if err := syscall.Statfs(n.DataDir(), &st); err != nil {
			return err
		}
		if free > 0 && int64(st.Bavail)*st.Bsize <= free {
			return nil
		}
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// refused waits until a write is refused with RESOURCE_EXHAUSTED and a time to
// wait, and returns the error.
func (x *trial) refused() error {
	x.t.Helper()
	cfg, err := x.c.ClientConfig()
	x.must(err)
	cfg.MaxAttempts = 1
	cl, err := client.Open(cfg)
	x.must(err)
	defer cl.Close()
	var last error
	x.wait("a refusal", func() (bool, string) {
		ctx, cancel := context.WithTimeout(x.t.Context(), time.Second)
		defer cancel()
		_, last = cl.Upsert(ctx, &collectionv1.UpsertRequest{CollectionId: "other", DocId: "x", Vector: make([]float32, ledgerDim)})
		return client.Code(last) == codes.ResourceExhausted, fmt.Sprint(last)
	})
	after := time.Duration(0)
	for _, d := range status.Convert(errors.Unwrap(last)).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			after = r.RetryDelay.AsDuration()
		}
	}
	if after <= 0 || client.Reason(last) != "OVERLOADED" || !client.IsRetryable(last) {
		x.t.Errorf("refused with %v (%s), retry after %v", last, client.Reason(last), after)
	}
	return last
}

// reads demands that one linearizable read of the cluster and an eventual one of
// each replica succeed now.
func (x *trial) reads() {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := x.cl.Count(ctx, &collectionv1.CountRequest{CollectionId: "ledger", Consistency: client.Linearizable}); err != nil {
		x.t.Errorf("linearizable read: %v", err)
	}
	for _, n := range x.c.Nodes {
		if _, err := x.on(n).Count(ctx, &collectionv1.CountRequest{CollectionId: "ledger", Consistency: client.Eventual}); err != nil {
			x.t.Errorf("eventual read on %s: %v", n.ID, err)
		}
	}
}

// Goal: a disk that fills up costs no acknowledged write and no person's help.
// Method: fill the disk of a follower, of the leader, of all nodes below the
// budget: writes are refused with a time to wait, reads go on, NOSPACE is raised;
// then make room.
func TestDiskBudget(t *testing.T) {
	x := startSmallDisks(t, "--min-free-disk", "32MiB")
	x.other()
	for _, who := range []string{"follower", "leader", "all"} {
		victims := x.victims(who)
		for _, n := range victims {
			x.must(fill(n, 24<<20))
		}
		t.Logf("%s: %v", who, x.refused())
		x.reads()
		x.wait("the alarms", func() (bool, string) {
			a := x.alarms()
			for _, n := range victims {
				if !a["NOSPACE "+n.ID] {
					return false, fmt.Sprint(a)
				}
			}
			return true, ""
		})
		for _, n := range victims {
			x.must(os.Remove(filepath.Join(n.DataDir(), filling)))
		}
		x.more(50)
		x.wait("the alarms to end", func() (bool, string) { a := x.alarms(); return len(a) == 0, fmt.Sprint(a) })
	}
	x.finish()
}

func (x *trial) victims(who string) []*localcluster.Node {
	switch who {
	case "follower":
		return []*localcluster.Node{x.follower()}
	case "leader":
		return []*localcluster.Node{x.leader()}
	}
	return x.c.Nodes
}

// Goal: the same for disks that are full to the last byte at once, which no
// budget foresees. Reads go on wherever a majority has room. Method: as above,
// with either log: one has room set aside and fails at its snapshots, the other
// fails at once, and its node leaves Raft until there is room.
func TestFullDisk(t *testing.T) {
	for _, store := range []string{"wal", "bolt"} {
		t.Run(store, func(t *testing.T) { fullDisk(t, store) })
	}
}

func fullDisk(t *testing.T, store string) {
	x := startSmallDisks(t, "--log-store", store, "--min-free-disk", "0", "--snapshot-interval", "1s", "--snapshot-threshold", "50", "--trailing-logs", "50")
	for _, who := range []string{"follower", "leader", "all"} {
		victims := x.victims(who)
		for _, n := range victims {
			x.must(fill(n, 0))
		}
		x.needDisk(victims)
		if who != "all" {
			x.reads()
		}
		for _, n := range victims {
			x.must(os.Remove(filepath.Join(n.DataDir(), filling)))
		}
		x.must(x.c.WaitReady(x.ctx()))
		x.more(50)
	}
	x.finish()
}

// needDisk waits until one of the nodes could not do without its disk: it left
// Raft, or cannot take a snapshot. When the majority has left, the others have
// nothing to write any more.
func (x *trial) needDisk(nodes []*localcluster.Node) {
	x.t.Helper()
	x.wait("a node to need its disk", func() (bool, string) {
		for _, n := range nodes {
			ctx, cancel := context.WithTimeout(x.t.Context(), 2*time.Second)
			_, err := x.cl.Snapshot(ctx, n.GRPC)
			cancel()
			if st := x.status(n); err != nil && st != nil {
				x.t.Logf("%s: %v; %s, ready %v %s", n.ID, err, st.State, st.Ready, st.NotReadyReason)
				return true, ""
			}
		}
		return false, ""
	})
}

// Goal: memory that is used up is no dead end. Method: fill a collection until
// the budget refuses more, drop it, and go on.
func TestMemoryBudget(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's memory would be counted, and does not shrink")
	}
	x := startTrial(t, 3, 2, "--max-memory", "224MiB")
	x.other()
	full, stop := context.WithCancel(t.Context())
	defer stop()
	var filler sync.WaitGroup
	filler.Go(func() { _ = x.ingest(full, "big", 1<<40) }) // cut off on purpose
	t.Log(x.refused())
	x.reads()
	stop()
	filler.Wait()
	_, err := x.cl.DeleteCollection(x.ctx(), &collectionv1.DeleteCollectionRequest{CollectionId: "big"})
	x.must(err)
	x.more(50)
	x.finish()
}

// bulk writes so many bytes of vectors to a collection of their own.
func (x *trial) bulk(collection string, bytes int) {
	x.t.Helper()
	x.must(x.ingest(x.ctx(), collection, bytes))
}

func (x *trial) ingest(ctx context.Context, collection string, bytes int) error {
	const dim = 4096
	if _, err := x.cl.CreateCollection(ctx, &collectionv1.CreateCollectionRequest{Name: collection, Dimension: dim, Metric: "l2"}); err != nil {
		return err
	}
	in := x.cl.Ingest(ctx, collection, client.IngestOptions{BatchDocs: 100})
	for i := range bytes / (4 * dim) {
		v := make([]float32, dim)
		v[i%dim] = float32(i)
		if in.Add(&collectionv1.UpsertRequest{DocId: fmt.Sprint(i), Vector: v}) != nil {
			break // Close says why
		}
	}
	_, err := in.Close()
	return err
}

// Goal: a follower that was away for longer than the log remembers catches up.
// Method: kill one, then pause one; write until the leader's log begins behind
// what it has, and more than one file of the log, from which entries would still
// be read; let it go on.
func TestFollowerAwayForLongerThanTheLog(t *testing.T) {
	x := startTrial(t, 3, 4, "--snapshot-interval", "500ms", "--snapshot-threshold", "50", "--trailing-logs", "50")
	for _, how := range []string{"killed", "paused"} {
		n := x.follower()
		if how == "killed" {
			n.Kill()
		} else {
			n.Pause()
		}
		// What was on its way to a paused process, it will find when it wakes up.
		const onItsWay = 500
		leader := x.leader()
		had := x.status(leader).LastLogIndex + onItsWay
		x.bulk("while-"+how, 72<<20)
		x.wait("the log to begin behind what "+n.ID+" has", func() (bool, string) {
			st := x.status(leader)
			return st != nil && st.FirstLogIndex > had, fmt.Sprint(st)
		})
		logged, err := os.ReadFile(n.LogPath())
		x.must(err)
		back := time.Now()
		if how == "killed" {
			x.must(n.Start())
		} else {
			n.Resume()
		}
		x.wait(n.ID+" to have what it missed", func() (bool, string) {
			st := x.status(n)
			return st != nil && st.Ready && st.AppliedIndex > had, fmt.Sprint(st)
		})
		t.Logf("%s, it caught up in %v", how, time.Since(back).Round(time.Millisecond))
		now, err := os.ReadFile(n.LogPath())
		x.must(err)
		if !bytes.Contains(now[len(logged):], []byte("fetching snapshot")) {
			t.Errorf("%s caught up from %d without a snapshot: %s", n.ID, had, now[len(logged):])
		}
		x.more(50)
	}
	x.finish()
}
