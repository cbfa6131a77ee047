// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/akidb/akidb/jepsen/cluster"
)

// maxSkew stays below the quarter of an hour for which request ids are
// remembered by the proposers' clocks: beyond it nothing is promised.
const maxSkew = 5 * time.Minute

func clockNemeses() []*Nemesis {
	needs := Needs{Clock: true}
	return []*Nemesis{
		{
			Name: "clock-skew", About: fmt.Sprintf("the wall clock of every node is wrong by up to %v, each by another amount", maxSkew),
			Needs: needs, Pause: 4 * time.Second, Hold: 8 * time.Second, Inject: skew,
		},
		{
			Name: "clock-jumps", About: fmt.Sprintf("the wall clock of a node, mostly the leader, jumps to and fro by up to %v, many times a second", maxSkew),
			Needs: needs, Pause: 4 * time.Second, Hold: 8 * time.Second, Inject: strobe,
		},
	}
}

// setClock moves a node's clock; the process looks at the file every few ms.
func setClock(e *Env, n *cluster.Node, offset time.Duration) error {
	if e.ClockFile == nil {
		return errors.New("nemesis: the binary's clock cannot be moved")
	}
	name := e.ClockFile(n)
	if err := os.WriteFile(name+".new", []byte(strconv.FormatInt(int64(offset), 10)), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func drawSkew(r *rand.Rand) time.Duration {
	limit := []time.Duration{time.Second, 30 * time.Second, maxSkew}[r.IntN(3)]
	return time.Duration(r.Int64N(int64(2*limit))) - limit
}

func skew(_ context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	did := "clocks:"
	for _, n := range e.Cluster.Nodes() {
		d := drawSkew(r)
		if err := setClock(e, n, d); err != nil {
			return "", nil, err
		}
		did += fmt.Sprintf(" %s %v", n.ID, d.Round(time.Millisecond))
	}
	return did, resetClocks(e), nil
}

func resetClocks(e *Env) func(context.Context) error {
	return func(context.Context) error {
		var errs []error
		for _, n := range e.Cluster.Nodes() {
			errs = append(errs, setClock(e, n, 0))
		}
		return errors.Join(errs...)
	}
}

func strobe(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	n := leaderOrAny(ctx, e, r)
	d := drawSkew(r)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for on := true; wait(ctx, 50*time.Millisecond); on = !on {
			offset := time.Duration(0)
			if on {
				offset = d
			}
			if err := setClock(e, n, offset); err != nil {
				return
			}
		}
	}()
	return fmt.Sprintf("%s jumps by %v", n.ID, d.Round(time.Millisecond)), func(context.Context) error {
		stop()
		<-ended
		return setClock(e, n, 0) // and not those that are wrong by another nemesis
	}, nil
}
