// SPDX-License-Identifier: Apache-2.0

package raftfsm

import (
	"testing"

	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Two drops of one name were both told that they dropped it: each proposer had
// looked the name up for itself. The name is resolved when the command is
// applied, so one of them finds nothing, and a drop that is sent again keeps its
// outcome though the name belongs to another collection by then.
func TestDropByNameIsDecidedWhenApplied(t *testing.T) {
	h := newHarness(t, Config{})
	h.must(createCmd("id-1", "notes", 2))
	first := h.must(requestID("drop-1", dropCmd("notes")))
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, requestID("drop-2", dropCmd("notes")))

	h.must(createCmd("id-2", "notes", 2))
	again := h.must(requestID("drop-1", dropCmd("notes")))
	if !again.Replayed || again.LogIndex != first.LogIndex {
		t.Errorf("the drop that was sent again answers %v, want the outcome of log index %d", again, first.LogIndex)
	}
	h.do(fsmv1.Status_STATUS_COLLECTION_NOT_FOUND, requestID("drop-2", dropCmd("notes")))
	h.collection("notes", func(c *Collection) {
		if id := c.Record().GetCollectionId(); id != "id-2" {
			t.Errorf("the name belongs to %s, want id-2", id)
		}
	})
	h.verify()
}
