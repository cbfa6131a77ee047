// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"

	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// Endpoint is one server as the client sees it.
type Endpoint struct {
	Addr   string
	NodeID string // empty until a health check succeeded
	Ready  bool   // by the last health check
	Leader bool
}

// Endpoints lists the servers known, in the order of Config.Endpoints.
func (c *Client) Endpoints() []Endpoint {
	var out []Endpoint
	leader := c.core.leader.Load()
	for _, e := range c.core.set.Load().list {
		ep := Endpoint{Addr: e.addr, Ready: e.ready.Load() == readyYes, Leader: e == leader}
		if id := e.nodeID.Load(); id != nil {
			ep.NodeID = *id
		}
		out = append(out, ep)
	}
	return out
}

// Status asks one endpoint for its own status, without retry.
func (c *Client) Status(ctx context.Context, endpoint string) (*clusterv1.StatusResponse, error) {
	return askOne[clusterv1.StatusResponse](ctx, c, endpoint, method{clusterv1.ClusterService_Status_FullMethodName, read}, &clusterv1.StatusRequest{})
}

// Snapshot makes one endpoint take a Raft snapshot now, without retry.
func (c *Client) Snapshot(ctx context.Context, endpoint string) (*clusterv1.SnapshotResponse, error) {
	return askOne[clusterv1.SnapshotResponse](ctx, c, endpoint, method{clusterv1.ClusterService_Snapshot_FullMethodName, operate}, &clusterv1.SnapshotRequest{})
}

// askOne makes one attempt at an endpoint that the client may not know yet.
func askOne[T any, P message[T], R message[S], S any](ctx context.Context, c *Client, addr string, m method, req R) (P, error) {
	k := c.core
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	cl := call{k: k, m: m, req: req, attempts: 1}
	cl.deadline, _ = ctx.Deadline()
	if err := cl.waitResolved(ctx); err != nil {
		return nil, err
	}
	for _, e := range k.set.Load().list {
		if e.addr == addr {
			cl.last = e
		}
	}
	if cl.last == nil {
		return nil, cl.fail(verdict{code: codes.InvalidArgument, class: Permanent}, errUnknownEndpoint(addr))
	}
	out := P(new(T))
	if err := cl.last.invoke(ctx, m.name, req, out); err != nil {
		return nil, cl.fail(judge(err, true), err)
	}
	return out, nil
}

type errUnknownEndpoint string

func (e errUnknownEndpoint) Error() string {
	return "endpoint " + string(e) + " is none of the client's"
}

// Members lists the members of the cluster as one replica knows them. If that one
// may be out of date (it was removed, or knows no leader), the others are asked.
func (c *Client) Members(ctx context.Context) (*clusterv1.MembersResponse, error) {
	m := method{clusterv1.ClusterService_Members_FullMethodName, read}
	out, err := do[clusterv1.MembersResponse](ctx, c.core, m, &clusterv1.MembersRequest{}, "")
	if err != nil || !out.GetStale() || c.core.cfg.Pin {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.core.cfg.AttemptTimeout)
	defer cancel()
	list := c.core.set.Load().list
	answers := make(chan *clusterv1.MembersResponse, len(list))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel() // before the wait
	for _, e := range list {
		asking.Go(func() {
			r, err := askOne[clusterv1.MembersResponse](ctx, c, e.addr, m, &clusterv1.MembersRequest{})
			if err != nil {
				r = nil
			}
			answers <- r
		})
	}
	for range list {
		if r := <-answers; r != nil && !r.GetStale() {
			return r, nil
		}
	}
	return out, nil
}

// Leader names the leader; it waits for one until the call's deadline.
func (c *Client) Leader(ctx context.Context) (*clusterv1.LeaderResponse, error) {
	return do[clusterv1.LeaderResponse](ctx, c.core, method{clusterv1.ClusterService_Leader_FullMethodName, read}, &clusterv1.LeaderRequest{}, "")
}

// AddMember adds a node to the cluster.
func (c *Client) AddMember(ctx context.Context, r *clusterv1.AddMemberRequest) (*clusterv1.AddMemberResponse, error) {
	return do[clusterv1.AddMemberResponse](ctx, c.core, method{clusterv1.ClusterService_AddMember_FullMethodName, settle}, r, "")
}

// RemoveMember takes a node out of the cluster; NOT_FOUND if it was no member
// before.
func (c *Client) RemoveMember(ctx context.Context, r *clusterv1.RemoveMemberRequest) (*clusterv1.RemoveMemberResponse, error) {
	return do[clusterv1.RemoveMemberResponse](ctx, c.core, method{clusterv1.ClusterService_RemoveMember_FullMethodName, settle}, r, "")
}

// PromoteMember makes a non-voter a voter.
func (c *Client) PromoteMember(ctx context.Context, r *clusterv1.PromoteMemberRequest) (*clusterv1.PromoteMemberResponse, error) {
	return do[clusterv1.PromoteMemberResponse](ctx, c.core, method{clusterv1.ClusterService_PromoteMember_FullMethodName, settle}, r, "")
}

// TransferLeader hands leadership to a voter.
func (c *Client) TransferLeader(ctx context.Context, r *clusterv1.TransferLeaderRequest) (*clusterv1.TransferLeaderResponse, error) {
	k := settle
	if r.GetNodeId() == "" {
		k = operate // once more would be to somebody else
	}
	return do[clusterv1.TransferLeaderResponse](ctx, c.core, method{clusterv1.ClusterService_TransferLeader_FullMethodName, k}, r, "")
}

// Verify compares the hashes of all members at one applied index.
func (c *Client) Verify(ctx context.Context) (*clusterv1.VerifyResponse, error) {
	return do[clusterv1.VerifyResponse](ctx, c.core, method{clusterv1.ClusterService_Verify_FullMethodName, inspect}, &clusterv1.VerifyRequest{}, "")
}

// ListAlarms lists the replicated alarms.
func (c *Client) ListAlarms(ctx context.Context) (*clusterv1.ListAlarmsResponse, error) {
	return do[clusterv1.ListAlarmsResponse](ctx, c.core, method{clusterv1.ClusterService_ListAlarms_FullMethodName, read}, &clusterv1.ListAlarmsRequest{}, "")
}

// ClearAlarm takes an alarm back after its cause is gone.
func (c *Client) ClearAlarm(ctx context.Context, r *clusterv1.ClearAlarmRequest) (*clusterv1.ClearAlarmResponse, error) {
	return do[clusterv1.ClearAlarmResponse](ctx, c.core, method{clusterv1.ClusterService_ClearAlarm_FullMethodName, settle}, r, "")
}
