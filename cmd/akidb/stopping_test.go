// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A stop ends in time though every step of it hangs, and says which.
func TestStopEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		defer close(answer)
		hangs := func(context.Context) error {
			<-answer
			return nil
		}
		s := beginStop(20 * time.Second)
		err := errors.Join(s.step(requestsPart, "requests", hangs), s.step(leavePart, "leaving", hangs), s.step(nodePart, "the node", hangs))
		for _, what := range []string{"requests", "leaving", "the node"} {
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("the stop does not say that %s hang: %v", what, err)
			}
		}
		if d := time.Since(s.began); d > 21*time.Second {
			t.Errorf("the stop took %v", d)
		}
	})
}

// Who keeps to its time is waited for, and its error is the outcome.
func TestStopWaitsForWhatKeepsToItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := beginStop(20 * time.Second)
		if err := s.step(requestsPart, "requests", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := s.step(nodePart, "the node", func(ctx context.Context) error {
			if _, limited := ctx.Deadline(); !limited || ctx.Err() != nil {
				t.Error("the node has no time left")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}
