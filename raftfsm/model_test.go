// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strconv"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// seeds returns the seeds of a random test: AKIDB_SEED, or n fixed ones, or one
// of them with -short.
func seeds(t testing.TB, n int) []uint64 {
	if s := os.Getenv("AKIDB_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{v}
	}
	if testing.Short() {
		n = 1
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(i) + 1
	}
	return out
}

func forSeeds(t *testing.T, n int, fn func(t *testing.T, rng *rand.Rand)) {
	for _, seed := range seeds(t, n) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Logf("replay: AKIDB_SEED=%d go test ./raftfsm -run '^%s$'", seed, t.Name())
			fn(t, rand.New(rand.NewPCG(seed, 7)))
		})
	}
}

// logGen makes random logs in which commands often meet each other.
type logGen struct {
	rng      *rand.Rand
	logIndex uint64
	nowMs    uint64
	requests []*fsmv1.Command // sent before
}

const genDim = 3

func (g *logGen) id() string   { return fmt.Sprint("d", g.rng.IntN(25)) }
func (g *logGen) coll() string { return fmt.Sprint("c", 1+g.rng.IntN(4)) }

func (g *logGen) write() *fsmv1.Write {
	v := []float32{float32(g.rng.IntN(9)), float32(g.rng.IntN(9)), float32(g.rng.IntN(9))}
	meta := fmt.Sprintf(`{"n":%d,"s":"%c"}`, g.rng.IntN(5), 'a'+rune(g.rng.IntN(3)))
	var w *fsmv1.Write
	switch g.rng.IntN(10) {
	case 0, 1:
		w = insert(g.id(), v...)
	case 2, 3, 4, 5:
		w = upsert(g.id(), meta, v...)
	case 6:
		w = patch(g.id(), fmt.Sprintf(`{"n":%d,"p":%d.50,"s":null}`, g.rng.IntN(5), g.rng.IntN(5)))
	case 7:
		w = del(g.id())
	case 8:
		w = skip(del(g.id()))
	case 9:
		w = upsert(g.id(), meta, v[:g.rng.IntN(4)]...) // often the wrong dimension
	}
	if g.rng.IntN(8) == 0 {
		have := uint64(g.rng.IntN(int(g.logIndex) + 1))
		if g.rng.IntN(2) == 0 {
			have = 0
		}
		w.IfVersion = &have
	}
	if w.Kind <= fsmv1.Write_KIND_UPSERT && g.rng.IntN(4) == 0 {
		ext := fmt.Sprint("ext", g.rng.IntN(100))
		w.ExternalId = &ext
	}
	return w
}

func (g *logGen) command() *fsmv1.Command {
	switch n := g.rng.IntN(100); {
	case n < 6:
		c := createCmd(g.coll(), fmt.Sprint("name", g.rng.IntN(4)), genDim)
		c.GetCreateCollection().Metric = fsmv1.Metric(1 + g.rng.IntN(3))
		c.GetCreateCollection().Index.Quantization = []string{"none", "sq8"}[g.rng.IntN(2)]
		return c
	case n < 8:
		return dropCmd(g.coll())
	case n < 12:
		return purgeCollectionCmd(g.coll(), uint32(1+g.rng.IntN(40)))
	case n < 15:
		return sealCmd(g.coll(), uint64(1+g.rng.IntN(3)))
	case n < 20:
		return purgeSlotsCmd(g.coll(), uint32(1+g.rng.IntN(10)))
	case n < 22:
		return &fsmv1.Command{Op: &fsmv1.Command_SetAlarm{SetAlarm: &fsmv1.SetAlarm{Kind: fmt.Sprint("K", g.rng.IntN(2)), NodeId: fmt.Sprint("n", g.rng.IntN(2)), Message: fmt.Sprint(g.rng.IntN(9)), Clear: g.rng.IntN(2) == 0}}}
	case n < 24:
		return &fsmv1.Command{Op: &fsmv1.Command_PutNode{PutNode: &fsmv1.PutNode{Node: &fsmv1.NodeRecord{NodeId: fmt.Sprint("n", g.rng.IntN(3)), RaftAddr: fmt.Sprint(g.rng.IntN(9))}, Remove: g.rng.IntN(3) == 0}}}
	case n < 25:
		return &fsmv1.Command{Op: &fsmv1.Command_LeaderEstablished{LeaderEstablished: &fsmv1.LeaderEstablished{NodeId: "n1", ClusterId: fmt.Sprint("cluster", g.rng.IntN(9))}}}
	case n < 26:
		return &fsmv1.Command{Op: &fsmv1.Command_SetClusterVersion{SetClusterVersion: &fsmv1.SetClusterVersion{Version: uint32(g.rng.IntN(4))}}}
	}
	ws := make([]*fsmv1.Write, 1+g.rng.IntN(3))
	for i := range ws {
		ws[i] = g.write()
	}
	return writeCmd(g.coll(), ws...)
}

