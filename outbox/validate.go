package outbox

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/outboxkit/outboxkit/event"
)

// Limits, in bytes. Topic is Kafka's; AMQP allows 255 for its routing keys.
const (
	maxTopic   = 249
	maxName    = 255
	maxKey     = 1024
	maxHeaders = 16 << 10 // names and values together
)

var (
	schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)
	headerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
)

// reservedHeaders are written by the wire formats themselves; one set by a user
// would be taken for an attribute of the event by some consumer.
var reservedHeaders = []string{"ce_", "ce-", "cloudevents", "content-type", "content_type"}

func checkSchemaName(s string) error {
	if !schemaName.MatchString(s) {
		return &event.FieldError{Field: "Config.Schema", Value: s, Problem: "is not a schema name", Hint: "use lower-case letters, digits and underscores, at most 40"}
	}
	return nil
}

// checkText refuses what Postgres or a broker would refuse later, or would take
// and hand on mangled.
func checkText(field, v string, minLen, maxLen int) error {
	switch {
	case len(v) < minLen:
		return &event.FieldError{Field: field, Problem: "is empty"}
	case len(v) > maxLen:
		return &event.FieldError{Field: field, Value: shorten(v), Problem: fmt.Sprintf("has %d bytes", len(v)), Hint: fmt.Sprintf("at most %d are allowed", maxLen)}
	case !utf8.ValidString(v):
		return &event.FieldError{Field: field, Value: shorten(v), Problem: "is not valid UTF-8"}
	case strings.IndexByte(v, 0) >= 0:
		return &event.FieldError{Field: field, Value: shorten(v), Problem: "contains a NUL byte", Hint: "Postgres cannot store it"}
	}
	return nil
}

func checkID(v string) error {
	id, err := uuid.Parse(v)
	if err != nil || len(v) != 36 {
		return &event.FieldError{Field: "Draft.ID", Value: shorten(v), Problem: "is not a UUID", Hint: "leave it empty, or use a UUIDv7", Err: err}
	}
	if id.Version() != 7 {
		return &event.FieldError{Field: "Draft.ID", Value: v, Problem: fmt.Sprintf("is a UUID of version %d", id.Version()), Hint: "leave it empty, or use a UUIDv7: consumers find duplicates by its time"}
	}
	return nil
}

func checkHeaders(h map[string]string) error {
	size := 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		field := fmt.Sprintf("Draft.Headers[%q]", shorten(name))
		if !headerName.MatchString(name) {
			return &event.FieldError{Field: field, Problem: "is not a valid name", Hint: "use lower-case letters, digits, '-', '_' and '.', at most 128"}
		}
		for _, r := range reservedHeaders {
			if strings.HasPrefix(name, r) {
				return &event.FieldError{Field: field, Problem: "is reserved for CloudEvents attributes", Hint: "choose another name"}
			}
		}
		if err := checkText(field, h[name], 0, maxHeaders); err != nil {
			return err
		}
		size += len(name) + len(h[name])
	}
	if size > maxHeaders {
		return &event.FieldError{Field: "Draft.Headers", Problem: fmt.Sprintf("have %d bytes", size), Hint: fmt.Sprintf("at most %d are allowed; put data into the payload", maxHeaders)}
	}
	return nil
}

func shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
