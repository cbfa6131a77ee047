// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/akidb/akidb/client"
	"github.com/akidb/akidb/cmd/akidb/internal/localcluster"
	collectionv1 "github.com/akidb/akidb/rpc/akidbpb/akidb/collection/v1"
)

// The test binary is akidb when it is called so: scripts run it, and so do the
// clusters that the tests start.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"akidb": main})
}

// testdata/*.txtar are sessions at a terminal. Beside the usual commands they
// have `cluster N`, which starts N nodes and sets AKIDB_ENDPOINTS, AKIDB_CA_CERT
// and REST1; nodes end with the script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CACHE_HOME", env.WorkDir+"/.cache")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"cluster": func(ts *testscript.TestScript, _ bool, args []string) {
				n := 1
				if len(args) > 0 {
					_, err := fmt.Sscan(args[0], &n)
					ts.Check(err)
				}
				dir := ts.MkAbs(".cluster")
				ts.Check(os.MkdirAll(dir, 0o700))
				c, cleanup, err := startLocal(context.Background(), localcluster.Options{Binary: akidbBinary(dir), Dir: dir, Nodes: n})
				ts.Check(err)
				ts.Defer(func() { _ = cleanup() })
				ts.Setenv("AKIDB_ENDPOINTS", strings.Join(c.Endpoints(), ","))
				ts.Setenv("AKIDB_CA_CERT", c.CACert)
				ts.Setenv("REST1", "https://"+c.Nodes[0].REST)
			},
		},
	})
}

// akidbBinary is a copy of the test binary under a name by which it is akidb. No
// symbolic link: os.Executable sees through it, and nodes of nodes would be tests.
func akidbBinary(dir string) string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	to := filepath.Join(dir, "akidb")
	if os.Link(self, to) == nil {
		return to
	}
	data, err := os.ReadFile(self) // another file system
	if err == nil {
		err = os.WriteFile(to, data, 0o700)
	}
	if err != nil {
		panic(err)
	}
	return to
}

func startTestCluster(t *testing.T, nodes int, flags ...string) (*localcluster.Cluster, *client.Client) {
	t.Helper()
	return startTestClusterWith(t, localcluster.Options{Nodes: nodes, Flags: flags})
}

// startTestClusterWith starts a cluster of the test binary in a directory of the
// test.
func startTestClusterWith(t *testing.T, o localcluster.Options) (*localcluster.Cluster, *client.Client) {
	t.Helper()
	o.Dir = t.TempDir()
	o.Binary = akidbBinary(o.Dir)
	c, cleanup, err := startLocal(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cleanup(); err != nil {
			t.Error(err)
		}
	})
	cl, err := c.Client(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return c, cl
}

