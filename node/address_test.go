// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// All nodes come back at addresses that were another's. One of them alone among three
// voters finds itself where it looks for another, and is not elected by that: two that
// were, each by itself, had entries of one index and term that were not the same.
func TestNodeAtAnothersAddressElectsNobody(t *testing.T) {
	c := startCluster(t, 3, realConf)
	col := createCollection(t, c.leader(), realDim)
	mustWrite(t, c.leader(), upsert(col, "first", realDim, 1))
	c.clusterID()
	for _, n := range c.names {
		c.stop(n)
	}
	c.addrs["n1"], c.addrs["n2"], c.addrs["n3"] = c.addrs["n2"], c.addrs["n3"], c.addrs["n1"]
	type place struct{ index, term uint64 }
	entries := map[place]raft.Log{}
	for _, name := range []string{"n1", "n2"} {
		n := c.start(name)
		r, led := n.g.core.Load().r, 0
		last := r.LastIndex()
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); pause(t.Context(), 100*time.Microsecond) {
			if r.State() == raft.Leader {
				led++
			}
		}
		if more := r.LastIndex() - last; led > 0 || more > 0 {
			t.Errorf("%s, alone among three voters, led (seen %d times) and appended %d entries", name, led, more)
		}
		c.crash(name)
		log, err := openLogStore(nil, filepath.Join(c.dir, name, "groups", groupID), logStoreWAL, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		last, _ = log.LastIndex()
		for i := uint64(1); i <= last; i++ {
			var l raft.Log
			if err := log.GetLog(i, &l); err != nil {
				t.Fatal(err)
			}
			if other, ok := entries[place{i, l.Term}]; ok && (other.Type != l.Type || !bytes.Equal(other.Data, l.Data)) {
				t.Errorf("log index %d of term %d is %v %q on n1 and %v %q on %s", i, l.Term, other.Type, other.Data, l.Type, l.Data, name)
			}
			entries[place{i, l.Term}] = l
		}
		log.Close()
	}
	for _, name := range c.names {
		c.start(name)
	}
	mustWrite(t, c.leader(), upsert(col, "second", realDim, 2))
	verifyEqual(t, c)
}

// A voter confirms a read for itself only, and no other node for it.
func TestOtherNodeAtAVotersAddressConfirmsNothing(t *testing.T) {
	c := startCluster(t, 3, nil)
	ask := func(id, at string) error {
		var r nodev1.TermReply
		return c.nodes["n1"].rpc.callNode(c.ctx(), id, c.addrs[at], laneControl, methodTerm, &nodev1.TermRequest{}, &r)
	}
	for range 2 { // also on a connection that is known
		if err := ask("n2", "n3"); !errors.Is(err, errOtherNode) || !errors.Is(err, errNotSent) {
			t.Errorf("n3 answers for n2: %v", err)
		}
		if err := ask("n3", "n3"); err != nil {
			t.Errorf("n3 for itself: %v", err)
		}
	}
}
