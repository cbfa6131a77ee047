// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/mutants"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
)

// rounds shares one round trip among all callers that wait when it starts. A
// caller that comes while a round runs waits for the next: an answer is only
// good for reads that began before it was asked for.
type rounds[T any] struct {
	run func(ctx context.Context) (T, error)
	ctx context.Context
	wg  *crew

	mu      sync.Mutex // guards the fields below
	waiting []chan roundResult[T]
	running bool
}

type roundResult[T any] struct {
	val T
	err error
}

func (r *rounds[T]) do(ctx context.Context) (T, error) {
	ch := make(chan roundResult[T], 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, ch)
	if !r.running {
		if r.running = r.wg.Go(r.loop); !r.running {
			r.waiting = nil
			r.mu.Unlock()
			var zero T
			return zero, ErrClosed
		}
	}
	r.mu.Unlock()
	select {
	case res := <-ch:
		return res.val, res.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

func (r *rounds[T]) loop() {
	for {
		r.mu.Lock()
		batch := r.waiting
		r.waiting = nil
		if len(batch) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.ctx, termRoundTimeout)
		v, err := r.run(ctx)
		cancel()
		for _, ch := range batch {
			ch <- roundResult[T]{v, err}
		}
	}
}

// readPoint is a confirmed read index.
type readPoint struct {
	index uint64
	// asked is this node's clock before the index was taken: everything
	// acknowledged before that moment is at or below index.
	asked time.Time
}

// readBarrier answers from which log index on a state is fresh enough.
type readBarrier struct {
	g      *group
	local  rounds[readPoint] // of the leader: asks the voters for their terms
	remote rounds[readPoint] // of a follower: asks the leader

	mu    sync.Mutex // guards the fields below
	fresh []readPoint
	// asking is set while a bounded read's refresh runs.
	asking bool
}

func newReadBarrier(g *group) *readBarrier {
	b := &readBarrier{g: g}
	b.local = rounds[readPoint]{run: b.confirm, ctx: g.ctx, wg: &g.wg}
	b.remote = rounds[readPoint]{run: b.askLeader, ctx: g.ctx, wg: &g.wg}
	return b
}

// confirm takes the commit index and then makes sure that no newer leader can
// have acknowledged anything before that moment: a majority of the voters is
// still in this leader's term, each asked after the index was taken. A newer
// leader would have needed votes of a majority, and a voter raises its term
// before it votes. No clock and no lease is involved, and non-voters do not
// count. raft.VerifyLeader is not used: it counts non-voters and answers that
// were under way before it was called.
func (b *readBarrier) confirm(ctx context.Context) (readPoint, error) {
	asked := time.Now()
	c, term, established := b.g.leading()
	if c == nil || c.r.State() != raft.Leader {
		return readPoint{}, b.g.notLeader()
	}
	if !established {
		return readPoint{}, fmt.Errorf("%w: leader of term %d has not committed an entry yet", ErrNoLeader, term)
	}
	index := c.r.CommitIndex()
	var voters []raft.Server
	self := false
	for _, s := range b.g.servers() {
		switch {
		case s.Suffrage != raft.Voter:
		case string(s.ID) == b.g.cfg.NodeID:
			self = true
		default:
			voters = append(voters, s)
		}
	}
	need := (len(voters)+boolInt(self))/2 + 1 - boolInt(self)
	if need > 0 {
		if err := b.pollTerms(ctx, voters, term, need); err != nil {
			return readPoint{}, err
		}
	}
	if c.r.State() != raft.Leader || c.r.CurrentTerm() != term {
		return readPoint{}, b.g.notLeader()
	}
	p := readPoint{index, asked}
	b.note(p)
	return p, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// pollTerms returns once need voters answered that they know no newer term: each for
// itself, not another that is where it was.
func (b *readBarrier) pollTerms(ctx context.Context, voters []raft.Server, term uint64, need int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(voters))
	for _, v := range voters {
		ok := b.g.wg.Go(func() {
			var reply nodev1.TermReply
			err := b.g.rpc.callNode(ctx, string(v.ID), b.g.addrOf(v), laneControl, methodTerm, &nodev1.TermRequest{}, &reply)
			if err == nil && reply.Term > term {
				err = fmt.Errorf("%w: voter %s is in term %d, this leader in %d", ErrNotLeader, v.ID, reply.Term, term)
			}
			answers <- err
		})
		if !ok {
			return ErrClosed
		}
	}
	var errs []error
	for range voters {
		if err := <-answers; err != nil {
			errs = append(errs, err)
			if len(voters)-len(errs) < need {
				return fmt.Errorf("%w: leadership not confirmed by a majority of the voters: %w", ErrNoLeader, errors.Join(errs...))
			}
			continue
		}
		if need--; need == 0 {
			return nil
		}
	}
	return ErrNoLeader
}

// askLeader gets a read index from the leader.
func (b *readBarrier) askLeader(ctx context.Context) (readPoint, error) {
	id, addr := b.g.leader()
	if id == "" {
		return readPoint{}, ErrNoLeader
	}
	asked := time.Now()
	var reply nodev1.ReadIndexReply
	if err := b.g.rpc.call(ctx, addr, laneControl, methodReadIndex, &nodev1.ReadIndexRequest{}, &reply); err != nil {
		return readPoint{}, fmt.Errorf("%w: read index from %s: %w", ErrNoLeader, id, err)
	}
	p := readPoint{reply.LogIndex, asked}
	b.note(p)
	return p, nil
}

// readIndex is the way to a read index from any node.
func (b *readBarrier) readIndex(ctx context.Context) (readPoint, error) {
	if c := b.g.core.Load(); c != nil && c.r.State() == raft.Leader {
		return b.local.do(ctx)
	}
	return b.remote.do(ctx)
}

// note remembers a read point for bounded reads.
func (b *readBarrier) note(p readPoint) {
	applied := b.g.ad.applied()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fresh = append(b.fresh, p)
	b.foldLocked(applied)
	if len(b.fresh) > 64 {
		b.fresh = b.fresh[len(b.fresh)-64:]
	}
}

// foldLocked keeps only the newest of the points that this replica has reached.
func (b *readBarrier) foldLocked(applied uint64) {
	newest := -1
	for i, p := range b.fresh {
		if p.index <= applied {
			newest = i
		}
	}
	if newest > 0 {
		b.fresh = b.fresh[newest:]
	}
}

// staleness is how far behind the leader this replica's state may be, by this
// node's own clock; false if nothing is known.
func (b *readBarrier) staleness() (time.Duration, bool) {
	applied := b.g.ad.applied()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.foldLocked(applied)
	if len(b.fresh) == 0 || b.fresh[0].index > applied {
		return 0, false
	}
	return time.Since(b.fresh[0].asked), true
}

// refresh asks for a read index in the background, at most one at a time.
func (b *readBarrier) refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asking || b.g.ctx.Err() != nil {
		return
	}
	b.asking = true
	b.g.wg.Go(func() {
		ctx, cancel := context.WithTimeout(b.g.ctx, termRoundTimeout)
		defer cancel()
		_, _ = b.readIndex(ctx)
		b.mu.Lock()
		b.asking = false
		b.mu.Unlock()
	})
}

