// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
)

// MemberHash is one member's part in Verify.
type MemberHash struct {
	NodeID, StateHash, GraphHash string
	Err                          string // why it did not answer
	Fenced                       string // why it is out of service
	AppliedIndex                 uint64
	// Building is its graphs that are not complete, or not far enough to be
	// compared with the leader's.
	Building []GraphProgress
	// Differs names what contradicts the leader.
	Differs []string
}

// GraphProgress is how far a member's graph of one collection is.
type GraphProgress struct {
	CollectionID, Name string
	Graphed, Total     uint64
}

const (
	// verifyTimeout bounds how long Verify waits for a member.
	verifyTimeout = 3 * time.Second
	// maxMarksPerReply bounds what a member tells of the past of its graphs.
	maxMarksPerReply = 8192
)

// Verify compares the members with the leader while writes go on: the state
// hashes as of one log index, which every replica remembers, and the graphs where
// both have built them (docs/adr/0089).
func (n *Node) Verify(ctx context.Context) ([]MemberHash, error) {
	var out []MemberHash
	var r nodev1.VerifyReply
	err := n.atLeader(ctx, func(ctx context.Context) (err error) {
		out, err = n.verifyHere(ctx)
		return err
	}, methodVerify, &nodev1.VerifyRequest{}, &r)
	if err != nil || out != nil {
		return out, err
	}
	out = make([]MemberHash, len(r.Members))
	for i, m := range r.Members {
		out[i] = memberHash(m)
	}
	return out, nil
}

func memberHash(r *nodev1.HashReply) MemberHash {
	h := MemberHash{NodeID: r.NodeId, AppliedIndex: r.AppliedIndex, StateHash: hex.EncodeToString(r.StateHash),
		GraphHash: r.GraphHash, Err: r.Error, Fenced: r.Fenced, Differs: r.Differs}
	for _, g := range r.Graphs {
		h.Building = append(h.Building, GraphProgress{g.CollectionId, g.Name, g.Graphed, g.Total})
	}
	return h
}

func (n *Node) verifyHere(ctx context.Context) ([]MemberHash, error) {
	replies, err := n.compare(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]MemberHash, len(replies))
	for i, r := range replies {
		out[i] = memberHash(r)
	}
	return out, nil
}

func (n *Node) serveVerify(ctx context.Context) (proto.Message, error) {
	replies, err := n.compare(ctx)
	if err != nil {
		return nil, err
	}
	return &nodev1.VerifyReply{Members: replies}, nil
}

// compare is Verify on the leader: one reply a member, in the order of the Raft
// configuration.
func (n *Node) compare(ctx context.Context) ([]*nodev1.HashReply, error) {
	// An answer that names who was silent is worth more than none.
	ctx, cancel := context.WithTimeout(ctx, min(verifyTimeout, timeoutOf(ctx)*3/4))
	defer cancel()
	p, err := n.g.reads.local.do(ctx)
	if err != nil {
		return nil, err
	}
	own, err := n.hash(ctx, &nodev1.HashRequest{LogIndex: p.index, Graphs: true})
	if err != nil {
		return nil, err
	}
	servers := n.g.servers()
	out := make([]*nodev1.HashReply, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			id := string(s.ID)
			out[i] = own
			if id != n.cfg.NodeID {
				r, err := n.hashOf(ctx, id, n.g.addrOf(s), &nodev1.HashRequest{LogIndex: own.AppliedIndex, Graphs: true})
				if err == nil {
					err = n.holdAgainst(ctx, own, r)
				}
				if err != nil {
					r = &nodev1.HashReply{Error: err.Error()}
				}
				out[i] = r
			}
			out[i].NodeId = id
		})
	}
	wg.Wait()
	for _, r := range out {
		r.Graphs = unfinished(r.Graphs)
	}
	return out, nil
}

