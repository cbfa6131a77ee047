// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"fmt"
	"sync/atomic"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/internal/storage"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// The tenant and database that exist from the start.
const (
	DefaultTenant   = "default"
	DefaultDatabase = "default"
)

// View is the state at one applied index. It holds storage open: Close it.
type View struct {
	f      *FSM
	st     *state
	closed atomic.Bool
}

// View returns the newest published state; it never waits.
func (f *FSM) View() *View { return &View{f: f, st: f.acquire()} }

// Close releases the view; once is enough. What was read stays valid, but
// nothing more may be read, from its collections neither.
func (v *View) Close() {
	if !v.closed.Swap(true) {
		v.f.release(v.st)
	}
}

// Applied is the log index of the view.
func (v *View) Applied() uint64 { return v.st.applied }

// Term is the Raft term of the entry at Applied().
func (v *View) Term() uint64 { return v.st.term }

// StateHash is the hash of the keyspace at Applied().
func (v *View) StateHash() StateHash { return v.st.hash }

// ClusterID is the id minted by the first leader; "" before.
func (v *View) ClusterID() string { return v.st.clusterID }

// ClusterVersion is the replicated cluster version; at least 1.
func (v *View) ClusterVersion() uint32 { return max(1, v.st.clusterVersion) }

// Alarm is a replicated alarm.
type Alarm struct {
	Kind, NodeID, Message string
	RaisedIndex           uint64
	RaisedAtMs            uint64
}

// Alarms lists the raised alarms in a fixed order. Do not change them.
func (v *View) Alarms() []Alarm { return v.st.alarms }

// Nodes lists the node records in the order of their ids. Do not change them.
func (v *View) Nodes() []*fsmv1.NodeRecord { return v.st.nodes }

// PendingPurges lists the ids of dropped collections that PurgeCollection has
// not taken away yet.
func (v *View) PendingPurges() []string { return v.st.pendingPurges }

// Request is the remembered outcome of a request id; nil if there is none. What the
// request was is not remembered, and of a refusal not the message.
func (v *View) Request(id string) (*fsmv1.Result, error) {
	b, ok, err := v.st.snap.Get(appendRequestKey(nil, id), nil)
	if err == nil && !ok {
		return nil, nil
	}
	var q requestRecord
	if err == nil {
		q, err = decodeRequest(b)
	}
	if err != nil {
		return nil, fmt.Errorf("raftfsm: read request %q: %w", id, markCorrupt(err))
	}
	return q.result, nil
}

// Diverged is not nil once a state check disagreed with this replica. It wraps
// ErrDiverged.
func (v *View) Diverged() error {
	if err := v.f.diverged.Load(); err != nil {
		return *err
	}
	return nil
}

// Collections lists the collections of the default database by name.
func (v *View) Collections() []*Collection {
	return v.CollectionsOf(DefaultTenant, DefaultDatabase)
}

// CollectionsOf lists the collections of a database by name.
func (v *View) CollectionsOf(tenant, database string) []*Collection {
	var out []*Collection
	for i := range v.st.colls {
		if s := v.st.colls[i]; s.rec.GetTenant() == tenant && s.rec.GetDatabase() == database {
			out = append(out, &Collection{v: v, s: s})
		}
	}
	return out
}

// AllCollections lists the collections of all databases.
func (v *View) AllCollections() []*Collection {
	out := make([]*Collection, len(v.st.colls))
	for i := range v.st.colls {
		out[i] = &Collection{v: v, s: v.st.colls[i]}
	}
	return out
}

// Collection finds a collection by id or, failing that, by its name in the
// default database: ErrCollectionNotFound.
func (v *View) Collection(ref string) (*Collection, error) {
	return v.CollectionOf(DefaultTenant, DefaultDatabase, ref)
}

// CollectionOf finds a collection by id or, failing that, by its name in the
// given database: ErrCollectionNotFound.
func (v *View) CollectionOf(tenant, database, ref string) (*Collection, error) {
	i, ok := v.st.byID[ref]
	if !ok {
		i, ok = v.st.byName[nameKey(tenant, database, ref)]
	}
	if !ok {
		return nil, fmt.Errorf("%w: collection %q", ErrCollectionNotFound, ref)
	}
	return &Collection{v: v, s: v.st.colls[i]}, nil
}

// Collection is a collection as of a view.
type Collection struct {
	v *View
	s *collState
}

// Record is the catalog's record; do not change it.
func (c *Collection) Record() *fsmv1.CollectionRecord { return c.s.rec }

// Len is the number of documents.
func (c *Collection) Len() int { return c.s.live }

// IndexStatus is this replica's graph.
func (c *Collection) IndexStatus() index.Status { return c.s.c.idx.Status() }

// Index is this replica's index, for maintenance: WaitIdle, Backlog, Checkpoint.
func (c *Collection) Index() *index.Index { return c.s.c.idx }

// SlotTableBytes is what the tables of document ids take of RAM.
func (c *Collection) SlotTableBytes() int64 { return c.s.tbl.bytes() + c.s.ids }

func (c *Collection) indexView() index.View {
	v := index.View{Slots: c.s.slots, Applied: c.v.st.applied}
	if c.s.rec.GetIndex().GetVectorsOnDisk() {
		// What was purged since is still in the view.
		v.Vector = func(slot index.Slot, dst []float32) error { return c.s.c.src.readVector(c.snap(), slot, dst) }
	}
	return v
}

func (c *Collection) snap() *storage.Snapshot { return c.v.st.snap }
