// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/mutants"
	"github.com/akidb/akidb/internal/storage"
	nodev1 "github.com/akidb/akidb/node/nodepb/akidb/node/v1"
	"github.com/akidb/akidb/raftfsm"
	fsmv1 "github.com/akidb/akidb/raftfsm/fsmpb/akidb/fsm/v1"
)

// group is everything of one Raft group: log, stable store, snapshots, state,
// proposals and reads, in one directory. A node has one group now; nothing in
// here knows that.
//
// Raft itself, with its log and transport, can be replaced while the group
// runs: after a failed append (a full disk) it is shut down and opened anew once
// the log can be written again. The machine stays open over that.
type group struct {
	id   string
	dir  string
	cfg  *Config
	self func() *nodev1.NodeInfo
	log  *slog.Logger
	met  *metrics

	m      machine
	ad     *adapter
	snaps  *snapshotStore
	stable closableStable
	mux    *mux
	rpc    *rpcClient
	book   *addressBook

	core    atomic.Pointer[raftCore] // nil while the log cannot be written
	props   *proposer
	reads   *readBarrier
	staging chan struct{} // holds a token while a snapshot is fetched, one at a time

	// established is the term in which this node, as leader, has committed an
	// entry of its own; 0 before.
	established atomic.Uint64
	member      atomic.Bool   // admitted or bootstrapped: may vote and store
	joinedIndex atomic.Uint64 // of identity, as joinedTerm is
	joinedTerm  atomic.Uint64
	hastening   atomic.Bool // hasten runs

	leadership chan struct{} // poked when leader, term or core may have changed
	onLeader   func(ctx context.Context)

	ctx    context.Context
	cancel context.CancelFunc
	wg     crew

	mu       sync.Mutex // guards the fields below
	identity identity
	heard    string // the leader's cluster id, of use until identity has it
	broken   error  // why there is no core
	watchers map[chan struct{}]struct{}
	forwards map[*forward]struct{}
}

// forward is a request under way to a leader. It ends when another leader is
// known: the old one may be paused or cut off, and never answer.
type forward struct {
	leader string
	cancel context.CancelCauseFunc
}

var errLeaderChanged = errors.New("another node leads now")

// forwardTo returns a context for a request to the leader, and its end.
func (g *group) forwardTo(ctx context.Context, leader string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &forward{leader, cancel}
	g.mu.Lock()
	g.forwards[f] = struct{}{}
	g.mu.Unlock()
	return ctx, func() {
		g.mu.Lock()
		delete(g.forwards, f)
		g.mu.Unlock()
		cancel(nil)
	}
}

// raftCore is Raft with what must be opened and closed with it.
type raftCore struct {
	r        *raft.Raft
	ls       *logStore
	trans    *groupTransport
	stream   *streamLayer
	notify   chan bool
	observer *raft.Observer
	observed chan raft.Observation
	stop     chan struct{} // ends watch
	failed   chan error
	wg       sync.WaitGroup

	// running is r once there is one: its goroutines begin before NewRaft returns.
	running  atomic.Pointer[raft.Raft]
	applying sync.RWMutex  // held, to read, from looking at closing to the end of ApplyLog
	closing  bool          // guarded by applying
	pending  atomic.Int64  // entries given to apply of which answer does not know the end
	ended    chan struct{} // closed when Raft's goroutines are gone
	confMu   sync.Mutex    // held from reading r's reloadable configuration to writing it
}

// replicatesTo reports whether this node leads in a term and has a member, or
// might: see reach.
func (c *raftCore) replicatesTo(id raft.ServerID, term uint64) bool {
	r := c.running.Load()
	if r == nil {
		return true
	}
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return true
	}
	for _, s := range f.Configuration().Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}

// apply is Raft's ApplyLog, of which answer tells the end. Once Raft is about to be
// shut down it is ErrNotLeader: ApplyLog may put an entry into the queue of a Raft
// that has ended, and it is never answered.
func (c *raftCore) apply(entry []byte, timeout time.Duration) raft.ApplyFuture {
	c.applying.RLock()
	defer c.applying.RUnlock()
	c.pending.Add(1)
	if c.closing {
		return refusedFuture{raft.ErrNotLeader}
	}
	return c.r.ApplyLog(raft.Log{Data: entry}, timeout)
}

