// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// leaderEstablished keeps the cluster id of the first leader.
func (a *applier) leaderEstablished(op *fsmv1.LeaderEstablished) (*fsmv1.Result, error) {
	if err := checkText("cluster_id", op.GetClusterId(), 64); err != nil {
		return a.invalid(err), nil
	}
	if a.e.meta.clusterID == "" {
		a.e.meta.clusterID = op.GetClusterId()
	}
	return a.ok(), nil
}

// Refound gives the state another cluster id: it is to go on as a cluster of its
// own, which those that share its history so far do not belong to. It is no entry
// of the log, since the members of that cluster all begin with a snapshot of this
// state. The applied index stays; the state hash there does not. Only for an FSM
// that no Raft applies to.
func (f *FSM) Refound(clusterID string) error {
	if err := checkText("cluster_id", clusterID, 64); err != nil {
		return fmt.Errorf("raftfsm: %w", err)
	}
	if f.failed != nil {
		return f.failed
	}
	e := f.eng
	e.meta.clusterID = clusterID
	if err := f.apply.endEntry(&raft.Log{Index: e.applied, Term: e.term}); err != nil {
		return fmt.Errorf("raftfsm: new cluster id: %w", err)
	}
	if err := f.apply.finish(); err != nil {
		return fmt.Errorf("raftfsm: new cluster id: %w", err)
	}
	f.history.restart(e.applied, e.sum.stateHash())
	f.publish()
	return nil
}

// stateCheck compares a hash of the leader with this replica's own at the same
// log index. What it finds is knowledge of this replica alone and no part of the
// state.
func (a *applier) stateCheck(op *fsmv1.StateCheck) (*fsmv1.Result, error) {
	if len(op.GetStateHash()) != len(StateHash{}) {
		return a.refuse(fsmv1.Status_STATUS_INVALID, "state_hash has %d bytes instead of 16", len(op.GetStateHash())), nil
	}
	theirs := StateHash(op.GetStateHash())
	if ours, ok := a.f.history.at(op.GetAtIndex()); ok && ours != theirs {
		a.f.diverge(fmt.Errorf("%w: at log index %d the state hash here is %s, on %s it is %s", ErrDiverged, op.GetAtIndex(), ours, op.GetNodeId(), theirs))
	}
	return a.ok(), nil
}

// diverge remembers the first disagreement.
func (f *FSM) diverge(err error) {
	if f.diverged.CompareAndSwap(nil, &err) {
		f.cfg.Logger.Error("raftfsm: this replica is not to be trusted", "error", err)
	}
}

func (a *applier) setAlarm(op *fsmv1.SetAlarm, nowMs uint64) (*fsmv1.Result, error) {
	for _, f := range []struct{ field, text string }{{"kind", op.GetKind()}, {"node_id", op.GetNodeId()}, {"message", op.GetMessage()}} {
		if err := checkText(f.field, f.text, MaxAlarmBytes); err != nil {
			return a.invalid(err), nil
		}
	}
	if op.GetKind() == "" || strings.ContainsRune(op.GetKind(), 0) {
		return a.refuse(fsmv1.Status_STATUS_INVALID, "kind is empty or contains a zero byte"), nil
	}
	key := appendAlarmKey(nil, op.GetKind(), op.GetNodeId())
	old, raised := a.e.alarms[string(key)]
	if op.GetClear() {
		if !raised {
			return a.ok(), nil
		}
		delete(a.e.alarms, string(key))
		a.catalogChanged = true
		return a.ok(), a.remove(key, appendAlarm(nil, old))
	}
	if !raised && len(a.e.alarms) >= MaxAlarms {
		return a.refuse(fsmv1.Status_STATUS_INVALID, "%d alarms are raised; no more are allowed", MaxAlarms), nil
	}
	now := Alarm{Kind: op.GetKind(), NodeID: op.GetNodeId(), Message: op.GetMessage(), RaisedIndex: a.logIndex, RaisedAtMs: nowMs}
	var was []byte
	if raised {
		// It was raised then; only the text is new.
		now.RaisedIndex, now.RaisedAtMs = old.RaisedIndex, old.RaisedAtMs
		was = appendAlarm(nil, old)
	}
	a.e.alarms[string(key)] = now
	a.catalogChanged = true
	return a.ok(), a.set(key, was, appendAlarm(nil, now))
}

// setClusterVersion raises the cluster version; it never goes back.
func (a *applier) setClusterVersion(op *fsmv1.SetClusterVersion) (*fsmv1.Result, error) {
	have := a.e.meta.clusterVersion
	if op.GetVersion() < have {
		return a.refuse(fsmv1.Status_STATUS_STALE, "the cluster version is %d already", have), nil
	}
	a.e.meta.clusterVersion = op.GetVersion()
	return a.ok(), nil
}

func (a *applier) putNode(op *fsmv1.PutNode) (*fsmv1.Result, error) {
	n := op.GetNode()
	for _, f := range []struct{ field, text string }{
		{"node_id", n.GetNodeId()}, {"raft_addr", n.GetRaftAddr()}, {"grpc_addr", n.GetGrpcAddr()},
		{"rest_addr", n.GetRestAddr()}, {"zone", n.GetZone()}, {"version", n.GetVersion()},
	} {
		if err := checkText(f.field, f.text, MaxNodeField); err != nil {
			return a.invalid(err), nil
		}
	}
	if n.GetNodeId() == "" {
		return a.refuse(fsmv1.Status_STATUS_INVALID, "node_id is empty"), nil
	}
	old := a.e.nodes[n.GetNodeId()]
	var was []byte
	var err error
	if old != nil {
		if was, err = marshalCanonical(old); err != nil {
			return nil, err
		}
	}
	key := appendNodeKey(nil, n.GetNodeId())
	if op.GetRemove() {
		if old == nil {
			return a.ok(), nil
		}
		delete(a.e.nodes, n.GetNodeId())
		a.catalogChanged = true
		return a.ok(), a.remove(key, was)
	}
	if old == nil && len(a.e.nodes) >= MaxNodes {
		return a.refuse(fsmv1.Status_STATUS_INVALID, "%d nodes are recorded; no more are allowed", MaxNodes), nil
	}
	n = proto.CloneOf(n)
	now, err := marshalCanonical(n)
	if err != nil {
		return nil, err
	}
	a.e.nodes[n.GetNodeId()] = n
	a.catalogChanged = true
	if len(now) == 0 {
		now = []byte{}
	}
	return a.ok(), a.set(key, was, now)
}

func checkText(field, s string, limit int) error {
	if len(s) > limit || !utf8.ValidString(s) {
		return invalid("%s is not UTF-8 or has more than %d bytes", field, limit)
	}
	return nil
}
