// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package harness runs workloads against a cluster under nemeses, and judges
// their histories.
package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/cluster"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/nemesis"
	"github.com/akidb/akidb/jepsen/restapi"
	"github.com/akidb/akidb/jepsen/workload"
)

// Options of a run.
type Options struct {
	Workload string // names with commas between; "all"
	Nemesis  string // names with commas between
	Time     time.Duration
	Seed     uint64
	Nodes    int
	// Workers is how many clients each workload has; 0: 8, or 4 if several
	// workloads share the cluster.
	Workers int
	// Rate is how many operations a second all workers of all workloads together
	// try; 0: 150, or 20 for each of several workloads.
	Rate      int
	OpTimeout time.Duration
	// Out is the report folder.
	Out string
	// Bin holds built binaries, to be used again; empty: Out/bin.
	Bin      string
	Binary   string // ready-made; empty: built
	Upgraded string
	From     string // revision of the binary to upgrade from
	Tags     string
	Env      []string
	Args     []string
	APIKey   string
	LogStore string
	// Loopback keeps out of namespaces even as root.
	Loopback bool
	// CheckTimeout bounds the search for an order.
	CheckTimeout time.Duration
	Log          io.Writer
}

// Complete fills in what was left to the number of workloads.
func (o *Options) Complete() error {
	list, err := workload.FindAll(o.Workload)
	if err != nil {
		return err
	}
	workers, rate := 8, 150
	if len(list) > 1 {
		workers, rate = 4, 20*len(list)
	}
	o.Workers, o.Rate = cmp.Or(o.Workers, workers), cmp.Or(o.Rate, rate)
	return nil
}

// lane is one workload of a run with its own history.
type lane struct {
	w      *workload.Workload
	dir    string // where its history and timeline go
	file   *os.File
	rec    *history.Recorder
	driver *workload.Driver
}

// runner is one run.
type runner struct {
	o       Options
	lanes   []*lane
	nemeses []*nemesis.Nemesis
	needs   nemesis.Needs
	c       *cluster.Cluster
	admin   *admin
	closers []func()
	extra   []*check.Result
}

// Limits of the phases of a run.
const (
	setupLimit   = 90 * time.Second
	recoverLimit = 90 * time.Second
	finalLimit   = 90 * time.Second
	verifyLimit  = 60 * time.Second
)

// Run runs once. The error is about the harness; what the database did wrong is
// in the outcome. Whatever happens, nothing stays behind but the report folder.
func Run(ctx context.Context, o Options) (out *Outcome, err error) {
	if err := o.Complete(); err != nil {
		return nil, err
	}
	r := &runner{o: o}
	if r.nemeses, err = nemesis.Find(o.Nemesis); err != nil {
		return nil, err
	}
	if r.needs, err = nemesis.Merge(r.nemeses); err != nil {
		return nil, err
	}
	defer func() {
		for i := len(r.closers) - 1; i >= 0; i-- {
			r.closers[i]()
		}
		if r.c != nil {
			err = errors.Join(err, r.c.Close())
		}
		for _, l := range r.lanes {
			err = errors.Join(err, l.close())
		}
	}()
	if err := r.openLanes(); err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	for _, l := range r.lanes {
		l.rec = history.NewRecorderSince(began, l.file)
	}
	if err := r.drive(ctx); err != nil {
		return nil, err
	}
	return r.judge()
}

// openLanes makes the history files: in the report folder itself if there is one
// workload, else in a folder for each.
func (r *runner) openLanes() error {
	list, err := workload.FindAll(r.o.Workload)
	if err != nil {
		return err
	}
	for _, w := range list {
		l := &lane{w: w, dir: r.o.Out}
		if len(list) > 1 {
			l.dir = filepath.Join(r.o.Out, w.Name)
		}
		if err := os.MkdirAll(l.dir, 0o755); err != nil {
			return err
		}
		if l.file, err = os.Create(filepath.Join(l.dir, "history.jsonl")); err != nil {
			return err
		}
		r.lanes = append(r.lanes, l)
	}
	return nil
}

func (l *lane) close() error {
	var errs []error
	if l.rec != nil {
		errs = append(errs, l.rec.Close())
	}
	return errors.Join(append(errs, l.file.Close())...)
}

// record adds an event that is not of one workload to every history.
func (r *runner) record(e history.Event) {
	for _, l := range r.lanes {
		l.rec.Add(e)
	}
}