// Goal: an import that is interrupted and started again applies every row once.
// Method: it is cut down while batches are under way; those that were applied
// without an answer must keep their version when they are sent again.
func TestImportGoesOnExactlyOnce(t *testing.T) {
	_, cl := startTestCluster(t, 1)
	const rows, batch = 3000, 50
	var file []byte
	for i := range rows {
		file = binary.LittleEndian.AppendUint32(file, 3)
		for j := range 3 {
			file = binary.LittleEndian.AppendUint32(file, math.Float32bits(float32(i*3+j)))
		}
	}
	path := filepath.Join(t.TempDir(), "a.fvecs")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	job := importJob{collection: "c", path: path, batch: batch, inFlight: 8, stateDir: t.TempDir(), index: indexFlags{metric: "l2"}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := job
	res, err := first.run(ctx, cl, func(int) func(int) {
		return func(done int) {
			if done >= rows/3 {
				cancel()
			}
		}
	})
	if err == nil || !strings.Contains(err.Error(), "start the same command again") {
		t.Fatalf("%+v, %v", res, err)
	}
	before := versions(t, cl)
	again := job
	if res, err = again.run(t.Context(), cl, nil); err != nil || res.Resumed < rows/3 || res.Resumed+res.Rows != rows {
		t.Fatalf("%+v, %v", res, err)
	}
	after := versions(t, cl)
	if len(after) != rows {
		t.Fatalf("%d rows, want %d", len(after), rows)
	}
	for id, v := range before {
		if after[id] != v {
			t.Fatalf("row %s was written at %d and again at %d (of %d rows that were there before)", id, v, after[id], len(before))
		}
	}
	t.Logf("%d rows were there, %d acknowledged, when the first run ended", len(before), res.Resumed)
	if left, _ := filepath.Glob(filepath.Join(job.stateDir, "*")); len(left) > 0 {
		t.Fatalf("state left behind: %v", left)
	}
}

// Only the same command goes on with an interrupted import: another prefix of ids,
// other payloads, or another field of vectors make other documents of the same rows.
func TestAnotherImportOfAFileBeginsAnew(t *testing.T) {
	_, cl := startTestCluster(t, 1)
	const rows, batch = 2000, 50
	dir := t.TempDir()
	path, payload := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "p.jsonl")
	var lines, payloads []byte
	for i := range rows {
		lines = fmt.Appendf(lines, "{\"id\":\"d%d\",\"key\":\"k%d\",\"vector\":[%d],\"other\":[-1]}\n", i, i, i)
		payloads = fmt.Appendf(payloads, "{\"n\":%d}\n", i)
	}
	for name, content := range map[string][]byte{path: lines, payload: payloads} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(*importJob){
		"prefix":   func(j *importJob) { j.file.IDField, j.idPrefix = "none", "x-" },
		"id field": func(j *importJob) { j.file.IDField = "key" },
		"vectors":  func(j *importJob) { j.file.VectorField = "other" },
		"payload":  func(j *importJob) { j.payload = payload },
		"limit":    func(j *importJob) { j.limit = 10 },
	} {
		job := importJob{collection: "another-" + strings.ReplaceAll(what, " ", "-"), path: path, batch: batch, inFlight: 4, stateDir: t.TempDir(), index: indexFlags{metric: "l2"}}
		first := job
		if _, err := first.run(t.Context(), cl, nil); err != nil {
			t.Fatal(err)
		}
		// As an interrupted run leaves it: 1,000 rows are committed.
		st, err := first.openState()
		if err != nil {
			t.Fatal(err)
		}
		st.Rows = rows / 2
		if err := st.save(); err != nil {
			t.Fatal(err)
		}
		second := job
		change(&second)
		want := rows
		if second.limit > 0 {
			want = second.limit
		}
		if res, err := second.run(t.Context(), cl, nil); err != nil || res.Rows != want {
			t.Errorf("another %s: %d of %d rows were imported, begun at %d: %v", what, res.Rows, want, res.Resumed, err)
		}
	}
}

// Goal: a row that cannot be read costs its whole batch and nothing before it.
// Method: files of five batches with a wrong row in the middle of the third.
func TestImportCommitsWholeBatches(t *testing.T) {
	_, cl := startTestCluster(t, 1)
	const rows, batch, bad = 50, 10, 25
	var vecs, lines []byte
	for i := range rows {
		x := float32(i)
		if i == bad {
			x = float32(math.NaN())
		}
		vecs = binary.LittleEndian.AppendUint32(vecs, 1)
		vecs = binary.LittleEndian.AppendUint32(vecs, math.Float32bits(x))
		if i == bad {
			lines = append(lines, "{\"vector\": [1,\n"...)
		} else {
			lines = fmt.Appendf(lines, "{\"vector\": [%d]}\n", i)
		}
	}
	for name, content := range map[string][]byte{"a.fvecs": vecs, "a.jsonl": lines} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{batch, 1 << 20} { // a limit of bytes that each row passes, and none
			collection := fmt.Sprintf("%s-%d", name, limit)
			job := importJob{collection: collection, path: path, batch: batch, batchBytes: limit, stateDir: t.TempDir(), index: indexFlags{metric: "l2"}}
			_, err := job.run(t.Context(), cl, nil)
			want := bad - bad%batch
			if limit == batch {
				want = bad
			}
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("row %d", bad)) ||
				!strings.HasSuffix(err.Error(), fmt.Sprintf("the first %d rows are committed", want)) {
				t.Errorf("%s: %v", collection, err)
			}
			n, err := cl.Count(t.Context(), &collectionv1.CountRequest{CollectionId: collection})
			if err != nil || n.Count != uint64(want) {
				t.Errorf("%s: %d rows are there, want %d: %v", collection, n.GetCount(), want, err)
			}
		}
	}
}

