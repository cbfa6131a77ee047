// SPDX-License-Identifier: Apache-2.0

// Package fake is a database in memory with the API of AkiDB, correct unless it
// is told to have a fault: the harness is tested against it.
package fake

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	cv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// Fault is what can be wrong with the database.
type Fault string

// The faults.
const (
	None         Fault = ""
	StaleReads   Fault = "stale-reads"   // reads answer from an older state now and then
	LostWrites   Fault = "lost-writes"   // some acknowledged writes never happen
	DoubleApply  Fault = "double-apply"  // request ids are forgotten
	HalfBatch    Fault = "half-batch"    // batches stop in the middle now and then
	Resurrect    Fault = "resurrect"     // deleted documents come back after a while
	BlindSearch  Fault = "blind-search"  // searches miss the newest documents
	DirtyCAS     Fault = "dirty-cas"     // if_version is ignored now and then
	LyingErrors  Fault = "lying-errors"  // writes that happened are reported as not applied
	BadSessions  Fault = "bad-sessions"  // session tokens are ignored
	LeakyCatalog Fault = "leaky-catalog" // a new collection keeps the documents of the old one
	TornReads    Fault = "torn-reads"    // reads by id and lists return a vector that is not the document's now and then
	ShortFetch   Fault = "short-fetch"   // a fetch leaves a document out now and then
	ForgetsLate  Fault = "forgets-late"  // a request sent again is refused as another one's now and then
)

// DB is the database. All its methods are safe for concurrent use.
type DB struct {
	fault Fault
	// Unknown is the share of writes whose reply is lost, Refused that of
	// requests that are refused.
	unknown, refused float64

	mu      sync.Mutex // guards the fields below
	rand    *rand.Rand
	index   uint64
	state   *state
	history []*state // older states, for stale reads
	done    map[string]any
	limbo   map[string]document // deleted documents that are to come back
}

type state struct {
	index       uint64
	collections map[string]*collection // by name
}

type collection struct {
	id, model string
	dims      uint32
	docs      map[string]document
}

type document struct {
	id      string
	vector  []float32
	payload map[string]json.RawMessage
	version uint64
	added   uint64
}

// New makes a database with a fault that loses a share of its replies and
// refuses a share of its requests.
func New(seed uint64, fault Fault, unknown, refused float64) *DB {
	return &DB{
		fault: fault, unknown: unknown, refused: refused, rand: rand.New(rand.NewPCG(seed, 99)),
		state: &state{collections: map[string]*collection{}}, done: map[string]any{}, limbo: map[string]document{},
	}
}

func (s *state) clone(index uint64) *state {
	c := &state{index: index, collections: make(map[string]*collection, len(s.collections))}
	for name, coll := range s.collections {
		cc := *coll
		cc.docs = maps.Clone(coll.docs)
		c.collections[name] = &cc
	}
	return c
}

func (s *state) find(ref string) (*collection, error) {
	if c := s.collections[ref]; c != nil {
		return c, nil
	}
	for _, c := range s.collections {
		if c.id == ref {
			return c, nil
		}
	}
	return nil, fail(codes.NotFound, "COLLECTION_NOT_FOUND", "permanent")
}

// fail makes an error as the API does.
func fail(code codes.Code, reason, class string) error {
	st, err := status.New(code, reason).WithDetails(&errdetails.ErrorInfo{
		Reason: reason, Domain: "akidb", Metadata: map[string]string{"class": class},
	})
	if err != nil {
		panic("fake: " + err.Error()) // an ErrorInfo always encodes
	}
	return st.Err()
}

// chance is true with probability p; the caller holds mu.
func (d *DB) chance(p float64) bool { return d.rand.Float64() < p }

// warm is false for the first writes, which faults leave alone: a workload whose
// preparations come to nothing has nothing to check.
func (d *DB) warm() bool { return len(d.history) > 8 }

// write runs f on the next state and publishes that if f succeeds. It is where
// replies get lost and requests refused.
func write[T any](d *DB, requestID string, f func(s *state, index uint64) (T, error)) (T, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var zero T
	if d.chance(d.refused) {
		return zero, fail(codes.Unavailable, "NO_LEADER", "not_applied")
	}
	if got, ok := d.done[requestID]; ok && requestID != "" && d.fault != DoubleApply {
		if d.fault == ForgetsLate && d.chance(0.2) {
			return zero, fail(codes.InvalidArgument, "REQUEST_ID_REUSED", "permanent")
		}
		return got.(T), nil
	}
	lostRequest := d.chance(d.unknown / 2)
	if lostRequest {
		return zero, fail(codes.Unknown, "UNKNOWN_OUTCOME", "unknown")
	}
	d.index++
	next := d.state.clone(d.index)
	out, err := f(next, d.index)
	if err != nil {
		return zero, err
	}
	if !(d.fault == LostWrites && d.warm() && d.chance(0.05)) {
		d.history = append(d.history, d.state)
		if len(d.history) > 12 {
			d.history = d.history[1:]
		}
		d.state = next
	}
	if requestID != "" {
		d.done[requestID] = out
	}
	d.comeBack()
	switch {
	case d.fault == LyingErrors && d.warm() && d.chance(0.05):
		return zero, fail(codes.Unavailable, "NOT_LEADER", "not_applied")
	case d.chance(d.unknown / 2):
		return zero, fail(codes.Unknown, "UNKNOWN_OUTCOME", "unknown")
	}
	return out, nil
}

