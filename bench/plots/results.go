package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// result is one line of the benchmarks.
type result struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
}

type results map[string]result

// read returns the lines of a file by name; of a name that comes again, the last.
func read(file string) (results, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	found := results{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		found[r.Name] = r
	}
	return found, lines.Err()
}

// get is a result that a plot cannot do without.
func (r results) get(name string) (result, error) {
	found, ok := r[name]
	if !ok {
		return result{}, fmt.Errorf("no line %q: run `JSON=1 make bench-effect` without BENCH", name)
	}
	return found, nil
}
