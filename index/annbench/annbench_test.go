// SPDX-License-Identifier: Apache-2.0

package annbench

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/index/distance"
)

// Goal: the report of a small set with computed truth is sound.
func TestRun(t *testing.T) {
	ds := &Dataset{Name: "grid", Dim: 2, Metric: distance.L2}
	for i := range 60 {
		for j := range 60 {
			ds.Vectors = append(ds.Vectors, float32(i), float32(j))
		}
	}
	for i := range 40 {
		ds.Queries = append(ds.Queries, float32(i)+0.3, float32(i)+0.1)
	}
	rep, err := Run(context.Background(), ds, Options{Ef: []int{20, 100}, Threads: []int{1}, Repeats: 1})
	if err != nil {
		t.Fatal(err)
	}
	if rep.N != 3600 || rep.Dim != 2 || rep.Metric != "l2" || len(rep.Rows) != 2 || rep.BuildPerS <= 0 {
		t.Errorf("report %+v", rep)
	}
	if r := rep.Rows[1]; r.Recall < 0.99 || r.Ef != 100 || r.QPS <= 0 || r.P99us < r.P50us {
		t.Errorf("row %+v", r)
	}
}

func TestWhatCannotBeMeasured(t *testing.T) {
	ds := &Dataset{Name: "x", Dim: 1, Metric: distance.L2, Vectors: []float32{1, 2}, Queries: []float32{1}}
	for _, o := range []Options{{K: -3}, {Threads: []int{0}}, {Ef: []int{-1}}} {
		if _, err := Run(context.Background(), ds, o); err == nil {
			t.Errorf("%+v was run", o)
		}
	}
	ds.Truth = [][]int32{{0, 2}}
	if _, err := Run(context.Background(), ds, Options{K: 1}); err == nil {
		t.Error("a true neighbour that there is not")
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	dir := t.TempDir() + "/x-l2"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("query.bvecs", []byte{2, 0, 0, 0, 1, 2})
	for _, base := range [][]byte{{}, {2, 0, 0, 0, 1}, {2, 0, 0, 0, 1, 2, 3, 0, 0, 0, 1, 2}} {
		write("base.bvecs", base)
		if _, err := LoadDir(dir); err == nil {
			t.Errorf("%v was read", base)
		}
	}
	write("base.bvecs", []byte{2, 0, 0, 0, 1, 2, 2, 0, 0, 0, 3, 4})
	ds, err := LoadDir(dir)
	if err != nil || ds.Len() != 2 || ds.Base(1)[1] != 4 {
		t.Errorf("%+v, %v", ds, err)
	}
}

// TestSweep prints the curve of data sets: AKIDB_ANNBENCH names folders under
// AKIDB_DATA, divided by commas; AKIDB_ANNBENCH_EF, _QUANT, _WORKERS change it.
func TestSweep(t *testing.T) {
	names := os.Getenv("AKIDB_ANNBENCH")
	if names == "" {
		t.Skip("set AKIDB_DATA and AKIDB_ANNBENCH to run")
	}
	o := Options{Progress: func(s string) { t.Log(s) }, Workers: runtime.GOMAXPROCS(0)}
	for _, s := range strings.FieldsFunc(os.Getenv("AKIDB_ANNBENCH_EF"), isComma) {
		ef, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		o.Ef = append(o.Ef, ef)
	}
	for _, s := range strings.FieldsFunc(os.Getenv("AKIDB_ANNBENCH_QUANT"), isComma) {
		o.Quantizations = append(o.Quantizations, index.Quantization(s))
	}
	if w, err := strconv.Atoi(os.Getenv("AKIDB_ANNBENCH_WORKERS")); err == nil {
		o.Workers = w
	}
	for _, name := range strings.FieldsFunc(names, isComma) {
		ds, err := LoadDir(filepath.Join(os.Getenv("AKIDB_DATA"), name))
		if err != nil {
			t.Fatal(err)
		}
		o.Queries = min(len(ds.Queries)/ds.Dim, 3000)
		rep, err := Run(context.Background(), ds, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range rep.Builds {
			t.Logf("%s %s: build %.0f/s with %d workers, %.0f bytes/vector, graph %s",
				rep.Dataset, b.Quantization, b.PerS, b.Workers, b.BytesPerVector, b.GraphHash)
		}
		for _, r := range rep.Rows {
			t.Logf("%-5s ef %4d threads %d recall %.4f %8.0f q/s p50 %6.1f us p99 %6.1f us visited %.0f",
				r.Quantization, r.Ef, r.Threads, r.Recall, r.QPS, r.P50us, r.P99us, r.Visited)
		}
	}
}

func isComma(r rune) bool { return r == ',' }
