// SPDX-License-Identifier: Apache-2.0

// Package index answers nearest-neighbour queries over the vectors of one
// collection, from RAM, the same bits on every replica and every CPU. It never
// decides what the replicated state is: it is derived from it and can always be
// built anew.
package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/akidb/akidb/index/distance"
)

// Slot numbers the vectors of a collection in log order. A slot is written
// once: a new vector or a new payload of a document takes a new slot, so that
// (vector, payload) of a slot never change. Slots of compacted garbage leave
// holes.
type Slot uint32

// Quantization names the codes the graph is walked on.
type Quantization string

// The quantizations. Whatever the codes, results are re-ranked with the float32
// vectors unless a query asks not to.
const (
	QuantizationNone Quantization = "none"
	QuantizationSQ8  Quantization = "sq8"
	// QuantizationRaBitQ is sq8 and, beside the links of each vertex, short codes
	// of its neighbours; plain queries are walked on those. It takes more memory
	// and pays where codes are larger than the cache: see docs/adr/0070.
	QuantizationRaBitQ Quantization = "rabitq"

	// DefaultQuantization is what an empty Config.Quantization means.
	DefaultQuantization = QuantizationSQ8
)

// Config is fixed for the life of an index; Open validates it.
type Config struct {
	Dimension      int
	Metric         distance.Metric
	M              int // edges of a vertex on upper layers; 2*M on layer 0
	EfConstruction int
	EfSearch       int // default ef; 0 chooses by recall target 0.99
	Quantization   Quantization
	VectorsOnDisk  bool // re-rank through Source.Vector, no float32 in RAM
	Fields         []Field
	Workers        int // goroutines of graph construction; 0: one per core
	// Dir holds this index's checkpoints; "" keeps none. A damaged one, or one
	// of another history, is reported to Warn and built anew, never trusted.
	Dir  string
	Warn func(msg string, err error)
	// rather, if set by a test, is what distance.ProductsRather says: keys, graphs
	// and results do not depend on it.
	rather *bool
}

func (c *Config) productsRather(codes int) bool {
	if c.rather != nil {
		return *c.rather
	}
	return distance.ProductsRather(codes)
}

// Field says of what type the values of a payload field are to be. It is checked and
// changes nothing: every scalar field is indexed, each value by its own type.
type Field struct {
	Key  string
	Type string // keyword, integer, float, bool, datetime, geo
}

// Entry is what the replicated state holds of a slot.
type Entry struct {
	Slot    Slot
	Vector  []float32 // valid during the call only
	Payload []byte    // a JSON object, or empty; valid during the call only
	DeadAt  uint64    // log index of the delete; 0 while live
}

// Source reads the replicated state of the collection.
type Source interface {
	// Scan calls fn for the slots >= from of the current generation, in order:
	// all that were live when it was sealed, and all since.
	Scan(from Slot, fn func(Entry) error) error
	// Vector reads one vector into dst (len Dimension).
	Vector(slot Slot, dst []float32) error
}

// View is the moment a query sees: slots below Slots that were not deleted at
// or before log index Applied.
type View struct {
	Slots   Slot
	Applied uint64
	// Vector is Source.Vector as of the view, whose vectors may have been purged
	// since; nil if the Source has them all.
	Vector func(slot Slot, dst []float32) error
}

// Query asks for the K nearest vectors of a view.
type Query struct {
	Vector       []float32
	K            int
	Ef           int     // candidates to expand, K/2 at least; 0: by Config or RecallTarget
	RecallTarget float64 // 0, 0.95, 0.99; 1 scans exactly
	Exact        bool    // scan every vector
	NoRescore    bool    // distances of codes
	Filter       *Filter // nil matches everything
	// MaxDistance drops results farther than this if HasMaxDistance.
	MaxDistance    float32
	HasMaxDistance bool
}

// Result is a neighbour; smaller distance is nearer, ties go to the lower slot.
type Result struct {
	Slot     Slot
	Distance float32
}

// Stats says how a query was answered.
type Stats struct {
	Plan      string // "graph", "filtered-graph", "exact"
	Visited   int    // distances computed on the graph
	Scanned   int    // distances computed by exact scan
	Sketched  int    // vectors of which a scan looked at the sketch first
	Matching  int    // slots the filter admits, -1 if not counted
	Truncated bool
}

// Status is this index's own state.
type Status struct {
	Generation uint64
	Graphed    int    // vectors the graph covers
	Total      int    // vectors appended in this generation
	Garbage    int    // of them deleted
	Idle       bool   // nothing left to build
	GraphHash  string // 32 hex digits; the same on every idle replica
	Memory     Memory
}

// Memory is bytes in RAM by part.
type Memory struct {
	Vectors, Codes, Graph, Payload, Slots int64
}

