// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// harness is one replica with a log of its own.
type harness struct {
	t   testing.TB
	cfg Config
	f   *FSM
	log []*raft.Log
}

func newHarness(t testing.TB, cfg Config) *harness {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = "fsm"
		if cfg.FS == nil {
			cfg.FS = storage.NewMemFS()
		}
	}
	h := &harness{t: t, cfg: cfg}
	h.open()
	t.Cleanup(func() {
		if err := h.f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return h
}

func (h *harness) open() {
	h.t.Helper()
	f, err := Open(context.Background(), h.cfg)
	if err != nil {
		h.t.Fatalf("open: %v", err)
	}
	h.f = f
}

func (h *harness) reopen() {
	h.t.Helper()
	if err := h.f.Close(); err != nil {
		h.t.Fatalf("close: %v", err)
	}
	h.open()
}

func entryLog(t testing.TB, logIndex uint64, cmds ...*fsmv1.Command) *raft.Log {
	t.Helper()
	b, err := EncodeEntry(cmds)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: logIndex, Term: 1 + logIndex/1000, Type: raft.LogCommand, Data: b}
}

// entry appends an entry to the log and applies it.
func (h *harness) entry(cmds ...*fsmv1.Command) []*fsmv1.Result {
	h.t.Helper()
	l := entryLog(h.t, uint64(len(h.log))+1, cmds...)
	h.log = append(h.log, l)
	res, _ := h.f.Apply(l).([]*fsmv1.Result)
	if len(res) != len(cmds) {
		h.t.Fatalf("log index %d: %d results of %d commands", l.Index, len(res), len(cmds))
	}
	return res
}

// do applies one command and wants the status.
func (h *harness) do(want fsmv1.Status, cmd *fsmv1.Command) *fsmv1.Result {
	h.t.Helper()
	res := h.entry(cmd)[0]
	if res.Status != want {
		h.t.Fatalf("log index %d: got %s %q, want %s", len(h.log), res.Status, res.Message, want)
	}
	return res
}

func (h *harness) must(cmd *fsmv1.Command) *fsmv1.Result {
	h.t.Helper()
	return h.do(fsmv1.Status_STATUS_OK, cmd)
}

// collection runs fn on a collection of a new view.
func (h *harness) collection(ref string, fn func(c *Collection)) {
	h.t.Helper()
	v := h.f.View()
	defer v.Close()
	c, err := v.Collection(ref)
	if err != nil {
		h.t.Fatal(err)
	}
	fn(c)
}

func (h *harness) verify() {
	h.t.Helper()
	if err := h.f.Verify(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

func createCmd(id, name string, dim uint32) *fsmv1.Command {
	return &fsmv1.Command{ProposedAtMs: 1000, Op: &fsmv1.Command_CreateCollection{CreateCollection: &fsmv1.CreateCollection{
		CollectionId: id, Tenant: DefaultTenant, Database: DefaultDatabase, Name: name,
		Dimension: dim, Metric: fsmv1.Metric_METRIC_L2,
		Index: &fsmv1.IndexParams{M: 8, EfConstruction: 40, Quantization: "none"},
	}}}
}

func dropCmd(id string) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_DropCollection{DropCollection: &fsmv1.DropCollection{CollectionId: id}}}
}

func purgeCollectionCmd(id string, n uint32) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_PurgeCollection{PurgeCollection: &fsmv1.PurgeCollection{CollectionId: id, MaxKeys: n}}}
}

func sealCmd(id string, gen uint64) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_SealGeneration{SealGeneration: &fsmv1.SealGeneration{CollectionId: id, FromGeneration: gen}}}
}

func purgeSlotsCmd(id string, n uint32) *fsmv1.Command {
	return &fsmv1.Command{Op: &fsmv1.Command_PurgeSlots{PurgeSlots: &fsmv1.PurgeSlots{CollectionId: id, MaxSlots: n}}}
}

func writeCmd(coll string, ws ...*fsmv1.Write) *fsmv1.Command {
	return &fsmv1.Command{ProposedAtMs: 2000, Op: &fsmv1.Command_Write{Write: &fsmv1.WriteBatch{CollectionId: coll, Writes: ws}}}
}

func requestID(id string, c *fsmv1.Command) *fsmv1.Command { c.RequestId = id; return c }

func insert(id string, v ...float32) *fsmv1.Write {
	return &fsmv1.Write{Kind: fsmv1.Write_KIND_INSERT, DocId: id, Vector: EncodeVector(v)}
}

