// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/akidb/akidb/internal/storage"
)

// fullDisk is a log whose disk can be full.
type fullDisk struct {
	closableLogStore
	full *atomic.Bool
}

func (f fullDisk) StoreLogs(logs []*raft.Log) error {
	if f.full.Load() {
		return fmt.Errorf("write segment: %w", syscall.ENOSPC)
	}
	return f.closableLogStore.StoreLogs(logs)
}

// The disk fills on the leader, on a follower, on all. Nothing acknowledged is
// lost, and once there is space writes are taken again without anybody's help.
func TestFullDiskEndsByItself(t *testing.T) {
	full := map[string]*atomic.Bool{"n1": {}, "n2": {}, "n3": {}}
	c := startCluster(t, 3, func(cfg *Config) {
		cfg.wrapLog = func(l closableLogStore) closableLogStore { return fullDisk{l, full[cfg.NodeID]} }
	})
	acked := 0
	write := func(n *Node) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		cmd := put(fmt.Sprintf("d%d", acked))
		cmd.RequestId = cmd.GetWrite().Writes[0].DocId
		_, err := n.Propose(ctx, cmd)
		if err == nil {
			acked++
		}
		return err
	}
	for _, which := range []string{"leader", "follower", "all"} {
		l, f := c.leader(), c.follower()
		var hit []string
		switch which {
		case "leader":
			hit = []string{l.ID()}
		case "follower":
			hit = []string{f.ID()}
		default:
			hit = c.names
		}
		for _, name := range hit {
			full[name].Store(true)
		}
		err := write(f)
		if which == "all" && err == nil {
			t.Fatal("a write was acknowledged with every disk full")
		}
		if which != "all" && err != nil {
			t.Fatalf("one full disk (%s) stopped writes: %v", which, err)
		}
		if err := c.nodes[hit[0]].awaitRead(context.Background(), ReadOptions{Consistency: Eventual}); err != nil {
			t.Fatalf("reads on the full node: %v", err)
		}
		for _, name := range hit {
			full[name].Store(false)
		}
		c.wait("writes after "+which, func() bool { return write(c.nodes["n1"]) == nil })
		c.wait("all nodes to be ready", func() bool {
			for _, n := range c.nodes {
				if n.Ready() != nil {
					return false
				}
			}
			return true
		})
	}
	for name, n := range c.nodes {
		if err := n.awaitRead(c.ctx(), ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		for i := range acked {
			if _, ok := c.mem[name].doc(fmt.Sprintf("d%d", i)); !ok {
				t.Fatalf("d%d is missing on %s", i, name)
			}
		}
	}
}

// A node that lost part of its log behind the state it holds must not start as
// if nothing had happened.
func TestLostLogIsNotTakenForEmpty(t *testing.T) {
	c := startCluster(t, 1, nil)
	c.put(c.leader(), "x")
	c.stop("n1")
	if err := os.RemoveAll(filepath.Join(c.dir, "n1", "groups", groupID, "log-wal")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), c.config("n1"))
	if err == nil || !strings.Contains(err.Error(), "acknowledged entries were lost") {
		t.Fatalf("got %v", err)
	}
}

// A node that forgot its vote could give a second one in the same term.
func TestLostVoteIsNotTakenForNone(t *testing.T) {
	c := startCluster(t, 1, nil)
	c.put(c.leader(), "x")
	c.stop("n1")
	path := filepath.Join(c.dir, "n1", "groups", groupID, "stable.db")
	for what, lose := range map[string]func() error{
		"removed": func() error { return os.Remove(path) },
		"emptied": func() error { return os.Truncate(path, 0) },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), c.config("n1"))
		if err == nil || !strings.Contains(err.Error(), "vote") || !strings.Contains(err.Error(), "stable.db") {
			t.Fatalf("%s: got %v", what, err)
		}
	}
}

