// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// MemberHash is one member's part in Verify.
type MemberHash struct {
	NodeID, StateHash, GraphHash, Err string
	AppliedIndex                      uint64
}

// holdTimeout bounds how long Verify keeps proposals waiting.
const holdTimeout = 3 * time.Second

// Verify compares the hashes of all members at one applied index. The leader
// holds new entries back for the moment that the members need to reach the
// same index, so that the answer is exact under load too.
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
		out[i] = MemberHash{NodeID: m.NodeId, AppliedIndex: m.AppliedIndex, StateHash: hex.EncodeToString(m.StateHash), GraphHash: m.GraphHash, Err: m.Error}
	}
	return out, nil
}

func (n *Node) serveVerify(ctx context.Context) (proto.Message, error) {
	hashes, err := n.verifyHere(ctx)
	if err != nil {
		return nil, err
	}
	r := &nodev1.VerifyReply{}
	for _, h := range hashes {
		b, err := hex.DecodeString(h.StateHash)
		if err != nil {
			return nil, err
		}
		r.Members = append(r.Members, &nodev1.HashReply{NodeId: h.NodeID, AppliedIndex: h.AppliedIndex, StateHash: b, GraphHash: h.GraphHash, Error: h.Err})
	}
	return r, nil
}

func (n *Node) verifyHere(ctx context.Context) ([]MemberHash, error) {
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	release, err := n.g.props.hold(ctx)
	if err != nil {
		return nil, fmt.Errorf("entries under way were not applied within %v: %w", holdTimeout, err)
	}
	release = sync.OnceFunc(release)
	defer release()
	p, err := n.g.reads.local.do(ctx)
	if err != nil {
		return nil, err
	}
	servers := n.g.servers()
	out := make([]MemberHash, len(servers))
	ask := func(i int) {
		s := servers[i]
		out[i].NodeID = string(s.ID)
		r, err := n.hashOf(ctx, out[i].NodeID, n.g.addrOf(s), p.index)
		if err != nil {
			out[i].Err = err.Error()
			return
		}
		out[i].AppliedIndex, out[i].StateHash, out[i].GraphHash = r.AppliedIndex, hex.EncodeToString(r.StateHash), r.GraphHash
	}
	var held, silent sync.WaitGroup
	for i, s := range servers {
		if n.pilot.silence(string(s.ID)) > silentFor && string(s.ID) != n.cfg.NodeID {
			silent.Go(func() { ask(i) }) // no write waits for it
		} else {
			held.Go(func() { ask(i) })
		}
	}
	held.Wait()
	release()
	silent.Wait()
	return out, nil
}

// silentFor is how long a member has not answered that Verify holds nothing back for.
const silentFor = 4 * statsInterval

func (n *Node) hashOf(ctx context.Context, id, addr string, index uint64) (*nodev1.HashReply, error) {
	if id == n.cfg.NodeID {
		return n.hash(ctx, index)
	}
	r := new(nodev1.HashReply)
	err := n.rpc.call(ctx, addr, laneControl, methodHash, &nodev1.HashRequest{LogIndex: index}, r)
	return r, err
}

// hash is this replica's hashes at log index or later.
func (n *Node) hash(ctx context.Context, index uint64) (*nodev1.HashReply, error) {
	if err := n.g.ad.wait(ctx, index); err != nil {
		return nil, fmt.Errorf("log index %d not reached: %w", index, err)
	}
	if v := n.g.m.View(); v != nil {
		defer v.Close()
		h := v.StateHash()
		return &nodev1.HashReply{AppliedIndex: v.Applied(), StateHash: h[:], GraphHash: graphHash(v)}, nil
	}
	f := n.g.m.Facts()
	return &nodev1.HashReply{AppliedIndex: f.applied, StateHash: f.stateHash[:]}, nil
}

// hold keeps new entries back until release, and waits for those under way.
func (p *proposer) hold(ctx context.Context) (release func(), err error) {
	got := 0
	free := func() {
		for range got {
			<-p.slots
		}
		p.poke()
	}
	for range cap(p.slots) {
		select {
		case p.slots <- struct{}{}:
			got++
		case <-ctx.Done():
			free()
			return nil, ctx.Err()
		}
	}
	return free, nil
}
