package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// DefaultVersion is the PostgreSQL version that runs unless
// $OUTBOXKIT_POSTGRES_VERSION or Config.Version names another. It is the major
// version of Debian 12, so that its pg_dump works with our servers. Its archives
// are in SHA256SUMS.
const DefaultVersion = "15.13.0"

// Config says what server to start. The zero value is a server for tests: fast,
// safe against a crash of Postgres, not of the machine.
type Config struct {
	// Version of embedded-postgres, MAJOR.MINOR.PATCH.
	// Default: $OUTBOXKIT_POSTGRES_VERSION, else DefaultVersion.
	Version string
	// Port on 127.0.0.1. Default: a free one.
	Port int
	// Durable keeps fsync and synchronous_commit as in production. Default:
	// off, which makes commits several times faster.
	Durable bool
	// Settings are added to, or replace, the server's settings, for example
	// "wal_level": "logical". {dir} in a value is the server's folder. Default: none.
	Settings map[string]string
	// Files are written into the server's folder, by name, readable by the server
	// alone. Default: none.
	Files map[string][]byte
	// Clock lets SetClock move the server's clock, with libfaketime. Default:
	// false.
	Clock bool
}

var versionPattern = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

func (c Config) withDefaults() Config {
	c.Version = cmp.Or(c.Version, os.Getenv("OUTBOXKIT_POSTGRES_VERSION"), DefaultVersion)
	return c
}

func (c Config) validate() error {
	var errs []error
	if !versionPattern.MatchString(c.Version) {
		errs = append(errs, fmt.Errorf("Config.Version %q is no MAJOR.MINOR.PATCH version (for example %q)", c.Version, DefaultVersion))
	}
	if c.Port < 0 || c.Port > 65535 {
		errs = append(errs, fmt.Errorf("Config.Port %d is outside 0 to 65535 (0 takes a free one)", c.Port))
	}
	return errors.Join(errs...)
}

// arguments returns the postgres command line for the server's folder and its data.
func (c Config) arguments(dir, data string) []string {
	settings := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"port":                      fmt.Sprint(c.Port),
		"unix_socket_directories":   "",
		"max_connections":           "300",
		"max_prepared_transactions": "64",
		"shared_buffers":            "128MB",
		"wal_level":                 "replica",
		"hot_standby":               "on",
		"log_timezone":              "UTC",
		"timezone":                  "UTC",
	}
	if !c.Durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	maps.Copy(settings, c.Settings)
	args := []string{"-D", data}
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", k+"="+strings.ReplaceAll(settings[k], "{dir}", dir))
	}
	return args
}
