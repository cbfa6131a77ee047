// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/akidb/akidb/client"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// ledger is what concurrent writers were promised: every document is written
// once, under an id of its own, so each acknowledgement names the log index that
// wrote the document for ever.
type ledger struct {
	collection string
	dim        int

	mu        sync.Mutex // guards the fields below
	acked     map[string]uint64
	attempted map[string]bool
	acks      []time.Time
	waiting   map[chan time.Time]time.Time // who waits for an ack of a write begun after
	errs      []error
}

// writers write into a ledger until they are stopped.
type writers struct {
	*ledger
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

const ledgerDim = 8

// newLedger makes the collection that the writers write to.
func newLedger(ctx context.Context, cl *client.Client, name string) (*ledger, error) {
	_, err := cl.CreateCollection(ctx, &collectionv1.CreateCollectionRequest{Name: name, Dimension: ledgerDim, Metric: "l2"})
	return &ledger{collection: name, dim: ledgerDim, acked: map[string]uint64{}, attempted: map[string]bool{},
		waiting: map[chan time.Time]time.Time{}}, err
}

// start begins n writers; prefix tells their documents from earlier ones.
func (l *ledger) start(ctx context.Context, cl *client.Client, prefix string, n int) *writers {
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{ledger: l, cancel: cancel}
	for i := range n {
		w.wg.Go(func() {
			for seq := 0; ctx.Err() == nil; seq++ {
				l.write(cl, fmt.Sprintf("%s%d-%06d", prefix, i, seq), i, seq)
			}
		})
	}
	return w
}

// stop lets the writes under way finish: they are not cancelled, so that each
// outcome is known.
func (w *writers) stop() {
	w.cancel()
	w.wg.Wait()
}

func (l *ledger) write(cl *client.Client, id string, i, seq int) {
	v := make([]float32, l.dim)
	v[0], v[1] = float32(i), float32(seq)
	l.mu.Lock()
	l.attempted[id] = true
	l.mu.Unlock()
	began := time.Now()
	out, err := cl.Upsert(context.Background(), &collectionv1.UpsertRequest{CollectionId: l.collection, DocId: id, Vector: v})
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.acked[id] = out.Version
	l.acks = append(l.acks, now)
	for ch, after := range l.waiting {
		if began.After(after) {
			ch <- now
			delete(l.waiting, ch)
		}
	}
}

// ackAfter waits for the acknowledgement of a write that was begun after t.
func (l *ledger) ackAfter(ctx context.Context, t time.Time) (time.Time, error) {
	ch := make(chan time.Time, 1)
	l.mu.Lock()
	l.waiting[ch] = t
	l.mu.Unlock()
	select {
	case at := <-ch:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("no write was acknowledged: %w", ctx.Err())
	}
}

// ackedCount is how many writes are acknowledged.
func (l *ledger) ackedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// waitAcked waits until so many writes are acknowledged.
func (l *ledger) waitAcked(ctx context.Context, n int) error {
	for l.ackedCount() < n {
		if _, err := l.ackAfter(ctx, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// longestGap is the longest time without an acknowledgement since t, or since
// the last one before t.
func (l *ledger) longestGap(t time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	last := t
	for _, a := range l.acks {
		if !a.After(t) {
			last = a
			continue
		}
		longest = max(longest, a.Sub(last))
		last = a
	}
	return longest
}

// audit is what a replica holds of a ledger.
type audit struct {
	Lost, Duplicated int
	Examples         []string // of what is wrong, a few
}

func (a *audit) note(format string, args ...any) {
	if len(a.Examples) < 5 {
		a.Examples = append(a.Examples, fmt.Sprintf(format, args...))
	}
}

// auditPage is how many documents are read at once.
const auditPage = 2000

// audit reads all documents back through one replica, at linearizable
// consistency, and compares them with what was promised. Lost: acknowledged,
// yet not there. Duplicated: there twice, written again after the acknowledged
// write, or never asked for.
func (l *ledger) audit(ctx context.Context, cl *client.Client) (audit, error) {
	var a audit
	seen := map[string]bool{}
	for cursor := ""; ; {
		page, err := cl.Scroll(ctx, &collectionv1.ScrollRequest{CollectionId: l.collection, Limit: auditPage, Cursor: cursor, Consistency: client.Linearizable})
		if err != nil {
			return a, err
		}
		l.mu.Lock()
		for _, d := range page.Documents {
			version, ok := l.acked[d.DocId]
			switch {
			case seen[d.DocId]:
				a.Duplicated++
				a.note("%s is there twice", d.DocId)
			case !l.attempted[d.DocId]:
				a.Duplicated++
				a.note("%s was never written", d.DocId)
			case ok && version != d.Version:
				a.Duplicated++
				a.note("%s was acknowledged at log index %d and is of %d", d.DocId, version, d.Version)
			}
			seen[d.DocId] = true
		}
		l.mu.Unlock()
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if !seen[id] {
			a.Lost++
			a.note("%s was acknowledged and is not there", id)
		}
	}
	return a, nil
}