// entry makes the next entry's commands.
func (g *logGen) entry() []*fsmv1.Command {
	cmds := make([]*fsmv1.Command, 1+g.rng.IntN(3))
	for i := range cmds {
		c := g.command()
		if n := len(g.requests); n > 0 && g.rng.IntN(8) == 0 {
			c = proto.CloneOf(g.requests[n-1-g.rng.IntN(min(n, 40))]) // a retry
		} else if g.rng.IntN(3) == 0 {
			c.RequestId = fmt.Sprint("r", g.rng.IntN(200)) // sometimes one that was used
		}
		g.nowMs += uint64(g.rng.IntN(300))
		c.ProposedAtMs = g.nowMs
		if g.rng.IntN(10) == 0 {
			c.ProposedAtMs -= min(c.ProposedAtMs, 500) // another proposer's clock
		}
		if g.rng.IntN(40) == 0 {
			c.MinClusterVersion = uint32(1 + g.rng.IntN(4))
		}
		if c.RequestId != "" {
			g.requests = append(g.requests, c)
		}
		cmds[i] = c
	}
	return cmds
}

// logs makes n log entries, a few of them configurations, with a few gaps.
func (g *logGen) logs(t testing.TB, n int) []*raft.Log {
	out := make([]*raft.Log, n)
	for i := range out {
		g.logIndex++
		if g.rng.IntN(20) == 0 {
			g.logIndex++ // a no-op, which Raft keeps to itself
		}
		if g.rng.IntN(30) == 0 {
			out[i] = &raft.Log{Index: g.logIndex, Term: 1, Type: raft.LogConfiguration}
			continue
		}
		out[i] = entryLog(t, g.logIndex, g.entry()...)
	}
	return out
}

// model is the state machine as one would write it without a disk, an index or
// any care for speed.
type model struct {
	maxRequests    int
	ttl            uint64
	clock          uint64
	clusterVersion uint32
	clusterID      string
	colls          map[string]*modelColl
	dropped        map[string]uint64
	alarms, nodes  map[string]bool
	requests       map[string]*modelRequest
	order          []string
}

type modelColl struct {
	name       string
	metric     fsmv1.Metric
	generation uint64
	docs       map[string]*Document
	touched    map[string]int // in this entry, by command
}

type modelRequest struct {
	body   string
	status fsmv1.Status
	at     uint64
}

func newModel(cfg Config) *model {
	return &model{
		maxRequests: cfg.MaxRequests, ttl: uint64(cfg.RequestTTLms), clusterVersion: 1,
		colls: map[string]*modelColl{}, dropped: map[string]uint64{}, alarms: map[string]bool{}, nodes: map[string]bool{},
		requests: map[string]*modelRequest{},
	}
}

