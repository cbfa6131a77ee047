// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"

	"github.com/google/uuid"

	"github.com/akidb/akidb/node"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// CreateCollection implements collectionv1.CollectionManagementServiceServer.
func (s *service) CreateCollection(ctx context.Context, r *collectionv1.CreateCollectionRequest) (*collectionv1.CreateCollectionResponse, error) {
	if err := s.check(r); err != nil {
		return nil, err
	}
	create, err := createOf(r)
	if err != nil {
		return nil, err
	}
	create.CollectionId, err = mintID(r.GetRequestId(), "collection")
	if err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, &fsmv1.Command{
		RequestId: r.GetRequestId(),
		Op:        &fsmv1.Command_CreateCollection{CreateCollection: create},
	})
	if err != nil {
		return nil, err
	}
	rec, sv := res.GetCollection(), s.wrote(res.GetLogIndex())
	return &collectionv1.CreateCollectionResponse{
		CollectionId: rec.GetCollectionId(), Name: rec.GetName(), Dimension: rec.GetDimension(),
		Metric:       metricName(rec.GetMetric()),
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

// ListCollections implements collectionv1.CollectionManagementServiceServer.
func (s *service) ListCollections(ctx context.Context, r *collectionv1.ListCollectionsRequest) (*collectionv1.ListCollectionsResponse, error) {
	v, err := s.read(ctx, r)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	out := &collectionv1.ListCollectionsResponse{
		AppliedIndex: v.applied, SessionToken: v.token, ServedBy: v.by, Consistency: v.consistency,
	}
	for _, c := range v.Collections() {
		out.Collections = append(out.Collections, collectionInfo(c))
	}
	return out, nil
}

// GetCollection implements collectionv1.CollectionManagementServiceServer.
func (s *service) GetCollection(ctx context.Context, r *collectionv1.GetCollectionRequest) (*collectionv1.GetCollectionResponse, error) {
	info, sv, err := s.describe(ctx, r, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	return &collectionv1.GetCollectionResponse{
		Collection:   info,
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

// DeleteCollection implements collectionv1.CollectionManagementServiceServer.
// What is dropped is invisible at once; its documents go in the background.
func (s *service) DeleteCollection(ctx context.Context, r *collectionv1.DeleteCollectionRequest) (*collectionv1.DeleteCollectionResponse, error) {
	if err := s.check(r); err != nil {
		return nil, err
	}
	if err := checkRef(r.GetCollectionId()); err != nil {
		return nil, err
	}
	// The state machine resolves a name: only there do two drops of one name, or
	// a drop that is sent again, meet the same collection.
	ref, err := s.canonicalRef(ctx, r.GetCollectionId())
	if err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, &fsmv1.Command{
		RequestId: r.GetRequestId(),
		Op:        &fsmv1.Command_DropCollection{DropCollection: &fsmv1.DropCollection{CollectionId: ref}},
	})
	if err != nil {
		return nil, err
	}
	sv := s.wrote(res.GetLogIndex())
	return &collectionv1.DeleteCollectionResponse{
		Success:      true,
		AppliedIndex: sv.applied, SessionToken: sv.token, ServedBy: sv.by, Consistency: sv.consistency,
	}, nil
}

// canonicalRef spells a UUID as the state machine does. Only a collection that
// was made by an older version can have a name of that form; it keeps it.
func (s *service) canonicalRef(ctx context.Context, ref string) (string, error) {
	u, err := uuid.Parse(ref)
	if err != nil || u.String() == ref {
		return ref, nil
	}
	v, err := s.node.Read(ctx, node.ReadOptions{Consistency: node.Eventual})
	if err != nil {
		return "", err
	}
	defer v.Close()
	if _, err := v.Collection(ref); err == nil {
		return ref, nil
	}
	return u.String(), nil
}
