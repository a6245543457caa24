package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// ClockAvailable says why Config.Clock would not work, nil if it does.
func ClockAvailable() error {
	_, err := faketime()
	return err
}

// faketime finds the library that stands between a program and its clock.
func faketime() (string, error) {
	found, _ := filepath.Glob("/usr/lib*/*/faketime/libfaketime.so.1") // the pattern is valid
	if len(found) == 0 {
		found, _ = filepath.Glob("/usr/lib*/faketime/libfaketime.so.1")
	}
	if len(found) == 0 {
		return "", errors.New("libfaketime is not installed (Debian: apt-get install libfaketime)")
	}
	return found[0], nil
}

func (s *Server) fakeClock(spec *proc.Spec) error {
	library, err := faketime()
	if err != nil {
		return err
	}
	if _, err := os.Stat(s.clock()); errors.Is(err, os.ErrNotExist) {
		if err := s.SetClock(0); err != nil {
			return err
		}
	}
	spec.Env = append(os.Environ(), "LD_PRELOAD="+library, "FAKETIME_TIMESTAMP_FILE="+s.clock(),
		"FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1")
	return nil
}

// SetClock puts the clock of a server with Config.Clock that far ahead of the
// machine's, behind it if negative, in each of its processes within a second. The monotonic clock goes on undisturbed, as on
// a machine whose clock is set.
func (s *Server) SetClock(ahead time.Duration) error {
	temp := s.clock() + ".new" // renamed: nobody reads half of it
	if err := writeOwned(temp, fmt.Sprintf("%+d\n", int(ahead.Seconds())), s.account); err != nil {
		return err
	}
	return os.Rename(temp, s.clock())
}

func (s *Server) clock() string { return filepath.Join(s.dir, "clock") }
