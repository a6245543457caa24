package dedup

import (
	"fmt"
	"regexp"
	"slices"
)

// slots is the number of partitions that the migration made. A slot is about a
// day, and is emptied two days past the window; see [Postgres.Maintain].
const (
	slots         = 36
	secondsPerDay = 24 * 60 * 60
	secondsAhead  = 60 * 60 // how far an id's time may lie ahead of the database's clock; in the statements as 3600
	maxWindowDays = slots - 5
)

// Config configures a [Postgres] store.
type Config struct {
	// Consumer is on whose behalf is claimed: each consumer handles each key once.
	// Instances that share work share the name. Required, at most 200 bytes.
	Consumer string
	// Schema is where migrate.Inbox made the tables. Default "inbox".
	Schema string
	// WindowDays is how long handled keys are remembered. It must be longer than
	// anything may be delivered again: at least the broker's retention. What a
	// narrower window has forgotten stays forgotten when it is widened. Default 7,
	// at most 31.
	WindowDays int
	// TrustedSources are the sources whose UUIDv7 ids tell when the event came
	// about. Default (nil): all. Set it when some source sends version 7 ids drawn
	// long before the event, such as the id of an old order: they would be outside
	// the window. Ids of all other sources are remembered by the day of their
	// receipt, which costs more for each claim. Changing it changes where ids are
	// remembered: what was handled under the old setting may be handled again.
	TrustedSources []string
	// Concurrent says what [Store.Once] does while another transaction runs the
	// same key. Claim always waits. Default Wait.
	Concurrent Concurrent
}

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = "inbox"
	}
	if c.WindowDays == 0 {
		c.WindowDays = 7
	}
	return c
}

// schemaName is what migrate accepts: the name stands unquoted in statements.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

// Validate names the first field that is wrong.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Consumer == "":
		return fmt.Errorf("dedup: Config.Consumer is empty: name what handles the events, for example inventory")
	case len(c.Consumer) > 200:
		return fmt.Errorf("dedup: Config.Consumer has %d bytes: at most 200", len(c.Consumer))
	case !schemaName.MatchString(c.Schema):
		return fmt.Errorf("dedup: Config.Schema %q: must be lower-case letters, digits and underscores, at most 40, not starting with a digit", c.Schema)
	case c.WindowDays < 1 || c.WindowDays > maxWindowDays:
		return fmt.Errorf("dedup: Config.WindowDays %d: must be 1 to %d", c.WindowDays, maxWindowDays)
	case !c.Concurrent.known():
		return fmt.Errorf("dedup: Config.Concurrent %s: must be Wait or Conflict", c.Concurrent)
	}
	return nil
}

func (c Config) trusts(source string) bool {
	return c.TrustedSources == nil || slices.Contains(c.TrustedSources, source)
}