// refusedFuture is an entry, or a change of members, that Raft was not given.
type refusedFuture struct{ err error }

func (f refusedFuture) Error() error  { return f.err }
func (f refusedFuture) Response() any { return nil }
func (f refusedFuture) Index() uint64 { return 0 }

// answer is the Error of what apply returned, or ErrUnknownOutcome if Raft ended
// without answering: an entry that its loop had not taken from the queue by then is
// never answered (hashicorp/raft 1.8.0: ApplyLog's future knows nothing of
// Shutdown), and the goroutine that asks is left behind.
func (c *raftCore) answer(f raft.Future) error {
	got := make(chan error, 1)
	go func() {
		err := f.Error()
		c.pending.Add(-1)
		got <- err
	}()
	select {
	case err := <-got:
		return err
	case <-c.ended:
	}
	// Raft answered what it had taken before it ended.
	grace := time.NewTimer(answerGrace)
	defer grace.Stop()
	select {
	case err := <-got:
		return err
	case <-grace.C:
		return fmt.Errorf("%w: raft ended first", ErrUnknownOutcome)
	}
}

// drain lets no more entries in and waits for the answers under way while Raft still
// runs, so that none is left behind: a leader without its connections steps down
// within its lease and answers everything.
func (c *raftCore) drain() {
	c.applying.Lock()
	c.closing = true
	c.applying.Unlock()
	for wait := drainTimeout; wait > 0 && c.pending.Load() > 0; wait -= drainStep {
		pause(context.Background(), drainStep)
	}
}

// openGroup opens everything and starts Raft.
func openGroup(g *group) error {
	id, err := loadIdentity(g.cfg.files(), g.dir)
	if err != nil {
		return err
	}
	if id.Recovering != "" {
		return fmt.Errorf("node: the recovery of %s was begun and not finished: run akidb cluster recover again", g.cfg.DataDir)
	}
	g.takeIdentity(id)
	g.watchers = make(map[chan struct{}]struct{})
	g.forwards = make(map[*forward]struct{})
	g.leadership = make(chan struct{}, 1)
	if g.stable, err = openStable(g.cfg.FS, g.dir); err != nil {
		return err
	}
	if g.snaps, err = newSnapshotStore(g.cfg.files(), filepath.Join(g.dir, "snapshots"), g.m, g.log); err != nil {
		g.stable.Close()
		return err
	}
	g.ad = &adapter{m: g.m, snaps: g.snaps}
	g.ad.advance(g.m.Applied())
	g.snaps.advertise = func() string { return g.self().RaftAddr }
	g.snaps.stale = g.alreadyHas
	g.props = newProposer(g)
	g.reads = newReadBarrier(g)
	core, err := g.openCore()
	if err != nil {
		g.stable.Close()
		return err
	}
	g.core.Store(core)
	g.wg.Named("raft and the log", func() { g.supervise(core) })
	g.wg.Named("the leader's duties", g.lead)
	g.wg.Named("proposals", g.props.run)
	g.wg.Named("a snapshot", g.snapshotBySize)
	return nil
}

