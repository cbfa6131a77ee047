// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/akidb/akidb/index/annbench"
)

// plotRecall draws one line for each quantization and number of threads: recall
// to the right, queries per second upwards on a logarithmic axis, as
// ann-benchmarks draws them. Up and to the right is better.
func plotRecall(r *annbench.Report, path string) error {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s (%d × %d, %s)", r.Dataset, r.N, r.Dim, r.Metric)
	p.X.Label.Text = "recall@10"
	p.Y.Label.Text = "queries per second"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	lines := map[string]plotter.XYs{}
	var names []string
	for _, row := range r.Rows {
		name := fmt.Sprintf("%s, %d thread(s)", row.Quantization, row.Threads)
		if lines[name] == nil {
			names = append(names, name)
		}
		lines[name] = append(lines[name], plotter.XY{X: row.Recall, Y: max(row.QPS, 1)})
	}
	var args []any
	for _, name := range names {
		slices.SortFunc(lines[name], func(a, b plotter.XY) int {
			if a.X < b.X {
				return -1
			}
			return 1
		})
		args = append(args, name, lines[name])
	}
	if err := plotutil.AddLinePoints(p, args...); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	if err := p.Save(18*vg.Centimeter, 12*vg.Centimeter, path); err != nil {
		return fmt.Errorf("plot %s: %w", path, err)
	}
	return nil
}