// comeBack returns deleted documents to where they were.
func (d *DB) comeBack() {
	if d.fault != Resurrect || !d.chance(0.05) {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(d.limbo)) {
		doc := d.limbo[k]
		delete(d.limbo, k)
		for _, c := range d.state.collections {
			if _, there := c.docs[doc.id]; !there && k == c.id+"/"+doc.id {
				c.docs[doc.id] = doc
			}
		}
	}
}

// read runs f on the state that the read is to see.
func read[T any](d *DB, consistency, token string, f func(s *state) (T, error)) (T, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.chance(d.refused) {
		var zero T
		return zero, fail(codes.Unavailable, "NO_LEADER", "not_applied")
	}
	s := d.state
	stale := d.fault == StaleReads && d.chance(0.1)
	if consistency == "session" || consistency == "eventual" {
		stale = d.chance(0.5)
	}
	if stale && len(d.history) > 0 {
		s = d.history[d.rand.IntN(len(d.history))]
		if least, err := strconv.ParseUint(token, 10, 64); err == nil && s.index < least && d.fault != BadSessions {
			s = d.state
		}
	}
	return f(s)
}

func (c *collection) put(d *DB, id string, vector []float32, raw []byte, index uint64) error {
	var payload map[string]json.RawMessage
	if err := json.Unmarshal(raw, &payload); err != nil {
		return fail(codes.InvalidArgument, "INVALID_ARGUMENT", "permanent")
	}
	if uint32(len(vector)) != c.dims {
		return fail(codes.InvalidArgument, "INVALID_ARGUMENT", "permanent")
	}
	c.docs[id] = document{id: id, vector: vector, payload: payload, version: index, added: index}
	delete(d.limbo, c.id+"/"+id)
	return nil
}

// meets says whether a document has the version a write is conditional on.
func (c *collection) meets(d *DB, id string, ifVersion *uint64) error {
	if ifVersion == nil || d.fault == DirtyCAS && d.chance(0.3) {
		return nil
	}
	if c.docs[id].version != *ifVersion {
		return fail(codes.FailedPrecondition, "VERSION_MISMATCH", "permanent")
	}
	return nil
}

func raw(p map[string]json.RawMessage) *cv1.Json {
	b, err := json.Marshal(p)
	if err != nil {
		panic("fake: " + err.Error()) // it was decoded from JSON
	}
	return &cv1.Json{Raw: b}
}

// shown is a document as a read by id or a list returns it; the caller holds mu.
func (d *DB) shown(doc document) *cv1.VectorDocument {
	if d.fault == TornReads && d.warm() && d.chance(0.05) {
		doc.vector = slices.Clone(doc.vector)
		doc.vector[0]++
	}
	return doc.proto()
}

func (doc document) proto() *cv1.VectorDocument {
	return &cv1.VectorDocument{DocId: doc.id, Vector: doc.vector, Metadata: raw(doc.payload), Version: doc.version}
}

func distance(a, b []float32) float32 {
	var sum float64
	for i := range a {
		x := float64(a[i]) - float64(b[i])
		sum += x * x
	}
	return float32(sum)
}

// nearest are the topK documents nearest to v.
func (c *collection) nearest(v []float32, topK int, newest uint64) []*cv1.VectorMatch {
	var all []*cv1.VectorMatch
	for _, id := range slices.Sorted(maps.Keys(c.docs)) {
		doc := c.docs[id]
		if doc.added > newest {
			continue
		}
		all = append(all, &cv1.VectorMatch{
			DocId: id, Distance: distance(v, doc.vector), Metadata: raw(doc.payload), Vector: doc.vector, Version: doc.version,
		})
	}
	slices.SortStableFunc(all, func(a, b *cv1.VectorMatch) int { return cmp.Compare(a.Distance, b.Distance) })
	return all[:min(topK, len(all))]
}

// Query searches.
func (d *DB) Query(_ context.Context, r *cv1.QueryRequest) (*cv1.QueryResponse, error) {
	return read(d, r.GetConsistency(), r.GetSessionToken(), func(s *state) (*cv1.QueryResponse, error) {
		c, err := s.find(r.GetCollectionId())
		if err != nil {
			return nil, err
		}
		newest := s.index
		if d.fault == BlindSearch && newest > 20 {
			newest -= 20
		}
		return &cv1.QueryResponse{Matches: c.nearest(r.GetQueryVector(), int(r.GetTopK()), newest), AppliedIndex: s.index}, nil
	})
}

func token(index uint64) string { return fmt.Sprint(index) }
