// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

const realDim = 8

func realConf(c *Config) { c.openMachine = nil }

func vectorBytes(dim, seed int) []byte {
	b := make([]byte, 0, 4*dim)
	for i := range dim {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32((seed*31+i*7)%97)+1))
	}
	return b
}

func upsert(collection, id string, dim, seed int) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_Write{Write: &fsmv1.WriteBatch{CollectionId: collection, Writes: []*fsmv1.Write{
		{Kind: fsmv1.Write_KIND_UPSERT, DocId: id, Vector: vectorBytes(dim, seed)},
	}}}}
}

func createCollection(t testing.TB, n *Node, dim int) string {
	t.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	res, err := n.Propose(ctx, &fsmv1.Command{Op: &fsmv1.Command_CreateCollection{CreateCollection: &fsmv1.CreateCollection{
		CollectionId: id, Tenant: "default", Database: "default", Name: "docs-" + id[:8], Dimension: uint32(dim), Metric: fsmv1.Metric_METRIC_L2,
		Index: &fsmv1.IndexParams{M: 16, EfConstruction: 100, EfSearch: 64, Quantization: "none"},
	}}})
	if err == nil {
		err = raftfsm.ResultError(res)
	}
	if err != nil {
		t.Fatalf("create collection: %v", err)
	}
	return id
}

func mustWrite(t testing.TB, n *Node, cmd *fsmv1.Command) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd.RequestId = uuid.NewString()
	res, err := n.Propose(ctx, cmd)
	if err == nil {
		err = raftfsm.ResultError(res)
	}
	if err != nil {
		t.Fatal(err)
	}
	return res.LogIndex
}

// readDoc is a read of one document with the given consistency.
func readDoc(t testing.TB, n *Node, o ReadOptions, collection, id string) *raftfsm.Document {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	v, err := n.Read(ctx, o)
	if err != nil {
		t.Fatalf("read on %s: %v", n.ID(), err)
	}
	defer v.Close()
	c, err := v.Collection(collection)
	if err != nil {
		t.Fatalf("read on %s at %d: %v", n.ID(), v.Applied(), err)
	}
	d, err := c.Get(id, raftfsm.Projection{Vector: true})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// With the real state machine: a write through any node is seen by a
// linearizable and by a session read on any other; the hashes agree.
func TestRealStateReadYourWritesAnywhere(t *testing.T) {
	c := startCluster(t, 3, realConf)
	col := createCollection(t, c.nodes["n2"], realDim)
	for i := range 60 {
		id := fmt.Sprintf("d%d", i)
		w, r := c.nodes[c.names[i%3]], c.nodes[c.names[(i+1)%3]]
		at := mustWrite(t, w, upsert(col, id, realDim, i))
		index, err := r.ParseToken(w.Token(at))
		if err != nil || index != at {
			t.Fatalf("token: %d, %v", index, err)
		}
		o := ReadOptions{}
		if i%2 == 1 {
			o = ReadOptions{Consistency: Session, MinIndex: index}
		}
		if d := readDoc(t, r, o, col, id); d == nil || d.Version != at {
			t.Fatalf("%s read on %s: %+v, want version %d", id, r.ID(), d, at)
		}
	}
	verifyEqual(t, c)
}

func verifyEqual(t *testing.T, c *cluster) {
	t.Helper()
	var hashes []MemberHash
	c.wait("equal hashes on all members", func() bool {
		var err error
		hashes, err = c.leader().Verify(c.ctx())
		if err != nil || len(hashes) != len(c.nodes) {
			return false
		}
		for _, h := range hashes {
			if h.Err != "" || len(h.Differs) > 0 || len(h.Building) > 0 || h.StateHash != hashes[0].StateHash || h.AppliedIndex != hashes[0].AppliedIndex || h.GraphHash != hashes[0].GraphHash {
				return false
			}
		}
		return true
	})
}

// A member that slept through more than the retained log gets the state as
// files and then holds the same; so does one that lost its disk.
func TestLaggingAndWipedMembersCatchUpBySnapshot(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) {
		realConf(cfg)
		cfg.TrailingLogs = 8
	})
	col := createCollection(t, c.leader(), realDim)
	mustWrite(t, c.leader(), upsert(col, "first", realDim, 1))
	victim := c.follower().ID()
	c.stop(victim)
	for i := range 50 {
		mustWrite(t, c.leader(), upsert(col, fmt.Sprintf("d%d", i), realDim, i))
	}
	if _, _, err := c.leader().Snapshot(c.ctx()); err != nil {
		t.Fatal(err)
	}
	if first := c.leader().Status().FirstLogIndex; first < 20 {
		t.Fatalf("the log still starts at %d: no snapshot will be needed", first)
	}
	n := c.start(victim)
	if d := readDoc(t, n, ReadOptions{}, col, "d49"); d == nil {
		t.Fatal("lagging member misses a document")
	}
	verifyEqual(t, c)

	c.stop(victim)
	if err := os.RemoveAll(filepath.Join(c.dir, victim)); err != nil {
		t.Fatal(err)
	}
	n = c.start(victim)
	c.wait("the wiped member to vote again", func() bool { return n.Status().Voter && n.Ready() == nil })
	if d := readDoc(t, n, ReadOptions{}, col, "d49"); d == nil {
		t.Fatal("wiped member misses a document")
	}
	verifyEqual(t, c)
}