// holdAgainst notes in r what contradicts the leader's own hashes. A member that
// does not remember the hash as of the leader's index, because it started or was
// restored later, answers with a later one.
func (n *Node) holdAgainst(ctx context.Context, own, r *nodev1.HashReply) error {
	ours := own.StateHash
	if r.AppliedIndex != own.AppliedIndex {
		if err := n.g.ad.wait(ctx, r.AppliedIndex); err != nil {
			return fmt.Errorf("it answered for log index %d, not reached here: %w", r.AppliedIndex, err)
		}
		h, ok := n.g.m.HashAt(r.AppliedIndex)
		if !ok {
			return fmt.Errorf("it answered for log index %d, of which the leader knows no hash: try again", r.AppliedIndex)
		}
		ours = h[:]
	}
	if !bytes.Equal(ours, r.StateHash) {
		r.Differs = append(r.Differs, "state")
	}
	theirs := make(map[string]*nodev1.Graph, len(r.Graphs))
	for _, g := range r.Graphs {
		theirs[g.CollectionId] = g
	}
	for _, a := range own.Graphs {
		b := theirs[a.CollectionId]
		if b == nil {
			// Made, or deleted, between the two answers; or the member's version
			// tells nothing of its graphs. The state hash speaks of the collection.
			r.Graphs = append(r.Graphs, &nodev1.Graph{CollectionId: a.CollectionId, Name: a.Name, Total: a.Total})
			continue
		}
		switch equal, compared := sameGraph(a, b); {
		case !compared:
			b.Complete = false
		case !equal:
			r.Differs = append(r.Differs, "graph of "+a.Name)
		}
	}
	return nil
}

// sameGraph compares two graphs as they were at the newest count of vectors that
// both have a mark of; compared is false if there is none.
func sameGraph(a, b *nodev1.Graph) (equal, compared bool) {
	if a.Generation != b.Generation || a.Plain != b.Plain {
		return false, false
	}
	i, j := len(a.Marks)-1, len(b.Marks)-1
	for i >= 0 && j >= 0 {
		switch x, y := a.Marks[i], b.Marks[j]; {
		case x > y:
			i--
		case y > x:
			j--
		default:
			p, q := markHash(a, i), markHash(b, j)
			return p != nil && bytes.Equal(p, q), true
		}
	}
	return false, false
}

// markHash is nil if a reply is cut short.
func markHash(g *nodev1.Graph, i int) []byte {
	if at := i * markBytes; at+markBytes <= len(g.MarkHashes) {
		return g.MarkHashes[at:][:markBytes]
	}
	return nil
}

const markBytes = 16

// unfinished keeps the graphs that are not complete, without their marks.
func unfinished(graphs []*nodev1.Graph) []*nodev1.Graph {
	var out []*nodev1.Graph
	for _, g := range graphs {
		if !g.Complete {
			out = append(out, &nodev1.Graph{CollectionId: g.CollectionId, Name: g.Name, Graphed: g.Graphed, Total: g.Total})
		}
	}
	return out
}

func (n *Node) hashOf(ctx context.Context, id, addr string, req *nodev1.HashRequest) (*nodev1.HashReply, error) {
	if id == n.cfg.NodeID {
		return n.hash(ctx, req)
	}
	r := new(nodev1.HashReply)
	err := n.rpc.call(ctx, addr, laneControl, methodHash, req, r)
	return r, err
}

// hash is this replica's hashes, of the state as of the log index asked for if
// that is remembered, else of the newest.
func (n *Node) hash(ctx context.Context, req *nodev1.HashRequest) (*nodev1.HashReply, error) {
	if err := n.g.ad.wait(ctx, req.LogIndex); err != nil {
		return nil, fmt.Errorf("log index %d not reached: %w", req.LogIndex, err)
	}
	r := new(nodev1.HashReply)
	if err := n.fenced(); err != nil {
		r.Fenced = err.Error()
	}
	if v := n.g.m.View(); v != nil {
		defer v.Close()
		h := v.StateHash()
		r.AppliedIndex, r.StateHash = v.Applied(), h[:]
		if req.Graphs {
			r.GraphHash, r.Graphs = graphHash(v), graphsOf(v)
		}
	} else {
		f := n.g.m.Facts()
		r.AppliedIndex, r.StateHash = f.applied, f.stateHash[:]
	}
	if h, ok := n.g.m.HashAt(req.LogIndex); ok {
		r.AppliedIndex, r.StateHash = req.LogIndex, h[:]
	}
	return r, nil
}

func graphsOf(v *raftfsm.View) []*nodev1.Graph {
	collections := v.Collections()
	most := maxMarksPerReply / max(len(collections), 1)
	out := make([]*nodev1.Graph, len(collections))
	for i, c := range collections {
		p := c.Index().Progress(most)
		g := &nodev1.Graph{
			CollectionId: c.Record().GetCollectionId(), Name: c.Record().GetName(), Generation: p.Generation, Plain: p.Plain,
			Graphed: uint64(p.Graphed), Total: uint64(p.Total), Complete: p.Idle,
		}
		for _, m := range p.Marks {
			g.Marks = append(g.Marks, uint64(m.Graphed))
			g.MarkHashes = append(g.MarkHashes, m.Hash[:]...)
		}
		out[i] = g
	}
	return out
}
