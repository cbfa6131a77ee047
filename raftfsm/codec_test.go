// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// FuzzDecodeEntry: whatever is accepted encodes to the same bytes and is what
// protobuf's own decoder sees.
func FuzzDecodeEntry(f *testing.F) {
	g := &logGen{rng: rand.New(rand.NewPCG(1, 2))}
	for range 60 {
		b, err := EncodeEntry(g.entry())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x08, 1})
	f.Add([]byte{0x08, 1, 0x12, 6, 0x18, 7, 0x9a, 0x06, 1, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		again, err := EncodeEntry(e.GetCommands())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("accepted %x, which encodes to %x", b, again)
		}
		var theirs fsmv1.Entry
		if err := proto.Unmarshal(b, &theirs); err != nil || !proto.Equal(e, &theirs) {
			t.Fatalf("protobuf sees %v %v, we see %v", &theirs, err, e)
		}
	})
}

// TestDamagedEntriesNeverPanic applies damaged entries: they either change the
// state soundly or stop the replica where it was.
func TestDamagedEntriesNeverPanic(t *testing.T) {
	forSeeds(t, 2, func(t *testing.T, rng *rand.Rand) {
		entries := 1000
		if testing.Short() {
			entries = 200
		}
		g := &logGen{rng: rng}
		fatal := false
		cfg := Config{Fatal: func(uint64, error) { fatal = true }}
		h := newHarness(t, cfg)
		h.must(createCmd("c1", "name1", genDim))
		next, applied := uint64(2), 0
		for range entries {
			l := entryLog(t, next, g.entry()...)
			for range 1 + rng.IntN(3) {
				l.Data[rng.IntN(len(l.Data))] ^= 1 << rng.IntN(8)
			}
			if rng.IntN(4) == 0 {
				l.Data = l.Data[:rng.IntN(len(l.Data))]
			}
			before := h.f.Applied()
			h.f.Apply(l)
			if fatal != (h.f.Applied() == before) {
				t.Fatalf("fatal %t, applied %d", fatal, h.f.Applied())
			}
			if fatal {
				// Nothing of the entry was kept: a restart goes on from before it.
				fatal = false
				h.reopen()
				continue
			}
			next, applied = next+1, applied+1
		}
		h.verify()
		t.Logf("%d of %d damaged entries could be decoded", applied, entries)
	})
}

// golden is an entry with every field of every operation set. Its bytes must
// never change: they are in logs.
func golden() []*fsmv1.Command {
	one := uint64(1)
	ext := "ext"
	return []*fsmv1.Command{
		{ProposedAtMs: 1, RequestId: "r", MinClusterVersion: 1, Op: &fsmv1.Command_CreateCollection{CreateCollection: &fsmv1.CreateCollection{
			CollectionId: "id", Tenant: "t", Database: "d", Name: "n", Dimension: 2, Metric: fsmv1.Metric_METRIC_L2, EmbeddingModel: "m",
			Index:          &fsmv1.IndexParams{M: 16, EfConstruction: 200, EfSearch: 50, Quantization: "sq8", VectorsOnDisk: true},
			PayloadIndexes: []*fsmv1.PayloadIndex{{Key: "k", Type: "integer"}}}}},
		dropCmd("id"),
		writeCmd("id", &fsmv1.Write{Kind: fsmv1.Write_KIND_UPSERT, DocId: "a", ExternalId: &ext, Vector: EncodeVector([]float32{1, -2}), Metadata: []byte(`{}`), IfVersion: &one, SkipIfUnmet: true}),
		{Op: &fsmv1.Command_LeaderEstablished{LeaderEstablished: &fsmv1.LeaderEstablished{NodeId: "n", ClusterId: "c", Term: 3}}},
		{Op: &fsmv1.Command_StateCheck{StateCheck: &fsmv1.StateCheck{AtIndex: 4, StateHash: make([]byte, 16), NodeId: "n"}}},
		{Op: &fsmv1.Command_SetAlarm{SetAlarm: &fsmv1.SetAlarm{Kind: "K", NodeId: "n", Message: "m", Clear: true}}},
		{Op: &fsmv1.Command_SetClusterVersion{SetClusterVersion: &fsmv1.SetClusterVersion{Version: 2}}},
		sealCmd("id", 1), purgeSlotsCmd("id", 2), purgeCollectionCmd("id", 3),
		{Op: &fsmv1.Command_PutNode{PutNode: &fsmv1.PutNode{Node: &fsmv1.NodeRecord{NodeId: "n", RaftAddr: "a", GrpcAddr: "g", RestAddr: "r", Zone: "z", Version: "v", MaxClusterVersion: 1}, Remove: true}}},
	}
}

const goldenEntry = "" +
	"0801123b0801120172180152320a0269641201741a016422016e280230033a016d420e081010c8011832220373713828014a0c0a016b1207696e7465676572" +
	"12065a040a026964122708d00f62220a026964121c08021201611a0365787422080000803f000000c02a027b7d30013801120a6a080a016e12016318031219" +
	"721708041210000000000000000000000000000000001a016e120d7a0b0a014b12016e1a016d20011205820102080212098a01060a02696410011209920106" +
	"0a026964100212099a01060a0269641003121ba201180a140a016e1201611a01672201722a017a32017638011001"

func TestEntryBytesNeverChange(t *testing.T) {
	b, err := EncodeEntry(golden())
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != goldenEntry {
		t.Fatalf("got\n%s\nwant\n%s", got, goldenEntry)
	}
	e, err := DecodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range golden() {
		if !proto.Equal(e.GetCommands()[i], want) {
			t.Fatalf("command %d: got %v, want %v", i, e.GetCommands()[i], want)
		}
	}
}

// TestStateHashNeverChanges pins the keyspace: another hash for the same log
// means that an upgraded replica would differ from the others.
func TestStateHashNeverChanges(t *testing.T) {
	h := filled(t, Config{MaxRequests: 20})
	h.entry(golden()...)
	const want = "43200c949d1eca52fcc295d4f4330e1a"
	if got := hashOf(h).String(); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}
