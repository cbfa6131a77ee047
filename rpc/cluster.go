// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/akidb/akidb/node"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
	clusterv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/cluster/v1"
)

// cluster answers the operations API.
type cluster struct {
	clusterv1.UnimplementedClusterServiceServer
	s       *service
	version string
}

// maxNodeIDBytes bounds ids and addresses of members in requests.
const maxNodeIDBytes = 256

// maxNewNodeBytes is what a node takes as its id.
const maxNewNodeBytes = 128

func checkNodeField(field, v string, needed bool) error {
	switch {
	case v == "" && needed:
		return invalid(field, "must not be empty")
	case len(v) > maxNodeIDBytes:
		return invalidf(field, "longer than %d bytes", maxNodeIDBytes)
	}
	return nil
}

// checkNewNode refuses an id that no node can have; one that is a member can be
// removed whatever it is called.
func checkNewNode(field, id string) error {
	odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '/' || r == '\\' }
	if len(id) > maxNewNodeBytes || !utf8.ValidString(id) || strings.ContainsFunc(id, odd) {
		return invalidf(field, "%q: want 1 to %d bytes of UTF-8 without spaces, slashes and control characters", id, maxNewNodeBytes)
	}
	return checkNodeField(field, id, true)
}

// checkAddr refuses what cannot be dialled.
func checkAddr(field, addr string) error {
	if err := checkNodeField(field, addr, true); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
		return invalidf(field, "%q: want host:port, with a port from 1 to 65535", addr)
	}
	return nil
}

func checkAlarmKind(field, kind string) error {
	kinds := []string{node.AlarmNoSpace, node.AlarmMemory, node.AlarmBacklog, node.AlarmCorrupt, node.AlarmDiverged, node.AlarmLag, node.AlarmClock}
	if !slices.Contains(kinds, kind) {
		return invalidf(field, "%q is none of %s", kind, strings.Join(kinds, ", "))
	}
	return nil
}

// reasonNoMember: the node named is no member of the cluster.
const reasonNoMember = "MEMBER_NOT_FOUND"

// checkMember refuses a node that is no member. This replica may not have heard
// of a new one yet, so what it does not know it looks up again behind a barrier.
func (c *cluster) checkMember(ctx context.Context, id string) error {
	if c.isMember(id) {
		return nil
	}
	v, err := c.s.node.Read(ctx, node.ReadOptions{Consistency: node.Linearizable})
	if err != nil {
		return err
	}
	v.Close()
	if c.isMember(id) {
		return nil
	}
	return withReason(codes.NotFound, reasonNoMember, classPermanent, "node_id: %q is no member of the cluster", id)
}

func (c *cluster) isMember(id string) bool {
	return slices.ContainsFunc(c.s.node.Members(), func(m node.Member) bool { return m.NodeID == id })
}

// Status implements clusterv1.ClusterServiceServer. It needs no leader; hashes
// are left out if this replica's state cannot be read.
func (c *cluster) Status(ctx context.Context, r *clusterv1.StatusRequest) (*clusterv1.StatusResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	st := c.s.node.Status()
	out := &clusterv1.StatusResponse{
		NodeId: st.NodeID, ClusterId: st.ClusterID, Version: c.version, State: st.State, Voter: st.Voter,
		Term: st.Term, LeaderId: st.LeaderID, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		LastLogIndex: st.LastLogIndex, FirstLogIndex: st.FirstLogIndex, SnapshotIndex: st.SnapshotIndex,
		Ready: st.Ready, NotReadyReason: st.NotReadyReason, UptimeSeconds: uint64(st.Uptime.Seconds()),
		ClusterVersion: st.ClusterVersion, MaxClusterVersion: st.MaxClusterVersion,
	}
	for _, m := range c.s.node.Members() {
		if m.NodeID == st.NodeID {
			out.Zone = m.Zone
		}
	}
	v, err := c.s.node.Read(ctx, node.ReadOptions{Consistency: node.Eventual})
	if err != nil {
		out.Alarms = alarmsOf(c.s.node.Alarms())
		return out, nil
	}
	defer v.Close()
	hash := v.StateHash()
	out.AppliedIndex = v.Applied() // the hash is of this index
	out.StateHash = hex.EncodeToString(hash[:])
	out.GraphHash, out.Graphs, out.GraphIdle = graphsOf(v)
	out.Alarms = alarmsOf(v.Alarms())
	return out, nil
}

