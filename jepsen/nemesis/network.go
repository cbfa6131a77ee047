// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/akidb/akidb/jepsen/cluster"
)

// pair is an ordered pair of nodes: what the first sends does not reach the second.
type pair struct{ from, to *cluster.Node }

func networkNemeses() []*Nemesis {
	return []*Nemesis{
		partition("partition-halves", "a minority and a majority that cannot reach each other", halves),
		partition("partition-node", "one node, at random, alone", loneNode),
		partition("partition-leader", "the leader alone", loneLeader),
		partition("partition-ring", "every node sees a majority, no two the same one", ring),
		partition("partition-bridge", "two halves and one node that reaches both", bridge),
		partition("partition-one-way", "one node is heard by nobody, or hears nobody", oneWay),
		{
			Name: "slow", About: "50 to 400 ms of delay with jitter between all nodes, or around one of them",
			Needs: Needs{Delays: true}, Pause: 4 * time.Second, Hold: 8 * time.Second, Inject: slow,
		},
		{
			Name: "lossy", About: "10 to 50 % of the packets between nodes are lost",
			Needs: Needs{Namespaces: true}, Pause: 4 * time.Second, Hold: 8 * time.Second, Inject: lossy,
		},
	}
}

func partition(name, about string, cuts func(context.Context, *Env, *rand.Rand) (string, []pair)) *Nemesis {
	return &Nemesis{
		Name: name, About: about, Pause: 5 * time.Second, Hold: 8 * time.Second,
		Inject: func(ctx context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
			did, pairs := cuts(ctx, e, r)
			f := e.Cluster.NewFault()
			var errs []error
			for _, p := range pairs {
				errs = append(errs, f.Cut(p.from, p.to))
			}
			if err := errors.Join(errs...); err != nil {
				return "", nil, errors.Join(err, f.Lift())
			}
			return did, lift(f), nil
		},
	}
}

// lift ends one fault of the network and none of another nemesis.
func lift(f *cluster.Fault) func(context.Context) error {
	return func(context.Context) error { return f.Lift() }
}

// apart cuts every node of a from every node of b, both ways.
func apart(a, b []*cluster.Node) []pair {
	var pairs []pair
	for _, x := range a {
		for _, y := range b {
			pairs = append(pairs, pair{x, y}, pair{y, x})
		}
	}
	return pairs
}

func halves(_ context.Context, e *Env, r *rand.Rand) (string, []pair) {
	n := shuffled(e, r)
	a, b := n[:len(n)/2], n[len(n)/2:]
	return ids(a) + " | " + ids(b), apart(a, b)
}

func loneNode(_ context.Context, e *Env, r *rand.Rand) (string, []pair) {
	n := shuffled(e, r)
	return n[0].ID + " alone", apart(n[:1], n[1:])
}

func loneLeader(ctx context.Context, e *Env, r *rand.Rand) (string, []pair) {
	leader := leaderOrAny(ctx, e, r)
	var rest []*cluster.Node
	for _, n := range e.Cluster.Nodes() {
		if n != leader {
			rest = append(rest, n)
		}
	}
	return leader.ID + " (leader) alone", apart([]*cluster.Node{leader}, rest)
}

// ring lets every node hear only a majority that begins with itself, around a ring.
func ring(_ context.Context, e *Env, r *rand.Rand) (string, []pair) {
	n := shuffled(e, r)
	majority := len(n)/2 + 1
	var pairs []pair
	for i := range n {
		for off := majority; off < len(n); off++ {
			pairs = append(pairs, pair{n[(i+off)%len(n)], n[i]})
		}
	}
	return "ring " + ids(n), pairs
}

func bridge(_ context.Context, e *Env, r *rand.Rand) (string, []pair) {
	n := shuffled(e, r)
	middle, rest := n[0], n[1:]
	a, b := rest[:len(rest)/2], rest[len(rest)/2:]
	return fmt.Sprintf("%s | %s, %s between", ids(a), ids(b), middle.ID), apart(a, b)
}

func oneWay(ctx context.Context, e *Env, r *rand.Rand) (string, []pair) {
	n := shuffled(e, r)
	victim := n[0]
	if r.IntN(2) == 0 {
		victim = leaderOrAny(ctx, e, r)
	}
	deaf := r.IntN(2) == 0
	var pairs []pair
	for _, o := range n {
		switch {
		case o == victim:
		case deaf:
			pairs = append(pairs, pair{o, victim})
		default:
			pairs = append(pairs, pair{victim, o})
		}
	}
	if deaf {
		return victim.ID + " hears nobody", pairs
	}
	return victim.ID + " is heard by nobody", pairs
}

func slow(_ context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	delay := time.Duration(50+r.IntN(350)) * time.Millisecond
	jitter := delay / 2
	nodes := shuffled(e, r)
	around := r.IntN(2) == 0
	f := e.Cluster.NewFault()
	for i, a := range nodes {
		for j, b := range nodes {
			if i == j || around && i != 0 && j != 0 {
				continue
			}
			if err := f.Slow(a, b, delay, jitter, 0); err != nil {
				return "", nil, errors.Join(err, f.Lift())
			}
		}
	}
	did := fmt.Sprintf("%v between all", delay)
	if around {
		did = fmt.Sprintf("%v around %s", delay, nodes[0].ID)
	}
	return did, lift(f), nil
}

func lossy(_ context.Context, e *Env, r *rand.Rand) (string, func(context.Context) error, error) {
	percent := 10 + r.IntN(40)
	nodes := shuffled(e, r)
	if r.IntN(2) == 0 {
		nodes = nodes[:1]
	}
	f := e.Cluster.NewFault()
	for _, n := range nodes {
		if err := f.Lose(n, percent); err != nil {
			return "", nil, errors.Join(err, f.Lift())
		}
	}
	return fmt.Sprintf("%d %% of what reaches %s", percent, ids(nodes)), lift(f), nil
}
