package faults

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/outboxkit/outboxkit/internal/history"
	"github.com/outboxkit/outboxkit/internal/planted"
)

// Config says what run it is.
type Config struct {
	// Duration is how long faults happen. Starting, healing and judging come on top.
	// Required.
	Duration time.Duration
	// Seed of the plan and of the services' choices.
	Seed uint64
	// Rest bounds how long the healed system may take until nothing is under way.
	// Default 2m.
	Rest time.Duration
	// Only restricts the plan to these kinds of fault, see [Kinds]; they then come
	// one after the other. Default (nil): all.
	Only []string
	// Plant is a bug of internal/planted that the relays and consumers are built
	// with. Default "": none.
	Plant string
	// Beside is a folder with the programs of another release, see [BuildRelease]. All
	// processes then begin as that release, on its tables; these are migrated under
	// traffic, every second process is redeployed as this release, and from then on a
	// process is of the other one at each start. Default "": this release alone.
	Beside string
	// Rate is how many orders the services together begin in a second. Default 80.
	Rate int
	// Dir receives the logs of processes; it is left there. Default "": a
	// temporary folder, which is removed.
	Dir string
	// Watch receives what happens, from one goroutine at a time. Default (nil): nobody.
	Watch func(Progress)
	// Build receives what the compiler says. Default (nil): nobody.
	Build io.Writer
}

// Progress is how far a run is.
type Progress struct {
	Elapsed, Duration time.Duration
	Event             string // what has just happened; "" for the numbers alone
	Active            []string
	Committed         int // orders
	Effects           int
	Faults            int
}

// Report is what a run found out.
type Report struct {
	Seed     uint64
	Duration time.Duration
	// Violations are the broken promises, with their stories.
	Violations []history.Violation
	// Problems are other findings that fail a run: it did not come to rest, a
	// process panicked or did not end when told to.
	Problems []string
	// Faults counts those that were inflicted, by kind.
	Faults map[string]int
	// Numbers are sizes of the run, by name.
	Numbers map[string]int
	// RestTook is the time from the last fault's end to rest.
	RestTook time.Duration
}

// Failed tells whether something was found.
func (r *Report) Failed() bool { return len(r.Violations)+len(r.Problems) > 0 }

func (c Config) withDefaults() Config {
	if c.Rest == 0 {
		c.Rest = 2 * time.Minute
	}
	if c.Rate == 0 {
		c.Rate = 80
	}
	if c.Watch == nil {
		c.Watch = func(Progress) {}
	}
	if c.Build == nil {
		c.Build = io.Discard
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.Duration <= 0 {
		errs = append(errs, fmt.Errorf("Config.Duration %s is not positive (20m is usual)", c.Duration))
	}
	for _, name := range c.Only {
		if !slices.Contains(Kinds(), name) {
			errs = append(errs, fmt.Errorf("Config.Only has %q, which is no kind of fault: there are %q", name, Kinds()))
		}
	}
	if c.Plant != "" && !slices.Contains(planted.Bugs(), planted.Bug(c.Plant)) {
		errs = append(errs, fmt.Errorf("Config.Plant %q is no planted bug: there are %q", c.Plant, planted.Bugs()))
	}
	if c.Beside != "" {
		for _, program := range programs {
			if _, err := os.Stat(filepath.Join(c.Beside, program)); err != nil {
				errs = append(errs, fmt.Errorf("Config.Beside lacks a program: %w (BuildRelease makes them)", err))
			}
		}
	}
	return errors.Join(errs...)
}