func versions(t *testing.T, cl *client.Client) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for cursor := ""; ; {
		page, err := cl.Scroll(t.Context(), &collectionv1.ScrollRequest{CollectionId: "c", Limit: 1000, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Documents {
			out[d.DocId] = d.Version
		}
		if cursor = page.NextCursor; cursor == "" {
			return out
		}
	}
}

// Goal: the ledger's audit can fail. Method: documents are deleted and written
// again behind its back.
func TestAuditFindsWhatIsWrong(t *testing.T) {
	_, cl := startTestCluster(t, 1)
	l, err := newLedger(t.Context(), cl, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	w := l.start(t.Context(), cl, "w", 2)
	if err := l.waitAcked(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if a, err := l.audit(t.Context(), cl); err != nil || a.Lost != 0 || a.Duplicated != 0 {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := cl.Delete(t.Context(), &collectionv1.DeleteRequest{CollectionId: "ledger", DocId: "w0-000001"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"w1-000002", "stranger"} {
		if _, err := cl.Upsert(t.Context(), &collectionv1.UpsertRequest{CollectionId: "ledger", DocId: id, Vector: make([]float32, ledgerDim)}); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := l.audit(t.Context(), cl); err != nil || a.Lost != 1 || a.Duplicated != 2 {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestLongestGap(t *testing.T) {
	base := time.Now()
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	l := &ledger{acks: []time.Time{at(0), at(10), at(90), at(95), at(140)}}
	if got := l.longestGap(at(12)); got != 80*time.Millisecond {
		t.Fatalf("got %v", got)
	}
	if got := l.longestGap(at(91)); got != 45*time.Millisecond {
		t.Fatalf("got %v", got)
	}
}

func TestPercentiles(t *testing.T) {
	var d []time.Duration
	for i := 1; i <= 200; i++ {
		d = append(d, time.Duration(i)*time.Millisecond)
	}
	if p50, p99 := percentileMS(d, 50), percentileMS(d, 99); p50 != 100 || p99 != 198 {
		t.Fatal(p50, p99)
	}
	if percentileMS(nil, 50) != 0 || percentileMS(d[:1], 99) != 1 {
		t.Fatal("edges")
	}
}

// A document written through one node is found at once by a linearizable search
// on another, every time.
func TestWriteHereSearchThere(t *testing.T) {
	c, cl := startTestCluster(t, 3)
	if _, err := cl.CreateCollection(t.Context(), &collectionv1.CreateCollectionRequest{Name: "c", Dimension: 4, Metric: "l2"}); err != nil {
		t.Fatal(err)
	}
	var on []*client.Client
	for _, n := range c.Nodes {
		one, err := c.Client(n)
		if err != nil {
			t.Fatal(err)
		}
		defer one.Close()
		on = append(on, one)
	}
	for i := range 300 {
		v := []float32{float32(i), float32(i % 7), float32(i % 11), 1}
		id := fmt.Sprint(i)
		w, err := on[i%3].Upsert(t.Context(), &collectionv1.UpsertRequest{CollectionId: "c", DocId: id, Vector: v})
		if err != nil {
			t.Fatal(err)
		}
		r, err := on[(i+1+i%2)%3].Query(t.Context(), &collectionv1.QueryRequest{CollectionId: "c", QueryVector: v, TopK: 1})
		if err != nil || len(r.Matches) != 1 || r.Matches[0].DocId != id || r.Matches[0].Version != w.Version {
			t.Fatalf("document %d: %v, %v", i, r, err)
		}
	}
}
