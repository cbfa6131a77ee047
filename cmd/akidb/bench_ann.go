// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/akidb/akidb/cmd/akidb/internal/hdf5"
	"github.com/akidb/akidb/index"
	"github.com/akidb/akidb/index/annbench"
)

func newBenchANN() *cobra.Command {
	var o annbench.Options
	var quantizations []string
	var plotPath string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ann PATH",
		Short: "Recall against throughput of the index, in this process",
		Long: `ann builds the index of a data set and measures recall, queries per second and
latency over a sweep of ef. PATH is a folder with base.fvecs or .bvecs, query and
groundtruth.ivecs, or an HDF5 file of ann-benchmarks.`,
		Example: `  akidb bench ann fashion-mnist-784-euclidean.hdf5 --quantization none,sq8 --threads 1,2 --plot recall.svg`,
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, q := range quantizations {
				o.Quantizations = append(o.Quantizations, index.Quantization(q))
			}
			o.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			ds, err := loadDataset(args[0])
			if err != nil {
				return err
			}
			rep, err := annbench.Run(cmd.Context(), ds, o)
			if err != nil {
				return err
			}
			if plotPath != "" {
				if err := plotRecall(rep, plotPath); err != nil {
					return err
				}
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), rep)
			}
			return printANN(cmd.OutOrStdout(), rep)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&quantizations, "quantization", nil, "none, sq8, rabitq (default: the index's own choice)")
	f.IntSliceVar(&o.Ef, "ef", nil, "values of ef (default: a sweep)")
	f.IntSliceVar(&o.Threads, "threads", nil, "numbers of threads that search (default: one and all)")
	f.IntVar(&o.K, "top-k", 10, "results of a query")
	f.IntVar(&o.M, "m", 0, "edges of a vertex (default 16)")
	f.IntVar(&o.EfConstruction, "ef-construction", 0, "candidates while building (default 200)")
	f.IntVar(&o.Workers, "workers", 0, "threads that build (default: all)")
	f.IntVar(&o.Queries, "queries", 0, "at most so many queries")
	f.IntVar(&o.Repeats, "repeats", 0, "of each row; the median counts (default 3)")
	f.StringVar(&plotPath, "plot", "", "draw recall against throughput into this file (.svg or .png)")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// loadDataset reads a folder or an ann-benchmarks file.
func loadDataset(path string) (*annbench.Dataset, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return annbench.LoadDir(path)
	}
	f, err := hdf5.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ds := &annbench.Dataset{Name: strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))}
	if ds.Metric, err = annbench.ParseMetric(f.Attribute("distance")); err != nil {
		return nil, fmt.Errorf("%s: attribute distance: %w", path, err)
	}
	if ds.Vectors, ds.Dim, err = allRows(f, "train"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	dim := 0
	if ds.Queries, dim, err = allRows(f, "test"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if dim != ds.Dim {
		return nil, fmt.Errorf("%s: test has dimension %d, train %d", path, dim, ds.Dim)
	}
	near, k, err := allRows(f, "neighbors")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for at := 0; at < len(near); at += k {
		row := make([]int32, k)
		for i := range row {
			row[i] = int32(near[at+i])
		}
		ds.Truth = append(ds.Truth, row)
	}
	return ds, nil
}

// allRows reads a whole dataset; row numbers stay exact up to 2^24 as float32,
// far above what these files hold.
func allRows(f *hdf5.File, name string) ([]float32, int, error) {
	d, err := f.Dataset(name)
	if err != nil {
		return nil, 0, err
	}
	out := make([]float32, d.Rows*d.Dim)
	for i := range d.Rows {
		if err := d.Row(i, out[i*d.Dim:][:d.Dim]); err != nil {
			return nil, 0, err
		}
	}
	return out, d.Dim, nil
}

func printANN(w io.Writer, r *annbench.Report) error {
	fmt.Fprintf(w, "%s: %s × %d, %s\n\n", r.Dataset, thousands(r.N), r.Dim, r.Metric)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "build\tthreads\tvectors/s\tbytes/vector\tgraph hash\t")
	for _, b := range r.Builds {
		fmt.Fprintf(tw, "%s\t%d\t%.0f\t%.0f\t%.12s\t\n", b.Quantization, b.Workers, b.PerS, b.BytesPerVector, b.GraphHash)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(tw, "search\tef\tthreads\trecall@10\tqueries/s\tp50 µs\tp99 µs\t")
	for _, row := range r.Rows {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%.4f\t%.0f\t%.0f\t%.0f\t\n", row.Quantization, row.Ef, row.Threads, row.Recall, row.QPS, row.P50us, row.P99us)
	}
	return tw.Flush()
}
