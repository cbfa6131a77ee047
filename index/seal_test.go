// SPDX-License-Identifier: Apache-2.0

package index

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/akidb/akidb/index/distance"
)

// A view from before a seal would miss what was deleted in between once the new
// generation has taken over: it is refused, and a view from the seal on is not.
func TestViewsFromBeforeASealAreRefused(t *testing.T) {
	r := seeded(t, 77)
	vectors := clustered(r, 300, 8, 3, 0.1)
	x := open(t, Config{Dimension: 8, Metric: distance.L2}, &memory{})
	for i, v := range vectors {
		x.Append(Slot(i), v, nil)
	}
	const deletedAt, sealedAt = 1000, 1001
	x.Delete(7, deletedAt)
	old := View{Slots: 300, Applied: deletedAt - 1}
	q := Query{Vector: vectors[7], K: 1, Exact: true}
	if got, _ := search(t, x, q, old); got[0].Slot != 7 {
		t.Fatalf("before the seal the old view finds %v, want slot 7", got)
	}
	x.Seal(2, sealedAt)
	waitIdle(t, x)
	if _, _, err := x.Search(t.Context(), q, old, nil); !errors.Is(err, ErrViewTooOld) {
		t.Errorf("search of an old view: %v, want ErrViewTooOld", err)
	}
	if _, err := x.Count(t.Context(), nil, old); !errors.Is(err, ErrViewTooOld) {
		t.Errorf("count of an old view: %v, want ErrViewTooOld", err)
	}
	if n, err := x.Count(t.Context(), nil, View{Slots: 300, Applied: sealedAt}); err != nil || n != 299 {
		t.Errorf("count at the seal: %d, %v; want 299", n, err)
	}
}

// Goal: a seal while the graph of the one before is being built frees nothing that the
// builder still writes, as it happens where a replica catches up on its log. Method:
// seals in the middle of construction, on a graph large enough for batches to take a
// while.
func TestSealWhileTheNextGenerationIsBuilt(t *testing.T) {
	r := seeded(t, 78)
	const n, seals = 8000, 10
	x := open(t, Config{Dimension: 16, Metric: distance.L2, Workers: 2}, &memory{})
	for i, v := range clustered(r, n, 16, 30, 0.3) {
		x.Append(Slot(i), v, nil)
	}
	waitIdle(t, x)
	for i := range seals {
		x.Seal(uint64(i+2), uint64(1000+i))
		for g := x.successor(); g != nil && g.graphed.Load() < 2000; g = x.successor() {
			runtime.Gosched()
		}
	}
	waitIdle(t, x)
	if st := x.Status(); st.Generation != seals+1 || st.Total != n {
		t.Errorf("generation %d of %d vectors, want %d of %d", st.Generation, st.Total, seals+1, n)
	}
}

// Goal: after a seal an index is the one that is opened at that generation, bit for
// bit, and its checkpoint is good for that one. Method: a replica that was sealed, and
// one that is started on the same slots, of few dimensions, where normalising what is
// normalised changes the most.
func TestSealedIsOpened(t *testing.T) {
	for _, metric := range metrics {
		for _, quantization := range quantizations {
			t.Run(metricName(metric)+"/"+string(quantization), func(t *testing.T) {
				r := seeded(t, 79)
				vectors := clustered(r, 2000, 4, 8, 0.5)
				cfg := Config{Dimension: 4, Metric: metric, Quantization: quantization, Dir: t.TempDir()}
				src := stored(vectors)
				sealed := open(t, cfg, src)
				sealed.Seal(2, 1000)
				waitIdle(t, sealed)
				if err := sealed.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, dir := range []string{cfg.Dir, ""} {
					cfg.Dir, cfg.Warn = dir, func(msg string, err error) { t.Errorf("warning: %s: %v", msg, err) }
					opened, err := Open(t.Context(), cfg, 2, src)
					if err != nil {
						t.Fatal(err)
					}
					defer opened.Close()
					waitIdle(t, opened)
					if a, b := sealed.Status().GraphHash, opened.Status().GraphHash; a != b {
						t.Errorf("graph %s, opened %s", a, b)
					}
					for _, v := range vectors {
						q := Query{Vector: v, K: 10, Exact: true}
						a, _ := search(t, sealed, q, all)
						if b, _ := search(t, opened, q, all); !slices.Equal(a, b) {
							t.Fatalf("results %v, opened %v", a, b)
						}
					}
				}
			})
		}
	}
}

// ctxThat is a context that does something the first time it is looked at.
type ctxThat struct {
	context.Context
	do func()
}

func (c *ctxThat) Err() error {
	if do := c.do; do != nil {
		c.do = nil
		do()
	}
	return c.Context.Err()
}

// Goal: a filter is evaluated on what the generation of its search shows: a document
// that the view has is found, or the view refused, and never passed over. Method: a new
// generation takes over, and what it does not hold is purged from the payloads, while a
// search on an old view is between the two.
func TestTakeOverWhileAFilterIsEvaluated(t *testing.T) {
	const deletedAt, sealedAt = 1000, 1001
	filter := &Filter{Must: []Condition{{Key: "k", Any: []Scalar{{Kind: KindString, String: "7"}}}}}
	for what, ask := range map[string]func(*Index, context.Context, []float32, View) (int, error){
		"search": func(x *Index, ctx context.Context, v []float32, view View) (int, error) {
			got, _, err := x.Search(ctx, Query{Vector: v, K: 5, Exact: true, Filter: filter}, view, nil)
			return len(got), err
		},
		"count": func(x *Index, ctx context.Context, _ []float32, view View) (int, error) {
			return x.Count(ctx, filter, view)
		},
	} {
		r := seeded(t, 80)
		vectors := clustered(r, 300, 8, 3, 0.1)
		x := open(t, Config{Dimension: 8, Metric: distance.L2}, &memory{})
		for i, v := range vectors {
			x.Append(Slot(i), v, fmt.Appendf(nil, `{"k":"%d"}`, i))
		}
		x.Delete(7, deletedAt)
		old := View{Slots: 300, Applied: deletedAt - 1}
		if n, err := ask(x, t.Context(), vectors[7], old); err != nil || n != 1 {
			t.Fatalf("%s before: %d, %v; want 1", what, n, err)
		}
		ctx := &ctxThat{Context: t.Context(), do: func() {
			x.Seal(2, sealedAt)
			waitIdle(t, x)
			g := x.acquire()
			defer g.release()
			x.payload.purge(300, g.holds)
		}}
		if n, err := ask(x, ctx, vectors[7], old); !errors.Is(err, ErrViewTooOld) && (err != nil || n != 1) {
			t.Errorf("%s while another generation takes over: %d, %v; want 1 or ErrViewTooOld", what, n, err)
		}
		if ctx.do != nil {
			t.Errorf("%s did not look at its context in between: the test shows nothing", what)
		}
	}
}