func upsert(id, meta string, v ...float32) *fsmv1.Write {
	return &fsmv1.Write{Kind: fsmv1.Write_KIND_UPSERT, DocId: id, Vector: EncodeVector(v), Metadata: []byte(meta)}
}

func patch(id, meta string) *fsmv1.Write {
	return &fsmv1.Write{Kind: fsmv1.Write_KIND_PATCH, DocId: id, Metadata: []byte(meta)}
}

func del(id string) *fsmv1.Write { return &fsmv1.Write{Kind: fsmv1.Write_KIND_DELETE, DocId: id} }

func ifVersion(v uint64, w *fsmv1.Write) *fsmv1.Write { w.IfVersion = &v; return w }

func skip(w *fsmv1.Write) *fsmv1.Write { w.SkipIfUnmet = true; return w }

// mustGet reads a document that must be there, or nil if it must not.
func (h *harness) get(coll, id string) (d *Document) {
	h.t.Helper()
	h.collection(coll, func(c *Collection) {
		var err error
		if d, err = c.Get(id, Projection{Vector: true, Metadata: true}); err != nil {
			h.t.Fatal(err)
		}
	})
	return d
}

func (h *harness) search(coll string, k int, q ...float32) (ids []string) {
	h.t.Helper()
	h.collection(coll, func(c *Collection) {
		ms, _, err := c.Search(context.Background(), index.Query{Vector: q, K: k}, Projection{})
		if err != nil {
			h.t.Fatal(err)
		}
		for _, m := range ms {
			ids = append(ids, m.ID)
		}
	})
	return ids
}

func TestDocumentLife(t *testing.T) {
	h := newHarness(t, Config{Dir: t.TempDir()})
	h.must(createCmd("c1", "docs", 2))
	ext := "ext-1"
	w := insert("a", 1, 2)
	w.ExternalId, w.Metadata = &ext, []byte(`{"n":1}`)
	h.must(writeCmd("c1", w, insert("b", 5, 5)))
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, writeCmd("docs", insert("x", 1, 2)))
	check := func() {
		t.Helper()
		d := h.get("docs", "a")
		if d == nil || d.Version != 2 || *d.ExternalID != ext || string(d.Metadata) != `{"n":1}` || d.Vector[1] != 2 || d.InsertedAtMs != 2000 {
			t.Fatalf("got %+v", d)
		}
		if got := fmt.Sprint(h.search("c1", 5, 5, 4)); got != "[b a]" {
			t.Fatalf("search: %s", got)
		}
		h.verify()
	}
	check()
	h.reopen()
	check()
	h.do(fsmv1.Status_STATUS_DOCUMENT_EXISTS, writeCmd("c1", insert("c", 1, 1), insert("a", 0, 0)))
	if h.get("c1", "c") != nil {
		t.Fatal("a refused batch left a document behind")
	}
	h.must(writeCmd("c1", patch("a", `{"m":[1.50,{"x":null}],"n":null}`), del("b")))
	if d := h.get("c1", "a"); d.Version != 5 || string(d.Metadata) != `{"m":[1.50,{"x":null}]}` || *d.ExternalID != ext || d.Vector[0] != 1 {
		t.Fatalf("after patch: %+v", d)
	}
	if got := fmt.Sprint(h.search("c1", 5, 5, 4)); got != "[a]" {
		t.Fatalf("search: %s", got)
	}
	h.collection("docs", func(c *Collection) {
		if c.Len() != 1 {
			t.Fatalf("%d documents", c.Len())
		}
	})
	h.do(fsmv1.Status_STATUS_VERSION_MISMATCH, writeCmd("c1", ifVersion(2, del("a"))))
	h.do(fsmv1.Status_STATUS_VERSION_MISMATCH, writeCmd("c1", ifVersion(0, upsert("a", "", 1, 1))))
	h.do(fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND, writeCmd("c1", del("zz")))
	h.do(fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND, writeCmd("c1", patch("zz", `{}`)))
	h.do(fsmv1.Status_STATUS_INVALID, writeCmd("c1", upsert("q", "", 1)))
	h.do(fsmv1.Status_STATUS_INVALID, writeCmd("c1", upsert("q", "[]", 1, 2)))
	h.do(fsmv1.Status_STATUS_INVALID, writeCmd("c1", del("a"), upsert("a", "", 1, 2)))
	res := h.must(writeCmd("c1", skip(del("zz")), skip(ifVersion(5, del("a"))), ifVersion(0, upsert("n", "", 3, 3))))
	if res.Writes[0].Applied || !res.Writes[1].Applied || !res.Writes[2].Created {
		t.Fatalf("outcomes %v", res.Writes)
	}
	h.verify()
	h.reopen()
	h.verify()
	if got := fmt.Sprint(h.search("c1", 5, 5, 4)); got != "[n]" {
		t.Fatalf("search: %s", got)
	}
}

