// SPDX-License-Identifier: Apache-2.0

//go:build linux

package report

import (
	"errors"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/akidb/akidb/jepsen/history"
)

// colours of operations by outcome, and of the time of faults.
var (
	colourOK      = color.RGBA{R: 0x2e, G: 0x7d, B: 0x32, A: 0xff}
	colourFail    = color.RGBA{R: 0xef, G: 0x6c, B: 0x00, A: 0xff}
	colourUnknown = color.RGBA{R: 0xc6, G: 0x28, B: 0x28, A: 0xff}
	colourFault   = color.RGBA{R: 0x90, G: 0xa4, B: 0xae, A: 0x50}
)

// plots writes latency.svg and availability.svg (and .png) to dir.
func plots(dir string, f *Figures, ops []history.Op) error {
	if len(ops) == 0 {
		return nil
	}
	lat, err := latencyPlot(f, ops)
	if err != nil {
		return err
	}
	avail, err := availabilityPlot(f, ops)
	if err != nil {
		return err
	}
	var errs []error
	for _, ext := range []string{".svg", ".png"} {
		errs = append(errs,
			lat.Save(10*vg.Inch, 4*vg.Inch, filepath.Join(dir, "latency"+ext)),
			avail.Save(10*vg.Inch, 3*vg.Inch, filepath.Join(dir, "availability"+ext)))
	}
	return errors.Join(errs...)
}

// shade marks the time of the faults, from 0 to top.
func shade(p *plot.Plot, f *Figures, bottom, top, end float64) error {
	for _, fault := range f.Faults {
		from, to := float64(fault.StartMs)/1e3, float64(fault.HealMs)/1e3
		if to == 0 {
			to = end
		}
		area, err := plotter.NewPolygon(plotter.XYs{{X: from, Y: bottom}, {X: from, Y: top}, {X: to, Y: top}, {X: to, Y: bottom}})
		if err != nil {
			return err
		}
		area.Color, area.LineStyle.Width = colourFault, 0
		p.Add(area)
	}
	return nil
}

func latencyPlot(f *Figures, ops []history.Op) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "Latency of operations, grey: faults"
	p.X.Label.Text, p.Y.Label.Text = "s", "ms"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{}
	groups := map[history.Type]plotter.XYs{}
	var top, end float64 = 1, 0
	const bottom = 0.1
	for i := range ops {
		op := &ops[i]
		if op.Ended == 0 {
			continue
		}
		ms := max(bottom, float64(op.Ended-op.Call)/1e6)
		top, end = max(top, ms), max(end, float64(op.Ended)/1e9)
		groups[op.Type] = append(groups[op.Type], plotter.XY{X: float64(op.Call) / 1e9, Y: ms})
	}
	if err := shade(p, f, bottom, top, end); err != nil {
		return nil, err
	}
	for _, g := range []struct {
		t history.Type
		c color.Color
	}{{history.OK, colourOK}, {history.Fail, colourFail}, {history.Info, colourUnknown}} {
		if len(groups[g.t]) == 0 {
			continue
		}
		s, err := plotter.NewScatter(groups[g.t])
		if err != nil {
			return nil, err
		}
		s.GlyphStyle = draw.GlyphStyle{Color: g.c, Radius: vg.Points(1), Shape: draw.CircleGlyph{}}
		p.Add(s)
		p.Legend.Add(string(g.t), s)
	}
	p.Legend.Top = true
	return p, nil
}

func availabilityPlot(f *Figures, ops []history.Op) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "Operations a second that succeeded"
	p.X.Label.Text, p.Y.Label.Text = "s", "1/s"
	perSecond := map[int]float64{}
	last := 0
	for i := range ops {
		if op := &ops[i]; op.Type == history.OK {
			s := int(op.Return / 1e9)
			perSecond[s]++
			last = max(last, s)
		}
	}
	var line plotter.XYs
	top := 1.0
	for s := 0; s <= last; s++ {
		line = append(line, plotter.XY{X: float64(s), Y: perSecond[s]})
		top = max(top, perSecond[s])
	}
	if err := shade(p, f, 0, top, float64(last)); err != nil {
		return nil, err
	}
	l, err := plotter.NewLine(line)
	if err != nil {
		return nil, err
	}
	l.LineStyle.Color = colourOK
	p.Add(l)
	return p, nil
}