// openCore opens log and transport, checks that they fit the state, and starts
// Raft.
func (g *group) openCore() (_ *raftCore, err error) {
	hlog := raftLogger(g.log)
	under, err := openLogStore(g.cfg.FS, g.dir, g.cfg.LogStore, hlog)
	if err != nil {
		return nil, err
	}
	if g.cfg.wrapLog != nil {
		under = g.cfg.wrapLog(under)
	}
	defer func() {
		if err != nil {
			under.Close()
		}
	}()
	ls, err := newLogStore(under, retention{g.cfg.TrailingLogs, g.cfg.TrailingLogBytes})
	if err != nil {
		return nil, err
	}
	if err := g.fitLog(ls); err != nil {
		return nil, err
	}
	c := &raftCore{
		ls: ls, failed: make(chan error, 1), notify: make(chan bool, 64),
		observed: make(chan raft.Observation, 64), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	ls.onFail = func(err error) {
		select {
		case c.failed <- err:
		default:
		}
	}
	ls.holdBack = g.snaps.oldestExport
	ls.observe, ls.patience = g.met.observeAppend, g.cfg.paced(diskPatience)
	g.ad.attach(ls.ahead.await, ls.onFail)
	ls.start()
	defer func() {
		if err != nil {
			ls.ahead.close()
		}
	}()
	c.stream = newStreamLayer(g.mux, g.id, g.cfg.AdvertiseAddr, g.livesAt)
	c.trans = newGroupTransport(c.stream, g, hlog.Named("transport"), func(rpc raft.RPC, forward func(raft.RPC)) bool {
		return g.admit(c, rpc, forward)
	}, ls.ahead.commitLimit, newReach(g.cfg.paced(reachCheck), c.replicatesTo))
	c.trans.stands = func() error {
		if !g.member.Load() {
			return errNotMember
		}
		if g.catchingUp(c.running.Load()) {
			return errNewcomer
		}
		return nil
	}
	conf := g.raftConfig(c)
	conf.Logger = hlog
	r, err := raft.NewRaft(conf, g.ad, ls, loudStable{g.stable, g.log}, g.snaps, c.trans)
	if err != nil {
		c.trans.Close()
		return nil, fmt.Errorf("node: start raft: %w", err)
	}
	c.r = r
	c.running.Store(r)
	c.observer = raft.NewObserver(c.observed, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.PeerObservation:
			return true
		}
		return false
	})
	c.r.RegisterObserver(c.observer)
	c.wg.Go(func() { g.watch(c) })
	c.wg.Go(func() { g.calmElections(c) })
	return c, nil
}

// calmElections gives candidates more time once elections have failed for a
// while. On a machine so busy that votes take longer than the time-out, each
// election would end before it is won, and there would never be a leader. Only
// the candidate's time-out grows: heartbeats and the lease depend on the other.
func (g *group) calmElections(c *raftCore) {
	base := g.cfg.ElectionTimeout
	now, since := base, time.Now()
	set := func(d time.Duration) {
		if err := c.setElectionTimeout(d); err != nil {
			g.log.Warn("election time-out not changed", "err", err)
			return
		}
		g.log.Info("election time-out changed", "to", d)
		now = d
	}
	t := time.NewTicker(base)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-c.stop:
			return
		}
		_, leader := c.r.LeaderWithID()
		switch {
		case leader != "" || !g.member.Load():
			since = time.Now()
			if now != base {
				set(base)
			}
		case time.Since(since) > electionPatience*now && now < maxElectionFactor*base:
			since = time.Now()
			set(2 * now)
		}
	}
}

const (
	electionPatience  = 6
	maxElectionFactor = 16
)

func (g *group) raftID() raft.ServerID { return raft.ServerID(g.cfg.NodeID) }

func (g *group) raftConfig(c *raftCore) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = g.raftID()
	conf.HeartbeatTimeout = g.cfg.HeartbeatTimeout
	conf.ElectionTimeout = g.cfg.ElectionTimeout
	conf.LeaderLeaseTimeout = g.cfg.HeartbeatTimeout
	conf.CommitTimeout = g.cfg.paced(commitTimeout)
	conf.MaxAppendEntries = maxAppendEntries
	conf.BatchApplyCh = true
	conf.ShutdownOnRemove = false
	conf.TrailingLogs = 1 // logStore.DeleteRange keeps more
	conf.SnapshotInterval = g.cfg.SnapshotInterval
	conf.SnapshotThreshold = g.cfg.SnapshotThreshold
	conf.NotifyCh = c.notify
	conf.NoSnapshotRestoreOnStart = true
	conf.NoLegacyTelemetry = true
	return conf
}

