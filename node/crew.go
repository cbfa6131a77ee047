// SPDX-License-Identifier: Apache-2.0

package node

import "sync"

// crew is goroutines that are waited for together. Other than with a bare
// WaitGroup, one that comes while or after they are waited for is turned away:
// reads and messages arrive until the last moment, and a WaitGroup that grows
// while somebody waits panics.
type crew struct {
	mu     sync.Mutex // guards closed, and that wg does not grow once it is set
	closed bool
	wg     sync.WaitGroup
}

// Go runs f unless the crew is being waited for; then it returns false.
func (c *crew) Go(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

// Wait turns newcomers away and waits for the others.
func (c *crew) Wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