// apply returns the status each command must have. The results are only looked
// at for whether a purge has more to do.
func (m *model) apply(logIndex uint64, cmds []*fsmv1.Command, results []*fsmv1.Result) []fsmv1.Status {
	out := make([]fsmv1.Status, len(cmds))
	purged, sealed := map[string]bool{}, map[string]bool{}
	for _, c := range m.colls {
		c.touched = map[string]int{}
	}
	for i, c := range cmds {
		m.clock = max(m.clock, c.ProposedAtMs)
		if c.MinClusterVersion > m.clusterVersion {
			out[i] = fsmv1.Status_STATUS_INVALID
			continue
		}
		body := modelBody(c)
		if q := m.requests[c.RequestId]; q != nil && c.RequestId != "" {
			out[i] = q.status
			if q.body != body {
				out[i] = fsmv1.Status_STATUS_REQUEST_ID_REUSED
			}
			continue
		}
		out[i] = m.command(logIndex, i, c, results[i], purged, sealed)
		if c.RequestId != "" && out[i] != fsmv1.Status_STATUS_ENTRY_CONFLICT {
			m.requests[c.RequestId] = &modelRequest{body: body, status: out[i], at: m.clock}
			m.order = append(m.order, c.RequestId)
			for range evictPerCommand {
				if oldest := m.requests[m.order[0]]; len(m.order) > m.maxRequests || oldest.at+m.ttl < m.clock {
					delete(m.requests, m.order[0])
					m.order = m.order[1:]
				}
				if len(m.order) == 0 {
					break
				}
			}
		}
	}
	for id := range sealed {
		if c := m.colls[id]; c != nil {
			c.generation++
		}
	}
	return out
}

func modelBody(c *fsmv1.Command) string {
	c = proto.CloneOf(c)
	c.ProposedAtMs, c.RequestId, c.MinClusterVersion = 0, "", 0
	if op := c.GetCreateCollection(); op != nil {
		op.CollectionId = ""
	}
	if op := c.GetWrite(); op != nil {
		for _, w := range op.Writes {
			if !w.SkipIfUnmet || w.Kind != fsmv1.Write_KIND_DELETE {
				return fmt.Sprint(c)
			}
		}
		op.Writes = nil
	}
	return fmt.Sprint(c)
}

func (m *model) command(logIndex uint64, ordinal int, c *fsmv1.Command, res *fsmv1.Result, purged, sealed map[string]bool) fsmv1.Status {
	const ok, notFound = fsmv1.Status_STATUS_OK, fsmv1.Status_STATUS_COLLECTION_NOT_FOUND
	switch op := c.Op.(type) {
	case *fsmv1.Command_CreateCollection:
		p := op.CreateCollection
		_, gone := m.dropped[p.CollectionId]
		if m.colls[p.CollectionId] != nil || gone {
			return fsmv1.Status_STATUS_COLLECTION_EXISTS
		}
		for _, other := range m.colls {
			if other.name == p.Name {
				return fsmv1.Status_STATUS_COLLECTION_EXISTS
			}
		}
		m.colls[p.CollectionId] = &modelColl{name: p.Name, metric: p.Metric, generation: 1, docs: map[string]*Document{}, touched: map[string]int{}}
	case *fsmv1.Command_DropCollection:
		if m.colls[op.DropCollection.CollectionId] == nil {
			return notFound
		}
		delete(m.colls, op.DropCollection.CollectionId)
		m.dropped[op.DropCollection.CollectionId] = logIndex
	case *fsmv1.Command_PurgeCollection:
		id := op.PurgeCollection.CollectionId
		if _, gone := m.dropped[id]; !gone {
			return notFound
		}
		if purged["x"+id] {
			return fsmv1.Status_STATUS_ENTRY_CONFLICT
		}
		purged["x"+id] = true
		if !res.More {
			delete(m.dropped, id)
		}
	case *fsmv1.Command_PurgeSlots:
		id := op.PurgeSlots.CollectionId
		if m.colls[id] == nil {
			return notFound
		}
		if purged[id] {
			return fsmv1.Status_STATUS_ENTRY_CONFLICT
		}
		purged[id] = true
	case *fsmv1.Command_SealGeneration:
		id := op.SealGeneration.CollectionId
		if m.colls[id] == nil {
			return notFound
		}
		if m.colls[id].generation != op.SealGeneration.FromGeneration || sealed[id] {
			return fsmv1.Status_STATUS_STALE
		}
		sealed[id] = true
	case *fsmv1.Command_SetAlarm:
		m.alarms[op.SetAlarm.Kind+"/"+op.SetAlarm.NodeId] = !op.SetAlarm.Clear
	case *fsmv1.Command_PutNode:
		m.nodes[op.PutNode.Node.NodeId] = !op.PutNode.Remove
	case *fsmv1.Command_LeaderEstablished:
		if m.clusterID == "" {
			m.clusterID = op.LeaderEstablished.ClusterId
		}
	case *fsmv1.Command_SetClusterVersion:
		if op.SetClusterVersion.Version < m.clusterVersion {
			return fsmv1.Status_STATUS_STALE
		}
		m.clusterVersion = op.SetClusterVersion.Version
	case *fsmv1.Command_Write:
		return m.write(logIndex, ordinal, c.ProposedAtMs, op.Write)
	}
	return ok
}

