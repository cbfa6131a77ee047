// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"testing"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// Read replicas come under new names and addresses and leave again, for years: what
// gossip saw of them is forgotten, and nobody greets them any more.
func TestGossipForgetsWhoIsGone(t *testing.T) {
	g := &gossip{n: &Node{cfg: &Config{NodeID: "n1"}}, seen: map[string]gossiped{}}
	for i := range 10_000 {
		name := fmt.Sprintf("replica-%d", i)
		meta, err := proto.Marshal(&nodev1.NodeInfo{NodeId: name, RaftAddr: fmt.Sprintf("10.1.%d.%d:1", i/250, i%250)})
		if err != nil {
			t.Fatal(err)
		}
		m := &memberlist.Node{Name: name, Meta: meta}
		g.NotifyJoin(m)
		g.NotifyLeave(m)
	}
	if seen, greeted := len(g.seen), len(g.infos()); seen > maxGone+1 || greeted > maxGone+1 {
		t.Errorf("%d nodes are remembered and %d greeted every two seconds", seen, greeted)
	}
}
