// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// The hand-made encoding of an entry is what protobuf makes of it.
func TestEncodeEntryIsTheEncodingOfAnEntry(t *testing.T) {
	var group []*proposal
	want := &fsmv1.Entry{Format: 1}
	for i := range 3 {
		cmd := put(fmt.Sprintf("d%d", i))
		cmd.RequestId = fmt.Sprintf("r%d", i)
		e, err := encodeCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		group = append(group, &proposal{encoded: e})
		cmd.ProposedAtMs = 1234567
		want.Commands = append(want.Commands, cmd)
	}
	b := encodeEntry(group, 1234567)
	canonical, err := raftfsm.EncodeEntry(want.Commands)
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != string(canonical) {
		t.Fatalf("got  %x\nwant %x", b, canonical)
	}
	var got fsmv1.Entry
	if err := proto.Unmarshal(b, &got); err != nil || !proto.Equal(&got, want) {
		t.Fatalf("decoded %v, %v", &got, err)
	}
	fields := (&fsmv1.Entry{}).ProtoReflect().Descriptor().Fields()
	if fields.ByName("format").Number() != fieldEntryFormat || fields.ByName("commands").Number() != fieldEntryCommands {
		t.Fatal("field numbers of Entry")
	}
	if (&fsmv1.Command{}).ProtoReflect().Descriptor().Fields().ByName("proposed_at_ms").Number() != fieldProposedAt {
		t.Fatal("field number of Command.proposed_at_ms")
	}
}

// What does not decode is refused before it gets near the log.
func TestUndecodableCommandIsRefused(t *testing.T) {
	if _, err := encodeCommand(&fsmv1.Command{}); !errors.Is(err, errInvalid) {
		t.Fatalf("command without an operation: %v", err)
	}
}

func queued(keys ...uint64) *proposal {
	return &proposal{encoded: encoded{command: []byte{1}, keys: keys}, outcome: make(chan outcome, 1)}
}

// Commands that write one document never share an entry; those behind them that
// do not conflict go first.
func TestTakeKeepsConflictsApart(t *testing.T) {
	p := newProposer(&group{})
	a, b, c, d := queued(1), queued(1, 2), queued(3), queued(2)
	x := queued()
	x.exclusive = true
	p.queue = []*proposal{a, b, c, x, d}
	for i, want := range [][]*proposal{{a, c, d}, {b}, {x}} {
		got := p.take(false)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("entry %d: %v, want %v", i, got, want)
		}
	}
	if len(p.queue) != 0 {
		t.Fatalf("%d left", len(p.queue))
	}
}

func TestTakeIsBounded(t *testing.T) {
	p := newProposer(&group{})
	for i := range maxEntryCommands + 5 {
		p.queue = append(p.queue, queued(uint64(i)))
	}
	if n := len(p.take(false)); n != maxEntryCommands {
		t.Fatalf("%d commands in an entry", n)
	}
	big := queued(1)
	big.command = make([]byte, maxEntryBytes+1)
	p.queue = []*proposal{queued(2), big, queued(3)}
	if n := len(p.take(false)); n != 2 {
		t.Fatalf("%d commands beside one too big", n)
	}
	if got := p.take(false); len(got) != 1 || got[0] != big {
		t.Fatal("a big command gets an entry of its own")
	}
	// Small writes make the state write large documents: they count as more than they are.
	var keys [2][]uint64
	for i := range keys {
		for k := range uint64(1000) {
			keys[i] = append(keys[i], uint64(10000*i)+k)
		}
	}
	p.queue = []*proposal{queued(keys[0]...), queued(keys[1]...), queued(9000)}
	if got := p.take(false); len(got) != 2 || len(got[0].keys) != 1000 || len(got[1].keys) != 1 {
		t.Fatalf("%d commands beside one of many small writes", len(got))
	}
}

// A proposal withdrawn in time is never applied.
func TestWithdrawnProposalIsNotTaken(t *testing.T) {
	p := newProposer(&group{})
	a := queued(1)
	a.state.Store(proposalWithdrawn)
	p.queue = []*proposal{a}
	if got := p.take(false); len(got) != 0 {
		t.Fatal("a withdrawn proposal was taken")
	}
}