// commitTimeout is how soon followers learn that the newest entries are
// committed when no further entry follows; linearizable reads on followers
// wait for that. Each follower is sent a small message that often.
const commitTimeout = 8 * time.Millisecond

// fitLog completes an interrupted installation and refuses a log that does not
// go with the state.
func (g *group) fitLog(ls *logStore) error {
	snap, err := g.snaps.finishInstall(g.m)
	if err != nil {
		return err
	}
	first, err := ls.FirstIndex()
	if err != nil {
		return err
	}
	last, err := ls.LastIndex()
	if err != nil {
		return err
	}
	covered := last
	if snap != nil {
		x := snap.Meta.Index
		if last > 0 && (last < x || first <= x && ls.termAt(x) != snap.Meta.Term) {
			// Entries from before the installed snapshot: Raft would have
			// removed them had it not been interrupted.
			if err := ls.clear(); err != nil {
				return err
			}
			first, last = 0, 0
		}
		if first > x+1 {
			return fmt.Errorf("node: the log in %s starts at %d but the newest snapshot ends at %d: entries are missing; remove this node's data directory and let it rejoin", g.dir, first, x)
		}
		covered = max(last, x, snap.Applied)
		g.ad.advance(max(x, g.m.Applied()))
	} else if first > 1 {
		return fmt.Errorf("node: the log in %s starts at %d and there is no snapshot: entries are missing; remove this node's data directory and let it rejoin", g.dir, first)
	}
	if err := g.fitVote(max(ls.termAt(last), termOf(snap))); err != nil {
		return err
	}
	if a := g.m.Applied(); a > covered {
		return fmt.Errorf("node: the state in %s holds log index %d but the log ends at %d: acknowledged entries were lost from the log; remove this node's data directory and let it rejoin", g.dir, a, covered)
	}
	return nil
}

// fitVote refuses a stable store that lost what it knew: Raft stores a term there
// before any entry of it reaches the log, and a node that forgot its vote could
// give a second one in the same term.
func (g *group) fitVote(logTerm uint64) error {
	stored, err := g.stable.GetUint64([]byte(keyTerm))
	if err != nil && err.Error() != errNotFound.Error() {
		return fmt.Errorf("node: read the term in %s: %w", g.dir, err)
	}
	if stored < logTerm {
		return fmt.Errorf("node: the stable store in %s (stable.db) is at term %d but the log at term %d: the vote of this node was lost; remove this node's data directory and let it rejoin", g.dir, stored, logTerm)
	}
	return nil
}

func termOf(snap *snapshotFile) uint64 {
	if snap == nil {
		return 0
	}
	return snap.Meta.Term
}

// admit looks at a message before Raft does; see groupTransport.
func (g *group) admit(c *raftCore, rpc raft.RPC, forward func(raft.RPC)) bool {
	if !g.member.Load() {
		rpc.Respond(nil, errNotMember)
		return false
	}
	if err := g.outdated(c.running.Load(), rpc.Command); err != nil {
		rpc.Respond(nil, err)
		return false
	}
	if req, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok {
		if !g.wg.Go(func() { g.receiveSnapshot(rpc, req, forward) }) {
			rpc.Respond(nil, ErrClosed)
		}
		return false
	}
	if req, ok := rpc.Command.(*raft.RequestPreVoteRequest); ok {
		g.hasten(raft.ServerID(req.ID))
	}
	if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
		// The answer counts what this node holds.
		if err := c.ls.ahead.settle(req.Term); err != nil {
			rpc.Respond(nil, err)
			return false
		}
	}
	return true
}

