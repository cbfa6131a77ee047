// SPDX-License-Identifier: Apache-2.0

package cluster

import "testing"

// A process that ended by itself is started again by the supervisor, but not after
// somebody made sure that it is down: its data may be about to be wiped.
func TestSupervisorLeavesWhatWasKilled(t *testing.T) {
	kill := func(n *Node) error { return n.Kill() }
	stop := func(n *Node) error { return n.Stop(0) }
	for what, end := range map[string]func(*Node) error{"kill": kill, "stop": stop} {
		n := &Node{ID: "n1", crashed: true}
		if err := end(n); err != nil {
			t.Fatal(err)
		}
		if again, err := n.Supervise(); again || err != nil {
			t.Errorf("%s: started again, %v", what, err)
		}
	}
	paused := &Node{ID: "n1", crashed: true}
	paused.Resume() // is not the end of anything
	if !paused.crashed {
		t.Error("a node that was resumed would not be started again")
	}
}