// Index is the index of one collection. Append, Delete and Seal are called by
// one goroutine, in log order; everything else by any.
//
// Searches take no lock: they hold a reference to a generation and look at what
// its watermarks cover. The builder goroutine owns the graphs. mu orders the
// appender with the builder's taking over of vertices into the next generation.
type Index struct {
	cfg       Config
	src       Source
	current   atomic.Pointer[generation]
	payload   *payload
	scratches sync.Pool
	purge     atomic.Uint32 // payloads below this slot await purging

	mu     sync.Mutex  // guards the fields below
	next   *generation // being built after Seal, or nil
	closed bool
	idle   chan struct{} // closed and replaced when the builder has nothing to do
	larger *sync.Cond    // the current generation may have been replaced by a larger one, or x closed

	pace  pacer
	wake  bell // for the builder
	merge bell // for the merger of payload runs
	stop  chan struct{}
	// checkpoints are asked of the builder, who knows what the last one was.
	checkpoints chan checkpointRequest
	chain       *chain
	done        sync.WaitGroup
}

// Open builds the index of a generation: from the checkpoint in cfg.Dir as far
// as it is sound and from src for the rest. The graph follows in background.
func Open(ctx context.Context, cfg Config, generation uint64, src Source) (*Index, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	rows := cfg.room(0)
	x, err := load(ctx, cfg, generation, src, rows)
	for errors.Is(err, errOutgrown) {
		rows = cfg.room((rows + 1) / 2)
		x, err = load(ctx, cfg, generation, src, rows)
	}
	if err != nil {
		return nil, err
	}
	x.begin()
	return x, nil
}

// begin starts what runs until Close.
func (x *Index) begin() {
	x.done.Go(x.build)
	x.done.Go(x.mergePayload)
	x.wake.nudge()
}

// load makes an index whose builders do not run yet, with room for so many vectors. It
// fails with errOutgrown if there are more than half as many.
func load(ctx context.Context, cfg Config, generation uint64, src Source, rows int) (*Index, error) {
	x := newIndex(cfg, src)
	g, err := newGeneration(&x.cfg, x.src, generation, 0, rows)
	if err != nil {
		return nil, err
	}
	x.current.Store(g)
	if err := x.loadAndRestore(ctx, g, src); err != nil {
		g.release()
		return nil, err
	}
	return x, nil
}

func newIndex(cfg Config, src Source) *Index {
	x := &Index{
		cfg:     cfg,
		src:     src,
		payload: newPayload(),
		idle:    make(chan struct{}),
		wake:    make(bell, 1),
		merge:   make(bell, 1),

		checkpoints: make(chan checkpointRequest),
		stop:        make(chan struct{}),
	}
	x.larger = sync.NewCond(&x.mu)
	x.pace.start, x.pace.stop = time.Now(), x.stop
	x.scratches.New = func() any { return new(scratch) }
	return x
}

// acquire takes a reference to the current generation.
func (x *Index) acquire() *generation {
	for {
		// A generation is replaced before it is released for the last time.
		if g := x.current.Load(); g.acquire() {
			return g
		}
	}
}

// acquireFor takes a reference to the current generation if it can show v.
func (x *Index) acquireFor(v View) (*generation, error) {
	g := x.acquire()
	if v.Applied < g.sealedAt {
		g.release()
		return nil, fmt.Errorf("%w: view of log index %d, collected at %d", ErrViewTooOld, v.Applied, g.sealedAt)
	}
	return g, nil
}

// Append takes the vector and payload of the next slot. It never waits for the
// graph; the slot is visible to views whose Slots is above it.
func (x *Index) Append(slot Slot, vector []float32, payload []byte) {
	// Payload first: what a search sees of the vectors it can filter.
	if x.payload.add(slot, payload) {
		x.merge.nudge()
	}
	x.mu.Lock()
	if g := x.withRoom(); g != nil {
		g.append(slot, vector, 0)
	}
	x.mu.Unlock()
	x.pace.appended()
	x.wake.nudge()
}

// Delete marks a slot dead from log index at on.
func (x *Index) Delete(slot Slot, at uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.current.Load().kill(slot, at)
	if x.next != nil {
		x.next.kill(slot, at)
	}
}

// Seal begins the next generation: in background a new graph is built of the
// slots live at log index at, and takes over when it has caught up.
func (x *Index) Seal(generation, at uint64) {
	g, err := newGeneration(&x.cfg, x.src, generation, at, x.cfg.room(int(x.current.Load().total.Load())))
	if err != nil {
		x.cfg.Warn("the next generation was not begun", err)
		return
	}
	x.mu.Lock()
	if x.next != nil {
		x.next.release()
	}
	x.next = g
	x.mu.Unlock()
	x.wake.nudge()
}

