// SPDX-License-Identifier: Apache-2.0

package node

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// crew is goroutines that are waited for together. Other than with a bare
// WaitGroup, one that comes while or after they are waited for is turned away:
// reads and messages arrive until the last moment, and a WaitGroup that grows
// while somebody waits panics.
type crew struct {
	mu     sync.Mutex // guards the fields below, and that wg does not grow once closed is set
	closed bool
	there  map[string]int // how many there are of each name
	wg     sync.WaitGroup
}

// Go runs f unless the crew is being waited for; then it returns false.
func (c *crew) Go(f func()) bool { return c.Named("what was asked of it", f) }

// Named is Go, with what to call f should it not end.
func (c *crew) Named(name string, f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.there == nil {
		c.there = make(map[string]int)
	}
	c.there[name]++
	c.wg.Go(func() {
		defer c.leave(name)
		f()
	})
	return true
}

func (c *crew) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.there[name]--; c.there[name] == 0 {
		delete(c.there, name)
	}
}

// left names who has not ended.
func (c *crew) left() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(c.there)), ", ")
}

// Wait turns newcomers away and waits for the others.
func (c *crew) Wait() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
