package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
)

// result is one line of the report: the median of its runs.
type result struct {
	Name  string    `json:"name"`
	Value float64   `json:"value"`
	Unit  string    `json:"unit"`
	Min   float64   `json:"min"`
	Max   float64   `json:"max"`
	Runs  []float64 `json:"runs"`
}

// report prints results: objects as they come, or a table at the end.
type report struct {
	json    bool
	results []result
	told    map[string]bool // whose settings are printed
}

// add reports the median of runs.
func (r *report) add(name, unit string, runs []float64) {
	if len(runs) == 0 {
		return
	}
	res := result{Name: name, Unit: unit, Value: round(median(runs)), Min: round(slices.Min(runs)), Max: round(slices.Max(runs))}
	for _, v := range runs {
		res.Runs = append(res.Runs, round(v))
	}
	if r.json {
		line, _ := json.Marshal(res) // numbers and strings
		fmt.Println(string(line))
		return
	}
	note("%s %v %s (%v to %v)", res.Name, res.Value, res.Unit, res.Min, res.Max)
	r.results = append(r.results, res)
}

func (r *report) flush() {
	if r.json || len(r.results) == 0 {
		return
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "name\tmedian\tmin\tmax\tunit\truns")
	for _, x := range r.results {
		_, _ = fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%s\t%d\n", x.Name, x.Value, x.Min, x.Max, x.Unit, len(x.Runs))
	}
	_ = w.Flush()
}

// ratios divides run by run: both of a round saw the same neighbours.
func ratios(ours, reference []float64) []float64 {
	out := make([]float64, 0, len(ours))
	for i := range min(len(ours), len(reference)) {
		out = append(out, ours[i]/reference[i])
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[n/2]
}

// quantile returns the q-th part of v's sorted values, 0 for none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// round keeps four significant digits, which is more than the runs agree on.
func round(v float64) float64 {
	var out float64
	_, _ = fmt.Sscan(fmt.Sprintf("%.4g", v), &out)
	return out
}
