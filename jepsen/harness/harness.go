// SPDX-License-Identifier: Apache-2.0

// Package harness runs a workload against a cluster under nemeses, and judges
// the history.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	Workload string
	Nemesis  string // names with commas between
	Time     time.Duration
	Seed     uint64
	Nodes    int
	Workers  int
	// Rate is how many operations a second all workers together try.
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

// Outcome of a run.
type Outcome struct {
	Verdict check.Verdict   `json:"verdict"`
	Counts  history.Counts  `json:"counts"`
	Results []*check.Result `json:"results"`
	Events  []history.Event `json:"-"`
	Exits   []cluster.Exit  `json:"exits,omitempty"`
}

// runner is one run.
type runner struct {
	o       Options
	w       *workload.Workload
	nemeses []*nemesis.Nemesis
	needs   nemesis.Needs
	c       *cluster.Cluster
	admin   *admin
	rec     *history.Recorder
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
	r := &runner{o: o}
	if r.w, err = workload.Find(o.Workload); err != nil {
		return nil, err
	}
	if r.nemeses, err = nemesis.Find(o.Nemesis); err != nil {
		return nil, err
	}
	if r.needs, err = nemesis.Merge(r.nemeses); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(o.Out, "history.jsonl"))
	if err != nil {
		return nil, err
	}
	defer func() {
		for i := len(r.closers) - 1; i >= 0; i-- {
			r.closers[i]()
		}
		if r.c != nil {
			err = errors.Join(err, r.c.Close())
		}
		if r.rec != nil {
			err = errors.Join(err, r.rec.Close())
		}
		err = errors.Join(err, f.Close())
	}()
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	r.rec = history.NewRecorder(f)
	if err := r.drive(ctx); err != nil {
		return nil, err
	}
	return r.judge()
}

