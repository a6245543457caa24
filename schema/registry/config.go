package registry

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"time"

	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
)

// Config describes a registry and how to use it.
type Config struct {
	// URL is the base of the registry's API, for example http://registry:8081, or
	// for Apicurio http://registry:8080/apis/ccompat/v7. User and password in it
	// are taken for Username and Password. Required.
	URL string
	// Username and Password are for HTTP basic authentication. Default: none.
	Username, Password string
	// BearerToken is sent instead of basic authentication. Default: none.
	BearerToken string
	// TLS is the configuration for https. Default: the system's certificates.
	TLS *tls.Config
	// TLSFiles are certificates for https from files, which are read at each request:
	// renewed ones are used without a restart. Requests are few, because answers are
	// remembered; each makes a connection. Default nil: none.
	TLSFiles *certs.Files
	// HTTPClient sends the requests, if proxies or tracing are needed; it is copied.
	// Default: a client of its own. Set either this, TLS or TLSFiles.
	HTTPClient *http.Client
	// Timeout bounds one request. Default: 5 seconds.
	Timeout time.Duration
	// Attempts is how often a request is sent while the registry does not answer,
	// with exponential backoff between. Default: 3.
	Attempts int
	// Register lets Seal register schemas that the registry does not know. If
	// false, they must have been registered before (by a pipeline, say). Default:
	// false.
	Register bool
	// Subject names the subject of a topic's schema. Default: schema.ByTopic,
	// "<topic>-value", which allows one type of event per topic; for several use
	// schema.ByRecord or schema.ByTopicRecord.
	Subject schema.Strategy
}

func (c Config) withDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Attempts == 0 {
		c.Attempts = 3
	}
	if c.Subject == nil {
		c.Subject = schema.ByTopic
	}
	return c
}

// validate moves credentials out of the URL, so that no error can show them, and
// names the field that is wrong.
func (c *Config) validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		return &event.FieldError{Field: "registry.Config.URL", Problem: "is empty", Hint: "set it to the registry's base URL"}
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		// Neither value nor err: they may hold a password.
		return &event.FieldError{Field: "registry.Config.URL", Problem: "is no http or https URL"}
	case u.RawQuery != "" || u.Fragment != "":
		return &event.FieldError{Field: "registry.Config.URL", Problem: "has a query or a fragment", Hint: "give the base URL only"}
	case u.User != nil && (c.Username != "" || c.Password != ""):
		return &event.FieldError{Field: "registry.Config.Username", Problem: "is set, and the URL has a user too", Hint: "use one of them"}
	}
	if u.User != nil {
		c.Username = u.User.Username()
		c.Password, _ = u.User.Password()
		u.User = nil
		c.URL = u.String()
	}
	switch {
	case c.BearerToken != "" && (c.Username != "" || c.Password != ""):
		return &event.FieldError{Field: "registry.Config.BearerToken", Problem: "is set together with a user or password", Hint: "use one of them"}
	case c.TLSFiles != nil && (c.TLS != nil || c.HTTPClient != nil):
		return &event.FieldError{Field: "registry.Config.TLSFiles", Problem: "is set together with TLS or HTTPClient", Hint: "set one of them"}
	case c.TLSFiles != nil && u.Scheme != "https":
		return &event.FieldError{Field: "registry.Config.TLSFiles", Problem: "is set but the URL is plain text", Hint: "write https://"}
	case c.TLS != nil && c.HTTPClient != nil:
		return &event.FieldError{Field: "registry.Config.TLS", Problem: "is set together with HTTPClient", Hint: "set it on the client's transport"}
	case c.Timeout < 0:
		return &event.FieldError{Field: "registry.Config.Timeout", Value: c.Timeout.String(), Problem: "is negative"}
	case c.Attempts < 0:
		return &event.FieldError{Field: "registry.Config.Attempts", Problem: "is negative"}
	}
	return nil
}
