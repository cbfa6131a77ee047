// SPDX-License-Identifier: Apache-2.0

// Package workload makes clients do something to a database, and knows what the
// history of it must look like.
package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/history"
	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// DB is what a workload asks of a database: the Go client, the REST client and
// the one in memory have it.
type DB interface {
	CreateCollection(context.Context, *cv1.CreateCollectionRequest) (*cv1.CreateCollectionResponse, error)
	ListCollections(context.Context, *cv1.ListCollectionsRequest) (*cv1.ListCollectionsResponse, error)
	GetCollection(context.Context, *cv1.GetCollectionRequest) (*cv1.GetCollectionResponse, error)
	DeleteCollection(context.Context, *cv1.DeleteCollectionRequest) (*cv1.DeleteCollectionResponse, error)
	Insert(context.Context, *cv1.InsertRequest) (*cv1.InsertResponse, error)
	Upsert(context.Context, *cv1.UpsertRequest) (*cv1.UpsertResponse, error)
	PatchPayload(context.Context, *cv1.PatchPayloadRequest) (*cv1.PatchPayloadResponse, error)
	Delete(context.Context, *cv1.DeleteRequest) (*cv1.DeleteResponse, error)
	Batch(context.Context, *cv1.BatchRequest) (*cv1.BatchResponse, error)
	Get(context.Context, *cv1.GetRequest) (*cv1.GetResponse, error)
	Fetch(context.Context, *cv1.FetchRequest) (*cv1.FetchResponse, error)
	Count(context.Context, *cv1.CountRequest) (*cv1.CountResponse, error)
	Scroll(context.Context, *cv1.ScrollRequest) (*cv1.ScrollResponse, error)
	Query(context.Context, *cv1.QueryRequest) (*cv1.QueryResponse, error)
}

// Conn is a way to the database: pinned to Node, or, if Node is empty, to
// whatever node answers.
type Conn struct {
	DB
	Node string
}

// Workload is one kind of work with its promise.
type Workload struct {
	Name  string
	About string
	// REST asks for connections over plain net/http.
	REST bool
	// Setup prepares the database; it may be called again after an error.
	Setup func(ctx context.Context, db DB) error
	// New makes the client of one worker.
	New func(w *Worker) Client
	// Check judges a history.
	Check func(ops []history.Op, o CheckOptions) []*check.Result
}

// CheckOptions bound a check.
type CheckOptions struct {
	Timeout time.Duration // of the search for an order
	HTML    io.Writer     // where the timeline goes; may be nil
}

// Worker is one sequential client with everything it may draw on.
type Worker struct {
	ID   int
	Rand *rand.Rand
	// Workers is how many there are.
	Workers int
	// Home is the worker's own connection; Pinned are connections to each node.
	Home   Conn
	Pinned []Conn
	// Draws counts the operations drawn by all workers.
	Draws *atomic.Int64

	made int64
}

// Unique returns a number that no other worker, and no other call, returns.
func (w *Worker) Unique() int64 {
	w.made++
	return w.made*1000 + int64(w.ID)
}

// AnyNode is a connection to a node at random.
func (w *Worker) AnyNode() Conn { return w.Pinned[w.Rand.IntN(len(w.Pinned))] }

// Client draws and does operations. Next and Do are called in turn, by one
// goroutine.
type Client interface {
	// Next draws the next operation.
	Next() *Op
	// Final lists what to do at the end, when all is healed and nobody writes.
	Final() []*Op
}

// Op is an operation about to be done.
type Op struct {
	F   string
	Key string
	In  history.Value
	// Conn is where it goes.
	Conn Conn
	// Read: a failure of any kind means that nothing was learnt.
	Read bool
	// Do does it. The error says what became of it; see Classify.
	Do func(ctx context.Context, c Conn) (history.Value, error)
}

// All lists the workloads in the order of `jepsen list`.
func All() []*Workload {
	return []*Workload{
		Register(), RegisterREST(), Set(), Bank(), Append(), Session(), Bounded(),
		Deleted(), Search(), Once(), Catalog(),
	}
}

// aliases are other names that people look for.
func aliases() map[string]string {
	return map[string]string{
		"exactly-once": "once", "request-id": "once", "list-append": "append", "cas": "register", "rest": "register-rest",
		"monotonic": "session", "read-your-writes": "session", "bounded-staleness": "bounded", "staleness": "bounded",
		"delete-does-not-resurrect": "delete", "deleted": "delete", "collections": "catalog",
	}
}

