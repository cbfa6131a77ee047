// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"testing"
	"time"
)

// Goal: a fault of the network that ends leaves those of others alone, also where
// they meet. Method: the ways between two nodes under three faults, lifted in turn.
func TestFaultsAreLiftedOneByOne(t *testing.T) {
	c := &Cluster{net: newLoopback(nil)}
	a, b := &Node{ID: "a"}, &Node{ID: "b"}
	way := func(from, to *Node) rules {
		r, _ := c.net.(*loopback).pairs.get(from.ID, to.ID)
		return r
	}
	cut, slow, slower := c.NewFault(), c.NewFault(), c.NewFault()
	for _, do := range []func() error{
		func() error { return cut.Cut(a, b) },
		func() error { return slow.Slow(a, b, time.Second, time.Millisecond, 0) },
		func() error { return slower.Slow(a, b, time.Minute, 0, 100) },
		func() error { return slower.Cut(a, b) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		what string
		lift *Fault
		want rules
	}{
		{"all three", nil, rules{cut: true, delay: time.Minute, bytesPerSec: 100}},
		{"without the cut, there is another", cut, rules{cut: true, delay: time.Minute, bytesPerSec: 100}},
		{"the shorter delay is left", slower, rules{delay: time.Second, jitter: time.Millisecond}},
		{"nothing is left", slow, rules{}},
	}
	for _, s := range steps {
		if s.lift != nil {
			if err := s.lift.Lift(); err != nil {
				t.Fatal(err)
			}
		}
		if got := way(a, b); got != s.want {
			t.Errorf("%s: %+v, want %+v", s.what, got, s.want)
		}
		if got := way(b, a); got != (rules{}) {
			t.Errorf("%s: the way back: %+v", s.what, got)
		}
	}
}
