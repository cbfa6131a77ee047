// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// serveRPC answers one request of a peer.
func (n *Node) serveRPC(ctx context.Context, from preamble, m method, body []byte) (proto.Message, error) {
	if n.isClosing() && (m == methodHello || m == methodStats) {
		return nil, ErrClosed // no signs of life any more
	}
	if m != methodHello && m != methodJoin {
		// Those two are for nodes that belong to no cluster yet, and say in
		// themselves what the sender belongs to.
		if err := n.g.sameCluster(from.cluster); err != nil {
			return nil, err
		}
	}
	switch m {
	case methodHello:
		return answer(body, func(r *nodev1.HelloRequest) (proto.Message, error) { return n.hello(r), nil })
	case methodPropose:
		return answer(body, func(r *nodev1.ProposeRequest) (proto.Message, error) { return n.servePropose(ctx, r) })
	case methodReadIndex:
		p, err := n.g.reads.local.do(ctx)
		if err != nil {
			return nil, err
		}
		return &nodev1.ReadIndexReply{LogIndex: p.index}, nil
	case methodTerm:
		return n.serveTerm()
	case methodStats:
		return n.stats(), nil
	case methodHash:
		return answer(body, func(r *nodev1.HashRequest) (proto.Message, error) { return n.hash(ctx, r) })
	case methodVerify:
		return n.serveVerify(ctx)
	case methodJoin:
		return answer(body, func(r *nodev1.JoinRequest) (proto.Message, error) { return n.serveJoin(ctx, r) })
	case methodMember:
		return answer(body, func(r *nodev1.MemberRequest) (proto.Message, error) {
			return &nodev1.MemberReply{}, n.changeHere(ctx, r)
		})
	}
	return nil, fmt.Errorf("%w: unknown method %d", errInvalid, m)
}

func answer[T any, P interface {
	*T
	proto.Message
}](body []byte, f func(P) (proto.Message, error)) (proto.Message, error) {
	req := P(new(T))
	if err := proto.Unmarshal(body, req); err != nil {
		return nil, fmt.Errorf("%w: decode request: %w", errInvalid, err)
	}
	return f(req)
}

// servePropose runs a forwarded command. It is not forwarded again: a node that
// does not lead says so, and the sender finds the leader.
func (n *Node) servePropose(ctx context.Context, r *nodev1.ProposeRequest) (proto.Message, error) {
	e := encoded{command: r.Command, keys: r.Keys, exclusive: r.Exclusive || len(r.Keys) == 0}
	if err := e.check(); err != nil {
		return nil, err
	}
	res, err := n.proposeHere(ctx, e)
	if err != nil {
		return nil, err
	}
	b, err := proto.Marshal(res)
	if err != nil {
		return nil, fmt.Errorf("%w: encode result: %w", ErrUnknownOutcome, err)
	}
	return &nodev1.ProposeReply{Result: b, ClusterId: n.g.clusterID()}, nil
}

// serveTerm tells a leader which term this voter is in. A node without state
// keeps silent: it may have voted before it lost its disk.
func (n *Node) serveTerm() (proto.Message, error) {
	c := n.g.core.Load()
	if c == nil || !n.g.member.Load() {
		return nil, errNotMember
	}
	return &nodev1.TermReply{Term: max(c.r.CurrentTerm(), n.g.joinedTerm.Load())}, nil
}

func (n *Node) stats() *nodev1.StatsReply {
	r := &nodev1.StatsReply{
		AppliedIndex: n.g.ad.applied(), LastContactMs: -1, UnixMs: time.Now().UnixMilli(),
		Node: n.selfInfo(), ClusterId: n.g.clusterID(), FreeDiskBytes: n.budgets.freeDisk(), LowDisk: n.budgets.lowDisk(),
		MemoryBytes: n.budgets.memory.Load(), OverMemory: n.budgets.full.Load(),
		IndexBacklog: n.budgets.backlog.Load(), OverBacklog: n.budgets.slow.Load(),
	}
	if f := n.fence.Load(); f != nil {
		r.Diverged, r.Corrupt = f.Diverged, f.Corrupt
	}
	c := n.g.core.Load()
	if c == nil {
		return r
	}
	r.Term = c.r.CurrentTerm()
	r.LastIndex = c.r.LastIndex()
	r.LastTerm = c.ls.termAt(r.LastIndex)
	if r.LastTerm == 0 {
		if metas, err := n.g.snaps.List(); err == nil && len(metas) > 0 && metas[0].Index == r.LastIndex {
			r.LastTerm = metas[0].Term
		}
	}
	// Nobody gives a vote to a member that has no contact, and this one would not use it.
	if t := c.r.LastContact(); !t.IsZero() && !n.g.catchingUp(c.r) {
		r.LastContactMs = time.Since(t).Milliseconds()
	}
	return r
}
