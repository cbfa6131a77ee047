// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/internal/storage"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// memMachine is a machine in RAM that holds what the tests look at: documents
// with the index that wrote them, request ids, the cluster id. Flush writes it
// to a file, so that it can be closed and opened.
type memMachine struct {
	dir     string
	backlog atomic.Int64 // what Backlog says

	mu        sync.Mutex // guards the fields below
	st        memState
	hashes    map[uint64]raftfsm.StateHash
	diverged  error
	damage    error         // what Verify finds
	spoilt    error         // what ApplyBatch meets
	damaged   error         // what Damaged says
	applyGate chan struct{} // not nil: ApplyBatch waits for it to close
}

type memState struct {
	Applied   uint64
	Term      uint64
	ClusterID string
	Docs      map[string]memDoc
	Requests  map[string]uint64
	Nodes     map[string][]byte
	Alarms    map[string]string
	Doubled   []string // documents written twice in one entry
	Version   uint32
	Hash      []byte // chained over the entries
}

type memDoc struct {
	Version uint64
	Data    []byte
}

func openMem(dir string) (*memMachine, error) {
	m := &memMachine{dir: dir, hashes: make(map[uint64]raftfsm.StateHash)}
	m.st = memState{Docs: map[string]memDoc{}, Requests: map[string]uint64{}, Nodes: map[string][]byte{}, Alarms: map[string]string{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "mem.json"))
	if os.IsNotExist(err) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(b, &m.st)
}

func (m *memMachine) ApplyBatch(logs []*raft.Log) []any {
	m.mu.Lock()
	gate := m.applyGate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]any, len(logs))
	if m.damaged = m.spoilt; m.damaged != nil {
		return out
	}
	for i, l := range logs {
		if l.Index <= m.st.Applied {
			continue
		}
		m.st.Applied, m.st.Term = l.Index, l.Term
		if l.Type != raft.LogCommand {
			continue
		}
		var e fsmv1.Entry
		if err := proto.Unmarshal(l.Data, &e); err != nil || e.Format != 1 {
			panic(fmt.Sprintf("entry %d: %v", l.Index, err))
		}
		seen := map[string]bool{}
		var res []*fsmv1.Result
		for _, c := range e.Commands {
			res = append(res, m.command(l.Index, c, seen))
		}
		out[i] = res
		sum := sha256.Sum256(append(m.st.Hash, l.Data...))
		m.st.Hash = sum[:16]
		m.hashes[l.Index] = raftfsm.StateHash(m.st.Hash)
	}
	return out
}

func (m *memMachine) command(index uint64, c *fsmv1.Command, seen map[string]bool) *fsmv1.Result {
	if c.ProposedAtMs == 0 {
		panic("command without a time stamp")
	}
	if at, ok := m.st.Requests[c.RequestId]; ok && c.RequestId != "" {
		return &fsmv1.Result{LogIndex: at, Replayed: true}
	}
	switch op := c.Op.(type) {
	case *fsmv1.Command_Write:
		for _, w := range op.Write.Writes {
			if seen[w.DocId] {
				m.st.Doubled = append(m.st.Doubled, w.DocId)
			}
			seen[w.DocId] = true
			m.st.Docs[w.DocId] = memDoc{index, w.Vector}
		}
	case *fsmv1.Command_LeaderEstablished:
		if m.st.ClusterID == "" {
			m.st.ClusterID = op.LeaderEstablished.ClusterId
		}
	case *fsmv1.Command_PutNode:
		b, err := proto.Marshal(op.PutNode.Node)
		if err != nil {
			panic(err)
		}
		m.st.Nodes[op.PutNode.Node.NodeId] = b
		if op.PutNode.Remove {
			delete(m.st.Nodes, op.PutNode.Node.NodeId)
		}
	case *fsmv1.Command_StateCheck:
		// The states of two replicas differ in nothing the tests change.
	case *fsmv1.Command_SetAlarm:
		key := op.SetAlarm.Kind + "/" + op.SetAlarm.NodeId
		m.st.Alarms[key] = op.SetAlarm.Message
		if op.SetAlarm.Clear {
			delete(m.st.Alarms, key)
		}
	case *fsmv1.Command_SetClusterVersion:
		m.st.Version = op.SetClusterVersion.Version
	}
	if c.RequestId != "" {
		m.st.Requests[c.RequestId] = index
	}
	return &fsmv1.Result{LogIndex: index}
}

func (m *memMachine) Applied() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.st.Applied
}

func (m *memMachine) encode() ([]byte, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.Marshal(m.st)
	if err != nil {
		panic(err)
	}
	return b, m.st.Applied
}

func (m *memMachine) Flush() (uint64, error) {
	b, applied := m.encode()
	return applied, storage.WriteFile(storage.Disk(), filepath.Join(m.dir, "mem.json"), b)
}

func (m *memMachine) Export(dir string) (uint64, error) {
	b, applied := m.encode()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	// Several files, so that a broken transfer has something to keep.
	for i := range 4 {
		part := b[i*len(b)/4 : (i+1)*len(b)/4]
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("part%d", i)), part, 0o600); err != nil {
			return 0, err
		}
	}
	return applied, nil
}

func (m *memMachine) Import(dir string) error {
	var b []byte
	for i := range 4 {
		part, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("part%d", i)))
		if err != nil {
			return err
		}
		b = append(b, part...)
	}
	var st memState
	if err := json.Unmarshal(b, &st); err != nil {
		return err
	}
	m.mu.Lock()
	m.st = st
	m.mu.Unlock()
	_, err := m.Flush()
	return err
}

func (m *memMachine) Refound(clusterID string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.st.ClusterID = clusterID
	return nil
}

func (m *memMachine) View() *raftfsm.View { return nil }

func (m *memMachine) Facts() facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := facts{applied: m.st.Applied, term: m.st.Term, clusterID: m.st.ClusterID, clusterVersion: max(1, m.st.Version)}
	copy(f.stateHash[:], m.st.Hash)
	for key, msg := range m.st.Alarms {
		kind, id, _ := strings.Cut(key, "/")
		f.alarms = append(f.alarms, raftfsm.Alarm{Kind: kind, NodeID: id, Message: msg})
	}
	for _, b := range m.st.Nodes {
		var r fsmv1.NodeRecord
		if err := proto.Unmarshal(b, &r); err != nil {
			panic(err)
		}
		f.nodes = append(f.nodes, &r)
	}
	return f
}

func (m *memMachine) HashAt(index uint64) (raftfsm.StateHash, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.hashes[index]
	return h, ok
}

func (m *memMachine) Diverged() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.diverged
}

func (m *memMachine) Damaged() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.damaged
}

func (m *memMachine) Verify(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.damage
}

func (m *memMachine) Backlog() int { return int(m.backlog.Load()) }

func (m *memMachine) Close() error {
	_, err := m.Flush()
	return err
}

func (m *memMachine) doc(id string) (memDoc, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.st.Docs[id]
	return d, ok
}

func (m *memMachine) CheckpointIndexes(context.Context) error { return nil }

var _ machine = (*memMachine)(nil)
