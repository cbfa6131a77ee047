// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"
	"time"
)

// hedge sends a read to e and, if no answer came within HedgeAfter, to one more
// replica; the first success wins and the other attempt is cancelled. An error
// of one waits for the other. Both goroutines have ended when it returns.
func hedge[T any, P message[T]](ctx context.Context, c *call, e *endpoint) (P, bool, error) {
	type answer struct {
		out P
		err error
		e   *endpoint
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()                  // before the wait: the loser returns at once
	answers := make(chan answer, 2) // room for both, so that no sender waits
	ask := func(e *endpoint) {
		asking.Go(func() {
			out := P(new(T))
			_, err := c.attempt(ctx, e, out)
			answers <- answer{out, err, e}
		})
	}
	ask(e)
	timer := time.NewTimer(c.k.cfg.HedgeAfter)
	defer timer.Stop()
	var last answer
	for waiting := 1; waiting > 0; {
		select {
		case <-timer.C:
			second := c.k.pick(false, append(c.not[:len(c.not):len(c.not)], e))
			if second != nil && second != e {
				ask(second)
				waiting++
			}
		case last = <-answers:
			if last.err == nil {
				c.last = last.e
				return last.out, true, nil
			}
			waiting--
		}
	}
	c.last = last.e
	return nil, true, last.err
}