func (m *model) write(logIndex uint64, ordinal int, nowMs uint64, w *fsmv1.WriteBatch) fsmv1.Status {
	c := m.colls[w.CollectionId]
	if c == nil {
		return fsmv1.Status_STATUS_COLLECTION_NOT_FOUND
	}
	docs := map[string]*Document{} // nil: deleted
	seen := map[string]bool{}
	for _, one := range w.Writes {
		if seen[one.DocId] {
			return fsmv1.Status_STATUS_INVALID
		}
		seen[one.DocId] = true
		stores := one.Kind == fsmv1.Write_KIND_INSERT || one.Kind == fsmv1.Write_KIND_UPSERT
		if stores && len(one.Vector) != 4*genDim {
			return fsmv1.Status_STATUS_INVALID
		}
		if stores && c.metric == fsmv1.Metric_METRIC_COSINE && string(one.Vector) == string(make([]byte, 4*genDim)) {
			return fsmv1.Status_STATUS_INVALID
		}
		if by, ok := c.touched[one.DocId]; ok && by != ordinal {
			return fsmv1.Status_STATUS_ENTRY_CONFLICT
		}
		old := c.docs[one.DocId]
		have := uint64(0)
		if old != nil {
			have = old.Version
		}
		status := fsmv1.Status_STATUS_OK
		switch {
		case one.Kind == fsmv1.Write_KIND_INSERT && old != nil:
			status = fsmv1.Status_STATUS_DOCUMENT_EXISTS
		case !stores && old == nil:
			status = fsmv1.Status_STATUS_DOCUMENT_NOT_FOUND
		case one.IfVersion != nil && *one.IfVersion != have:
			status = fsmv1.Status_STATUS_VERSION_MISMATCH
		}
		if status != 0 && !one.SkipIfUnmet {
			return status
		}
		if status != 0 {
			continue // passed over
		}
		d := &Document{ID: one.DocId, Version: logIndex, InsertedAtMs: nowMs, UpdatedAtMs: nowMs}
		if old != nil {
			d.InsertedAtMs = old.InsertedAtMs
		}
		switch one.Kind {
		case fsmv1.Write_KIND_DELETE:
			d = nil
		case fsmv1.Write_KIND_PATCH:
			d.ExternalID, d.Vector = old.ExternalID, old.Vector
			d.Metadata = dumbMerge(old.Metadata, one.Metadata)
		default:
			d.ExternalID = one.ExternalId
			d.Vector = make([]float32, genDim)
			decodeVector(d.Vector, one.Vector)
			if len(one.Metadata) > 0 {
				d.Metadata = one.Metadata
			}
		}
		docs[one.DocId] = d
	}
	for id, d := range docs {
		c.touched[id] = ordinal
		if d == nil {
			delete(c.docs, id)
		} else {
			c.docs[id] = d
		}
	}
	return fsmv1.Status_STATUS_OK
}

