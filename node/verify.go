// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/hex"
	"sync"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// MemberHash is one member's part in Verify.
type MemberHash struct {
	NodeID, StateHash, GraphHash, Err string
	AppliedIndex                      uint64
}

// serveHash answers with this replica's hashes at log index or later.
func (n *Node) serveHash(ctx context.Context, r *nodev1.HashRequest) (proto.Message, error) {
	if err := n.g.ad.wait(ctx, r.LogIndex); err != nil {
		return nil, err
	}
	f := n.g.m.Facts()
	r2 := &nodev1.HashReply{AppliedIndex: f.applied, StateHash: f.stateHash[:]}
	if v := n.g.m.View(); v != nil {
		defer v.Close()
		hash := v.StateHash()
		r2.AppliedIndex, r2.StateHash, r2.GraphHash = v.Applied(), hash[:], graphHash(v)
	}
	return r2, nil
}

// Verify compares the hashes of all members at one applied index.
func (n *Node) Verify(ctx context.Context) ([]MemberHash, error) {
	p, err := n.g.reads.readIndex(ctx)
	if err != nil {
		return nil, err
	}
	servers := n.g.servers()
	out := make([]MemberHash, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			out[i].NodeID = string(s.ID)
			var r nodev1.HashReply
			err := error(nil)
			if string(s.ID) == n.cfg.NodeID {
				var m proto.Message
				if m, err = n.serveHash(ctx, &nodev1.HashRequest{LogIndex: p.index}); err == nil {
					proto.Merge(&r, m)
				}
			} else {
				err = n.rpc.call(ctx, n.g.addrOf(s), laneControl, methodHash, &nodev1.HashRequest{LogIndex: p.index}, &r)
			}
			if err != nil {
				out[i].Err = err.Error()
				return
			}
			out[i].AppliedIndex, out[i].StateHash, out[i].GraphHash = r.AppliedIndex, hex.EncodeToString(r.StateHash), r.GraphHash
		})
	}
	wg.Wait()
	return out, nil
}
