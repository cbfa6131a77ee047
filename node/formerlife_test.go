// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"path/filepath"
	"testing"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// Goal: a data directory of before its node lost it and joined anew, put back under that
// node, counts for nobody: entries were acknowledged and votes given that it does not
// have. Method: such a directory, started while its node reaches nobody and others reach
// it; then it reaches them, hears what it is, and is taken in anew.
func TestDataOfAFormerLifeCountForNobody(t *testing.T) {
	c := startCluster(t, 3, func(cfg *Config) { cfg.RemoveDeadAfter = -1 })
	c.clusterID()
	f := c.follower()
	id := f.ID()
	dir, old := filepath.Join(c.dir, id), filepath.Join(c.dir, "old")
	c.stop(id)
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	c.wipe(id)
	n := c.start(id)
	c.wait("the node to be taken in", func() bool { return n.Ready() == nil })
	life := n.g.joinedIndex.Load()
	index := c.put(c.leader(), "acknowledged")
	c.wait("the node to have it", func() bool { return n.g.ad.applied() >= index })
	if _, err := n.helloAll(c.ctx()); err != nil { // as it does every 2 s
		t.Fatal(err)
	}
	c.stop(id)
	c.wipe(id)
	if err := os.Rename(old, dir); err != nil {
		t.Fatal(err)
	}
	for _, o := range c.names {
		c.net.deafen(id, o, true)
	}
	n = c.start(id)
	l := c.leader()
	c.wait("it to answer", func() bool {
		var r nodev1.StatsReply
		return l.rpc.call(c.ctx(), c.addrs[id], laneControl, methodStats, &nodev1.StatsRequest{}, &r) == nil
	})
	for _, o := range c.nodes {
		if o == n {
			continue
		}
		if err := o.g.livesAt(c.ctx(), id, c.addrs[id]); err == nil {
			t.Errorf("%s takes data of a former life for its voter", o.ID())
		}
		if err := o.rpc.callNode(c.ctx(), id, c.addrs[id], laneControl, methodTerm, &nodev1.TermRequest{}, &nodev1.TermReply{}); err == nil {
			t.Errorf("%s takes the term of a former life for that of its voter", o.ID())
		}
	}
	for _, o := range c.names {
		c.net.deafen(id, o, false)
	}
	if _, err := n.helloAll(c.ctx()); err != nil {
		t.Fatal(err)
	}
	c.wait("the node to be taken in anew", func() bool { return n.Ready() == nil && n.g.joinedIndex.Load() > life })
	if err := n.awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.mem[id].doc("acknowledged"); !ok {
		t.Error("what was acknowledged is missing")
	}
}