// supervise replaces the core after its log failed.
func (g *group) supervise(c *raftCore) {
	for {
		var cause error
		select {
		case cause = <-c.failed:
		case <-g.ctx.Done():
			g.closeCore(c)
			return
		}
		g.log.Error("log cannot be written: leaving raft until it can", "err", cause)
		g.met.logFailures.Inc()
		g.setBroken(cause)
		g.core.Store(nil)
		g.closeCore(c)
		for {
			pause(g.ctx, g.cfg.paced(reopenPause))
			if g.ctx.Err() != nil {
				return
			}
			if err := g.probeDisk(); err != nil {
				g.setBroken(fmt.Errorf("%w (since: %w)", err, cause))
				continue
			}
			next, err := g.openCore()
			if err != nil {
				g.log.Error("log cannot be opened", "err", err)
				g.setBroken(err)
				continue
			}
			c = next
			g.core.Store(c)
			g.setBroken(nil)
			g.log.Info("log is open again")
			break
		}
	}
}

// transferStuck is how long a leader may find itself in a transfer that it did
// not begin: Raft ends one of its own after an election time-out.
const transferStuck = 3 * time.Second

var errTransferStuck = errors.New("raft is stuck in a leadership transfer of an earlier term")

const reopenPause = 500 * time.Millisecond

// probeDisk shows that the log's disk takes writes again.
func (g *group) probeDisk() error {
	path := filepath.Join(g.dir, "probe")
	fsys := g.cfg.files()
	defer fsys.Remove(path)
	return storage.WriteFile(fsys, path, make([]byte, 1<<20))
}

func (g *group) setBroken(err error) {
	g.mu.Lock()
	g.broken = err
	g.mu.Unlock()
	g.poke()
}

func (g *group) closeCore(c *raftCore) {
	// Connections first: Raft's Shutdown waits for calls that sit on them.
	c.stream.Close()
	c.trans.cut()
	c.drain()
	if err := c.r.Shutdown().Error(); err != nil { // waits for Raft's goroutines
		g.log.Warn("raft shutdown", "err", err)
	}
	// Only now: until they have ended they may block on a notification. Raft's
	// state says nothing about that, it may be Follower after Shutdown.
	close(c.ended)
	close(c.stop)
	c.wg.Wait()
	c.trans.Close()
	c.ls.ahead.close()
	if err := c.ls.under.Close(); err != nil {
		g.log.Warn("close log", "err", err)
	}
}

// watch turns Raft's notifications into pokes.
func (g *group) watch(c *raftCore) {
	defer c.r.DeregisterObserver(c.observer)
	for {
		select {
		case <-c.notify:
		case <-c.observed:
		case <-c.stop:
			return
		}
		g.poke()
	}
}

// poke wakes lead and whoever watches for a leader.
func (g *group) poke() {
	select {
	case g.leadership <- struct{}{}:
	default:
	}
	leader, _ := g.leader()
	g.mu.Lock()
	defer g.mu.Unlock()
	for ch := range g.watchers {
		close(ch)
		delete(g.watchers, ch)
	}
	for f := range g.forwards {
		if leader != "" && f.leader != leader {
			f.cancel(errLeaderChanged)
		}
	}
}

// changed is closed at the next change of leader, or of anything like it.
func (g *group) changed() chan struct{} {
	ch := make(chan struct{})
	g.mu.Lock()
	g.watchers[ch] = struct{}{}
	g.mu.Unlock()
	return ch
}

func (g *group) unwatch(ch chan struct{}) {
	g.mu.Lock()
	delete(g.watchers, ch)
	g.mu.Unlock()
}

// lead establishes each leadership of this node and runs the leader's duties
// while it lasts.
func (g *group) lead() {
	var stop context.CancelFunc
	var done chan struct{}
	var term uint64
	end := func() {
		if stop != nil {
			stop()
			<-done
			stop = nil
		}
	}
	defer end()
	for {
		select {
		case <-g.leadership:
		case <-g.ctx.Done():
			return
		}
		c := g.core.Load()
		leading := c != nil && c.r.State() == raft.Leader
		if leading && stop != nil && c.r.CurrentTerm() == term {
			continue
		}
		end()
		if !leading {
			continue
		}
		term = c.r.CurrentTerm()
		ctx, cancel := context.WithCancel(g.ctx)
		stop, done = cancel, make(chan struct{})
		if !g.wg.Go(func() {
			defer close(done)
			if g.establish(ctx, c, term) && g.onLeader != nil {
				g.onLeader(ctx)
			}
		}) {
			close(done)
		}
	}
}

