// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/akidb/akidb/jepsen/cluster"
)

// chooser picks the nodes that a fault is about.
type chooser func(context.Context, *Env, *rand.Rand) []*cluster.Node

func one(_ context.Context, e *Env, r *rand.Rand) []*cluster.Node { return shuffled(e, r)[:1] }

func all(_ context.Context, e *Env, r *rand.Rand) []*cluster.Node { return shuffled(e, r) }

func theLeader(ctx context.Context, e *Env, r *rand.Rand) []*cluster.Node {
	return []*cluster.Node{leaderOrAny(ctx, e, r)}
}

func aFollower(ctx context.Context, e *Env, r *rand.Rand) []*cluster.Node {
	return []*cluster.Node{follower(ctx, e, r)}
}

func processNemeses() []*Nemesis {
	return []*Nemesis{
		kill("kill-one", "kill -9 of a node at random", one),
		kill("kill-leader", "kill -9 of the leader", theLeader),
		kill("kill-all", "kill -9 of all nodes at once", all),
		pause("pause-leader", "SIGSTOP of the leader; it wakes up believing that it leads", theLeader),
		pause("pause-follower", "SIGSTOP of a follower", aFollower),
		{
			Name: "stutter", About: "SIGSTOP of the leader for 0.3 to 1.3 s, again and again, as if its machine stalled",
			Pause: time.Second, Hold: 5 * time.Millisecond, Inject: stutter,
		},
		{
			Name: "restart", About: "rolling restart: SIGTERM and start, one node after another",
			Pause: 3 * time.Second, Inject: rolling(false),
		},
		{
			Name: "upgrade", About: "rolling upgrade to a second binary, or back, one node after another",
			Needs: Needs{Upgrade: true}, Pause: 3 * time.Second, Inject: rolling(true),
		},
		{
			Name: "memory", About: "a node may use hardly more memory than it does: it is reclaimed, or killed",
			Needs: Needs{Root: true, Crashes: true}, Pause: 5 * time.Second, Hold: 8 * time.Second, Inject: squeeze,
		},
	}
}

func kill(name, about string, choose chooser) *Nemesis {
	return &Nemesis{
		Name: name, About: about, Pause: 6 * time.Second, Hold: 6 * time.Second,
		Inject: func(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
			victims := choose(ctx, e, r)
			var wg sync.WaitGroup
			errs := make([]error, len(victims))
			for i, n := range victims {
				wg.Go(func() { errs[i] = n.Kill() })
			}
			wg.Wait()
			heal := func(context.Context) error { return startAll(victims) }
			if err := errors.Join(errs...); err != nil {
				return "", nil, errors.Join(err, heal(ctx))
			}
			return "killed " + ids(victims), heal, nil
		},
	}
}

func startAll(nodes []*cluster.Node) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.Start())
	}
	return errors.Join(errs...)
}

func pause(name, about string, choose chooser) *Nemesis {
	return &Nemesis{
		Name: name, About: about, Pause: 6 * time.Second, Hold: 6 * time.Second,
		Inject: func(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
			victims := choose(ctx, e, r)
			for _, n := range victims {
				n.Pause()
			}
			return "paused " + ids(victims), func(context.Context) error {
				for _, n := range victims {
					n.Resume()
				}
				return nil
			}, nil
		},
	}
}

// stutter stops the leader until others have elected another one, or almost.
func stutter(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	n := leaderOrAny(ctx, e, r)
	d := time.Duration(300+r.IntN(1000)) * time.Millisecond
	n.Pause()
	wait(ctx, d)
	n.Resume()
	return fmt.Sprintf("stopped %s for %v", n.ID, d), func(context.Context) error { return nil }, nil
}

// stopPatience is how long a node may take to hand over and end.
const stopPatience = 30 * time.Second

// rolling restarts every node in turn, each after the one before has caught up.
// The restart is the whole fault: there is nothing to hold or to heal.
func rolling(upgrade bool) func(context.Context, *Env, *rand.Rand) (string, func(context.Context) error, error) {
	back := false
	return func(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
		ctx = context.WithoutCancel(ctx)
		nodes := shuffled(e, r)
		var errs []error
		for _, n := range nodes {
			errs = append(errs, n.Stop(stopPatience))
			if upgrade {
				n.Upgrade(back)
			}
			errs = append(errs, n.Start())
			cctx, cancel := context.WithTimeout(ctx, healLimit)
			if err := e.Admin.CaughtUp(cctx, n); err != nil {
				e.Note("%s has not caught up after its restart: %v", n.ID, err)
			}
			cancel()
		}
		did := "restarted " + ids(nodes)
		if upgrade {
			did = "upgraded " + ids(nodes)
			if back {
				did = "went back with " + ids(nodes)
			}
			back = !back
		}
		if err := errors.Join(errs...); err != nil {
			e.Note("%s: %v", did, err)
		}
		return did, func(context.Context) error { return nil }, nil
	}
}

func squeeze(_ context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	n := shuffled(e, r)[0]
	extra := int64(1+r.IntN(12)) << 20
	if err := n.LimitMemory(extra); err != nil {
		return "", nil, errors.Join(err, n.LimitMemory(0))
	}
	return fmt.Sprintf("%s may use %d MiB more than it did", n.ID, extra>>20), func(context.Context) error {
		return errors.Join(n.LimitMemory(0), n.Start())
	}, nil
}
