// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// ending is how far the end of a node is. It runs beside those who wait for it: a
// disk that does not answer holds up who reads or flushes, and nothing ends that but
// the disk.
type ending struct {
	once sync.Once
	done chan struct{} // closed when nothing of the node runs any more
	err  error         // of use once done is closed
	step atomic.Pointer[func() string]
}

// waitsFor notes what the end of the node waits for from now on.
func (e *ending) waitsFor(what string) { e.set(func() string { return what }) }

// waitsForCrew notes that it waits for those of a crew that are left.
func (e *ending) waitsForCrew(c *crew) {
	e.set(func() string { return cmp.Or(c.left(), "work in the background") })
}

func (e *ending) set(step func() string) { e.step.Store(&step) }

// Close hands leadership over, stops everything it started and waits for it, no
// longer than ctx. What hangs beyond that, for which there is no cause but the disk
// or a defect, is named in the error, which wraps that of ctx, and left behind: the
// process should end, which loses nothing that a crash would not. Until then the
// data directory stays in use, and another Close waits on.
func (n *Node) Close(ctx context.Context) error {
	select {
	case <-n.ending.done:
		return nil
	default:
	}
	return n.end(ctx, true)
}

// shutdown is Close without handing leadership over.
func (n *Node) shutdown(ctx context.Context) error { return n.end(ctx, false) }

func (n *Node) end(ctx context.Context, handOver bool) error {
	e := &n.ending
	e.once.Do(func() {
		e.waitsFor("leadership that is handed over")
		go func() {
			defer close(e.done)
			if handOver {
				// The rest needs time too.
				ctx, cancel := context.WithTimeout(ctx, timeoutOf(ctx)/2)
				n.handOver(ctx)
				cancel()
			}
			e.err = n.stop()
		}()
	})
	select {
	case <-e.done:
		return e.err
	case <-ctx.Done():
	}
	n.closing.Store(true)
	select {
	case <-e.done:
		return e.err
	default:
	}
	return fmt.Errorf("node: close: %s did not end: %w", (*e.step.Load())(), ctx.Err())
}

// stop ends from the outside in: first what asks and what proposes, then the
// connections, then Raft, and the state last.
func (n *Node) stop() error {
	e := &n.ending
	n.closing.Store(true)
	n.cancel()
	if n.gossip != nil {
		e.waitsFor("gossip")
		n.gossip.stop()
	}
	n.g.cancel()
	n.mux.cut()
	e.waitsFor("a connection to a peer")
	n.rpc.close()
	e.waitsForCrew(&n.wg)
	n.wg.Wait()
	err := n.g.close(e)
	e.waitsFor("an answer to a peer")
	n.mux.wait()
	n.met.unregister()
	return err
}

// close stops everything; the caller has handed leadership over.
func (g *group) close(e *ending) error {
	g.cancel()
	g.props.close()
	e.waitsForCrew(&g.wg)
	g.wg.Wait()
	e.waitsFor("the state")
	err := g.m.Close()
	e.waitsFor("the store of term and vote")
	return errors.Join(err, g.stable.Close())
}

// handOver gives leadership to another voter, so that a planned stop costs the
// clients one round trip instead of an election time-out.
func (n *Node) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.ElectionTimeout+time.Second)
	defer cancel()
	for range 3 {
		c := n.g.core.Load()
		if c == nil || c.r.State() != raft.Leader || ctx.Err() != nil {
			return
		}
		others := 0
		for _, s := range n.g.servers() {
			if s.Suffrage == raft.Voter && string(s.ID) != n.cfg.NodeID {
				others++
			}
		}
		if others == 0 {
			return
		}
		if err := n.transferHere(ctx, ""); err != nil {
			n.log.Warn("leadership not handed over", "err", err)
			continue
		}
		return
	}
}