func (r *runner) logf(format string, args ...any) {
	if r.o.Log != nil {
		fmt.Fprintf(r.o.Log, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	}
}

// missingPrograms are those that namespaces are made and cut with and that are not
// on this machine.
func missingPrograms() (missing []string) {
	for _, name := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// start builds what is needed, starts the cluster and prepares the workloads.
func (r *runner) start(ctx context.Context) error {
	root := os.Getuid() == 0
	if (r.needs.Root || r.needs.Namespaces) && !root {
		return fmt.Errorf("nemesis %s needs root", r.o.Nemesis)
	}
	if r.needs.Namespaces && r.o.Loopback {
		return fmt.Errorf("nemesis %s needs namespaces", r.o.Nemesis)
	}
	if missing := missingPrograms(); root && !r.o.Loopback && len(missing) > 0 {
		if r.needs.Namespaces {
			return fmt.Errorf("nemesis %s needs namespaces, and those need %s (Debian: apt-get install iproute2 nftables util-linux)", r.o.Nemesis, strings.Join(missing, " and "))
		}
		r.logf("no namespaces without %s (Debian: apt-get install iproute2 nftables util-linux): the nodes are on loopback", strings.Join(missing, " and "))
		r.o.Loopback = true
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	for _, swept := range SweepDead() {
		r.logf("took away %s, left by a run that was killed", swept)
	}
	args := append([]string{"--insecure-dev"}, r.needs.Args...)
	if r.needs.Disk == "" {
		args = append(args, "--min-free-disk", "64MiB")
	}
	if r.o.LogStore != "" {
		args = append(args, "--log-store", r.o.LogStore)
	}
	pid := os.Getpid()
	var err error
	r.c, err = cluster.New(cluster.Config{
		Binary: r.o.Binary, Upgraded: r.o.Upgraded, Nodes: r.o.Nodes, Dir: r.o.Out,
		Namespaces: root && !r.o.Loopback, Delays: r.needs.Delays, Disk: r.needs.Disk,
		Args: append(args, r.o.Args...), Env: r.o.Env,
		Tag: strconv.FormatInt(int64(pid), 36), Subnet: freeSubnet(pid),
	})
	if err != nil {
		return err
	}
	if err := r.c.Start(); err != nil {
		return err
	}
	r.admin = newAdmin(r.c, r.o.APIKey)
	r.closers = append(r.closers, func() { _ = r.admin.close() })
	return r.prepare(ctx)
}

// prepare waits for a leader and sets the workloads up.
func (r *runner) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	r.logf("%d nodes started, waiting for a leader", r.o.Nodes)
	for _, n := range r.c.Nodes() {
		if err := r.admin.CaughtUp(ctx, n); err != nil {
			return fmt.Errorf("the cluster did not come up: %w (see %s)", err, n.LogFile())
		}
	}
	conn, err := r.connect(r.c.Nodes(), false)
	if err != nil {
		return err
	}
	for _, l := range r.lanes {
		for {
			if err = l.w.Setup(ctx, conn); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("set %s up: %w", l.w.Name, err)
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return nil
}

// connect opens a connection by the Go client.
func (r *runner) connect(nodes []*cluster.Node, pin bool) (workload.DB, error) {
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.GRPCAddr)
	}
	c, err := client.Open(client.Config{Endpoints: addrs, TLS: r.c.TLS(), Timeout: r.o.OpTimeout, Pin: pin, APIKey: r.o.APIKey, ConnsPerEndpoint: 1})
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() { _ = c.Close() })
	return c, nil
}

// connectREST opens a connection by the client of the REST contract.
func (r *runner) connectREST(nodes []*cluster.Node, _ bool) (workload.DB, error) {
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.RESTAddr)
	}
	c := restapi.New(addrs, r.c.TLS(), r.o.APIKey)
	r.closers = append(r.closers, c.Close)
	return c, nil
}

// conns are the connections that the workers of one kind share: one to each
// node, and one that fails over among all.
type conns struct {
	pinned  []workload.Conn
	roaming workload.Conn
}

func (r *runner) connectAll(open func([]*cluster.Node, bool) (workload.DB, error)) (*conns, error) {
	var c conns
	nodes := r.c.Nodes()
	for _, n := range nodes {
		db, err := open([]*cluster.Node{n}, true)
		if err != nil {
			return nil, err
		}
		c.pinned = append(c.pinned, workload.Conn{DB: db, Node: n.ID})
	}
	db, err := open(nodes, false)
	c.roaming = workload.Conn{DB: db}
	return &c, err
}

