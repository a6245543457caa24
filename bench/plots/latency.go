package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

var (
	rates   = []int{100, 500, 2000} // as bench's effectRates
	brokers = []struct {
		name, title string
		color       color.RGBA
		glyph       draw.GlyphDrawer
	}{
		{"kafka", "Kafka", color.RGBA{R: 31, G: 119, B: 180, A: 255}, draw.CircleGlyph{}},
		{"rabbitmq", "RabbitMQ", color.RGBA{R: 214, G: 96, B: 20, A: 255}, draw.SquareGlyph{}},
	}
	percentiles = []struct {
		name, title string
		dashes      []vg.Length
	}{
		{"p50", "p50", nil},
		{"p99", "p99", []vg.Length{vg.Points(6), vg.Points(3)}},
		{"p999", "p99.9", []vg.Length{vg.Points(2), vg.Points(2)}},
	}
)

// latency is the whole way by rate, of each broker and percentile, with the
// spread of the rounds.
func latency(found results) (*plot.Plot, error) {
	p := newPlot("From commit to effect: latency")
	p.X.Label.Text, p.Y.Label.Text = "events/s", "ms (logarithmic)"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	p.X.Tick.Marker = rateTicks()
	p.Add(plotter.NewGrid())
	for _, b := range brokers {
		for _, q := range percentiles {
			s, err := spreadOf(found, "effect_"+b.name+"_%d_"+q.name+"_ms")
			if err != nil {
				return nil, err
			}
			line, points, err := plotter.NewLinePoints(s)
			if err != nil {
				return nil, err
			}
			bars, err := plotter.NewYErrorBars(s)
			if err != nil {
				return nil, err
			}
			line.Color, points.Color, bars.Color = b.color, b.color, b.color
			line.Dashes, points.Shape = q.dashes, b.glyph
			p.Add(line, points, bars)
			p.Legend.Add(b.title+" "+q.title, line, points)
		}
	}
	p.X.Min, p.X.Max = 80, 9000 // room for the legend
	return p, nil
}

func rateTicks() plot.ConstantTicks {
	var out plot.ConstantTicks
	for _, r := range rates {
		out = append(out, plot.Tick{Value: float64(r), Label: fmt.Sprint(r)})
	}
	return out
}

// spread is a median by rate, with the least and most of its rounds.
type spread struct {
	plotter.XYs
	plotter.YErrors
}

func spreadOf(found results, format string) (s spread, err error) {
	for _, rate := range rates {
		r, err := found.get(fmt.Sprintf(format, rate))
		if err != nil {
			return s, err
		}
		s.XYs = append(s.XYs, plotter.XY{X: float64(rate), Y: r.Value})
		s.YErrors = append(s.YErrors, struct{ Low, High float64 }{r.Value - r.Min, r.Max - r.Value})
	}
	return s, nil
}
