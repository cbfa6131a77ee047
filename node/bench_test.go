// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"github.com/akidb/akidb/internal/storage"
)

// TestThroughput prints writes and linearizable reads a second of three nodes
// in this process, with real fsync. It is a measurement, run by
//
//	AKIDB_BENCH=5s AKIDB_BENCH_CLIENTS=1,16,64,256 go test ./node -run TestThroughput -v
func TestThroughput(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("AKIDB_BENCH"))
	if err != nil {
		t.Skip("a measurement: set AKIDB_BENCH to a duration")
	}
	clients := "1,16,64,256"
	if v := os.Getenv("AKIDB_BENCH_CLIENTS"); v != "" {
		clients = v
	}
	stores := []string{logStoreWAL}
	if v := os.Getenv("AKIDB_BENCH_STORES"); v != "" {
		stores = strings.Split(v, ",")
	}
	const dim = 768
	for _, store := range stores {
		c := startCluster(t, 3, func(cfg *Config) {
			cfg.HeartbeatTimeout = 0
			cfg.LogStore = store
			if os.Getenv("AKIDB_BENCH_MEM") == "" {
				realConf(cfg)
			}
		})
		col := "c"
		if os.Getenv("AKIDB_BENCH_MEM") == "" {
			col = createCollection(t, c.leader(), dim)
		}
		var seq atomic.Int64
		for _, s := range strings.Split(clients, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			l := c.leader()
			rate, p50, p99 := load(t, n, span, func(ctx context.Context, client int) error {
				i := int(seq.Add(1))
				_, err := l.Propose(ctx, upsert(col, fmt.Sprintf("d%d", i), dim, i))
				return err
			})
			t.Logf("%s writes at leader:      %4d clients %8.0f/s p50 %v p99 %v", store, n, rate, p50, p99)
			rate, p50, p99 = load(t, n, span, func(ctx context.Context, client int) error {
				i := int(seq.Add(1))
				_, err := c.nodes[c.names[client%3]].Propose(ctx, upsert(col, fmt.Sprintf("d%d", i), dim, i))
				return err
			})
			t.Logf("%s writes at any node:    %4d clients %8.0f/s p50 %v p99 %v", store, n, rate, p50, p99)
			rate, p50, p99 = load(t, n, span, func(ctx context.Context, client int) error {
				return c.nodes[c.names[client%3]].awaitRead(ctx, ReadOptions{})
			})
			t.Logf("%s linearizable reads:    %4d clients %8.0f/s p50 %v p99 %v", store, n, rate, p50, p99)
		}
		c.stopAll()
	}
}

func load(t *testing.T, clients int, span time.Duration, op func(ctx context.Context, client int) error) (rate float64, p50, p99 time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	lat := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				t0 := time.Now()
				if err := op(context.Background(), i); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				lat[i] = append(lat[i], time.Since(t0))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	all := slices.Concat(lat...)
	slices.Sort(all)
	if len(all) == 0 {
		return 0, 0, 0
	}
	return float64(len(all)) / took.Seconds(), all[len(all)/2].Round(10 * time.Microsecond), all[len(all)*99/100].Round(10 * time.Microsecond)
}

// BenchmarkSegmentAppend compares one append of 3 KiB and its sync on this
// package's file system for raft-wal and on raft-wal's own.
func BenchmarkSegmentAppend(b *testing.B) {
	const segment = 64 << 20
	for _, by := range []struct {
		name string
		fs   types.VFS
	}{{"zeroed", walFS{fs: storage.Disk(), segmentBytes: segment}}, {"reserved", walfs.New()}} {
		b.Run(by.name, func(b *testing.B) {
			dir := b.TempDir()
			entry := bytes.Repeat([]byte{1}, 3300)
			var f types.WritableFile
			files := 0
			off := int64(segment)
			for b.Loop() {
				if off+int64(len(entry)) > segment {
					var err error
					if f, err = by.fs.Create(dir, strconv.Itoa(files), segment); err != nil {
						b.Fatal(err)
					}
					defer f.Close()
					files, off = files+1, 0
				}
				if _, err := f.WriteAt(entry, off); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
				off += int64(len(entry))
			}
		})
	}
}