// drivers makes the driver of each lane. Every other worker fails over among all
// nodes, the others are pinned to a node each.
func (r *runner) drivers() error {
	var grpc, rest *conns
	var err error
	for i, l := range r.lanes {
		c := &grpc
		open := r.connect
		if l.w.REST {
			c, open = &rest, r.connectREST
		}
		if *c == nil {
			if *c, err = r.connectAll(open); err != nil {
				return err
			}
		}
		use := *c
		l.driver = workload.NewDriver(l.w, workload.DriveConfig{
			Seed: r.o.Seed, Workers: r.o.Workers, OpTimeout: r.o.OpTimeout,
			Interval: time.Duration(r.o.Workers*len(r.lanes)) * time.Second / time.Duration(r.o.Rate),
			Home: func(worker int) workload.Conn {
				if worker%2 == 1 {
					return use.roaming
				}
				// The lanes begin at different nodes: else few workers would all sit
				// on the first ones.
				return use.pinned[(worker/2+i)%len(use.pinned)]
			},
			Pinned: use.pinned,
		}, l.rec)
	}
	return nil
}

// note records what a part of the harness saw.
func (r *runner) note(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	r.logf("%s", msg)
	r.record(history.Event{Type: history.Info, Process: history.NemesisProcess, F: "note", Value: history.Value{Note: msg}})
}

// drive runs workloads and nemeses, heals, and does the last reads.
func (r *runner) drive(ctx context.Context) error {
	if err := r.drivers(); err != nil {
		return err
	}
	env := &nemesis.Env{Cluster: r.c, Admin: r.admin, Note: r.note}
	if r.needs.Clock {
		env.ClockFile = (*cluster.Node).ClockFile
	}
	r.logf("%s under %s for %v, seed %d", r.o.Workload, r.o.Nemesis, r.o.Time, r.o.Seed)
	run, stop := context.WithTimeout(ctx, r.o.Time)
	defer stop()
	var wg sync.WaitGroup
	for _, n := range r.nemeses {
		wg.Go(func() { nemesis.Run(run, n, env, r.o.Seed, r.record) })
	}
	supervised, stopSupervisor := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.supervise(supervised) })
	for _, l := range r.lanes {
		wg.Go(func() { l.driver.Run(run) })
	}
	wg.Wait()
	r.heal(ctx)
	if ctx.Err() == nil {
		fctx, cancel := context.WithTimeout(ctx, finalLimit)
		for _, l := range r.lanes {
			wg.Go(func() { l.driver.Final(fctx) })
		}
		wg.Wait()
		cancel()
		r.verify(ctx)
	}
	stopSupervisor()
	watch.Wait()
	return ctx.Err()
}

// supervise starts processes again that ended by themselves.
func (r *runner) supervise(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		for _, n := range r.c.Nodes() {
			if again, err := n.Supervise(); again {
				r.note("%s had ended by itself and is started again (%v)", n.ID, err)
			}
		}
	}
}

// heal puts everything right that a nemesis might have left, and waits until all
// nodes serve again. A cluster that does not come back is an anomaly.
func (r *runner) heal(ctx context.Context) {
	r.record(history.Event{Type: history.Info, Process: history.NemesisProcess, F: "heal", Value: history.Value{Note: "heal: all"}})
	errs := []error{r.c.HealNetwork()}
	for _, n := range r.c.Nodes() {
		n.Resume()
		errs = append(errs, n.FreeDisk(), n.LimitMemory(0), n.Start())
	}
	if err := errors.Join(errs...); err != nil {
		r.note("heal: %v", err)
	}
	began := time.Now()
	hctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	res := &check.Result{Checker: "recovers", Verdict: check.Valid, Stats: map[string]int{}}
	for _, n := range r.c.Nodes() {
		if err := r.admin.CaughtUp(hctx, n); err != nil && ctx.Err() == nil {
			res.Verdict = check.Invalid
			res.Total++
			res.Anomalies = append(res.Anomalies, check.Anomaly{Kind: "does not recover",
				Detail: fmt.Sprintf("within %v of the last heal: %v", recoverLimit, err)})
		}
	}
	res.Stats["ms"] = int(time.Since(began).Milliseconds())
	r.note("all nodes caught up %v after the last heal", time.Since(began).Round(time.Millisecond))
	r.extra = append(r.extra, res)
}

// verify compares the replicas' hashes once nobody writes any more.
func (r *runner) verify(ctx context.Context) {
	vctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	res := &check.Result{Checker: "replicas", Verdict: check.Valid}
	if differ, err := r.admin.verify(vctx); err != nil {
		res.Verdict, res.Total = check.Invalid, 1
		res.Anomalies = []check.Anomaly{{Kind: "replicas differ", Detail: fmt.Sprintf("%v: %s", err, differ)}}
		if differ == "" {
			res.Verdict, res.Note = check.Unknown, err.Error()
			res.Anomalies = nil
		}
	}
	r.extra = append(r.extra, res)
}
