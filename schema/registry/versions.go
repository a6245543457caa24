package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
)

var _ schema.Registry = (*Client)(nil)

// Versions implements [schema.Registry]. Nothing of it is cached: it is for tools
// and for the start of a service.
func (c *Client) Versions(ctx context.Context, subject string) ([]schema.Version, error) {
	numbers, err := c.numbers(ctx, subject)
	if err != nil {
		return nil, err
	}
	list := make([]schema.Version, len(numbers))
	for i, n := range numbers {
		what := fmt.Sprintf("version %d of subject %q", n, subject)
		found, err := retry(ctx, c, what, func() (sr.SubjectSchema, error) { return c.api.SchemaByVersion(ctx, subject, n) })
		if err != nil {
			return nil, err
		}
		if list[i], err = version(what, found); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func version(what string, s sr.SubjectSchema) (schema.Version, error) {
	parsed, err := fromRegistry(what, s.Schema)
	if err == nil && (s.ID <= 0 || int64(s.ID) > int64(^uint32(0))) {
		err = fmt.Errorf("registry: %s: %w: the answer has id %d", what, event.ErrSchemaUnavailable, s.ID)
	}
	return schema.Version{Number: s.Version, ID: uint32(max(s.ID, 0)), Schema: parsed}, err //nolint:gosec // checked in the line above
}

// numbers are the subject's versions, oldest first; none if it is unknown.
func (c *Client) numbers(ctx context.Context, subject string) ([]int, error) {
	what := fmt.Sprintf("versions of subject %q", subject)
	list, err := retry(ctx, c, what, func() ([]int, error) {
		list, err := c.api.SubjectVersions(ctx, subject)
		return list, unlessUnknown(err)
	})
	slices.Sort(list)
	return list, err
}

// unlessUnknown forgives that a subject or version is not there. A 404 without a
// code is a wrong URL.
func unlessUnknown(err error) error {
	var re *sr.ResponseError
	if errors.As(err, &re) && re.StatusCode == http.StatusNotFound && re.ErrorCode >= codeSubjectNotFound && re.ErrorCode <= codeNoSubjectConfig {
		return nil
	}
	return err
}

// Codes of the Confluent API: subject, version, schema not found; the subject has
// no compatibility of its own.
const (
	codeSubjectNotFound = 40401
	codeNoSubjectConfig = 40408
)

// Mode returns the compatibility mode of a subject, or the registry's own where the
// subject has none.
func (c *Client) Mode(ctx context.Context, subject string) (schema.Mode, error) {
	for _, path := range []string{"/config/" + url.PathEscape(subject), "/config"} {
		what := fmt.Sprintf("compatibility mode of subject %q", subject)
		answer, err := retry(ctx, c, what, func() (a struct {
			Level string `json:"compatibilityLevel"`
		}, err error) {
			err = c.api.Do(sr.WithParams(ctx, sr.DefaultToGlobal), http.MethodGet, path, nil, &a)
			return a, unlessUnknown(err)
		})
		switch {
		case err != nil:
			return "", err
		case answer.Level != "":
			return schema.ParseMode(answer.Level)
		}
	}
	return "", fmt.Errorf("registry: %w: the answer has no compatibility mode", event.ErrSchemaUnavailable)
}

// Verdict implements [schema.Registry]. Each version that the mode concerns is asked
// for, newest first, because not every registry can be asked for all at once.
func (c *Client) Verdict(ctx context.Context, subject string, next event.Schema) (schema.Verdict, error) {
	s, err := toRegistry(next)
	if err != nil {
		return schema.Verdict{}, err
	}
	mode, err := c.Mode(ctx, subject)
	if err != nil {
		return schema.Verdict{}, err
	}
	v := schema.Verdict{Compatible: true, Mode: mode}
	numbers, err := c.numbers(ctx, subject)
	if err != nil || len(numbers) == 0 {
		return v, err
	}
	if known, err := c.find(ctx, subject, s); err != nil || known.Version > 0 {
		return v, err // registered already: nothing changes
	}
	if !mode.Transitive() {
		numbers = numbers[len(numbers)-1:]
	}
	for _, n := range slices.Backward(numbers) {
		said, compatible, err := c.compatible(ctx, subject, n, s)
		if err != nil {
			return v, err
		}
		if !compatible {
			v.Compatible, v.Registry = false, fmt.Sprintf("version %d: %s", n, said)
			break
		}
	}
	return v, nil
}

// find looks a schema up; its Version is 0 if the subject does not have it.
func (c *Client) find(ctx context.Context, subject string, s sr.Schema) (sr.SubjectSchema, error) {
	return retry(ctx, c, fmt.Sprintf("schema of subject %q", subject), func() (sr.SubjectSchema, error) {
		found, err := c.api.LookupSchema(ctx, subject, s)
		return found, unlessUnknown(err)
	})
}

func (c *Client) compatible(ctx context.Context, subject string, n int, s sr.Schema) (said string, ok bool, err error) {
	type verdict struct {
		Is       *bool    `json:"is_compatible"`
		Messages []string `json:"messages"`
		Reason   string   `json:"reason"` // Apicurio
	}
	what := fmt.Sprintf("compatibility with version %d of subject %q", n, subject)
	v, err := retry(ctx, c, what, func() (v verdict, err error) {
		path := fmt.Sprintf("/compatibility/subjects/%s/versions/%d", url.PathEscape(subject), n)
		err = c.api.Do(sr.WithParams(ctx, sr.Verbose), http.MethodPost, path, s, &v)
		return v, err
	})
	if err == nil && v.Is == nil {
		err = fmt.Errorf("registry: %s: %w: the answer has no verdict", what, event.ErrSchemaUnavailable)
	}
	if err != nil {
		return "", false, err
	}
	said = strings.Join(v.Messages, "; ")
	if said == "" {
		said = v.Reason
	}
	if said == "" {
		said = "incompatible"
	}
	return said, *v.Is, nil
}

// Register implements [schema.Registry], whatever Config.Register says.
func (c *Client) Register(ctx context.Context, subject string, next event.Schema) (schema.Version, error) {
	s, err := toRegistry(next)
	if err != nil {
		return schema.Version{}, err
	}
	what := fmt.Sprintf("schema of subject %q", subject)
	found, err := retry(ctx, c, what, func() (sr.SubjectSchema, error) {
		if _, err := c.api.RegisterSchema(ctx, subject, s, -1, -1); err != nil {
			return sr.SubjectSchema{}, err
		}
		return c.api.LookupSchema(ctx, subject, s)
	})
	if err != nil {
		return schema.Version{}, err
	}
	return version(what, found)
}