// Many clients write a few documents through all nodes: each write has a log
// index of its own for its document, and entries are shared.
func TestConcurrentWritesOfFewDocuments(t *testing.T) {
	c := startCluster(t, 3, nil)
	type key struct {
		doc   string
		index uint64
	}
	var mu sync.Mutex
	seen := map[key]bool{}
	var wg sync.WaitGroup
	for client := range 48 {
		wg.Go(func() {
			for i := range 20 {
				doc := fmt.Sprintf("hot%d", (client+i)%5)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				cmd := put(doc)
				cmd.RequestId = fmt.Sprintf("%d %d", client, i) // a busy machine may lose a leader at any time
				res, err := c.nodes[c.names[client%3]].Propose(ctx, cmd)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[key{doc, res.LogIndex}] {
					t.Errorf("two writes of %s at log index %d", doc, res.LogIndex)
				}
				seen[key{doc, res.LogIndex}] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, m := range c.mem {
		if len(m.st.Doubled) > 0 {
			t.Fatalf("written twice in one entry: %v", m.st.Doubled)
		}
	}
	if applied := c.mem["n1"].Applied(); applied > 700 {
		t.Logf("%d entries for %d writes", applied, len(seen))
	}
}

// A leader that takes a forwarded write and then never answers, being paused
// say, does not hold it up for longer than until another one leads.
func TestForwardedWriteOutlivesASilentLeader(t *testing.T) {
	c := startCluster(t, 3, nil)
	old := c.leader()
	var f, next *Node
	for name, n := range c.nodes {
		switch {
		case name == old.ID():
		case f == nil:
			f = n
		default:
			next = n
		}
	}
	gate := make(chan struct{})
	m := c.mem[old.ID()]
	m.mu.Lock()
	m.applyGate = gate
	m.mu.Unlock()
	defer close(gate)
	done := make(chan error, 1)
	before := c.mem[f.ID()].Applied()
	go func() {
		cmd := put("x")
		cmd.RequestId = "once"
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := f.Propose(ctx, cmd)
		done <- err
	}()
	c.wait("the write to be applied by the others", func() bool { _, ok := c.mem[f.ID()].doc("x"); return ok && c.mem[f.ID()].Applied() > before })
	// On a busy machine the other one may seem to be away at first, or lead already.
	c.wait("another leader", func() bool { return old.transferHere(c.ctx(), next.ID()) == nil })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m = c.mem[next.ID()]
	c.wait("the write on every node", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.st.Requests["once"] > 0
	})
}

// Each class of error survives the way over the wire, bare and wrapped.
func TestErrorsKeepTheirClassOverTheWire(t *testing.T) {
	leader := &nodev1.NodeInfo{NodeId: "n7", GrpcAddr: "h:1"}
	for _, want := range []error{
		ErrUnknownOutcome, ErrNotLeader, ErrNoLeader, ErrOverloaded, ErrFenced, ErrClosed, ErrTooStale,
		errNotMember, errWrongCluster, errInvalid, ErrUnsafeChange, context.DeadlineExceeded,
	} {
		for _, err := range []error{want, fmt.Errorf("while writing: %w", want), fmt.Errorf("%w: %w", want, errShort())} {
			b, merr := proto.Marshal(encodeError(err, leader))
			if merr != nil {
				t.Fatal(merr)
			}
			if got := decodeError(b); !errors.Is(got, want) {
				t.Errorf("%v came out as %v", err, got)
			}
		}
	}
	b, err := proto.Marshal(encodeError(&NotLeaderError{}, leader))
	if err != nil {
		t.Fatal(err)
	}
	var nl *NotLeaderError
	if !errors.As(decodeError(b), &nl) || nl.Leader.GRPCAddr != "h:1" {
		t.Error("the leader hint is lost")
	}
	b, err = proto.Marshal(encodeError(&OverloadedError{Budget: "disk", NodeID: "n7", RetryAfter: time.Second}, nil))
	if err != nil {
		t.Fatal(err)
	}
	var o *OverloadedError
	if !errors.As(decodeError(b), &o) || o.Budget != "disk" || o.NodeID != "n7" || o.RetryAfter != time.Second {
		t.Error("budget, node and pause are lost")
	}
	if got := decodeError(mustMarshal(t, encodeError(errors.New("odd"), nil))); errors.Is(got, ErrNotLeader) || got.Error() != "odd" {
		t.Errorf("an error of no class came out as %v", got)
	}
}

func mustMarshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func errShort() error { return errors.New("short") }

// What Raft says of an entry, and what became of it.
func TestRaftErrorsAreClassified(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error
	}{
		{raft.ErrNotLeader, ErrNotLeader},
		{raft.ErrLeadershipTransferInProgress, ErrNotLeader},
		{raft.ErrEnqueueTimeout, ErrOverloaded},
		{raft.ErrLeadershipLost, ErrUnknownOutcome},
		{raft.ErrRaftShutdown, ErrUnknownOutcome},
		{raft.ErrAbortedByRestore, ErrUnknownOutcome},
		{errors.New("no space left on device"), ErrUnknownOutcome},
	} {
		if got := classifyApply(c.err); !errors.Is(got, c.want) {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
	if classifyApply(nil) != nil {
		t.Error("nil")
	}
}

// While an entry is under way the next one leaves only when it is worth it.
func TestSmallEntriesWaitForTheOneUnderWay(t *testing.T) {
	p := newProposer(nil)
	add := func(n, bytes int) {
		for range n {
			p.queue = append(p.queue, &proposal{encoded: encoded{command: make([]byte, bytes)}})
			p.bytes += bytes
		}
	}
	add(worthCommands-1, 10)
	if got := p.take(true); len(got) != 0 {
		t.Errorf("%d commands left beside an entry under way", len(got))
	}
	add(1, 10)
	if got := p.take(true); len(got) != worthCommands {
		t.Errorf("%d commands left, want %d", len(got), worthCommands)
	}
	add(1, worthBytes)
	if got := p.take(true); len(got) != 1 {
		t.Errorf("a large command did not leave")
	}
	add(1, 10)
	if got := p.take(false); len(got) != 1 {
		t.Errorf("a lone command did not leave")
	}
}
