// SPDX-License-Identifier: Apache-2.0

// Package raftfsm applies committed commands to the replicated state: the same
// log gives the same state, byte for byte, on every replica. It never looks at
// a clock, draws a random number, or knows who leads.
package raftfsm

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/index"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Config is fixed for the life of an FSM; Open validates it.
type Config struct {
	Dir          string // the group's directory: store/ and index/ live in it
	Logger       *slog.Logger
	IndexWorkers int
	MaxRequests  int   // remembered request ids; 0 is 1<<20
	RequestTTLms int64 // by proposer time; 0 is 15 minutes
}

// StateHash is the order-independent hash of the keyspace.
type StateHash [16]byte

// FSM is the replicated state of one Raft group.
type FSM struct{}

var _ raft.BatchingFSM = (*FSM)(nil)

// Open opens or creates the state in cfg.Dir. It fails with ErrCorrupt (naming
// the file) rather than start empty.
func Open(ctx context.Context, cfg Config) (*FSM, error) { panic("raftfsm: to be built") }

// Apply applies one entry; see ApplyBatch.
func (f *FSM) Apply(l *raft.Log) any { panic("to be built") }

// ApplyBatch applies committed entries in one storage batch. The response of a
// command entry is []*fsmv1.Result, one a command. An entry that cannot be
// decoded stops the process with its log index.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any { panic("to be built") }

// Snapshot returns at once; Persist makes the state durable up to it.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) { panic("to be built") }

// Restore replaces the state by the one streamed from r, after verifying it.
func (f *FSM) Restore(r io.ReadCloser) error { panic("to be built") }

// Applied is the log index up to which entries are applied and visible.
func (f *FSM) Applied() uint64 { panic("to be built") }

// WaitApplied returns when Applied() >= logIndex, or with the context's error.
func (f *FSM) WaitApplied(ctx context.Context, logIndex uint64) error { panic("to be built") }

// Flush makes the state durable and returns the log index it is durable up to.
func (f *FSM) Flush() (uint64, error) { panic("to be built") }

// CheckpointIndexes writes the graphs to disk, beside everything else.
func (f *FSM) CheckpointIndexes(ctx context.Context) error { panic("to be built") }

// Close flushes and closes; Apply must have ended.
func (f *FSM) Close() error { panic("to be built") }

// View is the state at one applied index. It holds storage open: Close it.
type View struct{}

// View returns the newest published state; it never waits.
func (f *FSM) View() *View { panic("to be built") }

// Close releases the view.
func (v *View) Close() { panic("to be built") }

// Applied is the log index of the view.
func (v *View) Applied() uint64 { panic("to be built") }

// StateHash is the hash of the keyspace at Applied().
func (v *View) StateHash() StateHash { panic("to be built") }

// ClusterID is the id minted by the first leader; "" before.
func (v *View) ClusterID() string { panic("to be built") }

// ClusterVersion is the replicated cluster version; at least 1.
func (v *View) ClusterVersion() uint32 { panic("to be built") }

// Alarms lists the raised alarms in a fixed order.
func (v *View) Alarms() []Alarm { panic("to be built") }

// Nodes lists the node records in the order of their ids.
func (v *View) Nodes() []*fsmv1.NodeRecord { panic("to be built") }

// Diverged is not nil once a state check disagreed with this replica.
func (v *View) Diverged() error { panic("to be built") }

// Alarm is a replicated alarm.
type Alarm struct {
	Kind, NodeID, Message string
	RaisedIndex           uint64
	RaisedAtMs            uint64
}

// Collections lists the collections of the default database by name.
func (v *View) Collections() []*Collection { panic("to be built") }

// Collection finds a collection by id or, failing that, by name:
// ErrCollectionNotFound.
func (v *View) Collection(ref string) (*Collection, error) { panic("to be built") }

// Collection is a collection as of a view.
type Collection struct{}

// Record is the catalog's record; do not change it.
func (c *Collection) Record() *fsmv1.CollectionRecord { panic("to be built") }

// Len is the number of documents.
func (c *Collection) Len() int { panic("to be built") }

// IndexStatus is this replica's graph.
func (c *Collection) IndexStatus() index.Status { panic("to be built") }

// Document is a document as of a view.
type Document struct {
	ID           string
	ExternalID   *string
	Vector       []float32 // as it was written; nil unless asked for
	Metadata     []byte    // JSON object or nil
	Version      uint64
	InsertedAtMs uint64
	UpdatedAtMs  uint64
}

// Projection says what to read of a document.
type Projection struct {
	Vector, Metadata bool
}

// Get reads a document; nil if there is none.
func (c *Collection) Get(id string, p Projection) (*Document, error) { panic("to be built") }

// Match is a search result.
type Match struct {
	Document
	Distance float32
}

// Search returns the nearest documents, nearest first.
func (c *Collection) Search(ctx context.Context, q index.Query, p Projection) ([]Match, index.Stats, error) {
	panic("to be built")
}

// Count counts the documents a filter admits.
func (c *Collection) Count(ctx context.Context, f *index.Filter) (int, error) { panic("to be built") }

// Scroll lists up to limit documents with id > after, by id.
func (c *Collection) Scroll(ctx context.Context, f *index.Filter, after string, limit int, p Projection) ([]Document, error) {
	panic("to be built")
}