// Match calls fn for the matching slots of a view in increasing order until it
// returns false.
func (x *Index) Match(ctx context.Context, f *Filter, v View, fn func(Slot) bool) error {
	sel, err := x.selectBy(ctx, f)
	if err != nil {
		return err
	}
	g, err := x.acquireFor(v)
	if err != nil {
		return err
	}
	defer g.release()
	s := x.scratches.Get().(*scratch)
	defer x.scratches.Put(s)
	r := request{x: x, ctx: ctx, g: g, s: s}
	r.see = sight{g: g, bound: g.lowerBound(v.Slots, g.total.Load()), applied: v.Applied, anyDead: g.garbage.Load() > 0}
	if sel.plan != nil {
		if err := r.evaluate(sel); err != nil {
			return err
		}
	}
	bound := r.see.bound
	for u, n := r.see.next(0, bound), 1; u < bound; u, n = r.see.next(u+1, bound), n+1 {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !fn(g.slot(u)) {
			return nil
		}
	}
	return nil
}

// Count counts the matching slots of a view.
func (x *Index) Count(ctx context.Context, f *Filter, v View) (int, error) {
	n := 0
	err := x.Match(ctx, f, v, func(Slot) bool { n++; return true })
	return n, err
}

// Status may be called at any time and costs no scan.
func (x *Index) Status() Status {
	g := x.acquire()
	defer g.release()
	// In this order: a hash beside a later count would pass for the last one.
	graphed := g.graphed.Load()
	hash, total := g.graphHash.Load(), g.total.Load()
	return Status{
		Generation: g.id,
		Graphed:    int(graphed),
		Total:      int(total),
		Garbage:    int(g.garbage.Load()),
		Idle:       x.final(g, graphed, total),
		GraphHash:  fmt.Sprintf("%016x%016x", hash.hi, hash.lo),
		Memory:     x.memory(g),
	}
}

// final reports whether a graph of so many vertices, read before this is asked, is
// the last one of so many vectors: no other one is to take its place.
func (x *Index) final(g *generation, graphed, total uint32) bool {
	replaced := g.poor.Load() || x.successor() != nil
	return !replaced && graphed == g.boundary(total) && g.blocked(graphed)
}

// successor is the generation that is to take the current one's place; nil mostly.
func (x *Index) successor() *generation {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.next
}

// discarded reports whether a graph is given up for one of the same vectors
// without codes. It must not be gone on with after a restart: it would be found
// out again only when the vectors have doubled, and be another graph than that of
// other replicas until then. A checkpoint from before it was found out leads there.
func (x *Index) discarded(g *generation) bool {
	if g.poor.Load() {
		return true
	}
	next := x.successor()
	return next != nil && next.id == g.id
}

func (x *Index) memory(g *generation) Memory {
	n := int64(g.total.Load())
	graphed := int64(g.graphed.Load())
	var codes int64
	if s := g.acquireCodes(); s != nil {
		codes = graphed * int64(s.stride)
		if s.terms != nil {
			codes += graphed * termBytes
		}
		if s.blocks != nil {
			codes += graphed * int64(s.blocks.rows.stride)
		}
		if s.sketches != nil {
			codes += graphed * int64(s.sketches.rows.stride)
		}
		s.release()
	}
	slots := n * int64(g.slots.stride+g.deadAt.stride)
	if g.norms != nil {
		slots += n*int64(g.norms.stride) + g.longest.Load().bytes()
	}
	vectors := n
	if g.disk != nil {
		vectors -= graphed
	}
	return Memory{
		Vectors: vectors * int64(g.vectors.stride),
		Codes:   codes,
		Graph: graphed*int64(g.graph.links.stride+g.graph.upperRow.stride+g.graph.closed.stride) +
			int64(g.graph.uppers.Load())*int64(g.graph.upper.stride+g.graph.changed.stride),
		Payload: x.payload.bytes(),
		Slots:   slots,
	}
}

// WaitIdle returns when the graph covers all it is to cover. Construction does not
// make way for writes meanwhile.
func (x *Index) WaitIdle(ctx context.Context) error {
	x.pace.waiting.Add(1)
	defer x.pace.waiting.Add(-1)
	for {
		x.mu.Lock()
		idle := x.idle
		x.mu.Unlock()
		if x.Status().Idle {
			return nil
		}
		select {
		case <-idle:
		case <-x.stop:
			return errClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Backlog is how many appended vectors the graph does not cover yet.
func (x *Index) Backlog() int {
	g := x.acquire()
	defer g.release()
	graphed := g.graphed.Load() // before total, which is never below it
	return int(g.total.Load() - graphed)
}

// Close stops the builders and frees the arenas; searches must have ended.
func (x *Index) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	x.larger.Broadcast()
	x.mu.Unlock()
	close(x.stop)
	x.done.Wait()
	if x.next != nil {
		x.next.release()
		x.next = nil
	}
	x.current.Load().release()
	return nil
}

// errClosed: the index was closed while something waited for it.
var errClosed = errors.New("index: closed")

// bell tells a goroutine that there may be work; its capacity is one.
type bell chan struct{}

func (b bell) nudge() {
	select {
	case b <- struct{}{}:
	default:
	}
}
