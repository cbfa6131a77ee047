// SPDX-License-Identifier: Apache-2.0

package workload_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/akidb/akidb/jepsen/check"
	"github.com/akidb/akidb/jepsen/fake"
	"github.com/akidb/akidb/jepsen/history"
	"github.com/akidb/akidb/jepsen/workload"
)

var _ workload.DB = (*fake.DB)(nil)

// seedOf is the seed of a random test, and says how to run it again.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64N(1 << 32)
	if s := os.Getenv("AKIDB_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("replay: AKIDB_SEED=%d go test ./jepsen/workload -run '%s'", seed, t.Name())
	return seed
}

// drive runs a workload on a database in memory, in no time.
func drive(t *testing.T, name string, fault fake.Fault, seed uint64, run time.Duration) []history.Op {
	t.Helper()
	w, err := workload.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	var ops []history.Op
	synctest.Test(t, func(t *testing.T) {
		db := fake.New(seed, fault, 0.02, 0.02)
		conn := func(i int) workload.Conn {
			return workload.Conn{DB: delayed(db, seed+uint64(i)), Node: fmt.Sprintf("n%d", i)}
		}
		for w.Setup(t.Context(), db) != nil {
		}
		rec := history.NewRecorder(nil)
		d := workload.NewDriver(w, workload.DriveConfig{
			Seed: seed, Workers: 6, Interval: 20 * time.Millisecond, OpTimeout: time.Second,
			Home: conn, Pinned: []workload.Conn{conn(0), conn(1), conn(2)},
		}, rec)
		ctx, cancel := context.WithTimeout(t.Context(), run)
		defer cancel()
		d.Run(ctx)
		d.Final(t.Context())
		if ops, err = history.Ops(rec.Events()); err != nil {
			t.Fatal(err)
		}
	})
	return ops
}

func TestEveryWorkloadPassesOnACorrectDatabase(t *testing.T) {
	seed := seedOf(t)
	for _, w := range workload.All() {
		t.Run(w.Name, func(t *testing.T) {
			ops := drive(t, w.Name, fake.None, seed, 10*time.Second)
			c := history.Count(ops)
			t.Logf("%+v", c)
			if c.OK < 300 || c.Unknown == 0 || c.Failed == 0 {
				t.Errorf("%+v: too little happened for a test", c)
			}
			for _, r := range w.Check(ops, workload.CheckOptions{Timeout: 30 * time.Second}) {
				if r.Verdict != check.Valid {
					t.Errorf("%s: %s %s %+v", r.Checker, r.Verdict, r.Note, r.Anomalies)
				}
			}
		})
	}
}

// Every workload keeps to collections of its own: all of them on one database at
// once are valid, as each of them alone is.
func TestWorkloadsShareADatabase(t *testing.T) {
	seed := seedOf(t)
	all, err := workload.FindAll("all")
	if err != nil {
		t.Fatal(err)
	}
	histories := make([][]history.Op, len(all))
	synctest.Test(t, func(t *testing.T) {
		db := fake.New(seed, fake.None, 0.02, 0.02)
		conn := func(i int) workload.Conn {
			return workload.Conn{DB: delayed(db, seed+uint64(i)), Node: fmt.Sprintf("n%d", i)}
		}
		for _, w := range all {
			for w.Setup(t.Context(), db) != nil {
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i, w := range all {
			rec := history.NewRecorder(nil)
			d := workload.NewDriver(w, workload.DriveConfig{
				Seed: seed, Workers: 4, Interval: 50 * time.Millisecond, OpTimeout: time.Second,
				Home: conn, Pinned: []workload.Conn{conn(0), conn(1), conn(2)},
			}, rec)
			wg.Go(func() {
				d.Run(ctx)
				d.Final(t.Context())
				histories[i], _ = history.Ops(rec.Events())
			})
		}
		wg.Wait()
	})
	for i, w := range all {
		if c := history.Count(histories[i]); c.OK < 100 {
			t.Errorf("%s: %+v: too little happened for a test", w.Name, c)
		}
		for _, r := range w.Check(histories[i], workload.CheckOptions{Timeout: 30 * time.Second}) {
			if r.Verdict != check.Valid {
				t.Errorf("%s: %s: %s %s %+v", w.Name, r.Checker, r.Verdict, r.Note, r.Anomalies)
			}
		}
	}
}

func TestWorkloadsAreFoundByName(t *testing.T) {
	if list, err := workload.FindAll("set,cas"); err != nil || len(list) != 2 || list[1].Name != "register" {
		t.Errorf("two names: %v, %v", list, err)
	}
	for _, bad := range []string{"set,no-such-thing", "register,cas", ""} {
		if list, err := workload.FindAll(bad); err == nil {
			t.Errorf("%q: found %d workloads, want an error", bad, len(list))
		}
	}
}

// Each fault must be seen by each of the workloads that are there to see it.
func TestEveryFaultIsCaught(t *testing.T) {
	seed := seedOf(t)
	for fault, names := range map[fake.Fault][]string{
		fake.StaleReads:   {"register", "set", "bank", "append", "delete", "search", "catalog"},
		fake.LostWrites:   {"register", "set", "bank", "append", "session", "delete", "search", "once", "catalog"},
		fake.DoubleApply:  {"once"},
		fake.HalfBatch:    {"bank", "append"},
		fake.Resurrect:    {"delete", "search", "once"},
		fake.BlindSearch:  {"search"},
		fake.DirtyCAS:     {"register", "bank", "append"},
		fake.LyingErrors:  {"register", "set", "append", "search"},
		fake.BadSessions:  {"session"},
		fake.LeakyCatalog: {"catalog"},
		fake.TornReads:    {"set", "bank", "delete", "search", "once"},
		fake.ShortFetch:   {"bank", "append"},
		fake.ForgetsLate:  {"once"},
	} {
		for _, name := range names {
			t.Run(string(fault)+"/"+name, func(t *testing.T) {
				w, err := workload.Find(name)
				if err != nil {
					t.Fatal(err)
				}
				results := w.Check(drive(t, name, fault, seed, 12*time.Second), workload.CheckOptions{Timeout: 30 * time.Second})
				if v := check.Merge(results); v != check.Invalid {
					t.Errorf("the fault was not caught: %s", v)
				}
			})
		}
	}
}

func TestClassifyIsHonest(t *testing.T) {
	withClass := func(class string) error {
		st, err := status.New(codes.Unavailable, "x").WithDetails(&errdetails.ErrorInfo{Metadata: map[string]string{"class": class}})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, tt := range []struct {
		name string
		read bool
		err  error
		want history.Type
	}{
		{"success", false, nil, history.OK},
		{"refused", false, withClass("not_applied"), history.Fail},
		{"refused for good, wrapped", false, fmt.Errorf("client: %w", withClass("permanent")), history.Fail},
		{"unknown", false, withClass("unknown"), history.Info},
		{"a class nobody knows", false, withClass("maybe"), history.Info},
		{"no class", false, status.Error(codes.Unavailable, "connection refused"), history.Info},
		{"invalid without a class", false, status.Error(codes.InvalidArgument, "x"), history.Info},
		{"deadline", false, context.DeadlineExceeded, history.Info},
		{"anything else", false, errors.New("x"), history.Info},
		{"read", true, withClass("unknown"), history.Fail},
	} {
		if got := workload.Classify(tt.read, tt.err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
