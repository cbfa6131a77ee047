// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// failoverResult is what `akidb bench failover` prints.
type failoverResult struct {
	Runs         int       `json:"runs"`
	GapMS        []float64 `json:"gap_ms"`
	P50ms        float64   `json:"p50_ms"`
	P99ms        float64   `json:"p99_ms"`
	MaxMS        float64   `json:"max_ms"`
	ClientErrors int       `json:"client_errors"`
	Acknowledged int       `json:"acknowledged"`
	Lost         int       `json:"lost"`
	Duplicated   int       `json:"duplicated"`
	// Load is the machine's load average of one minute before and after.
	Load []float64 `json:"load_average,omitempty"`
}

type failoverOptions struct {
	benchCluster
	runs, writers     int
	graceful, rolling bool
}

// settledAcks is how many writes must be acknowledged before each failover.
const settledAcks = 200

func newBenchFailover() *cobra.Command {
	var o failoverOptions
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Kill the leader under load, again and again, and read everything back",
		Long: `failover kills the leader of a local cluster with SIGKILL while clients write, takes
the longest time without an acknowledged write, restarts the node, waits until it
has caught up, and begins again. At the end every acknowledged write is read back
from every replica. It fails if one is lost or doubled, or if a client saw an error.
With --rolling every node in turn is restarted gracefully, as an upgrade does.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.conn.given() {
				return errors.New("failover kills nodes: it measures a cluster of its own, not --endpoints")
			}
			return o.with(cmd.Context(), func(t *benchTarget) error {
				res, err := o.run(cmd.Context(), t, cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				if o.asJSON {
					err = writeJSON(cmd.OutOrStdout(), res)
				} else {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d runs: gap p50 %.0f ms, p99 %.0f ms, max %.0f ms; %d client errors; acknowledged %s, lost %d, doubled %d\n",
						res.Runs, res.P50ms, res.P99ms, res.MaxMS, res.ClientErrors, thousands(res.Acknowledged), res.Lost, res.Duplicated)
				}
				if err == nil && res.Lost+res.Duplicated+res.ClientErrors > 0 {
					err = errSilent
				}
				return err
			})
		},
	}
	o.addFlags(cmd)
	cmd.Flags().IntVar(&o.runs, "runs", 20, "how often")
	cmd.Flags().IntVar(&o.writers, "clients", 16, "clients that write meanwhile")
	cmd.Flags().BoolVar(&o.graceful, "graceful", false, "stop the leader with SIGTERM instead")
	cmd.Flags().BoolVar(&o.rolling, "rolling", false, "restart every node in turn with SIGTERM, leader or not")
	return cmd
}

func (o *failoverOptions) run(ctx context.Context, t *benchTarget, say io.Writer) (*failoverResult, error) {
	l, err := newLedger(ctx, t.cl, "failover")
	if err != nil {
		return nil, err
	}
	res := &failoverResult{Runs: o.runs, Load: loadAverage(nil)}
	w := l.start(ctx, t.cl, "w", o.writers)
	defer w.stop()
	for i := range o.runs {
		gap, err := o.once(ctx, t, l, i)
		if err != nil {
			return nil, fmt.Errorf("run %d: %w", i+1, err)
		}
		res.GapMS = append(res.GapMS, float64(gap.Microseconds())/1000)
		fmt.Fprintf(say, "run %d of %d: no write acknowledged for %.0f ms\n", i+1, o.runs, res.GapMS[i])
	}
	w.stop()
	res.ClientErrors, res.Acknowledged = len(l.errs), l.ackedCount()
	for _, err := range l.errs[:min(3, len(l.errs))] {
		fmt.Fprintln(say, "client error:", err)
	}
	if _, err := converge(ctx, t.cl, t.endpoints, convergeLimit, t.local.Alive); err != nil {
		return nil, err
	}
	for _, n := range t.local.Nodes {
		cl, err := t.local.Client(n)
		if err != nil {
			return nil, err
		}
		a, err := l.audit(ctx, cl)
		_ = cl.Close()
		if err != nil {
			return nil, err
		}
		res.Lost += a.Lost
		res.Duplicated += a.Duplicated
		for _, e := range a.Examples {
			fmt.Fprintf(say, "%s: %s\n", n.ID, e)
		}
	}
	sorted := slices.Sorted(slices.Values(res.GapMS))
	if n := len(sorted); n > 0 {
		res.P50ms, res.P99ms, res.MaxMS = sorted[(n-1)/2], sorted[(99*n+99)/100-1], sorted[n-1]
	}
	res.Load = loadAverage(res.Load)
	return res, nil
}

// loadAverage appends the load of the last minute, where the system tells it: a
// figure of a busy machine says little.
func loadAverage(to []float64) []float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return to
	}
	var one float64
	if _, err := fmt.Sscan(string(text), &one); err != nil {
		return to
	}
	return append(to, one)
}

// once ends a node, the leader unless it is a rolling restart, and brings it back.
func (o *failoverOptions) once(ctx context.Context, t *benchTarget, l *ledger, run int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, failoverLimit)
	defer cancel()
	if err := l.waitAcked(ctx, l.ackedCount()+settledAcks); err != nil {
		return 0, err
	}
	victim, err := t.local.Leader(ctx, t.cl)
	if err != nil {
		return 0, err
	}
	if o.rolling {
		victim = t.local.Nodes[run%len(t.local.Nodes)]
	}
	from := time.Now()
	if o.graceful || o.rolling {
		if err := victim.Stop(ctx); err != nil {
			return 0, err
		}
	} else {
		victim.Kill()
	}
	if _, err := l.ackAfter(ctx, time.Now()); err != nil {
		return 0, err
	}
	if err := l.waitAcked(ctx, l.ackedCount()+settledAcks); err != nil {
		return 0, err
	}
	gap := l.longestGap(from)
	if err := victim.Start(); err != nil {
		return 0, err
	}
	if err := victim.WaitReady(ctx); err != nil || !o.rolling {
		return gap, err
	}
	// Its return is part of a restart.
	err = l.waitAcked(ctx, l.ackedCount()+settledAcks)
	return l.longestGap(from), err
}
