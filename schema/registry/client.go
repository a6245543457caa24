package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/outboxkit/outboxkit/event"
)

var (
	// ErrUnknownID says that the registry has no schema of a message's id: final.
	ErrUnknownID = errors.New("the registry does not know the schema id")
	// ErrRefused says that the registry refuses a schema, for example because it
	// is not compatible with the subject's earlier ones: final.
	ErrRefused = errors.New("the registry refuses the schema")

	errGaveUp = errors.New("the caller's context ended")
)

// Client asks a schema registry and remembers the answers. It is safe for
// concurrent use and has nothing to close.
//
// Requests are those of franz-go's sr: it takes contexts, TLS and authentication,
// and brings no dependencies. What it lacks is here: a bound on responses,
// retries, caching, and errors that say whether trying again helps.
type Client struct {
	cfg     Config
	api     *sr.Client
	ids     cache[subjectSchema, uint32]
	schemas cache[uint32, event.Schema]
}

type subjectSchema struct{ subject, format, text string }

// New returns a client. It does not talk to the registry yet. The error names
// the field of cfg that is wrong.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	opts := []sr.ClientOpt{sr.URLs(cfg.URL), sr.HTTPClient(httpClient(cfg)), sr.UserAgent("outboxkit")}
	if cfg.BearerToken != "" {
		opts = append(opts, sr.BearerToken(cfg.BearerToken))
	}
	if cfg.Username != "" || cfg.Password != "" {
		opts = append(opts, sr.BasicAuth(cfg.Username, cfg.Password))
	}
	api, err := sr.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return &Client{
		cfg: cfg, api: api,
		ids:     cache[subjectSchema, uint32]{lifetime: lifetime},
		schemas: cache[uint32, event.Schema]{lifetime: lifetime},
	}, nil
}

func lifetime(err error) time.Duration {
	if errors.Is(err, event.ErrSchemaUnavailable) {
		return awayFor
	}
	return refusedFor
}

// ID returns the registry's id of a schema under a subject, and registers the
// schema first if Config.Register says so. Errors that wrap
// [event.ErrSchemaUnavailable] are worth a retry; so is a schema that nobody has
// registered yet.
func (c *Client) ID(ctx context.Context, subject string, s event.Schema) (uint32, error) {
	schema, err := toRegistry(s)
	if err != nil {
		return 0, err
	}
	key := subjectSchema{subject, s.Format, s.Text}
	return c.ids.get(ctx, key, func(ctx context.Context) (uint32, error) {
		what := fmt.Sprintf("schema of subject %q", subject)
		id, err := retry(ctx, c, what, func() (int, error) {
			if c.cfg.Register {
				return c.register(ctx, subject, schema)
			}
			found, err := c.api.LookupSchema(ctx, subject, schema)
			return found.ID, err
		})
		if err == nil && (id <= 0 || int64(id) > int64(^uint32(0))) {
			err = fmt.Errorf("registry: %s: %w: the answer has id %d", what, event.ErrSchemaUnavailable, id)
		}
		return uint32(max(id, 0)), err //nolint:gosec // checked in the line above
	})
}

// register takes no conflict for a refusal that may be a race: of several processes
// that register at once a subject's first schema, Apicurio answers all but one with
// "already exists".
func (c *Client) register(ctx context.Context, subject string, schema sr.Schema) (int, error) {
	id, err := c.api.RegisterSchema(ctx, subject, schema, -1, -1)
	var re *sr.ResponseError
	if !errors.As(err, &re) || re.StatusCode != http.StatusConflict {
		return id, err
	}
	if found, err := c.api.LookupSchema(ctx, subject, schema); err == nil {
		return found.ID, nil
	}
	return c.api.RegisterSchema(ctx, subject, schema, -1, -1)
}

// Schema returns the schema of an id. An id that the registry does not know is
// [ErrUnknownID]; errors that wrap [event.ErrSchemaUnavailable] are worth a retry.
func (c *Client) Schema(ctx context.Context, id uint32) (event.Schema, error) {
	return c.schemas.get(ctx, id, func(ctx context.Context) (event.Schema, error) {
		what := fmt.Sprintf("schema id %d", id)
		found, err := retry(ctx, c, what, func() (sr.Schema, error) { return c.api.SchemaByID(ctx, int(id)) })
		if err != nil {
			return event.Schema{}, err
		}
		return fromRegistry(what, found)
	})
}