func testLog(t *testing.T, kind string) *logStore {
	t.Helper()
	under, err := openLogDir(filepath.Join(t.TempDir(), "log"), kind, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { under.Close() })
	s, err := newLogStore(under, retention{entries: 10, bytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func appendLogs(t *testing.T, s raft.LogStore, from, to uint64, size int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := s.StoreLogs([]*raft.Log{{Index: i, Term: 1, Data: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// What stays behind a snapshot is bounded by entries and by bytes, entries a
// member is being sent a snapshot for stay, and Raft sees a monotonic store.
func TestLogRetention(t *testing.T) {
	for _, kind := range []string{logStoreWAL, logStoreBolt} {
		t.Run(kind, func(t *testing.T) {
			s := testLog(t, kind)
			var m raft.MonotonicLogStore = s
			if !m.IsMonotonic() {
				t.Fatal("not monotonic")
			}
			check := func(want uint64) {
				t.Helper()
				if first, err := s.FirstIndex(); err != nil || first != want {
					t.Fatalf("log starts at %d (%v), want %d", first, err, want)
				}
			}
			appendLogs(t, s, 1, 30, 10)
			if err := s.DeleteRange(1, 29); err != nil { // a snapshot at 30
				t.Fatal(err)
			}
			check(21) // 10 entries
			appendLogs(t, s, 31, 34, 300)
			if err := s.DeleteRange(21, 33); err != nil {
				t.Fatal(err)
			}
			check(32) // 900 bytes
			appendLogs(t, s, 35, 38, 300)
			s.holdBack = func() uint64 { return 33 }
			if err := s.DeleteRange(32, 37); err != nil {
				t.Fatal(err)
			}
			check(34)
			if err := s.DeleteRange(36, 38); err != nil { // a new leader's entries come
				t.Fatal(err)
			}
			if last, _ := s.LastIndex(); last != 35 {
				t.Fatalf("log ends at %d", last)
			}
			appendLogs(t, s, 36, 40, 5)
			var l raft.Log
			if err := s.GetLog(36, &l); err != nil || len(l.Data) != 5 {
				t.Fatalf("entry 36 after it was overwritten: %d bytes, %v", len(l.Data), err)
			}
			if err := s.DeleteRange(34, 40); err != nil { // after an installed snapshot
				t.Fatal(err)
			}
			if last, _ := s.LastIndex(); last != 0 {
				t.Fatalf("log still ends at %d", last)
			}
			appendLogs(t, s, 100, 101, 5)
			check(100)
		})
	}
}

// After a failed append the log refuses everything until it is opened again.
func TestFailedAppendIsReportedOnce(t *testing.T) {
	var full atomic.Bool
	s := testLog(t, logStoreWAL)
	s.under = fullDisk{s.under, &full}
	var reports []error
	s.onFail = func(err error) { reports = append(reports, err) }
	appendLogs(t, s, 1, 1, 1)
	full.Store(true)
	for range 2 {
		if err := s.StoreLogs([]*raft.Log{{Index: 2}}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v", err)
		}
	}
	full.Store(false)
	if err := s.StoreLogs([]*raft.Log{{Index: 2}}); err == nil {
		t.Fatal("taken without being opened anew")
	}
	if len(reports) != 1 {
		t.Fatalf("%d reports", len(reports))
	}
}

// The log goes from one kind to the other and back, and the node has its data.
func TestMigrateLog(t *testing.T) {
	kind := logStoreWAL
	c := newCluster(t, []string{"n1"}, func(cfg *Config) { cfg.LogStore = kind })
	c.start("n1")
	for i := range 20 {
		c.put(c.leader(), fmt.Sprintf("d%d", i))
	}
	dir := filepath.Join(c.dir, "n1")
	if _, err := MigrateLog(dir, logStoreWAL, logStoreBolt); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("migrating a running node: %v", err)
	}
	for _, to := range []string{logStoreBolt, logStoreWAL} {
		c.stop("n1")
		n, err := MigrateLog(dir, kind, to)
		if err != nil || n < 20 {
			t.Fatalf("%d entries, %v", n, err)
		}
		if _, err := MigrateLog(dir, kind, to); err == nil {
			t.Fatal("migrated twice")
		}
		kind = to
		c.start("n1")
		c.put(c.leader(), "on "+to)
	}
	if _, ok := c.mem["n1"].doc("d19"); !ok {
		t.Fatal("data is gone")
	}
}

// Two of three are gone for good: the third goes on alone after Recover, which
// refuses any confirmation that does not fit, and emptied nodes join it.
func TestRecoverLostQuorum(t *testing.T) {
	c := startCluster(t, 3, nil)
	for i := range 10 {
		c.put(c.leader(), fmt.Sprintf("d%d", i))
	}
	id := c.leader().g.clusterID()
	for _, n := range c.names {
		c.stop(n)
	}
	ctx := context.Background()
	for _, wrong := range []RecoverConfirmation{{}, {ClusterID: id}, {NodeID: "n2"}, {ClusterID: id, NodeID: "n1"}, {ClusterID: "x", NodeID: "n2"}} {
		if _, err := Recover(ctx, c.config("n2"), wrong); err == nil {
			t.Fatalf("recovered with %+v", wrong)
		}
	}
	in, err := Inspect(ctx, c.config("n2"))
	if err != nil || in.ClusterID != id || len(in.Servers) != 3 || in.LastLogIndex == 0 {
		t.Fatalf("inspect: %+v, %v", in, err)
	}
	out, err := Recover(ctx, c.config("n2"), RecoverConfirmation{ClusterID: id, NodeID: "n2"})
	if err != nil || out.LogIndex != in.LastLogIndex {
		t.Fatalf("recover: %+v, %v", out, err)
	}
	n := c.start("n2")
	c.put(n, "after")
	for _, gone := range []string{"n1", "n3"} {
		if err := os.RemoveAll(filepath.Join(c.dir, gone)); err != nil {
			t.Fatal(err)
		}
		c.start(gone)
	}
	c.wait("three voters", func() bool {
		voters := 0
		for _, m := range n.Members() {
			if m.Voter {
				voters++
			}
		}
		return voters == 3
	})
	if err := c.nodes["n3"].awaitRead(c.ctx(), ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, ok := c.mem["n3"].doc(fmt.Sprintf("d%d", i)); !ok {
			t.Fatalf("d%d is missing", i)
		}
	}
}

// breaking is a connection that ends after so many bytes.
type breaking struct {
	net.Conn
	left *atomic.Int64
}

func (b breaking) Read(p []byte) (int, error) {
	if b.left.Load() <= 0 {
		return 0, errors.New("cable pulled")
	}
	n, err := b.Conn.Read(p[:min(len(p), 1000)])
	b.left.Add(-int64(n))
	return n, err
}

// A transfer that breaks again and again comes to an end, since each try keeps
// what it got; a damaged file is noticed and fetched anew.
func TestSnapshotTransferResumes(t *testing.T) {
	src, err := openMem(filepath.Join(t.TempDir(), "src"))
	if err != nil {
		t.Fatal(err)
	}
	src.st.Docs["big"] = memDoc{1, make([]byte, 40_000)}
	src.st.Applied = 7
	disk := storage.Disk()
	from, err := newSnapshotStore(disk, filepath.Join(t.TempDir(), "from"), src, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	man, release, err := from.export(7)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	dst, err := openMem(filepath.Join(t.TempDir(), "dst"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := newSnapshotStore(disk, filepath.Join(t.TempDir(), "to"), dst, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	tries := 0
	dial := func(context.Context, string) (net.Conn, error) {
		a, b := net.Pipe()
		wg.Go(func() { from.serveFetch(b) })
		left := new(atomic.Int64)
		left.Store(9_000)
		return breaking{a, left}, nil
	}
	for ; ; tries++ {
		if tries > 50 {
			t.Fatal("no progress")
		}
		if err := to.stage(t.Context(), man, dial); err == nil {
			break
		}
	}
	if tries < 4 {
		t.Fatalf("only %d tries: the connection never broke", tries)
	}
	if index, err := to.install(man, dst); err != nil || index != 7 || dst.Applied() != 7 {
		t.Fatalf("install: %d, %v", index, err)
	}
	if d, ok := dst.doc("big"); !ok || len(d.Data) != 40_000 {
		t.Fatal("the state is not the source's")
	}
}

// A receiver that holds a snapshot of its own and is restarted in the middle of a
// transfer keeps the files it has, for a day; what was laid out and not installed
// goes.
func TestRestartKeepsFetchedFiles(t *testing.T) {
	disk, dir := storage.Disk(), filepath.Join(t.TempDir(), "to")
	var s *snapshotStore
	restart := func() {
		t.Helper()
		m, err := openMem(filepath.Join(t.TempDir(), "m"))
		if err != nil {
			t.Fatal(err)
		}
		if s, err = newSnapshotStore(disk, dir, m, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.finishInstall(m); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	if err := s.writeMeta(snapshotFile{Meta: raft.SnapshotMeta{ID: "1-1", Index: 1, Term: 1}}); err != nil {
		t.Fatal(err)
	}
	whole, part, old := filepath.Join(s.objects(), "aa"), filepath.Join(s.objects(), "bb.part"), filepath.Join(s.objects(), "cc")
	stale := filepath.Join(s.incoming(), "state-a-1")
	for _, path := range []string{whole, part, old, filepath.Join(stale, "f")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * keepFetched)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	restart()
	for path, want := range map[string]bool{whole: true, part: true, old: false, stale: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: kept %v, want %v (%v)", path, err == nil, want, err)
		}
	}
}
