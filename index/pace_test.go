// SPDX-License-Identifier: Apache-2.0

package index

import (
	"testing"
	"testing/synctest"
	"time"
)

// Construction rests during a burst of writes, for restShare times its work, and
// runs freely when the burst is over or too many vectors wait.
func TestBuilderRestsDuringBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		p := pacer{start: time.Now(), stop: stop}
		rested := func(backlog int) time.Duration {
			before := time.Now()
			if left := p.rest(time.Millisecond, backlog); left != 0 {
				t.Fatalf("debt of %v left", left)
			}
			return time.Since(before)
		}
		if d := rested(10); d != 0 {
			t.Errorf("rested %v before any write", d)
		}
		<-time.After(time.Second) // of the fake clock
		p.appended()
		if d := rested(10); d != restShare*time.Millisecond {
			t.Errorf("rested %v in a burst", d)
		}
		p.appended()
		if d := rested(quietBacklog); d != 0 {
			t.Errorf("rested %v with a full backlog", d)
		}
		if d := rested(burstBacklog); d == 0 {
			t.Error("did not rest although nobody searches")
		}
		<-time.After(2 * pacerGrain)
		p.appended()
		p.searched()
		if d := rested(burstBacklog); d != 0 {
			t.Errorf("rested %v while searches scan the backlog", d)
		}
		if d := rested(burstBacklog - 1); d == 0 {
			t.Error("did not rest with a short backlog")
		}
		p.waiting.Add(1)
		if d := rested(10); d != 0 {
			t.Errorf("rested %v though somebody waits for the graph", d)
		}
		p.waiting.Add(-1)
		<-time.After(burstPause + pacerGrain)
		if d := rested(10); d != 0 {
			t.Errorf("rested %v after the burst", d)
		}
		p.appended()
		close(stop)
		if d := rested(10); d != 0 {
			t.Errorf("rested %v while closing", d)
		}
		if left := p.rest(minRest/restShare-1, 10); left == 0 {
			t.Error("a small debt was not kept")
		}
	})
}
