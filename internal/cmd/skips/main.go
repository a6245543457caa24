// Command skips runs "go test" with its arguments and says at the end which
// tests were skipped and why: go test itself keeps that to itself when a package
// passes.
//
//	go run ./internal/cmd/skips ./...
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// event is a line of "go test -json" (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...) //nolint:gosec // the user's own arguments
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
	report(out, os.Stdout)
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
}

// report prints packages as they end, the output of failed tests, and the
// skipped tests with their reasons.
func report(in io.Reader, out io.Writer) {
	said := map[string][]string{} // output by package and test
	var skipped []string
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case err != nil:
			summary(out, skipped)
			return
		case json.Unmarshal(line, &e) != nil:
			_, _ = out.Write(line) // a build error, for example
			continue
		}
		id := e.Package + "\x00" + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Test == "" && !strings.HasPrefix(e.Output, "PASS") {
				fmt.Fprint(out, e.Output)
			} else {
				said[id] = append(said[id], e.Output)
			}
		case "fail":
			fmt.Fprint(out, strings.Join(said[id], ""))
			delete(said, id)
		case "skip":
			if e.Test != "" {
				skipped = append(skipped, fmt.Sprintf("%s.%s: %s", e.Package, e.Test, reason(said[id])))
			}
			delete(said, id)
		case "pass":
			delete(said, id)
		}
	}
}

// reason is what the test said before it was skipped.
func reason(output []string) string {
	var words []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, found := strings.Cut(line, ".go:"); found {
			_, line, _ = strings.Cut(text, ": ") // without the line number
		}
		words = append(words, line)
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}

func summary(out io.Writer, skipped []string) {
	if len(skipped) == 0 {
		fmt.Fprintln(out, "no test was skipped")
		return
	}
	sort.Strings(skipped)
	fmt.Fprintf(out, "\n%d skipped:\n", len(skipped))
	for _, s := range skipped {
		fmt.Fprintln(out, "  "+s)
	}
}
