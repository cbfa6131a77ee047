// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// The generated gateway calls these in process. They put each handler behind the
// guard and its interceptors, which a gRPC call passes as well.

type restCollections struct {
	collectionv1.UnimplementedCollectionServiceServer
	r *rest
	s *service
}

func (x *restCollections) Query(ctx context.Context, r *collectionv1.QueryRequest) (*collectionv1.QueryResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Query_FullMethodName, r, x.s.Query)
}

func (x *restCollections) Insert(ctx context.Context, r *collectionv1.InsertRequest) (*collectionv1.InsertResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Insert_FullMethodName, r, x.s.Insert)
}

func (x *restCollections) Get(ctx context.Context, r *collectionv1.GetRequest) (*collectionv1.GetResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Get_FullMethodName, r, x.s.Get)
}

func (x *restCollections) Delete(ctx context.Context, r *collectionv1.DeleteRequest) (*collectionv1.DeleteResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Delete_FullMethodName, r, x.s.Delete)
}

func (x *restCollections) Describe(ctx context.Context, r *collectionv1.DescribeRequest) (*collectionv1.DescribeResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Describe_FullMethodName, r, x.s.Describe)
}

func (x *restCollections) Upsert(ctx context.Context, r *collectionv1.UpsertRequest) (*collectionv1.UpsertResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Upsert_FullMethodName, r, x.s.Upsert)
}

func (x *restCollections) PatchPayload(ctx context.Context, r *collectionv1.PatchPayloadRequest) (*collectionv1.PatchPayloadResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_PatchPayload_FullMethodName, r, x.s.PatchPayload)
}

func (x *restCollections) Batch(ctx context.Context, r *collectionv1.BatchRequest) (*collectionv1.BatchResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Batch_FullMethodName, r, x.s.Batch)
}

func (x *restCollections) DeleteMany(ctx context.Context, r *collectionv1.DeleteManyRequest) (*collectionv1.DeleteManyResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_DeleteMany_FullMethodName, r, x.s.DeleteMany)
}

func (x *restCollections) QueryBatch(ctx context.Context, r *collectionv1.QueryBatchRequest) (*collectionv1.QueryBatchResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_QueryBatch_FullMethodName, r, x.s.QueryBatch)
}

func (x *restCollections) Fetch(ctx context.Context, r *collectionv1.FetchRequest) (*collectionv1.FetchResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Fetch_FullMethodName, r, x.s.Fetch)
}

func (x *restCollections) Count(ctx context.Context, r *collectionv1.CountRequest) (*collectionv1.CountResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Count_FullMethodName, r, x.s.Count)
}

func (x *restCollections) Scroll(ctx context.Context, r *collectionv1.ScrollRequest) (*collectionv1.ScrollResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionService_Scroll_FullMethodName, r, x.s.Scroll)
}

type restManagement struct {
	collectionv1.UnimplementedCollectionManagementServiceServer
	r *rest
	s *service
}

func (x *restManagement) CreateCollection(ctx context.Context, r *collectionv1.CreateCollectionRequest) (*collectionv1.CreateCollectionResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionManagementService_CreateCollection_FullMethodName, r, x.s.CreateCollection)
}

func (x *restManagement) ListCollections(ctx context.Context, r *collectionv1.ListCollectionsRequest) (*collectionv1.ListCollectionsResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionManagementService_ListCollections_FullMethodName, r, x.s.ListCollections)
}

func (x *restManagement) GetCollection(ctx context.Context, r *collectionv1.GetCollectionRequest) (*collectionv1.GetCollectionResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionManagementService_GetCollection_FullMethodName, r, x.s.GetCollection)
}

func (x *restManagement) DeleteCollection(ctx context.Context, r *collectionv1.DeleteCollectionRequest) (*collectionv1.DeleteCollectionResponse, error) {
	return restCall(x.r, ctx, collectionv1.CollectionManagementService_DeleteCollection_FullMethodName, r, x.s.DeleteCollection)
}

type restCluster struct {
	clusterv1.UnimplementedClusterServiceServer
	r *rest
	s *cluster
}

func (x *restCluster) Status(ctx context.Context, r *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_Status_FullMethodName, r, x.s.Status)
}

func (x *restCluster) Members(ctx context.Context, r *clusterv1.MembersRequest) (*clusterv1.MembersResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_Members_FullMethodName, r, x.s.Members)
}

func (x *restCluster) Leader(ctx context.Context, r *clusterv1.LeaderRequest) (*clusterv1.LeaderResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_Leader_FullMethodName, r, x.s.Leader)
}

func (x *restCluster) AddMember(ctx context.Context, r *clusterv1.AddMemberRequest) (*clusterv1.AddMemberResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_AddMember_FullMethodName, r, x.s.AddMember)
}

func (x *restCluster) RemoveMember(ctx context.Context, r *clusterv1.RemoveMemberRequest) (*clusterv1.RemoveMemberResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_RemoveMember_FullMethodName, r, x.s.RemoveMember)
}

func (x *restCluster) PromoteMember(ctx context.Context, r *clusterv1.PromoteMemberRequest) (*clusterv1.PromoteMemberResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_PromoteMember_FullMethodName, r, x.s.PromoteMember)
}

func (x *restCluster) TransferLeader(ctx context.Context, r *clusterv1.TransferLeaderRequest) (*clusterv1.TransferLeaderResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_TransferLeader_FullMethodName, r, x.s.TransferLeader)
}

func (x *restCluster) Verify(ctx context.Context, r *clusterv1.VerifyRequest) (*clusterv1.VerifyResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_Verify_FullMethodName, r, x.s.Verify)
}

func (x *restCluster) Snapshot(ctx context.Context, r *clusterv1.SnapshotRequest) (*clusterv1.SnapshotResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_Snapshot_FullMethodName, r, x.s.Snapshot)
}

func (x *restCluster) ListAlarms(ctx context.Context, r *clusterv1.ListAlarmsRequest) (*clusterv1.ListAlarmsResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_ListAlarms_FullMethodName, r, x.s.ListAlarms)
}

func (x *restCluster) ClearAlarm(ctx context.Context, r *clusterv1.ClearAlarmRequest) (*clusterv1.ClearAlarmResponse, error) {
	return restCall(x.r, ctx, clusterv1.ClusterService_ClearAlarm_FullMethodName, r, x.s.ClearAlarm)
}
