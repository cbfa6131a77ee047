// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"sync"
	"testing"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
)

// Goal: verification is exact under load. Method: while writes go on, many
// verifications at once; none may see a difference or fail, and afterwards all
// graphs are complete and equal.
func TestVerifyIsExactUnderLoad(t *testing.T) {
	c := startCluster(t, 3, realConf)
	col := createCollection(t, c.leader(), realDim)
	var asking sync.WaitGroup
	for k := range 4 {
		asking.Go(func() {
			n := c.nodes[c.names[k%3]]
			for range 15 {
				hashes, err := n.Verify(c.ctx())
				if err != nil {
					t.Errorf("through %s: %v", n.ID(), err)
					return
				}
				for _, h := range hashes {
					if len(h.Differs) > 0 {
						t.Errorf("through %s: %+v", n.ID(), h)
					}
				}
			}
		})
	}
	asked := make(chan struct{})
	go func() {
		asking.Wait()
		close(asked)
	}()
	for i := 0; ; i++ {
		select {
		case <-asked:
			verifyEqual(t, c)
			return
		default:
			mustWrite(t, c.leader(), upsert(col, fmt.Sprint("d", i), realDim, i))
		}
	}
}

// A member that is out of service says so, also while its hash is the others'.
func TestVerifyTellsOfAFence(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.put(c.leader(), "a")
	f := c.follower()
	f.raiseFence(fence{Diverged: "as a test wants it"})
	c.wait("the fence to be told", func() bool {
		hashes, err := c.leader().Verify(c.ctx())
		if err != nil {
			return false
		}
		told := false
		for _, h := range hashes {
			if len(h.Differs) > 0 || (h.Fenced != "") != (h.NodeID == f.ID()) {
				t.Fatalf("%+v", h)
			}
			told = told || h.Fenced != ""
		}
		return told
	})
}

func TestSameGraph(t *testing.T) {
	graph := func(generation uint64, pairs ...int) *nodev1.Graph {
		g := &nodev1.Graph{Generation: generation}
		for i := 0; i < len(pairs); i += 2 {
			g.Marks = append(g.Marks, uint64(pairs[i]))
			g.MarkHashes = append(g.MarkHashes, append(make([]byte, markBytes-1), byte(pairs[i+1]))...)
		}
		return g
	}
	short := graph(1, 64, 1, 128, 2)
	short.MarkHashes = short.MarkHashes[:20]
	for _, tc := range []struct {
		name            string
		a, b            *nodev1.Graph
		equal, compared bool
	}{
		{"both at one count", graph(1, 64, 1, 128, 2), graph(1, 64, 1, 128, 2), true, true},
		{"both at one count, other links", graph(1, 64, 1, 128, 2), graph(1, 64, 1, 128, 3), false, true},
		{"one is behind", graph(1, 64, 1, 128, 2, 192, 3), graph(1, 64, 1, 128, 2), true, true},
		{"one is ahead, and was another", graph(1, 64, 1, 128, 2), graph(1, 64, 1, 128, 9, 192, 3), false, true},
		{"too far behind", graph(1, 128, 2, 192, 3), graph(1, 0, 0, 64, 1), false, false},
		{"another generation", graph(1, 64, 1), graph(2, 64, 1), false, false},
		{"nothing yet", graph(1, 0, 0), graph(1, 0, 0), true, true},
		{"cut short", graph(1, 64, 1, 128, 2), short, false, true},
	} {
		for _, swap := range []bool{false, true} {
			a, b := tc.a, tc.b
			if swap {
				a, b = b, a
			}
			if equal, compared := sameGraph(a, b); equal != tc.equal || compared != tc.compared {
				t.Errorf("%s: equal %v, compared %v", tc.name, equal, compared)
			}
		}
	}
}
