// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/akidb/akidb/internal/mutants"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// Field numbers of fsmv1.Entry and fsmv1.Command used below; a test compares
// them with the descriptors.
const (
	fieldEntryFormat   = 1
	fieldEntryCommands = 2
	fieldProposedAt    = 1
)

// encoded is a command ready to share an entry with others.
type encoded struct {
	command   []byte // fsmv1.Command, without its time stamp
	keys      []uint64
	exclusive bool // takes an entry for itself
}

// encodeCommand encodes cmd and says what it writes. Only writes of documents
// share entries; everything else is rare and alone. Equal hashes of different
// keys merely keep two commands apart.
func encodeCommand(cmd *fsmv1.Command) (encoded, error) {
	if cmd.ProposedAtMs != 0 {
		// The leader stamps it.
		c := proto.CloneOf(cmd)
		c.ProposedAtMs = 0
		cmd = c
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(cmd)
	if err != nil {
		return encoded{}, fmt.Errorf("node: encode command: %w", err)
	}
	if len(b) > maxCommandBytes {
		return encoded{}, fmt.Errorf("%w: command of %d bytes, the most is %d", errInvalid, len(b), maxCommandBytes)
	}
	e := encoded{command: b}
	if err := e.check(); err != nil {
		return encoded{}, err
	}
	w := cmd.GetWrite()
	if w == nil {
		e.exclusive = true
		return e, nil
	}
	h := xxh3.HashString(w.CollectionId)
	e.keys = make([]uint64, len(w.Writes))
	for i, d := range w.Writes {
		e.keys[i] = xxh3.HashStringSeed(d.DocId, h)
	}
	return e, nil
}

// check makes sure that replicas can decode the command: a committed entry that
// they cannot stops all of them, so none gets near the log.
func (e encoded) check() error {
	if _, err := raftfsm.DecodeEntry(encodeEntry([]*proposal{{encoded: e}}, 1)); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	return nil
}

// Proposal states. A caller that gives up takes the proposal back if the
// proposer has not taken it yet; after that the outcome is unknown.
const (
	proposalQueued int32 = iota
	proposalTaken
	proposalWithdrawn
)

type proposal struct {
	encoded
	state   atomic.Int32
	outcome chan outcome // buffered
}

type outcome struct {
	result *fsmv1.Result
	err    error
}

// proposer turns the commands of many callers into few log entries. There is
// no timer: whenever an entry may be appended it takes what waits at that
// moment, so a lone command leaves at once. While an entry is being appended and
// replicated the next ones collect, until there are enough for another, or the
// first is done; at most maxEntriesInFlight are under way. Raft joins
// the entries it finds waiting into one append, so they share one fsync too.
//
// Commands of one entry write different documents, since the version of a
// document is the log index; one that conflicts stays for the next entry.
type proposer struct {
	g     *group
	slots chan struct{}
	wake  chan struct{}

	mu     sync.Mutex // guards the fields below
	queue  []*proposal
	bytes  int
	closed bool
}

func newProposer(g *group) *proposer {
	return &proposer{g: g, slots: make(chan struct{}, maxEntriesInFlight), wake: make(chan struct{}, 1)}
}

// propose runs a command through the log of this node, which must lead.
func (p *proposer) propose(ctx context.Context, e encoded) (*fsmv1.Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, _, established := p.g.leading()
	if c == nil || c.r.State() != raft.Leader && !mutants.HeartbeatFastPath {
		return nil, p.g.notLeader()
	}
	if !established && p.g.clusterID() == "" {
		return nil, fmt.Errorf("%w: the first leader is being established", ErrNoLeader)
	}
	pr := &proposal{encoded: e, outcome: make(chan outcome, 1)}
	if err := p.enqueue(pr); err != nil {
		return nil, err
	}
	select {
	case o := <-pr.outcome:
		return o.result, o.err
	case <-ctx.Done():
		if pr.state.CompareAndSwap(proposalQueued, proposalWithdrawn) {
			return nil, fmt.Errorf("node: proposal withdrawn before it was appended: %w", ctx.Err())
		}
		select {
		case o := <-pr.outcome:
			return o.result, o.err
		default:
		}
		return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}

func (p *proposer) enqueue(pr *proposal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if len(p.queue) >= maxQueuedProposals || p.bytes+len(pr.command) > maxQueuedBytes && len(p.queue) > 0 {
		p.g.met.refused.WithLabelValues("proposals").Inc()
		return &OverloadedError{Budget: "proposals", RetryAfter: 100 * time.Millisecond}
	}
	p.queue = append(p.queue, pr)
	p.bytes += len(pr.command)
	p.poke()
	return nil
}

func (p *proposer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// pendingEntry is an entry on its way through Raft.
type pendingEntry struct {
	core   *raftCore
	future raft.ApplyFuture
	group  []*proposal
	start  time.Time
}

func (p *proposer) run() {
	flights := make(chan pendingEntry, maxEntriesInFlight)
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range flights {
			p.finish(e)
			<-p.slots
			p.poke() // for what was not worth another entry
		}
	})
	defer wg.Wait()
	defer close(flights)
	defer p.refuseAll(ErrClosed)
	for {
		select {
		case <-p.wake:
		case <-p.g.ctx.Done():
			return
		}
		for {
			select {
			case p.slots <- struct{}{}:
			case <-p.g.ctx.Done():
				return
			}
			group := p.take(len(p.slots) > 1)
			if len(group) == 0 {
				<-p.slots
				break
			}
			if e, ok := p.append(group); ok {
				flights <- e
			} else {
				<-p.slots
			}
		}
	}
}

// take removes the next entry's commands from the queue: none if others are under
// way and it is not worth another.
func (p *proposer) take(underWay bool) []*proposal {
	p.mu.Lock()
	defer p.mu.Unlock()
	if underWay && len(p.queue) < worthCommands && p.bytes < worthBytes {
		return nil
	}
	var group []*proposal
	taken := make(map[uint64]struct{})
	bytes, full := 0, false
	rest := p.queue[:0]
	for i, pr := range p.queue {
		if full || i >= maxQueueScan {
			rest = append(rest, p.queue[i:]...)
			break
		}
		size := max(len(pr.command), leastWriteBytes*len(pr.keys))
		switch {
		case pr.exclusive && len(group) > 0,
			len(group) > 0 && bytes+size > maxEntryBytes,
			conflicts(taken, pr.keys):
			rest = append(rest, pr)
			continue
		}
		p.bytes -= len(pr.command)
		if !pr.state.CompareAndSwap(proposalQueued, proposalTaken) {
			continue
		}
		group = append(group, pr)
		bytes += size
		for _, k := range pr.keys {
			taken[k] = struct{}{}
		}
		full = pr.exclusive || len(group) >= maxEntryCommands
	}
	clear(p.queue[len(rest):])
	p.queue = rest
	return group
}

func conflicts(taken map[uint64]struct{}, keys []uint64) bool {
	if len(taken) == 0 {
		return false
	}
	for _, k := range keys {
		if _, ok := taken[k]; ok {
			return true
		}
	}
	return false
}

// append hands an entry to Raft. It returns false if that was refused at once.
func (p *proposer) append(group []*proposal) (pendingEntry, bool) {
	c := p.g.core.Load()
	if c == nil || c.r.State() != raft.Leader && !mutants.HeartbeatFastPath {
		err := p.g.notLeader()
		for _, pr := range group {
			pr.outcome <- outcome{err: err}
		}
		return pendingEntry{}, false
	}
	data := encodeEntry(group, uint64(time.Now().UnixMilli()))
	p.g.met.entryCommands.Observe(float64(len(group)))
	return pendingEntry{core: c, future: c.apply(data, 0), group: group, start: time.Now()}, true
}

// encodeEntry is the canonical encoding (raftfsm.EncodeEntry) of the commands,
// each stamped with the leader's clock in its first field.
func encodeEntry(group []*proposal, nowMs uint64) []byte {
	stamp := protowire.AppendVarint(protowire.AppendTag(nil, fieldProposedAt, protowire.VarintType), nowMs)
	n := 2
	for _, pr := range group {
		n += len(pr.command) + len(stamp) + 2*binary.MaxVarintLen32
	}
	b := make([]byte, 0, n)
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldEntryFormat, protowire.VarintType), 1)
	for _, pr := range group {
		b = protowire.AppendTag(b, fieldEntryCommands, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(len(pr.command)+len(stamp)))
		b = append(b, stamp...)
		b = append(b, pr.command...)
	}
	return b
}