// establish commits the first entry of a term. Before that a new leader's
// commit index may lag behind what an earlier leader acknowledged, so it must
// not answer reads (Raft dissertation, section 6.4).
func (g *group) establish(ctx context.Context, c *raftCore, term uint64) bool {
	g.met.leaderships.Inc()
	var refusing time.Time // since when every entry is refused for a transfer
	for ctx.Err() == nil && c.r.State() == raft.Leader && c.r.CurrentTerm() == term {
		cmd := &fsmv1.Command{
			ProposedAtMs: uint64(time.Now().UnixMilli()),
			Op: &fsmv1.Command_LeaderEstablished{LeaderEstablished: &fsmv1.LeaderEstablished{
				NodeId: g.cfg.NodeID, ClusterId: uuid.NewString(), Term: term,
			}},
		}
		b, err := raftfsm.EncodeEntry([]*fsmv1.Command{cmd})
		if err != nil {
			g.log.Error("encode leader entry", "err", err)
			return false
		}
		f := c.apply(b, time.Second)
		if err := c.answer(f); err != nil {
			g.log.Warn("leader entry not committed", "err", err)
			switch {
			case !errors.Is(err, raft.ErrLeadershipTransferInProgress):
				refusing = time.Time{}
			case refusing.IsZero():
				refusing = time.Now()
			case time.Since(refusing) > g.cfg.paced(transferStuck):
				// A transfer that an earlier leadership of this Raft began waits for a
				// replication that has ended, and Raft refuses everything for ever
				// (hashicorp/raft 1.8.0, leadershipTransfer: the send on
				// triggerDeferErrorCh). Only another Raft gets rid of it.
				select {
				case c.failed <- errTransferStuck:
				default: // it is being replaced already
				}
				return false
			}
			pause(ctx, g.cfg.paced(retryPause))
			continue
		}
		if c.r.State() == raft.Leader && c.r.CurrentTerm() == term {
			g.established.Store(term)
			c.ls.ahead.allow(term)
			g.log.Info("leading", "term", term, "index", f.Index())
			g.poke()
			return true
		}
	}
	return false
}

// leading returns the core and the term if this node leads and has committed an
// entry of the term.
func (g *group) leading() (*raftCore, uint64, bool) {
	c := g.core.Load()
	if c == nil || c.r.State() != raft.Leader {
		return c, 0, false
	}
	term := c.r.CurrentTerm()
	return c, term, g.established.Load() == term || mutants.ReadIndexOldTerm
}

// leader returns the leader's id and address as known here.
func (g *group) leader() (id, addr string) {
	c := g.core.Load()
	if c == nil {
		return "", ""
	}
	a, sid := c.r.LeaderWithID()
	if sid == "" {
		return "", ""
	}
	if o, err := g.ServerAddr(sid); err == nil {
		a = o
	}
	return string(sid), string(a)
}

// servers is the latest Raft configuration known here.
func (g *group) servers() []raft.Server {
	c := g.core.Load()
	if c == nil {
		return nil
	}
	return c.servers()
}

// servers is the newest configuration, nil if there is none to be had.
func (c *raftCore) servers() []raft.Server {
	f := c.r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// snapshotBySize takes snapshots when the log outgrows its bytes, where Raft's
// own loop counts only entries.
func (g *group) snapshotBySize() {
	for {
		pause(g.ctx, g.cfg.paced(time.Second))
		if g.ctx.Err() != nil {
			return
		}
		c := g.core.Load()
		if c == nil {
			continue
		}
		metas, err := g.snaps.List()
		if err != nil {
			continue
		}
		var covered uint64
		if len(metas) > 0 {
			covered = metas[0].Index
		}
		if c.ls.bytesAfter(covered) > g.cfg.TrailingLogBytes/2 {
			if err := c.r.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
				g.log.Warn("snapshot by size", "err", err)
			}
		}
	}
}