func toRegistry(s event.Schema) (sr.Schema, error) {
	if s.Text == "" {
		return sr.Schema{}, fmt.Errorf("registry: data of format %q has no schema that a registry could hold", s.Format)
	}
	switch s.Format {
	case "avro":
		return sr.Schema{Schema: s.Text, Type: sr.TypeAvro}, nil
	case "json":
		return sr.Schema{Schema: s.Text, Type: sr.TypeJSON}, nil
	default:
		return sr.Schema{}, fmt.Errorf("registry: schemas of format %q are not supported", s.Format)
	}
}

func fromRegistry(what string, s sr.Schema) (event.Schema, error) {
	switch {
	case s.Schema == "":
		return event.Schema{}, fmt.Errorf("registry: %s: %w: the answer has no schema", what, event.ErrSchemaUnavailable)
	case len(s.References) > 0:
		return event.Schema{}, fmt.Errorf("registry: %s refers to other schemas, which is not supported: register it as one document", what)
	case s.Type == sr.TypeAvro:
		return event.Schema{Format: "avro", Text: s.Schema, ContentType: "application/avro"}, nil
	case s.Type == sr.TypeJSON:
		return event.Schema{Format: "json", Text: s.Schema, ContentType: "application/json"}, nil
	default:
		return event.Schema{}, fmt.Errorf("registry: %s is of type %s, which is not supported", what, s.Type)
	}
}

// retry sends a request until it is answered, at most Config.Attempts times.
func retry[T any](ctx context.Context, c *Client, what string, request func() (T, error)) (T, error) {
	wait := backoff.NewExponentialBackOff() // 0.5 s, 0.75 s, … ± half
	wait.InitialInterval = 200 * time.Millisecond
	v, err := backoff.Retry(ctx, func() (T, error) {
		v, err := request()
		if err != nil && !worthRepeating(err) {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(uint(c.cfg.Attempts))) //nolint:gosec // validated
	if err == nil {
		return v, nil
	}
	if cause := ctx.Err(); cause != nil {
		return v, fmt.Errorf("registry: %s: %w: %w: %w", what, event.ErrSchemaUnavailable, errGaveUp, cause)
	}
	return v, classify(what, err)
}

// worthRepeating says whether the next attempt may be answered within seconds.
func worthRepeating(err error) bool {
	var re *sr.ResponseError
	if errors.As(err, &re) {
		return re.StatusCode >= 500 || re.StatusCode == http.StatusTooManyRequests || re.StatusCode == http.StatusRequestTimeout
	}
	return !errors.Is(err, errTooLarge)
}

// Error codes of the Confluent API.
const codeSchemaNotFound = 40403

// classify says whether an error is final. Only what the registry says of this
// schema or id is: a wrong URL, missing rights or a proxy's error page can be
// mended without touching the event.
func classify(what string, err error) error {
	if errors.Is(err, errTooLarge) {
		return fmt.Errorf("registry: %s: %w", what, errTooLarge)
	}
	var re *sr.ResponseError
	if !errors.As(err, &re) {
		return fmt.Errorf("registry: %s: %w: %w", what, event.ErrSchemaUnavailable, err)
	}
	said := fmt.Sprintf("status %d, code %d: %.300q", re.StatusCode, re.ErrorCode, re.Error())
	switch {
	case re.Method == http.MethodGet && re.ErrorCode == codeSchemaNotFound:
		return fmt.Errorf("registry: %s: %w: %s", what, ErrUnknownID, said)
	case re.StatusCode == http.StatusConflict || re.StatusCode == http.StatusUnprocessableEntity:
		return fmt.Errorf("registry: %s: %w: %s", what, ErrRefused, said)
	case re.StatusCode == http.StatusNotFound && re.ErrorCode != 0:
		return fmt.Errorf("registry: %s: %w: %w: %s (register the schema, or set Config.Register)", what, event.ErrSchemaUnavailable, event.ErrSchemaUnregistered, said)
	}
	return fmt.Errorf("registry: %s: %w: %s", what, event.ErrSchemaUnavailable, said)
}