// graphsOf describes the graphs of a view, with one hash over all of them.
func graphsOf(v *raftfsm.View) (hash string, graphs []*clusterv1.CollectionGraph, idle bool) {
	sum, idle := sha256.New(), true
	for _, col := range v.Collections() {
		rec, st := col.Record(), col.IndexStatus()
		idle = idle && st.Idle
		graphs = append(graphs, &clusterv1.CollectionGraph{
			CollectionId: rec.GetCollectionId(), Name: rec.GetName(), GraphHash: st.GraphHash,
			Graphed: uint64(st.Graphed), Total: uint64(st.Total),
		})
		fmt.Fprintf(sum, "%s %s\n", rec.GetCollectionId(), st.GraphHash)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), graphs, idle
}

func alarmsOf(alarms []raftfsm.Alarm) []*clusterv1.Alarm {
	var out []*clusterv1.Alarm
	for _, a := range alarms {
		out = append(out, &clusterv1.Alarm{
			Kind: a.Kind, NodeId: a.NodeID, Message: a.Message,
			RaisedIndex: a.RaisedIndex, RaisedAt: timeText(a.RaisedAtMs),
		})
	}
	return out
}

// Members implements clusterv1.ClusterServiceServer.
func (c *cluster) Members(_ context.Context, r *clusterv1.MembersRequest) (*clusterv1.MembersResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	out := &clusterv1.MembersResponse{ServedBy: c.s.node.ID(), Stale: true}
	_, err := c.s.node.Leader()
	for _, m := range c.s.node.Members() {
		if m.NodeID == out.ServedBy {
			out.Stale = err != nil
		}
		out.Members = append(out.Members, &clusterv1.Member{
			NodeId: m.NodeID, RaftAddr: m.RaftAddr, GrpcAddr: m.GRPCAddr, RestAddr: m.RESTAddr,
			Voter: m.Voter, Leader: m.Leader, Health: m.Health, AppliedIndex: m.AppliedIndex,
			LastContactMs: uint64(max(0, m.LastContact.Milliseconds())), Version: m.Version, Zone: m.Zone,
		})
	}
	return out, nil
}

// Leader implements clusterv1.ClusterServiceServer.
func (c *cluster) Leader(_ context.Context, r *clusterv1.LeaderRequest) (*clusterv1.LeaderResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	m, err := c.s.node.Leader()
	if err != nil {
		return nil, err
	}
	return &clusterv1.LeaderResponse{
		NodeId: m.NodeID, GrpcAddr: m.GRPCAddr, RestAddr: m.RESTAddr, Term: c.s.node.Status().Term,
	}, nil
}

// AddMember implements clusterv1.ClusterServiceServer.
func (c *cluster) AddMember(ctx context.Context, r *clusterv1.AddMemberRequest) (*clusterv1.AddMemberResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	if err := checkNewNode("node_id", r.GetNodeId()); err != nil {
		return nil, err
	}
	if err := checkAddr("raft_addr", r.GetRaftAddr()); err != nil {
		return nil, err
	}
	return &clusterv1.AddMemberResponse{}, c.s.node.AddMember(ctx, r.GetNodeId(), r.GetRaftAddr(), r.GetVoter(), node.Forced(r.GetForce()))
}

// RemoveMember implements clusterv1.ClusterServiceServer.
func (c *cluster) RemoveMember(ctx context.Context, r *clusterv1.RemoveMemberRequest) (*clusterv1.RemoveMemberResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	if err := checkNodeField("node_id", r.GetNodeId(), true); err != nil {
		return nil, err
	}
	if err := c.checkMember(ctx, r.GetNodeId()); err != nil {
		return nil, err
	}
	return &clusterv1.RemoveMemberResponse{}, c.s.node.RemoveMember(ctx, r.GetNodeId(), node.Forced(r.GetForce()))
}

// PromoteMember implements clusterv1.ClusterServiceServer.
func (c *cluster) PromoteMember(ctx context.Context, r *clusterv1.PromoteMemberRequest) (*clusterv1.PromoteMemberResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	if err := checkNodeField("node_id", r.GetNodeId(), true); err != nil {
		return nil, err
	}
	if err := c.checkMember(ctx, r.GetNodeId()); err != nil {
		return nil, err
	}
	return &clusterv1.PromoteMemberResponse{}, c.s.node.PromoteMember(ctx, r.GetNodeId(), node.Forced(r.GetForce()))
}

