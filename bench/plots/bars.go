package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// bar is one of a plot; its parts are lines named prefix + part + suffix.
type bar struct{ title, prefix, suffix string }

// part is a layer of all bars.
type part struct {
	name, title string
	color       color.RGBA
}

var (
	blue      = color.RGBA{R: 31, G: 119, B: 180, A: 255}
	lightBlue = color.RGBA{R: 158, G: 202, B: 225, A: 255}
	green     = color.RGBA{R: 49, G: 145, B: 84, A: 255}
	paleGreen = color.RGBA{R: 161, G: 217, B: 155, A: 255}
	orange    = color.RGBA{R: 230, G: 140, B: 30, A: 255}
	red       = color.RGBA{R: 190, G: 50, B: 60, A: 255}
	paleRed   = color.RGBA{R: 240, G: 170, B: 170, A: 255}
)

// stages is the mean time in each stage between commit and effect.
func stages(found results) (*plot.Plot, error) {
	var bars []bar
	for _, b := range brokers {
		for _, rate := range rates {
			bars = append(bars, bar{fmt.Sprintf("%s\n%d/s", b.title, rate), fmt.Sprintf("effect_%s_%d_", b.name, rate), "_ms"})
		}
	}
	p := newPlot("From commit to effect: mean time by stage")
	p.Y.Label.Text = "ms"
	return p, stacked(p, found, bars, []part{
		{"relay", "relay: finds it, reads it", blue},
		{"broker", "broker: published to received", orange},
		{"inbox", "inbox: lane, begin, claim", green},
		{"handler", "effect: handler, commit", red},
	})
}

// cost is the CPU time of each process.
func cost(found results) (*plot.Plot, error) {
	var bars []bar
	for _, b := range brokers {
		for _, h := range []struct{ name, title string }{{"single", "one a tx"}, {"batch", "batches"}} {
			bars = append(bars,
				bar{b.title + "\n" + h.title, "effect_" + b.name + "_" + h.name + "_cpu_", ""},
				bar{b.title + "\n" + h.title + "\nbacklog", "effect_" + b.name + "_" + h.name + "_drain_cpu_", ""})
		}
	}
	p := newPlot("From commit to effect: CPU by stage, at the highest rate")
	p.Y.Label.Text = "seconds per million events"
	return p, stacked(p, found, bars, []part{
		{"service", "write: service", red},
		{"postgres_service", "write: Postgres", paleRed},
		{"relay", "relay", blue},
		{"postgres_relay", "relay: Postgres", lightBlue},
		{"broker", "broker", orange},
		{"consumer", "inbox and effect: consumer", green},
		{"postgres_consumer", "inbox and effect: Postgres", paleGreen},
	})
}

// stacked draws bars of parts. What a bar has no line of had no work.
func stacked(p *plot.Plot, found results, bars []bar, parts []part) error {
	var below *plotter.BarChart
	var charts []*plotter.BarChart
	highest := 0.0
	totals := make([]float64, len(bars))
	for _, layer := range parts {
		values := make(plotter.Values, len(bars))
		some := false
		for i, b := range bars {
			r, ok := found[b.prefix+layer.name+b.suffix]
			some = some || ok
			values[i] = max(0, r.Value)
			totals[i] += values[i]
			highest = max(highest, totals[i])
		}
		if !some {
			return fmt.Errorf("no line of %s: run `JSON=1 make bench-effect` without BENCH", layer.name)
		}
		chart, err := plotter.NewBarChart(values, vg.Points(30))
		if err != nil {
			return err
		}
		chart.Color, chart.LineStyle.Width = layer.color, 0
		if below != nil {
			chart.StackOn(below)
		}
		below = chart
		p.Add(chart)
		charts = append(charts, chart)
	}
	for i, chart := range slices.Backward(charts) { // as the layers lie
		p.Legend.Add(parts[i].title, chart)
	}
	names := make([]string, len(bars))
	for i, b := range bars {
		names[i] = b.title
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.6, float64(len(bars))-0.4
	p.Y.Min, p.Y.Max = 0, highest*1.5 // room for the legend
	return nil
}
