// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// service answers the data API and the management of collections, for gRPC and
// for REST alike.
type service struct {
	collectionv1.UnimplementedCollectionServiceServer
	collectionv1.UnimplementedCollectionManagementServiceServer
	node    *node.Node
	metrics *metrics
}

// served is what every reply says about how it came about.
type served struct {
	applied                uint64
	token, by, consistency string
}

// view is a read in progress: the state at one applied index. Close it.
type view struct {
	*raftfsm.View
	served
}

// read waits for the consistency that a request asks for.
func (s *service) read(ctx context.Context, r request) (*view, error) {
	o, err := s.readOptions(r)
	if err != nil {
		return nil, err
	}
	return s.readWith(ctx, o)
}

func (s *service) readWith(ctx context.Context, o node.ReadOptions) (*view, error) {
	v, err := s.node.Read(ctx, o)
	if err != nil {
		return nil, err
	}
	return &view{v, served{
		applied: v.Applied(), token: s.node.Token(v.Applied()), by: s.node.ID(),
		consistency: string(o.Consistency),
	}}, nil
}

// readCollection is read, and a collection of the view by id or name.
func (s *service) readCollection(ctx context.Context, r request, ref string) (*view, *raftfsm.Collection, error) {
	v, err := s.read(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	c, err := v.collection(ref)
	if err != nil {
		v.Close()
		return nil, nil, err
	}
	return v, c, nil
}

// collection finds a collection by id, in any of the spellings of a UUID, or by
// name. An older collection may have a name of such a form: that comes first.
func (v *view) collection(ref string) (*raftfsm.Collection, error) { return collectionOf(v.View, ref) }

func collectionOf(v *raftfsm.View, ref string) (*raftfsm.Collection, error) {
	c, err := v.Collection(ref)
	if err == nil {
		return c, nil
	}
	if u, perr := uuid.Parse(ref); perr == nil && u.String() != ref {
		if c, uerr := v.Collection(u.String()); uerr == nil {
			return c, nil
		}
	}
	return nil, err
}

// wrote is what a reply says about a write: it was decided by the log, at
// logIndex, so whatever follows it can be linearizable.
func (s *service) wrote(logIndex uint64) served {
	return served{
		applied: logIndex, token: s.node.Token(logIndex), by: s.node.ID(),
		consistency: string(node.Linearizable),
	}
}

// stopwatch measures a request for its latency_ms.
type stopwatch struct{ start time.Time }

func startWatch() stopwatch { return stopwatch{time.Now()} }

func (w stopwatch) ms() float64 { return float64(time.Since(w.start).Microseconds()) / 1e3 }
