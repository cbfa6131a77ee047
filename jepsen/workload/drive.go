// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/akidb/akidb/jepsen/history"
)

// DriveConfig says how hard a workload drives a database.
type DriveConfig struct {
	Seed    uint64
	Workers int
	// Interval is the mean pause of a worker between two operations.
	Interval time.Duration
	// OpTimeout bounds an operation with all its steps.
	OpTimeout time.Duration
	// Home makes the connection of a worker; Pinned are those to each node.
	Home   func(worker int) Conn
	Pinned []Conn
}

// Driver runs the workers of a workload and records what they do.
type Driver struct {
	cfg     DriveConfig
	rec     *history.Recorder
	workers []*driven
}

// driven is one worker. Its process changes whenever an outcome is unknown: the
// operation stays open for ever, and a process does one thing at a time.
type driven struct {
	*Worker
	client  Client
	process int
}

// backoff keeps a worker whose operations fail from filling the history.
const backoff = 150 * time.Millisecond

// NewDriver makes the workers of w.
func NewDriver(w *Workload, cfg DriveConfig, rec *history.Recorder) *Driver {
	d := &Driver{cfg: cfg, rec: rec}
	draws := new(atomic.Int64)
	for i := range cfg.Workers {
		worker := &Worker{
			ID: i, Workers: cfg.Workers, Rand: rand.New(rand.NewPCG(cfg.Seed, uint64(i)+1)),
			Home: cfg.Home(i), Pinned: cfg.Pinned, Draws: draws,
		}
		d.workers = append(d.workers, &driven{Worker: worker, client: w.New(worker), process: i})
	}
	return d
}

// Run drives until the context ends, and returns when every worker stopped.
func (d *Driver) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range d.workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				typ := d.do(ctx, w, w.client.Next(), "")
				pause := time.Duration(w.Rand.ExpFloat64() * float64(d.cfg.Interval))
				if typ != history.OK {
					pause += backoff
				}
				select {
				case <-ctx.Done():
				case <-time.After(min(pause, 10*d.cfg.Interval+backoff)):
				}
			}
		})
	}
	wg.Wait()
}

// finalAttempts is how often a last read is tried again.
const finalAttempts = 10

// Final does the last operations of every worker, one worker after another.
func (d *Driver) Final(ctx context.Context) {
	for _, w := range d.workers {
		for _, op := range w.client.Final() {
			for range finalAttempts {
				if d.do(ctx, w, op, "final") == history.OK || ctx.Err() != nil {
					break
				}
				select {
				case <-ctx.Done():
				case <-time.After(2 * backoff):
				}
			}
		}
	}
}

// do does one operation and records it. The end of the run does not cut it off:
// what was begun gets its own deadline, so that its outcome is known if it can be.
func (d *Driver) do(ctx context.Context, w *driven, op *Op, phase string) history.Type {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.OpTimeout)
	defer cancel()
	e := history.Event{
		Type: history.Invoke, Process: w.process, Worker: w.ID, Node: op.Conn.Node, Phase: phase,
		F: op.F, Key: op.Key, Value: op.In,
	}
	d.rec.Add(e)
	out, err := op.Do(ctx, op.Conn)
	e.Type, e.Value, e.Served = Classify(op.Read, err), out, Served(err)
	if err != nil {
		e.Error = err.Error()
		if e.Type != history.OK {
			e.Value = history.Value{}
		}
	}
	d.rec.Add(e)
	if e.Type == history.Info {
		w.process += d.cfg.Workers
	}
	return e.Type
}
