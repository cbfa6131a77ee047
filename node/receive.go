// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
)

// receiveSnapshot fetches the files, then lets Raft install them. It waits for its turn,
// since fetching may take minutes; the wait ends when the group does.
func (g *group) receiveSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest, forward func(raft.RPC)) {
	c := g.core.Load()
	if c == nil {
		rpc.Respond(nil, errors.New("log is not open"))
		return
	}
	man, err := readManifest(rpc.Reader)
	if err != nil {
		rpc.Respond(nil, err)
		return
	}
	select {
	case g.staging <- struct{}{}:
		defer func() { <-g.staging }()
	case <-g.ctx.Done():
		rpc.Respond(nil, ErrClosed)
		return
	}
	if req.Term == c.r.CurrentTerm() && g.alreadyHas(req.LastLogIndex, req.LastLogTerm) {
		// A repeated or late request. Installing it would take away entries
		// this node has acknowledged since.
		rpc.Respond(&raft.InstallSnapshotResponse{Term: req.Term, Success: true}, nil)
		return
	}
	if has := g.ad.applied(); man.AppliedIndex < has {
		// An installed state may be ahead of its snapshot, and the next snapshot
		// come from a leader that has not applied as much yet; it will have soon.
		rpc.Respond(nil, fmt.Errorf("node: the state of this snapshot, at log index %d, is older than the one here, at %d", man.AppliedIndex, has))
		return
	}
	if req.Term >= c.r.CurrentTerm() {
		g.log.Info("fetching snapshot", "index", req.LastLogIndex, "from", man.SourceAddr, "files", len(man.Files))
		if err := g.snaps.stage(g.ctx, man, func(ctx context.Context, addr string) (net.Conn, error) {
			return g.mux.dial(ctx, addr, streamFetch, g.id)
		}); err != nil {
			g.log.Warn("snapshot not fetched", "err", err)
			rpc.Respond(nil, err)
			return
		}
	}
	b, err := proto.Marshal(man)
	if err != nil || int64(len(b)) != req.Size {
		rpc.Respond(nil, fmt.Errorf("snapshot manifest changed size from %d to %d: %w", req.Size, len(b), errors.Join(err, errInvalid)))
		return
	}
	rpc.Reader = bytesReader(b)
	forward(rpc)
}

// alreadyHas reports that Raft here holds every entry up to index: in a snapshot,
// applied, or in its log with the same term there (log matching). What the state
// covers does not count: an installed one may be ahead of its snapshot, and when
// the leader has forgotten the entries between, only a later snapshot helps.
func (g *group) alreadyHas(index, term uint64) bool {
	c := g.core.Load()
	if c == nil {
		return false
	}
	if r := c.running.Load(); r != nil && r.AppliedIndex() >= index {
		return true
	}
	return c.ls.termAt(index) == term
}
