// Command faults runs the fault suite of internal/faults: make faults.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/outboxkit/outboxkit/internal/faults"
)

func main() {
	if is, err := faults.Child(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx))
}

// Exit codes.
const (
	clean  = 0
	found  = 1 // violations
	failed = 2 // the run itself did
)

func run(ctx context.Context) int {
	var cfg faults.Config
	minutes := flag.Float64("minutes", 20, "how long faults happen, in `minutes`")
	flag.Uint64Var(&cfg.Seed, "seed", rand.Uint64()>>1, "of the plan and of what the services write; default: random")
	only := flag.String("only", "", "comma-separated `kinds` of fault; default: all")
	flag.StringVar(&cfg.Plant, "plant", "", "a `bug` of internal/planted that must be caught")
	flag.IntVar(&cfg.Rate, "rate", 0, "orders a second; default 80")
	flag.DurationVar(&cfg.Rest, "rest", 0, "how long the healed system may take to come to rest; default 2m")
	flag.StringVar(&cfg.Dir, "dir", "", "a `folder` for the processes' logs; default: a temporary one, removed")
	beside := flag.String("beside", "", "a `commit` whose relays, services and consumers run beside this one's, or \"previous\", the previous release")
	asJSON := flag.Bool("json", false, "print the report as JSON")
	list := flag.Bool("list", false, "print the kinds of fault")
	flag.Parse()
	if *list {
		fmt.Println(strings.Join(faults.Kinds(), "\n"))
		return clean
	}
	cfg.Duration = time.Duration(*minutes * float64(time.Minute))
	if *only != "" {
		cfg.Only = strings.Split(*only, ",")
	}
	if *beside != "" {
		dir, err := build(ctx, *beside)
		if err != nil {
			fmt.Fprintln(os.Stderr, "faults: the run itself failed:", err)
			return failed
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
		cfg.Beside = dir
	}
	p := newPrinter(os.Stderr)
	cfg.Watch, cfg.Build = p.watch, os.Stderr
	fmt.Fprintf(os.Stderr, "faults: FAULT_SEED=%d, %s\n", cfg.Seed, cfg.Duration)
	report, err := faults.Run(ctx, cfg)
	p.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults: the run itself failed:", err)
		return failed
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(report)
	} else {
		_, err = fmt.Println(text(&report))
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "faults:", err)
		return failed
	case report.Failed():
		return found
	}
	return clean
}

// build makes the programs of another release, in a folder that the caller removes.
func build(ctx context.Context, commit string) (dir string, err error) {
	if commit == "previous" {
		commit = faults.Previous
	}
	if dir, err = os.MkdirTemp("", "outboxkit-release-"); err != nil {
		return "", err
	}
	if err := faults.BuildRelease(ctx, commit, dir, os.Stderr); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}