// linearizable waits until the local state holds everything acknowledged
// before the call.
func (b *readBarrier) linearizable(ctx context.Context) error {
	if mutants.StaleReads {
		return nil
	}
	for {
		changed := b.g.changed()
		p, err := b.readIndex(ctx)
		if err == nil {
			b.g.unwatch(changed)
			return b.g.ad.wait(ctx, p.index)
		}
		if ctx.Err() == nil && (errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader)) {
			b.g.awaitChange(ctx, changed)
			b.g.unwatch(changed)
			if ctx.Err() == nil {
				continue
			}
		} else {
			b.g.unwatch(changed)
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return err
		}
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("%w (%w)", err, cause)
		}
		return err
	}
}

// bounded serves from the local state if it is fresh enough, and asks the
// leader once if it is not.
func (b *readBarrier) bounded(ctx context.Context, most time.Duration) error {
	d, known := b.staleness()
	if known && d <= most {
		if d > most/2 {
			b.refresh()
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, termRoundTimeout)
	defer cancel()
	p, err := b.readIndex(ctx)
	if err == nil && time.Since(p.asked) <= most {
		err = b.g.ad.wait(ctx, p.index)
	}
	if d, known = b.staleness(); known && d <= most {
		return nil
	}
	if known && err != nil {
		return fmt.Errorf("%w: %v behind at most, %v allowed (%w)", ErrTooStale, d.Round(time.Millisecond), most, err)
	}
	if known {
		return fmt.Errorf("%w: %v behind at most, %v allowed", ErrTooStale, d.Round(time.Millisecond), most)
	}
	return fmt.Errorf("%w: no contact with a leader yet", ErrTooStale)
}

// Consistency of a read; see docs/consistency.md.
type Consistency string

// The consistencies.
const (
	Linearizable Consistency = "linearizable"
	Session      Consistency = "session"
	Bounded      Consistency = "bounded"
	Eventual     Consistency = "eventual"
)

// ReadOptions says what a read must see.
type ReadOptions struct {
	Consistency  Consistency   // "" is Linearizable
	MinIndex     uint64        // Session: the token's log index
	MaxStaleness time.Duration // Bounded
}

// Read waits until this replica can serve the read and returns its view, which
// the caller closes. Errors, nothing served: ErrNoLeader, ErrTooStale,
// ErrFenced, ErrClosed, the context's error.
func (n *Node) Read(ctx context.Context, o ReadOptions) (*raftfsm.View, error) {
	if err := n.awaitRead(ctx, o); err != nil {
		return nil, err
	}
	return n.g.m.View(), nil
}

// awaitRead is Read up to the view.
func (n *Node) awaitRead(ctx context.Context, o ReadOptions) error {
	if n.isClosing() {
		return ErrClosed
	}
	if err := n.fenced(); err != nil {
		return err
	}
	ctx, cancel := withDefaultTimeout(ctx)
	defer cancel()
	start := time.Now()
	var err error
	switch o.Consistency {
	case Linearizable, "":
		err = n.g.reads.linearizable(ctx)
	case Session:
		err = n.g.ad.wait(ctx, o.MinIndex)
	case Bounded:
		err = n.g.reads.bounded(ctx, o.MaxStaleness)
	case Eventual:
	default:
		err = fmt.Errorf("%w: unknown consistency %q", errInvalid, o.Consistency)
	}
	n.met.readWait.WithLabelValues(string(o.Consistency)).Observe(time.Since(start).Seconds())
	if err == nil {
		err = n.fenced() // what was waited for may have shown it
	}
	return err
}

// tokenPrefixLen is how much of the cluster id a session token carries.
const tokenPrefixLen = 8

// Token ties a log index to this cluster: "<first 8 hex of cluster id>.<index>".
// A recovered cluster has another id and refuses the tokens of before: they may
// name entries that were lost. It is "" while no cluster is known, which is
// before anything can have been read or written here.
func (n *Node) Token(logIndex uint64) string {
	id := n.g.tokenCluster()
	if id == "" {
		return ""
	}
	return tokenPrefix(id) + "." + strconv.FormatUint(logIndex, 10)
}

// heardCluster notes the cluster of a leader that took a forwarded write. The
// write may be answered before this member has applied the entry that names its
// cluster, and the caller needs a token all the same. It does not become the
// member's identity: that comes from the log alone.
func (g *group) heardCluster(id string) {
	if id == "" {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.identity.ClusterID == "" {
		g.heard = id
	}
}

// tokenCluster is the cluster a token names, "" while this member has neither
// applied anything nor had a write taken.
func (g *group) tokenCluster() string {
	if id := g.clusterID(); id != "" {
		return id
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.heard
}

// ParseToken returns the log index; ErrBadToken for another cluster's or a
// malformed one. "" is 0.
func (n *Node) ParseToken(token string) (uint64, error) {
	if token == "" {
		return 0, nil
	}
	prefix, num, ok := strings.Cut(token, ".")
	if !ok || len(prefix) != tokenPrefixLen {
		return 0, fmt.Errorf("%w: %q is not of the form <cluster>.<index>", ErrBadToken, token)
	}
	index, err := strconv.ParseUint(num, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q has no log index", ErrBadToken, token)
	}
	// A member that has applied nothing yet does not know its cluster; the read
	// will wait for the index, and with it for the id.
	if id := n.g.clusterID(); id != "" && prefix != tokenPrefix(id) {
		return 0, fmt.Errorf("%w: it is of cluster %s, this is %s", ErrBadToken, prefix, tokenPrefix(id))
	}
	return index, nil
}

func tokenPrefix(clusterID string) string {
	return (clusterID + "00000000")[:tokenPrefixLen]
}
