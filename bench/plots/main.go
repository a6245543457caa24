package main

import (
	"fmt"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: plots <folder with effect.jsonl>")
		os.Exit(2)
	}
	plot.DefaultFont.Variant = "Sans"
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "plots:", err)
		os.Exit(1)
	}
}

// newPlot has what all have in common.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Title.Padding = title, vg.Points(8)
	p.Legend.Top, p.Legend.Padding = true, vg.Points(3)
	return p
}

// write puts the plots beside the lines.
func write(dir string) error {
	found, err := read(filepath.Join(dir, "effect.jsonl"))
	if err != nil {
		return err
	}
	for _, p := range []struct {
		file          string
		width, height vg.Length
		make          func(results) (*plot.Plot, error)
	}{
		{"effect-latency.svg", 18 * vg.Centimeter, 10 * vg.Centimeter, latency},
		{"effect-stages.svg", 18 * vg.Centimeter, 10 * vg.Centimeter, stages},
		{"effect-cost.svg", 18 * vg.Centimeter, 11 * vg.Centimeter, cost},
	} {
		drawn, err := p.make(found)
		if err != nil {
			return fmt.Errorf("%s: %w", p.file, err)
		}
		if err := drawn.Save(p.width, p.height, filepath.Join(dir, p.file)); err != nil {
			return err
		}
	}
	return nil
}
