// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// Goal: searches beside appends, deletes, merges and a seal see their views and
// nothing else. Method: document d lives in slots d, d+docs, d+2*docs, ..., each
// replacing the one before at log index slot+1, so that every view has each
// document exactly once.
func TestViewsUnderWrites(t *testing.T) {
	r := seeded(t, 41)
	const docs, writes = 600, 6000
	vectors := clustered(r, docs, 12, 6, 0.5)
	x := open(t, Config{Dimension: 12, Metric: distance.L2, Workers: 2}, &memory{})
	put := func(s int) {
		x.Append(Slot(s), vectors[s%docs], fmt.Appendf(nil, `{"doc":%d,"round":%d}`, s%docs, s/docs))
		if s >= docs {
			x.Delete(Slot(s-docs), uint64(s+1))
		}
	}
	for s := range docs {
		put(s)
	}
	var applied atomic.Int64
	applied.Store(docs)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := w; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				at := int(applied.Load())
				v := View{Slots: Slot(at), Applied: uint64(at)}
				if i%5 == 0 {
					if n, err := x.Count(context.Background(), nil, v); err != nil || n != docs {
						t.Errorf("view at %d has %d documents, %v", at, n, err)
						return
					}
				}
				d := i % docs
				f := &Filter{Must: []Condition{{Key: "doc", Any: []Scalar{{Kind: KindInt, Int: int64(d)}}}}}
				n := 0
				if err := x.Match(context.Background(), f, v, func(s Slot) bool {
					n++
					if int(s)%docs != d || int(s) >= at || int(s)+docs < at {
						t.Errorf("view at %d: slot %d for document %d", at, s, d)
					}
					return true
				}); err != nil || n != 1 {
					t.Errorf("view at %d: document %d found %d times, %v", at, d, n, err)
					return
				}
				rs, _, err := x.Search(context.Background(), Query{Vector: vectors[d], K: 1, Ef: 40}, v, nil)
				if err != nil || len(rs) != 1 || rs[0].Distance != 0 {
					t.Errorf("view at %d: document %d: %v, %v", at, d, rs, err)
					return
				}
				if s := int(rs[0].Slot); s >= at || s+docs < at {
					t.Errorf("view at %d: slot %d is not in it", at, s)
				}
			}
		})
	}
	for s := docs; s < docs+writes; s++ {
		put(s)
		applied.Store(int64(s + 1))
		if s == docs+writes/2 {
			// Live at the seal: what is live at every later view.
			x.Seal(2, uint64(s+1-docs))
		}
	}
	close(stop)
	wg.Wait()
	waitIdle(t, x)
	if st := x.Status(); st.Generation != 2 {
		t.Errorf("%+v", st)
	}
}