// finish waits for an entry and tells its proposals.
func (p *proposer) finish(e pendingEntry) {
	err := classifyApply(e.core.answer(e.future))
	var results []*fsmv1.Result
	if err == nil {
		switch r := e.future.Response().(type) {
		case []*fsmv1.Result:
			results = r
		case error:
			err = r
		}
		if err == nil && len(results) != len(e.group) {
			err = fmt.Errorf("%w: the state machine answered %d of %d commands", ErrUnknownOutcome, len(results), len(e.group))
		}
	}
	if errors.Is(err, ErrNotLeader) {
		err = p.g.notLeader()
	}
	for i, pr := range e.group {
		if err != nil {
			pr.outcome <- outcome{err: err}
			continue
		}
		pr.outcome <- outcome{result: results[i]}
	}
	p.g.met.proposals(e.start, len(e.group), err)
}

// classifyApply gives an error of a Raft future its class. Only what Raft
// answers before it appends is "not applied"; a failing append may have reached
// the disk in part, so that it is unknown as well.
func classifyApply(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return &OverloadedError{Budget: "proposals", RetryAfter: 100 * time.Millisecond}
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

func (p *proposer) refuseAll(err error) {
	p.mu.Lock()
	queue := p.queue
	p.queue, p.bytes = nil, 0
	p.mu.Unlock()
	for _, pr := range queue {
		if pr.state.CompareAndSwap(proposalQueued, proposalTaken) {
			pr.outcome <- outcome{err: err}
		}
	}
}

func (p *proposer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}

// knownTo refuses a command that not every member may know yet.
func (n *Node) knownTo(cmd *fsmv1.Command) error {
	if cmd.MinClusterVersion <= 1 {
		return nil
	}
	if v := n.g.m.Facts().clusterVersion; cmd.MinClusterVersion > v {
		return fmt.Errorf("%w: it needs cluster version %d, the cluster is at %d until all members are upgraded", errInvalid, cmd.MinClusterVersion, v)
	}
	return nil
}

// Propose commits cmd, stamped with the leader's clock, and returns its
// outcome, on any node: a follower forwards to the leader. Without a leader it
// waits for one, as long as the context allows. Errors: ErrNotLeader,
// ErrNoLeader, ErrOverloaded, ErrFenced, ErrClosed and the context's own: not
// applied. ErrUnknownOutcome: it may have been applied; a command with a
// request id is then tried again here, one without must not be. A refusal by
// the state is not an error here: see raftfsm.ResultError.
func (n *Node) Propose(ctx context.Context, cmd *fsmv1.Command) (*fsmv1.Result, error) {
	if err := n.knownTo(cmd); err != nil {
		return nil, err
	}
	e, err := encodeCommand(cmd)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	var lastErr error
	var wasUnknown bool
	for {
		changed := n.g.changed()
		res, err := n.proposeOnce(ctx, e)
		switch {
		case err == nil && res.Status == fsmv1.Status_STATUS_ENTRY_CONFLICT:
			n.g.unwatch(changed)
			continue
		case err == nil:
			n.g.unwatch(changed)
			return res, nil
		case errors.Is(err, ErrUnknownOutcome):
			wasUnknown = true
			if cmd.RequestId == "" {
				n.g.unwatch(changed)
				return nil, err
			}
		case errors.Is(err, ErrNotLeader), errors.Is(err, ErrNoLeader):
		default:
			n.g.unwatch(changed)
			return nil, asUnknown(err, wasUnknown)
		}
		if ctx.Err() == nil {
			lastErr = err
			n.g.awaitChange(ctx, changed)
		}
		n.g.unwatch(changed)
		if ctx.Err() != nil {
			return nil, asUnknown(lastErrOr(lastErr, err), wasUnknown)
		}
	}
}

// asUnknown keeps in mind that an earlier try of the same command may have
// been applied.
func asUnknown(err error, wasUnknown bool) error {
	if wasUnknown && !errors.Is(err, ErrUnknownOutcome) {
		return fmt.Errorf("%w: an earlier try; then: %w", ErrUnknownOutcome, err)
	}
	return err
}

func lastErrOr(last, err error) error {
	if last != nil {
		return last
	}
	return err
}

// proposeOnce proposes here or at the leader.
func (n *Node) proposeOnce(ctx context.Context, e encoded) (*fsmv1.Result, error) {
	if n.isClosing() {
		return nil, ErrClosed
	}
	id, addr := n.g.leader()
	if id == n.cfg.NodeID {
		return n.proposeHere(ctx, e)
	}
	if id == "" {
		return nil, ErrNoLeader
	}
	var reply nodev1.ProposeReply
	ctx, done := n.g.forwardTo(ctx, id)
	defer done()
	err := n.rpc.call(ctx, addr, laneBulk, methodPropose, &nodev1.ProposeRequest{Command: e.command, Keys: e.keys, Exclusive: e.exclusive}, &reply)
	if err != nil {
		return nil, classifyForward(err)
	}
	res := new(fsmv1.Result)
	if err := proto.Unmarshal(reply.Result, res); err != nil {
		return nil, fmt.Errorf("%w: decode result: %w", ErrUnknownOutcome, err)
	}
	n.g.heardCluster(reply.ClusterId)
	return res, nil
}

// classifyForward gives the error of a forwarded proposal its class. What the
// leader said keeps its class; a connection lost or time run out after the
// request left is unknown.
func classifyForward(err error) error {
	switch {
	case errors.Is(err, errNotSent):
		return fmt.Errorf("%w: leader not reached: %w", ErrNoLeader, err)
	case errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrNotLeader), errors.Is(err, ErrNoLeader),
		errors.Is(err, ErrOverloaded), errors.Is(err, ErrFenced), errors.Is(err, errInvalid):
		return err
	case errors.Is(err, ErrClosed):
		return fmt.Errorf("%w: leader is closing", ErrNoLeader)
	}
	var remote *remoteError
	if errors.As(err, &remote) {
		return err // withdrawn at the leader before it was appended
	}
	return fmt.Errorf("%w: forwarded to the leader: %w", ErrUnknownOutcome, err)
}

// ProposeLocal is Propose without forwarding and without retries: ErrNotLeader
// with a hint.
func (n *Node) ProposeLocal(ctx context.Context, cmd *fsmv1.Command) (*fsmv1.Result, error) {
	if err := n.knownTo(cmd); err != nil {
		return nil, err
	}
	e, err := encodeCommand(cmd)
	if err != nil {
		return nil, err
	}
	return n.proposeHere(ctx, e)
}

func (n *Node) proposeHere(ctx context.Context, e encoded) (*fsmv1.Result, error) {
	if n.isClosing() {
		return nil, ErrClosed
	}
	if err := n.superseded(); err != nil {
		return nil, err
	}
	if err := n.budgets.admit(e); err != nil {
		return nil, err
	}
	return n.g.props.propose(ctx, e)
}

func withDefaultTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, defaultOpTimeout)
}

// awaitChange waits for something that makes another try worth while.
func (g *group) awaitChange(ctx context.Context, changed chan struct{}) {
	t := time.NewTimer(g.cfg.paced(retryPause))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-ctx.Done():
	}
}

// notLeader is ErrNotLeader with what is known of the leader.
func (g *group) notLeader() error {
	return &NotLeaderError{Leader: g.leaderMember()}
}
