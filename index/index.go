// SPDX-License-Identifier: Apache-2.0

// Package index answers nearest-neighbour queries over the vectors of one
// collection, from RAM, the same bits on every replica and every CPU. It never
// decides what the replicated state is: it is derived from it and can always be
// built anew.
package index

import (
	"context"

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
	QuantizationNone   Quantization = "none"
	QuantizationSQ8    Quantization = "sq8"
	QuantizationRaBitQ Quantization = "rabitq"
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
}

// Field fixes the type of a payload field. Without any, every scalar field is
// indexed by the type of its values.
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
}

// Query asks for the K nearest vectors of a view.
type Query struct {
	Vector       []float32
	K            int
	Ef           int     // 0: by Config or RecallTarget
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
type Index struct{}

// Open builds the index of a generation: from the checkpoint in cfg.Dir as far
// as it is sound and from src for the rest. The graph follows in background.
func Open(ctx context.Context, cfg Config, generation uint64, src Source) (*Index, error) {
	panic("index: to be built")
}

// Append takes the vector and payload of the next slot. It never waits for the
// graph; the slot is visible to views whose Slots is above it.
func (x *Index) Append(slot Slot, vector []float32, payload []byte) { panic("to be built") }

// Delete marks a slot dead from log index at on.
func (x *Index) Delete(slot Slot, at uint64) { panic("to be built") }

// Seal begins the next generation: in background a new graph is built of the
// slots live at log index at, and takes over when it has caught up.
func (x *Index) Seal(generation, at uint64) { panic("to be built") }

// Search answers a query at a view; results are appended to dst. It fails with
// ErrBadFilter, ErrBadQuery or the context's error.
func (x *Index) Search(ctx context.Context, q Query, v View, dst []Result) ([]Result, Stats, error) {
	panic("to be built")
}

// Match calls fn for the matching slots of a view in increasing order until it
// returns false.
func (x *Index) Match(ctx context.Context, f *Filter, v View, fn func(Slot) bool) error {
	panic("to be built")
}

// Count counts the matching slots of a view.
func (x *Index) Count(ctx context.Context, f *Filter, v View) (int, error) { panic("to be built") }

// Status may be called at any time and costs no scan.
func (x *Index) Status() Status { panic("to be built") }

// WaitIdle returns when the graph covers all it is to cover.
func (x *Index) WaitIdle(ctx context.Context) error { panic("to be built") }

// Backlog is how many appended vectors the graph does not cover yet.
func (x *Index) Backlog() int { panic("to be built") }

// Checkpoint writes the graph to Config.Dir, beside appends and searches.
func (x *Index) Checkpoint(ctx context.Context) error { panic("to be built") }

// Close stops the builders and frees the arenas; searches must have ended.
func (x *Index) Close() error { panic("to be built") }
