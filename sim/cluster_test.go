// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/akidb/akidb/node"
)

// tick is the heartbeat at the pace of production, and what the times of the
// network are multiples of.
const tick = 500 * time.Millisecond

// heartbeat is the unit that every other time of a simulation is a multiple of;
// -sim.heartbeat makes it longer, and every interval of the nodes with it.
var heartbeat = tick

func TestMain(m *testing.M) {
	flag.Parse()
	if heartbeat = *flagHeartbeat; heartbeat < tick || heartbeat%tick != 0 {
		fmt.Fprintf(os.Stderr, "sim: -sim.heartbeat %v is no multiple of %v\n", heartbeat, tick)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// Host is a machine: a name, a disk that outlives its processes, and at most one
// process at a time.
type Host struct {
	name string
	disk *Disk
	// tempo is how fast this host's timers run, in percent: clocks of one
	// bubble cannot drift, but time-outs can differ.
	tempo int

	mu      sync.Mutex // guards the fields below
	p       *Process
	closing chan struct{} // closed when the process before is gone
}

// Process is one run of a node.
type Process struct {
	host *Host
	n    *node.Node
	// dead is set at the instant of a crash, before the disk is frozen and
	// after nothing of what this process says counts any more.
	dead atomic.Bool
	// applied is the newest index that a view of this process was at.
	applied atomic.Uint64
}

// errDied says that the process died during the call.
var errDied = errors.New("sim: the process died")

// call runs f against the node. What it returns counts only if the process was
// alive afterwards: a process that is dead on paper may still finish a write
// that its frozen disk does not have.
func (p *Process) call(f func(n *node.Node) error) error {
	err := f(p.n)
	if p.dead.Load() {
		return errDied
	}
	return err
}

// Cluster is hosts on a network.
type Cluster struct {
	t     *testing.T
	rng   *rand.Rand // the schedule's; used by one goroutine
	net   *Network
	hosts []*Host
	log   *slog.Logger
	trace *trace

	trailing   uint64
	threshold  uint64
	stateCheck time.Duration
	start      time.Time
	zombies    sync.WaitGroup
	restarts   int
	terms      uint64
}

// newCluster makes n hosts with an empty disk each.
func newCluster(t *testing.T, seed uint64, n int, tr *trace) *Cluster {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := &Cluster{
		t: t, rng: rng, trace: tr, start: time.Now(),
		net:       NewNetwork(rand.New(rand.NewPCG(seed, 2)), Latency{tick / 250, tick / 100}),
		trailing:  []uint64{4, 20, 100, 2000}[rng.IntN(4)],
		threshold: []uint64{8, 30, 200}[rng.IntN(3)], stateCheck: 6 * heartbeat,
	}
	c.log = slog.New(slog.NewTextHandler(tr, &slog.HandlerOptions{Level: logLevel()}))
	for i := range n {
		closed := make(chan struct{})
		close(closed)
		c.hosts = append(c.hosts, &Host{
			name: fmt.Sprintf("n%d", i+1), disk: NewDisk(rand.New(rand.NewPCG(seed, uint64(10+i)))),
			tempo: 80 + rng.IntN(41), closing: closed,
		})
	}
	return c
}

func (h *Host) addr() string { return h.name + ":9444" }

func (h *Host) process() *Process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.p
}

func (c *Cluster) names() []string {
	var names []string
	for _, h := range c.hosts {
		names = append(names, h.name)
	}
	return names
}

func (c *Cluster) config(h *Host) node.Config {
	var peers []string
	for _, o := range c.hosts {
		if o != h {
			peers = append(peers, o.addr())
		}
	}
	return node.Config{
		NodeID: h.name, DataDir: "/data", RaftAddr: h.addr(), Peers: peers,
		BootstrapExpect:    len(c.hosts),
		HeartbeatTimeout:   heartbeat * time.Duration(h.tempo) / 100,
		SnapshotInterval:   10 * heartbeat,
		SnapshotThreshold:  c.threshold,
		TrailingLogs:       c.trailing,
		IndexWorkers:       1,
		StateCheckInterval: c.stateCheck,
		RemoveDeadAfter:    -1,
		Pace:               int(heartbeat / tick),
		Logger:             c.log,
		Net:                c.net.Host(h.name),
		FS:                 h.disk.Mount(),
	}
}

// startHost starts a process on a host that has none. A disk with a fault may
// refuse; then it is tried again, as a supervisor would, until give up.
func (c *Cluster) startHost(h *Host) error {
	h.mu.Lock()
	closing := h.closing
	h.mu.Unlock()
	select {
	case <-closing:
	case <-time.After(200 * heartbeat):
		c.trace.event("%s", stacks())
		return fmt.Errorf("sim: the process on %s does not end", h.name)
	}
	c.net.Up(h.name)
	n, err := node.Open(context.Background(), c.config(h))
	if err != nil {
		return fmt.Errorf("sim: start %s: %w", h.name, err)
	}
	h.mu.Lock()
	h.p = &Process{host: h, n: n}
	h.mu.Unlock()
	c.restarts++
	return nil
}

// kill ends the process at once. With power lost, the disk keeps only what was
// synced and unsyncedPercent of the rest, and peers hear nothing; otherwise the
// disk keeps everything and connections are reset.
func (c *Cluster) kill(h *Host, power bool, unsyncedPercent int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.p
	if p == nil {
		return
	}
	h.p = nil
	p.dead.Store(true)
	c.net.Down(h.name, power)
	if !power {
		unsyncedPercent = 100
	}
	h.disk.Crash(unsyncedPercent)
	c.bury(h, p, func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no time for a farewell
		_ = p.n.Close(ctx)
		// That gives up at once what a killed process would not go on with, and this one
		// would, on the disk of the next.
		_ = p.n.Close(context.Background())
	})
}

