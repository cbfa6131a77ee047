// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package nemesis makes things go wrong, by a schedule that a seed decides, and
// puts them right again.
package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/akidb/akidb/jepsen/cluster"
	"github.com/akidb/akidb/jepsen/history"
)

// Admin is what a nemesis asks of the database itself.
type Admin interface {
	// Leader is the node that leads, as most of the nodes see it.
	Leader(ctx context.Context) (*cluster.Node, error)
	TransferLeader(ctx context.Context, to string) error
	RemoveMember(ctx context.Context, id string) error
	// Members are the ids in the configuration; voters only those that vote.
	Members(ctx context.Context) (all, voters []string, err error)
	Snapshot(ctx context.Context, n *cluster.Node) error
	// Caught waits until n has applied what the leader has committed.
	CaughtUp(ctx context.Context, n *cluster.Node) error
}

// Env is what nemeses act upon.
type Env struct {
	Cluster *cluster.Cluster
	Admin   Admin
	// Note records what a nemesis saw; it ends up in the history.
	Note func(format string, args ...any)
	// ClockFile gives the clock of a node's process, if the binary reads one.
	ClockFile func(n *cluster.Node) string

	// damage is held while a node's data is damaged: one node at a time may
	// forget what it acknowledged. Two of three is more than anybody promises.
	damage sync.Mutex
}

// Needs is what a nemesis wants of the cluster.
type Needs struct {
	Namespaces bool
	Root       bool
	Delays     bool
	Disk       cluster.Disk
	Clock      bool     // a binary whose clock can be moved
	Upgrade    bool     // a second binary
	Args       []string // of every node
	// Crashes: a process may end by itself under this fault.
	Crashes bool
}

// Nemesis is one kind of fault.
type Nemesis struct {
	Name  string
	About string
	Needs Needs
	// Inject does the fault and returns what it did and how to put it right. The
	// returned heal is called once, after a while. An error means that nothing
	// was done.
	Inject func(ctx context.Context, e *Env, r *rand.Rand) (did string, heal func(context.Context) error, err error)
	// Pause and Hold are how long the cluster is left alone before a fault, and
	// how long the fault stays; each is drawn between half and the whole.
	Pause, Hold time.Duration
}

// All lists the nemeses in the order of `jepsen list`.
func All() []*Nemesis {
	var all []*Nemesis
	all = append(all, &Nemesis{Name: "none", About: "nothing goes wrong"})
	all = append(all, networkNemeses()...)
	all = append(all, processNemeses()...)
	all = append(all, diskNemeses()...)
	all = append(all, clockNemeses()...)
	all = append(all, memberNemeses()...)
	return all
}

// aliases are other names that people look for.
func aliases() map[string]string {
	return map[string]string{
		"partition": "partition-halves", "halves": "partition-halves", "random-node": "partition-node", "partition-random-node": "partition-node",
		"majorities-ring": "partition-ring", "partition-majorities-ring": "partition-ring", "bridge": "partition-bridge",
		"one-way": "partition-one-way", "leader-alone": "partition-leader", "partition-leader-alone": "partition-leader",
		"kill": "kill-one", "pause": "pause-leader", "stop-leader": "pause-leader", "stop-follower": "pause-follower",
		"clock": "clock-skew", "slow-links": "slow", "lossy-links": "lossy", "slow-fsync": "slow-disk", "lose-unsynced": "power-all",
		"lost-fsync": "power-all", "churn": "membership", "rolling-restart": "restart", "rolling-upgrade": "upgrade",
		"snapshot-pressure": "snapshots", "leadership-storm": "leader-storm", "memory-pressure": "memory",
	}
}

// Find returns the nemeses of names with commas between them.
func Find(names string) ([]*Nemesis, error) {
	var found []*Nemesis
	for name := range strings.SplitSeq(names, ",") {
		if other, ok := aliases()[name]; ok {
			name = other
		}
		i := slices.IndexFunc(All(), func(n *Nemesis) bool { return n.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no nemesis %q; `jepsen list` shows all", name)
		}
		found = append(found, All()[i])
	}
	return found, nil
}

// Merge is what several nemeses want together.
func Merge(list []*Nemesis) (Needs, error) {
	var all Needs
	for _, n := range list {
		if all.Disk != "" && n.Needs.Disk != "" && all.Disk != n.Needs.Disk {
			return all, fmt.Errorf("%s needs a %s disk, another nemesis a %s one", n.Name, n.Needs.Disk, all.Disk)
		}
		if n.Needs.Disk != "" {
			all.Disk = n.Needs.Disk
		}
		all.Namespaces = all.Namespaces || n.Needs.Namespaces
		all.Root = all.Root || n.Needs.Root || n.Needs.Disk != ""
		all.Delays = all.Delays || n.Needs.Delays
		all.Clock = all.Clock || n.Needs.Clock
		all.Upgrade = all.Upgrade || n.Needs.Upgrade
		all.Crashes = all.Crashes || n.Needs.Crashes
		all.Args = append(all.Args, n.Needs.Args...)
	}
	return all, nil
}

// healLimit bounds the putting right of one fault.
const healLimit = 60 * time.Second

// Run injects n again and again until ctx ends. Every fault is put right before
// it returns, also the last one. record gets an event for each start and heal.
func Run(ctx context.Context, n *Nemesis, e *Env, seed uint64, record func(history.Event)) {
	if n.Inject == nil {
		<-ctx.Done()
		return
	}
	r := rand.New(rand.NewPCG(seed, hash(n.Name)))
	event := func(format string, args ...any) {
		record(history.Event{Type: history.Info, Process: history.NemesisProcess, F: n.Name,
			Value: history.Value{Note: fmt.Sprintf(format, args...)}})
	}
	for wait(ctx, between(r, n.Pause)) {
		did, heal, err := n.Inject(ctx, e, r)
		if err != nil {
			event("failed: %v", err)
			continue
		}
		event("start: %s", did)
		wait(ctx, between(r, n.Hold))
		hctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healLimit)
		if err := heal(hctx); err != nil {
			event("heal: %s: %v", did, err)
		} else {
			event("heal: %s", did)
		}
		cancel()
	}
}

func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// between draws a duration between half of d and d.
func between(r *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d/2 + time.Duration(r.Int64N(int64(d/2)+1))
}

// wait is false once the context has ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}

func ids(nodes []*cluster.Node) string {
	var s []string
	for _, n := range nodes {
		s = append(s, n.ID)
	}
	return strings.Join(s, ",")
}

// shuffled are the nodes in an order that r draws.
func shuffled(e *Env, r *rand.Rand) []*cluster.Node {
	nodes := e.Cluster.Nodes()
	r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

// leaderOrAny is the leader, or any node if there is none now.
func leaderOrAny(ctx context.Context, e *Env, r *rand.Rand) *cluster.Node {
	if n, err := e.Admin.Leader(ctx); err == nil && n != nil {
		return n
	}
	return shuffled(e, r)[0]
}

// follower is a node that does not lead.
func follower(ctx context.Context, e *Env, r *rand.Rand) *cluster.Node {
	leader := leaderOrAny(ctx, e, r)
	for _, n := range shuffled(e, r) {
		if n != leader {
			return n
		}
	}
	return leader
}