// TransferLeader implements clusterv1.ClusterServiceServer. It answers with the
// new leader once this node knows it, or with none if that takes too long: the
// hand-over itself has happened.
func (c *cluster) TransferLeader(ctx context.Context, r *clusterv1.TransferLeaderRequest) (*clusterv1.TransferLeaderResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	target := r.GetNodeId()
	if err := checkNodeField("node_id", target, false); err != nil {
		return nil, err
	}
	before, _ := c.s.node.Leader() // none is as good as another one
	if err := c.s.node.TransferLeader(ctx, target); target != "" && errors.Is(err, node.ErrInvalid) {
		return nil, invalid("node_id", strings.TrimPrefix(err.Error(), node.ErrInvalid.Error()+": "))
	} else if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, transferWait)
	defer cancel()
	tick := time.NewTicker(transferPoll)
	defer tick.Stop()
	for {
		m, err := c.s.node.Leader()
		if err == nil && (m.NodeID == target || target == "" && m.NodeID != before.NodeID) {
			return &clusterv1.TransferLeaderResponse{LeaderId: m.NodeID}, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &clusterv1.TransferLeaderResponse{}, nil
		}
	}
}

// Verify implements clusterv1.ClusterServiceServer.
func (c *cluster) Verify(ctx context.Context, r *clusterv1.VerifyRequest) (*clusterv1.VerifyResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	hashes, err := c.s.node.Verify(ctx)
	if err != nil {
		return nil, err
	}
	return verifyResponse(hashes), nil
}

func verifyResponse(hashes []node.MemberHash) *clusterv1.VerifyResponse {
	out := &clusterv1.VerifyResponse{}
	answered, contradicted := false, false
	for i := range hashes {
		h := &hashes[i]
		m := &clusterv1.MemberHash{NodeId: h.NodeID, AppliedIndex: h.AppliedIndex, StateHash: h.StateHash, GraphHash: h.GraphHash,
			Error: h.Err, Fenced: h.Fenced, Differs: h.Differs}
		for _, g := range h.Building {
			m.Building = append(m.Building, &clusterv1.CollectionGraph{CollectionId: g.CollectionID, Name: g.Name, Graphed: g.Graphed, Total: g.Total})
		}
		out.Members = append(out.Members, m)
		if h.Err != "" {
			continue // says nothing about its state
		}
		answered = true
		contradicted = contradicted || len(h.Differs) > 0 || h.Fenced != ""
		out.Building = out.Building || len(h.Building) > 0
		out.AppliedIndex = max(out.AppliedIndex, h.AppliedIndex)
	}
	out.Equal = answered && !contradicted
	return out
}

// Snapshot implements clusterv1.ClusterServiceServer.
func (c *cluster) Snapshot(ctx context.Context, r *clusterv1.SnapshotRequest) (*clusterv1.SnapshotResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	logIndex, term, err := c.s.node.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return &clusterv1.SnapshotResponse{Index: logIndex, Term: term}, nil
}

// ListAlarms implements clusterv1.ClusterServiceServer. A node that is out of
// service tells what it knows: that it is fenced may be what the caller looks for.
func (c *cluster) ListAlarms(ctx context.Context, r *clusterv1.ListAlarmsRequest) (*clusterv1.ListAlarmsResponse, error) {
	v, err := c.s.read(ctx, r)
	if errors.Is(err, node.ErrFenced) {
		return &clusterv1.ListAlarmsResponse{Alarms: alarmsOf(c.s.node.Alarms())}, nil
	}
	if err != nil {
		return nil, err
	}
	defer v.Close()
	return &clusterv1.ListAlarmsResponse{Alarms: alarmsOf(v.Alarms())}, nil
}

// ClearAlarm implements clusterv1.ClusterServiceServer.
func (c *cluster) ClearAlarm(ctx context.Context, r *clusterv1.ClearAlarmRequest) (*clusterv1.ClearAlarmResponse, error) {
	if err := c.s.check(r); err != nil {
		return nil, err
	}
	if err := checkAlarmKind("kind", r.GetKind()); err != nil {
		return nil, err
	}
	if err := checkNodeField("node_id", r.GetNodeId(), false); err != nil {
		return nil, err
	}
	_, err := c.s.propose(ctx, &fsmv1.Command{Op: &fsmv1.Command_SetAlarm{SetAlarm: &fsmv1.SetAlarm{
		Kind: r.GetKind(), NodeId: r.GetNodeId(), Clear: true,
	}}})
	return &clusterv1.ClearAlarmResponse{}, err
}
