// SPDX-License-Identifier: Apache-2.0

package node

import (
	"sync"
	"testing"
)

// A crew that is waited for must take nobody in, however many come at that
// moment. A bare WaitGroup panics here.
func TestCrewTurnsNewcomersAwayWhileItIsWaitedFor(t *testing.T) {
	for range 200 {
		var c crew
		var comers sync.WaitGroup
		for range 4 {
			comers.Go(func() {
				for c.Go(func() {}) {
				}
			})
		}
		c.Wait()
		comers.Wait()
		if c.Go(func() { t.Error("ran after Wait") }) {
			t.Fatal("taken in after Wait")
		}
	}
}