func TestTwoWritersOfOneDocumentInAnEntryConflict(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("c1", "docs", 1))
	res := h.entry(
		requestID("r1", writeCmd("c1", upsert("a", "", 1))),
		requestID("r2", writeCmd("c1", upsert("b", "", 1), upsert("a", "", 2))),
		requestID("r1", writeCmd("c1", upsert("a", "", 1))),
	)
	if res[0].Status != 0 || res[1].Status != fsmv1.Status_STATUS_ENTRY_CONFLICT || !res[2].Replayed {
		t.Fatal(res)
	}
	if h.get("c1", "b") != nil {
		t.Fatal("a conflicting batch left a document behind")
	}
	h.must(requestID("r2", writeCmd("c1", upsert("b", "", 1), upsert("a", "", 2)))) // a conflict is not remembered
	h.verify()
}

func TestRequestsAreAppliedOnce(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(requestID("c", createCmd("c1", "docs", 1)))
	again := h.must(requestID("c", createCmd("c2", "docs", 1)))
	if !again.Replayed || again.Collection.GetCollectionId() != "c1" || again.LogIndex != 1 {
		t.Fatalf("%v", again)
	}
	h.must(requestID("r", writeCmd("c1", insert("a", 1))))
	h.do(fsmv1.Status_STATUS_DOCUMENT_EXISTS, requestID("s", writeCmd("c1", insert("a", 2))))
	h.reopen()
	if res := h.must(requestID("r", writeCmd("c1", insert("a", 1)))); !res.Replayed || res.LogIndex != 3 || !res.Writes[0].Created {
		t.Fatalf("%v", res)
	}
	h.do(fsmv1.Status_STATUS_REQUEST_ID_REUSED, requestID("r", writeCmd("c1", insert("a", 2))))
	h.must(writeCmd("c1", del("a")))
	if res := h.do(fsmv1.Status_STATUS_DOCUMENT_EXISTS, requestID("s", writeCmd("c1", insert("a", 2)))); !res.Replayed {
		t.Fatal("a refusal was not remembered")
	}
	h.must(writeCmd("c1", insert("a", 1), insert("b", 1)))
	h.must(requestID("d", writeCmd("c1", skip(del("a")), skip(del("b")))))
	if res := h.must(requestID("d", writeCmd("c1", skip(del("x"))))); !res.Replayed || len(res.Writes) != 2 {
		t.Fatalf("%v", res)
	}
	h.verify()
}

func TestUndecodableEntryIsFatal(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty":          {},
		"no protobuf":    []byte("hello"),
		"format":         {0x08, 2},
		"unknown kind":   {0x08, 1, 0x12, 4, 0x92, 0x06, 1, 0},
		"no operation":   {0x08, 1, 0x12, 0},
		"zero value":     {0x08, 1, 0x12, 2, 0x08, 0},
		"long varint":    {0x08, 0x81, 0},
		"unknown fields": {0x08, 1, 0x18, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var at uint64
			h := newHarness(t, Config{Fatal: func(i uint64, err error) { at = i; t.Log(err) }})
			h.must(createCmd("c1", "docs", 1))
			h.f.Apply(&raft.Log{Index: 2, Type: raft.LogCommand, Data: data})
			if at != 2 {
				t.Fatalf("fatal at %d", at)
			}
			if h.f.Applied() != 1 {
				t.Fatal("applied moved")
			}
		})
	}
}

func TestNewerCommandIsRefusedByClusterVersion(t *testing.T) {
	h := newHarness(t, Config{})
	// Operation 99 with min_cluster_version 7.
	res := h.f.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: []byte{0x08, 1, 0x12, 6, 0x18, 7, 0x9a, 0x06, 1, 0xff}}).([]*fsmv1.Result)
	if res[0].Status != fsmv1.Status_STATUS_INVALID {
		t.Fatal(res)
	}
	h.verify()
}