// Find returns the workload of a name.
func Find(name string) (*Workload, error) {
	if other, ok := aliases()[name]; ok {
		name = other
	}
	var names []string
	for _, w := range All() {
		if w.Name == name {
			return w, nil
		}
		names = append(names, w.Name)
	}
	return nil, fmt.Errorf("no workload %q; there are %s", name, strings.Join(names, ", "))
}

// FindAll returns the workloads of names with commas between them; "all" is every
// one. Each keeps to collections of its own, so that any of them may share a
// cluster.
func FindAll(names string) ([]*Workload, error) {
	if names == "all" {
		return All(), nil
	}
	var found []*Workload
	for name := range strings.SplitSeq(names, ",") {
		w, err := Find(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(found, func(o *Workload) bool { return o.Name == w.Name }) {
			return nil, fmt.Errorf("workload %s is named twice", w.Name)
		}
		found = append(found, w)
	}
	return found, nil
}

// createCollection makes a collection of the workload, once.
func createCollection(ctx context.Context, db DB, name string, dims uint32) error {
	_, err := db.CreateCollection(ctx, &cv1.CreateCollectionRequest{Name: name, Dimension: dims, Metric: "l2"})
	if err != nil && Reason(err) != reasonCollectionExists {
		return fmt.Errorf("create collection %s: %w", name, err)
	}
	return nil
}

// payload is the JSON object of the documents: n, and a list for transactions.
type payload struct {
	N    int64   `json:"n"`
	List []int64 `json:"l,omitempty"`
}

func encode(p payload) *cv1.Json {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("workload: encode %+v: %v", p, err)) // numbers always encode
	}
	return &cv1.Json{Raw: b}
}

func decode(j *cv1.Json) (payload, error) {
	var p payload
	if err := json.Unmarshal(j.GetRaw(), &p); err != nil {
		return p, fmt.Errorf("payload %q: %w", j.GetRaw(), err)
	}
	return p, nil
}

// vectorOf gives every value a vector of its own: two values that differ have
// vectors that differ by at least one in some place, exactly.
func vectorOf(n int64, dims int) []float32 {
	v := make([]float32, dims)
	x := uint64(n)
	for i := range v {
		switch i {
		case 0:
			v[i] = float32(n & 0xffff)
		case 1:
			v[i] = float32(n >> 16 & 0xffff)
		case 2:
			v[i] = float32(n >> 32 & 0xffff)
		default: // spread, so that the graph has something to do
			x = x*6364136223846793005 + 1442695040888963407
			v[i] = float32(x >> 56)
		}
	}
	return v
}

// docOf turns a document of a reply into one of the history, checking that
// vector and payload belong together.
func docOf(id string, version uint64, meta *cv1.Json, vec []float32, wantVector bool) history.Doc {
	d := history.Doc{ID: id, Version: version}
	p, err := decode(meta)
	if err != nil {
		d.Bad = err.Error()
		return d
	}
	d.N = p.N
	if wantVector && !slices.Equal(vec, vectorOf(p.N, len(vec))) {
		d.Bad = fmt.Sprintf("the vector is not that of %d", p.N)
	}
	if wantVector && len(vec) == 0 {
		d.Bad = "no vector"
	}
	return d
}

// scrollAll lists a whole collection on one page, at one log index.
func scrollAll(ctx context.Context, c Conn, coll, consistency string) (history.Value, error) {
	resp, err := c.Scroll(ctx, &cv1.ScrollRequest{
		CollectionId: coll, Limit: 10000, IncludeVector: true, Consistency: consistency,
	})
	if err != nil {
		return history.Value{}, err
	}
	out := history.Value{Applied: resp.GetAppliedIndex(), ServedBy: resp.GetServedBy(), Note: "all", Consistency: resp.GetConsistency()}
	if resp.GetNextCursor() != "" {
		return out, fmt.Errorf("the collection does not fit on one page")
	}
	for _, d := range resp.GetDocuments() {
		out.Docs = append(out.Docs, docOf(d.GetDocId(), d.GetVersion(), d.GetMetadata(), d.GetVector(), true))
	}
	return out, nil
}

// finalScans lists the collection on each node, by the first worker.
func finalScans(w *Worker, coll string) []*Op {
	if w.ID != 0 {
		return nil
	}
	var ops []*Op
	for _, c := range w.Pinned {
		ops = append(ops, &Op{F: "scan", Conn: c, Read: true, In: history.Value{Note: "all"},
			Do: func(ctx context.Context, c Conn) (history.Value, error) { return scrollAll(ctx, c, coll, "") }})
	}
	return ops
}

// dims of the collections: small ones where vectors do not matter.
const (
	smallDims  = 4
	searchDims = 16
)
