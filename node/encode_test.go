// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// The proposer puts entries together from encoded commands. What it makes must
// be what raftfsm accepts and, byte for byte, what raftfsm would have encoded:
// an entry that replicas refuse stops all of them.
func TestProposedEntriesAreCanonical(t *testing.T) {
	version := uint64(0)
	cmds := []*fsmv1.Command{
		{RequestId: "r1", ProposedAtMs: 99, Op: &fsmv1.Command_Write{Write: &fsmv1.WriteBatch{
			CollectionId: "c", Writes: []*fsmv1.Write{
				{Kind: fsmv1.Write_KIND_UPSERT, DocId: "d", Vector: make([]byte, 16), IfVersion: &version},
				{Kind: fsmv1.Write_KIND_DELETE, DocId: "e", SkipIfUnmet: true},
			}}}},
		{Op: &fsmv1.Command_PutNode{PutNode: &fsmv1.PutNode{Node: &fsmv1.NodeRecord{NodeId: "n1", Zone: "a"}}}},
		{MinClusterVersion: 1, Op: &fsmv1.Command_SetClusterVersion{SetClusterVersion: &fsmv1.SetClusterVersion{Version: 2}}},
	}
	var group []*proposal
	for _, c := range cmds {
		e, err := encodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		group = append(group, &proposal{encoded: e})
	}
	got := encodeEntry(group, 1234)
	want := make([]*fsmv1.Command, len(cmds))
	for i, c := range cmds {
		want[i] = proto.CloneOf(c)
		want[i].ProposedAtMs = 1234
	}
	canonical, err := raftfsm.EncodeEntry(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, canonical) {
		t.Fatalf("entry differs from raftfsm's encoding:\n%x\n%x", got, canonical)
	}
	if _, err := raftfsm.DecodeEntry(got); err != nil {
		t.Fatalf("raftfsm refuses the entry: %v", err)
	}
}
