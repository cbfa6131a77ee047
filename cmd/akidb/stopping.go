// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

// stopping is a stop that ends in time, whatever hangs: a disk that does not answer
// holds up who reads from it or flushes to it, and takes no notice of a context. What
// is left behind ends with the process.
type stopping struct {
	began time.Time
	limit time.Duration
}

// The parts of the time by which the steps of a stop have ended. What follows needs
// time too, however long requests take.
const (
	requestsPart = 0.75
	leavePart    = 0.875
	nodePart     = 1
)

// stopGrace is for a step to return in once its context has ended.
const stopGrace = 100 * time.Millisecond

func beginStop(limit time.Duration) *stopping { return &stopping{time.Now(), limit} }

// step runs f with a context that ends with that part of the time, and returns no
// later than that. The error says what was left behind.
func (s *stopping) step(part float64, what string, f func(context.Context) error) error {
	by := s.began.Add(time.Duration(part * float64(s.limit)))
	ctx, cancel := context.WithDeadline(context.Background(), by)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
		return fmt.Errorf("stop: %s did not end within %v and is left behind", what, time.Since(s.began).Round(time.Millisecond))
	}
}