// check compares everything a reader can see.
func (m *model) check(t testing.TB, f *FSM) {
	t.Helper()
	v := f.View()
	defer v.Close()
	if v.ClusterID() != m.clusterID || v.ClusterVersion() != m.clusterVersion {
		t.Fatalf("cluster %q version %d, want %q %d", v.ClusterID(), v.ClusterVersion(), m.clusterID, m.clusterVersion)
	}
	count := func(set map[string]bool) (n int) {
		for _, on := range set {
			if on {
				n++
			}
		}
		return n
	}
	if len(v.Alarms()) != count(m.alarms) || len(v.Nodes()) != count(m.nodes) || len(v.PendingPurges()) != len(m.dropped) {
		t.Fatalf("alarms %v, nodes %v, pending %v", v.Alarms(), v.Nodes(), v.PendingPurges())
	}
	if len(v.Collections()) != len(m.colls) {
		t.Fatalf("%d collections, want %d", len(v.Collections()), len(m.colls))
	}
	for id, want := range m.colls {
		c, err := v.Collection(id)
		if err != nil || c.Record().GetName() != want.name || c.Record().GetGeneration() != want.generation || c.Len() != len(want.docs) {
			t.Fatalf("collection %v %v of %d documents, want %+v", c.Record(), err, c.Len(), want)
		}
		want.check(t, c)
	}
}

func (m *modelColl) check(t testing.TB, c *Collection) {
	t.Helper()
	ctx := context.Background()
	all, err := c.Scroll(ctx, nil, "", 1000, Projection{Vector: true, Metadata: true})
	if err != nil || len(all) != len(m.docs) {
		t.Fatalf("%d documents %v, want %d", len(all), err, len(m.docs))
	}
	for _, got := range all {
		if fmt.Sprint(show(&got)) != fmt.Sprint(show(m.docs[got.ID])) {
			t.Fatalf("got %v, want %v", show(&got), show(m.docs[got.ID]))
		}
	}
	q := []float32{3, 1, 4}
	ms, _, err := c.Search(ctx, index.Query{Vector: q, K: 1000, Exact: true}, Projection{})
	if err != nil || len(ms) != len(m.docs) {
		t.Fatalf("%d matches %v, want %d", len(ms), err, len(m.docs))
	}
	if !sort.SliceIsSorted(ms, func(i, j int) bool { return ms[i].Distance < ms[j].Distance }) {
		t.Fatal("matches out of order")
	}
	for _, got := range ms {
		want := m.docs[got.ID]
		if want == nil || want.Version != got.Version {
			t.Fatalf("match %+v, want %+v", got, want)
		}
		if m.metric == fsmv1.Metric_METRIC_L2 {
			d := float32(0)
			for i, x := range want.Vector {
				d += (x - q[i]) * (x - q[i])
			}
			if d != got.Distance { // small integers: exact
				t.Fatalf("distance of %s is %g, want %g", got.ID, got.Distance, d)
			}
		}
	}
}

func show(d *Document) []any {
	ext := "-"
	if d.ExternalID != nil {
		ext = *d.ExternalID
	}
	return []any{d.ID, ext, d.Vector, string(d.Metadata), d.Version, d.InsertedAtMs, d.UpdatedAtMs}
}

// TestApplyAgreesWithModel applies random entries and compares every outcome,
// and now and then everything that can be read, with the model.
func TestApplyAgreesWithModel(t *testing.T) {
	forSeeds(t, 6, func(t *testing.T, rng *rand.Rand) {
		cfg := Config{MaxRequests: 20 + rng.IntN(60), RequestTTLms: int64(2000 + rng.IntN(10000))}
		h := newHarness(t, cfg)
		m := newModel(cfg)
		g := &logGen{rng: rng}
		for step := range 600 {
			g.logIndex++
			cmds := g.entry()
			l := entryLog(t, g.logIndex, cmds...)
			results := h.f.Apply(l).([]*fsmv1.Result)
			for i, want := range m.apply(g.logIndex, cmds, results) {
				if results[i].Status != want {
					t.Fatalf("log index %d, command %d: %v\ngot %s %q, want %s", g.logIndex, i, cmds[i], results[i].Status, results[i].Message, want)
				}
			}
			if step%40 == 39 {
				m.check(t, h.f)
				h.verify()
			}
			if step%150 == 149 {
				h.reopen()
				m.check(t, h.f)
			}
		}
	})
}