// BenchmarkLogStore compares the two log stores: appends of 1, 16 and 64 entries
// of 3 KiB with one sync each, with the file size and the time to open the log
// again.
func BenchmarkLogStore(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		for _, kind := range []string{logStoreWAL, logStoreBolt} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				dir := filepath.Join(b.TempDir(), "log")
				s, err := openLogDir(dir, kind, hclog.NewNullLogger())
				if err != nil {
					b.Fatal(err)
				}
				var index uint64
				var lat []time.Duration
				for b.Loop() {
					logs := make([]*raft.Log, n)
					for i := range logs {
						index++
						logs[i] = &raft.Log{Index: index, Term: 1, Data: make([]byte, 3<<10)}
					}
					t0 := time.Now()
					if err := s.StoreLogs(logs); err != nil {
						b.Fatal(err)
					}
					lat = append(lat, time.Since(t0))
				}
				slices.Sort(lat)
				b.ReportMetric(float64(index)/b.Elapsed().Seconds(), "entries/s")
				b.ReportMetric(float64(lat[len(lat)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(lat[len(lat)*99/100].Microseconds()), "p99-us")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				var size int64
				if err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
					if info, ierr := d.Info(); ierr == nil && !d.IsDir() {
						size += info.Size()
					}
					return err
				}); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(size)/float64(index), "bytes/entry")
				t0 := time.Now()
				if s, err = openLogDir(dir, kind, hclog.NewNullLogger()); err != nil {
					b.Fatal(err)
				}
				if _, err := newLogStore(s, retention{}); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(t0).Microseconds())/float64(index), "open-us/entry")
				s.Close()
			})
		}
	}
}

// TestFailover prints the gaps in acknowledged writes when the leader dies. It
// is a measurement, run by
//
//	AKIDB_FAILOVER=20 AKIDB_HEARTBEAT=300ms go test ./node -run TestFailover -v
func TestFailover(t *testing.T) {
	runs, err := strconv.Atoi(os.Getenv("AKIDB_FAILOVER"))
	if err != nil {
		t.Skip("a measurement: set AKIDB_FAILOVER to a number of runs")
	}
	hb, _ := time.ParseDuration(os.Getenv("AKIDB_HEARTBEAT"))
	c := startCluster(t, 3, func(cfg *Config) { cfg.HeartbeatTimeout = hb })
	var mu sync.Mutex // guards the nodes against the crashes
	up := map[string]*Node{}
	for name, n := range c.nodes {
		up[name] = n
	}
	ctx, stop := context.WithCancel(context.Background())
	var last, worst atomic.Int64
	last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				mu.Lock()
				var n *Node
				for _, n = range up {
					break
				}
				mu.Unlock()
				cmd := put(fmt.Sprintf("w%d-%d", w, i%100))
				cmd.RequestId = fmt.Sprintf("w%d-%d", w, i)
				opCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
				_, err := n.Propose(opCtx, cmd)
				cancel()
				if err != nil {
					continue
				}
				now := time.Now().UnixNano()
				gap := now - last.Swap(now)
				for {
					was := worst.Load()
					if gap <= was || worst.CompareAndSwap(was, gap) {
						break
					}
				}
			}
		})
	}
	var gaps []time.Duration
	for range runs {
		pause(t.Context(), 2*time.Second)
		l := c.leader().ID()
		mu.Lock()
		delete(up, l)
		mu.Unlock()
		worst.Store(0)
		c.crash(l)
		c.leader()
		pause(t.Context(), 500*time.Millisecond)
		gaps = append(gaps, time.Duration(worst.Load()).Round(time.Millisecond))
		n := c.start(l)
		c.wait("the node to be ready", func() bool { return n.Ready() == nil })
		mu.Lock()
		up[l] = n
		mu.Unlock()
	}
	stop()
	wg.Wait()
	slices.Sort(gaps)
	t.Logf("heartbeat %v: p50 %v max %v of %v", hb, gaps[len(gaps)/2], gaps[len(gaps)-1], gaps)
}