// stop ends the process in an orderly way.
func (c *Cluster) stop(h *Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.p
	if p == nil {
		return
	}
	h.p = nil
	c.bury(h, p, func() {
		if err := p.n.Close(context.Background()); err != nil {
			c.trace.event("close %s: %v", h.name, err)
		}
		p.dead.Store(true)
	})
}

func (c *Cluster) bury(h *Host, _ *Process, end func()) {
	gone := make(chan struct{})
	h.closing = gone
	c.zombies.Go(func() {
		defer close(gone)
		end()
	})
}

// live lists the hosts with a process.
func (c *Cluster) live() []*Host {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h *Host) bool { return h.process() == nil })
}

// leader is the host that says it leads and has the highest term.
func (c *Cluster) leader() *Host {
	var best *Host
	var term uint64
	for _, h := range c.hosts {
		if p := h.process(); p != nil {
			if s := p.n.Status(); s.State == "leader" && s.Term >= term {
				best, term = h, s.Term
			}
		}
	}
	return best
}

// healAll undoes every fault and starts what is down.
func (c *Cluster) healAll() error {
	c.net.Heal()
	for _, h := range c.hosts {
		h.disk.Mend()
	}
	for _, h := range c.hosts {
		if h.process() == nil {
			if err := c.startHost(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// readmit asks until every host is a voter again.
func (c *Cluster) readmit() error {
	deadline := time.Now().Add(400 * heartbeat)
	for {
		missing := ""
		ctx, cancel := context.WithTimeout(context.Background(), 10*heartbeat)
		via := c.leader()
		if via == nil {
			missing = "a leader"
		} else {
			voters := map[string]bool{}
			for _, m := range via.process().n.Members() {
				voters[m.NodeID] = m.Voter
			}
			for _, h := range c.hosts {
				if !voters[h.name] {
					missing = h.name
					if err := via.process().n.AddMember(ctx, h.name, h.addr(), true); err != nil {
						c.trace.event("readmit %s: %v", h.name, err)
					}
				}
			}
		}
		cancel()
		if missing == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sim: %s is missing 400 heartbeats after the heal", missing)
		}
		elapse(heartbeat)
	}
}

// converge waits until every host is at one applied index with one state hash.
func (c *Cluster) converge() error {
	deadline := time.Now().Add(400 * heartbeat)
	for {
		states := map[string]bool{}
		for _, h := range c.hosts {
			p := h.process()
			view, err := p.n.Read(context.Background(), node.ReadOptions{Consistency: node.Eventual})
			if err != nil {
				return fmt.Errorf("sim: %s refuses reads after the heal: %w", h.name, err)
			}
			states[fmt.Sprint(view.Applied(), view.StateHash())] = true
			view.Close()
		}
		if len(states) == 1 && c.leader() != nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sim: no convergence within 400 heartbeats of the heal: %v%s", slices.Collect(maps.Keys(states)), c.report())
		}
		elapse(heartbeat / 7)
	}
}

// report is how every node is.
func (c *Cluster) report() string {
	var b strings.Builder
	for _, h := range c.hosts {
		if p := h.process(); p != nil {
			s := p.n.Status()
			fmt.Fprintf(&b, "\n\t%s: %s of %s, term %d, log %d to %d, snapshot %d, commit %d, applied %d, ready %v %s", h.name, s.State, s.LeaderID,
				s.Term, s.FirstLogIndex, s.LastLogIndex, s.SnapshotIndex, s.CommitIndex, s.AppliedIndex, s.Ready, s.NotReadyReason)
		}
	}
	return b.String()
}

// shutdown ends every process and waits for them.
func (c *Cluster) shutdown() {
	for _, h := range c.hosts {
		c.stop(h)
	}
	for _, h := range c.hosts {
		select {
		case <-h.closing:
		case <-time.After(400 * heartbeat):
			// The bubble cannot end either.
			panic(fmt.Sprintf("sim: the process on %s does not end\n%s\n%s", h.name, c.trace.tail(300), stacks()))
		}
	}
	c.zombies.Wait()
}

// stacks are those of this bubble.
func stacks() string {
	buf := make([]byte, 16<<20)
	head := string(buf[:runtime.Stack(buf, false)])
	_, bubble, _ := strings.Cut(head, "synctest bubble")
	bubble, _, _ = strings.Cut(bubble, "]")
	var b strings.Builder
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if head, _, _ := strings.Cut(g, "\n"); strings.Contains(head, "synctest bubble"+bubble+"]") {
			b.WriteString(g + "\n\n")
		}
	}
	return b.String()
}