func TestDropAndPurgeLeaveNothing(t *testing.T) {
	h := newHarness(t, Config{})
	before := hashOf(h)
	h.must(createCmd("c1", "docs", 1))
	for i := range 50 {
		h.must(writeCmd("c1", upsert(fmt.Sprint("d", i%20), `{"i":1}`, float32(i))))
	}
	h.must(dropCmd("c1"))
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, writeCmd("c1", insert("a", 1)))
	h.reopen()
	v := h.f.View()
	if len(v.Collections()) != 0 || fmt.Sprint(v.PendingPurges()) != "[c1]" {
		t.Fatal(v.PendingPurges())
	}
	v.Close()
	res := h.entry(purgeCollectionCmd("c1", 30), purgeCollectionCmd("c1", 30))
	if !res[0].More || res[1].Status != fsmv1.Status_STATUS_ENTRY_CONFLICT {
		t.Fatal(res)
	}
	for h.must(purgeCollectionCmd("c1", 30)).More {
	}
	h.verify()
	n := 0
	if err := each(h.f.eng.db, nil, func(k, _ []byte) error { n++; return nil }); err != nil || n != 2 {
		t.Fatalf("%d keys left, %v", n, err)
	}
	if hashOf(h) == before {
		t.Fatal("the clock and the collection number should have moved")
	}
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, purgeCollectionCmd("c1", 1))
	h.must(createCmd("c1", "docs", 1))
}

func hashOf(h *harness) StateHash {
	v := h.f.View()
	defer v.Close()
	return v.StateHash()
}

func TestSealAndPurgeSlots(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("c1", "docs", 1))
	for i := range 60 {
		h.must(writeCmd("c1", upsert(fmt.Sprint("d", i%20), "", float32(i))))
	}
	if h.must(purgeSlotsCmd("c1", 10)).More {
		t.Fatal("nothing was sealed, nothing is to be purged")
	}
	h.do(fsmv1.Status_STATUS_STALE, sealCmd("c1", 7))
	res := h.entry(sealCmd("c1", 1), writeCmd("c1", del("d0")), sealCmd("c1", 1))
	if res[0].Status != 0 || res[2].Status != fsmv1.Status_STATUS_STALE {
		t.Fatal(res)
	}
	h.must(writeCmd("c1", del("d1"))) // dead after the seal: stays
	want := fmt.Sprint(h.search("c1", 3, 57))
	steps := 1
	for h.must(purgeSlotsCmd("c1", 10)).More {
		steps++
	}
	if steps != 5 {
		t.Fatalf("41 dead slots took %d steps of 10", steps)
	}
	h.verify()
	vectors := 0
	if err := each(h.f.eng.db, []byte{prefixVector}, func(_, _ []byte) error { vectors++; return nil }); err != nil || vectors != 19 {
		t.Fatalf("%d vectors left, %v", vectors, err)
	}
	for range 2 {
		if got := fmt.Sprint(h.search("c1", 3, 57)); got != want {
			t.Fatalf("search: %s, before the purge %s", got, want)
		}
		h.reopen()
	}
}

func TestViewsDoNotChange(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("c1", "docs", 1))
	h.must(writeCmd("c1", insert("a", 1), insert("b", 2)))
	v := h.f.View()
	c, err := v.Collection("docs")
	if err != nil {
		t.Fatal(err)
	}
	h.must(writeCmd("c1", del("a"), upsert("b", `{"x":1}`, 9), insert("c", 3)))
	h.must(dropCmd("c1"))
	ms, _, err := c.Search(context.Background(), index.Query{Vector: []float32{0}, K: 9}, Projection{Metadata: true, Vector: true})
	if err != nil || len(ms) != 2 || ms[0].ID != "a" || ms[1].ID != "b" || ms[1].Vector[0] != 2 || ms[1].Metadata != nil {
		t.Fatalf("%+v %v", ms, err)
	}
	ds, err := c.Scroll(context.Background(), nil, "", 10, Projection{})
	if err != nil || len(ds) != 2 || c.Len() != 2 {
		t.Fatalf("%+v %v", ds, err)
	}
	v.Close()
	v.Close()
}