func (r *runner) logf(format string, args ...any) {
	if r.o.Log != nil {
		fmt.Fprintf(r.o.Log, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
	}
}

// start builds what is needed, starts the cluster and prepares the workload.
func (r *runner) start(ctx context.Context) error {
	root := os.Getuid() == 0
	if (r.needs.Root || r.needs.Namespaces) && !root {
		return fmt.Errorf("nemesis %s needs root", r.o.Nemesis)
	}
	if r.needs.Namespaces && r.o.Loopback {
		return fmt.Errorf("nemesis %s needs namespaces", r.o.Nemesis)
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

// prepare waits for a leader and sets the workload up.
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
	for {
		if err = r.w.Setup(ctx, conn); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("set %s up: %w", r.w.Name, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// connect opens a connection of the workload's kind.
func (r *runner) connect(nodes []*cluster.Node, pin bool) (workload.DB, error) {
	var grpc, rest []string
	for _, n := range nodes {
		grpc, rest = append(grpc, n.GRPCAddr), append(rest, n.RESTAddr)
	}
	if r.w.REST {
		c := restapi.New(rest, r.c.TLS(), r.o.APIKey)
		r.closers = append(r.closers, c.Close)
		return c, nil
	}
	c, err := client.Open(client.Config{Endpoints: grpc, TLS: r.c.TLS(), Timeout: r.o.OpTimeout, Pin: pin, APIKey: r.o.APIKey, ConnsPerEndpoint: 1})
	if err != nil {
		return nil, err
	}
	r.closers = append(r.closers, func() { _ = c.Close() })
	return c, nil
}

// driver connects the workers: every third fails over among all nodes, the
// others are pinned to a node each.
func (r *runner) driver() (*workload.Driver, error) {
	nodes := r.c.Nodes()
	var pinned []workload.Conn
	for _, n := range nodes {
		db, err := r.connect([]*cluster.Node{n}, true)
		if err != nil {
			return nil, err
		}
		pinned = append(pinned, workload.Conn{DB: db, Node: n.ID})
	}
	roaming, err := r.connect(nodes, false)
	if err != nil {
		return nil, err
	}
	return workload.NewDriver(r.w, workload.DriveConfig{
		Seed: r.o.Seed, Workers: r.o.Workers, OpTimeout: r.o.OpTimeout,
		Interval: time.Duration(r.o.Workers) * time.Second / time.Duration(r.o.Rate),
		Home: func(worker int) workload.Conn {
			if worker%2 == 1 {
				return workload.Conn{DB: roaming}
			}
			return pinned[worker/2%len(pinned)]
		},
		Pinned: pinned,
	}, r.rec), nil
}

// note records what a part of the harness saw.
func (r *runner) note(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	r.logf("%s", msg)
	r.rec.Add(history.Event{Type: history.Info, Process: history.NemesisProcess, F: "note", Value: history.Value{Note: msg}})
}

// drive runs workload and nemeses, heals, and does the last reads.
func (r *runner) drive(ctx context.Context) error {
	d, err := r.driver()
	if err != nil {
		return err
	}
	env := &nemesis.Env{Cluster: r.c, Admin: r.admin, Note: r.note}
	if r.needs.Clock {
		env.ClockFile = (*cluster.Node).ClockFile
	}
	r.logf("%s under %s for %v, seed %d", r.w.Name, r.o.Nemesis, r.o.Time, r.o.Seed)
	run, stop := context.WithTimeout(ctx, r.o.Time)
	defer stop()
	var wg sync.WaitGroup
	for _, n := range r.nemeses {
		wg.Go(func() { nemesis.Run(run, n, env, r.o.Seed, r.rec) })
	}
	supervised, stopSupervisor := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.supervise(supervised) })
	wg.Go(func() { d.Run(run) })
	wg.Wait()
	r.heal(ctx)
	if ctx.Err() == nil {
		fctx, cancel := context.WithTimeout(ctx, finalLimit)
		d.Final(fctx)
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
	r.rec.Add(history.Event{Type: history.Info, Process: history.NemesisProcess, F: "heal", Value: history.Value{Note: "heal: all"}})
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

// judge checks the history and what else was seen.
func (r *runner) judge() (*Outcome, error) {
	events := r.rec.Events()
	out, err := Judge(r.w, events, r.o)
	if err != nil {
		return nil, err
	}
	var exits []cluster.Exit
	for _, n := range r.c.Nodes() {
		exits = append(exits, n.Exits()...)
	}
	res := &check.Result{Checker: "processes", Verdict: check.Valid, Stats: map[string]int{"unexpected ends": len(exits)}}
	for _, e := range exits {
		if !r.needs.Crashes {
			res.Verdict = check.Invalid
			res.Total++
			res.Anomalies = append(res.Anomalies, check.Anomaly{Kind: "process ended by itself", Detail: fmt.Sprintf("%s: %s", e.Node, e.How)})
		}
	}
	out.Exits = exits
	out.Results = append(append(out.Results, r.extra...), res)
	out.Verdict = check.Merge(out.Results)
	return out, nil
}

// Judge checks a history, of a run or from a file.
func Judge(w *workload.Workload, events []history.Event, o Options) (*Outcome, error) {
	ops, err := history.Ops(events)
	if err != nil {
		return nil, err
	}
	out := &Outcome{Counts: history.Count(ops), Events: events}
	copts := workload.CheckOptions{Timeout: o.CheckTimeout}
	if o.Out != "" {
		html, err := os.Create(filepath.Join(o.Out, "timeline.html"))
		if err != nil {
			return nil, err
		}
		defer html.Close()
		copts.HTML = html
	}
	out.Results = w.Check(ops, copts)
	out.Verdict = check.Merge(out.Results)
	return out, nil
}

// Line is the last line of a run.
func (o *Outcome) Line(seed uint64) string {
	return fmt.Sprintf("verdict: %s ops=%d ok=%d failed=%d unknown=%d seed=%d",
		o.Verdict, o.Counts.Ops, o.Counts.OK, o.Counts.Failed, o.Counts.Unknown, seed)
}

// Status is the exit status that belongs to the verdict.
func (o *Outcome) Status() int {
	switch o.Verdict {
	case check.Valid:
		return 0
	case check.Invalid:
		return 1
	}
	return 2
}

// Replay is the command that runs the same schedule again.
func (o Options) Replay() string {
	s := fmt.Sprintf("go run ./jepsen run -workload %s -nemesis %s -time %v -seed %d -nodes %d -workers %d -rate %d",
		o.Workload, o.Nemesis, o.Time, o.Seed, o.Nodes, o.Workers, o.Rate)
	if o.LogStore != "" {
		s += " -log-store " + o.LogStore
	}
	if o.Tags != "" {
		s += " -tags " + o.Tags
	}
	if len(o.Env) > 0 {
		s += " -env " + strings.Join(o.Env, ",")
	}
	if o.From != "" {
		s += " -from " + o.From
	}
	if o.Loopback {
		s += " -loopback"
	}
	return s
}