func TestWaitApplied(t *testing.T) {
	h := newHarness(t, Config{})
	done := make(chan error)
	go func() { done <- h.f.WaitApplied(context.Background(), 2) }()
	h.must(createCmd("c1", "docs", 1))
	h.f.ApplyBatch([]*raft.Log{{Index: 2, Type: raft.LogConfiguration}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.f.WaitApplied(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestScrollInIDOrder(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("c1", "docs", 1))
	rng := rand.New(rand.NewPCG(1, 1))
	for _, i := range rng.Perm(200) {
		h.must(writeCmd("c1", upsert(fmt.Sprintf("d%03d", i), fmt.Sprintf(`{"m2":%d,"rare":%t}`, i%2, i%50 == 0), float32(i))))
	}
	str := func(f *index.Filter, want int) {
		t.Helper()
		h.collection("docs", func(c *Collection) {
			after, n := "", 0
			for {
				ds, err := c.Scroll(context.Background(), f, after, 7, Projection{Metadata: true})
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range ds {
					if d.ID <= after || !bytes.HasPrefix(d.Metadata, []byte(`{"m2"`)) {
						t.Fatalf("%q after %q", d.ID, after)
					}
					after, n = d.ID, n+1
				}
				if len(ds) < 7 {
					break
				}
			}
			if n != want {
				t.Fatalf("%d documents, want %d", n, want)
			}
			if got, err := c.Count(context.Background(), f); err != nil || got != want {
				t.Fatalf("count %d %v, want %d", got, err, want)
			}
		})
	}
	str(nil, 200)
	str(&index.Filter{Must: []index.Condition{{Key: "m2", Any: []index.Scalar{{Kind: index.KindInt, Int: 1}}}}}, 100)
	str(&index.Filter{Must: []index.Condition{{Key: "rare", Any: []index.Scalar{{Kind: index.KindBool, Bool: true}}}}}, 4)
}

func TestClusterRecords(t *testing.T) {
	h := newHarness(t, Config{})
	leader := func(id string) *fsmv1.Command {
		return &fsmv1.Command{Op: &fsmv1.Command_LeaderEstablished{LeaderEstablished: &fsmv1.LeaderEstablished{NodeId: "n1", ClusterId: id, Term: 1}}}
	}
	alarm := func(kind, msg string, clear bool) *fsmv1.Command {
		return &fsmv1.Command{ProposedAtMs: 5, Op: &fsmv1.Command_SetAlarm{SetAlarm: &fsmv1.SetAlarm{Kind: kind, NodeId: "n1", Message: msg, Clear: clear}}}
	}
	version := func(v uint32) *fsmv1.Command {
		return &fsmv1.Command{Op: &fsmv1.Command_SetClusterVersion{SetClusterVersion: &fsmv1.SetClusterVersion{Version: v}}}
	}
	node := func(id, addr string, remove bool) *fsmv1.Command {
		return &fsmv1.Command{Op: &fsmv1.Command_PutNode{PutNode: &fsmv1.PutNode{Node: &fsmv1.NodeRecord{NodeId: id, RaftAddr: addr}, Remove: remove}}}
	}
	h.must(leader("first"))
	h.must(leader("second"))
	h.must(alarm("NOSPACE", "disk", false))
	h.must(alarm("NOSPACE", "disk still", false))
	h.must(alarm("LAG", "slow", false))
	h.must(alarm("LAG", "", true))
	h.must(alarm("LAG", "", true))
	h.must(version(3))
	h.do(fsmv1.Status_STATUS_STALE, version(2))
	h.must(node("n2", "b:1", false))
	h.must(node("n1", "a:1", false))
	h.must(node("n1", "a:2", false))
	h.must(node("n3", "c:1", false))
	h.must(node("n3", "", true))
	for range 2 {
		v := h.f.View()
		if v.ClusterID() != "first" || v.ClusterVersion() != 3 {
			t.Fatal(v.ClusterID(), v.ClusterVersion())
		}
		if as := v.Alarms(); len(as) != 1 || as[0] != (Alarm{Kind: "NOSPACE", NodeID: "n1", Message: "disk still", RaisedIndex: 3, RaisedAtMs: 5}) {
			t.Fatal(as)
		}
		if ns := v.Nodes(); len(ns) != 2 || ns[0].NodeId != "n1" || ns[0].RaftAddr != "a:2" {
			t.Fatal(ns)
		}
		v.Close()
		h.verify()
		h.reopen()
	}
}

func TestStateCheckFindsDivergence(t *testing.T) {
	h := newHarness(t, Config{})
	check := func(at uint64, hash StateHash) *fsmv1.Command {
		return &fsmv1.Command{Op: &fsmv1.Command_StateCheck{StateCheck: &fsmv1.StateCheck{AtIndex: at, StateHash: hash[:], NodeId: "n2"}}}
	}
	h.must(createCmd("c1", "docs", 1))
	at1 := hashOf(h)
	h.must(writeCmd("c1", insert("a", 1)))
	h.must(check(1, at1))
	h.must(check(999, StateHash{1}))
	diverged := func() error {
		v := h.f.View()
		defer v.Close()
		return v.Diverged()
	}
	if err := diverged(); err != nil {
		t.Fatal(err)
	}
	h.must(check(2, at1))
	if err := diverged(); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	if got, ok := h.f.HashAt(1); !ok || got != at1 {
		t.Fatal(got, ok)
	}
	if _, ok := h.f.HashAt(999); ok {
		t.Fatal("a hash of the future")
	}
}
