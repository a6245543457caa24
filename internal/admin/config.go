package admin

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/event"
)

// minToken is what cannot be guessed over a network, be it hexadecimal.
const minToken = 16

// Config says where to listen and who may ask.
type Config struct {
	// Listen is host:port; port 0 takes a free one. Required. An address that is
	// not of this machine alone needs TLS, and Token or ClientCAFile.
	Listen string
	// CertFile and KeyFile turn on TLS. They are read at each connection, so that
	// renewed ones are used without a restart; while they cannot be read, what was
	// read last is used. Default: none.
	CertFile, KeyFile string
	// ClientCAFile holds the authorities (PEM) of the client certificates that are
	// let in. Default: none.
	ClientCAFile string
	// Token lets in who sends it as a bearer token, or as the password of a basic
	// login, whatever the user: browsers ask for that. At least 16 bytes. Default:
	// none.
	Token string
	// Open are paths that may be asked for without token or certificate, such as
	// health checks. They must tell nothing that others may not know. Default: none.
	Open []string
	// Drain is how long requests under way may take when Run's context has ended.
	// Default: 5 s.
	Drain time.Duration
	// Logger receives what an operator should know. Default: slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Drain == 0 {
		c.Drain = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate returns an [event.FieldError] that names the first field that is wrong. It
// does not read files, and never repeats the token.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case c.Listen == "":
		return &event.FieldError{Field: "admin.Config.Listen", Problem: "is empty", Hint: "for example 127.0.0.1:9464"}
	case err != nil:
		return &event.FieldError{Field: "admin.Config.Listen", Value: c.Listen, Problem: "is not host:port", Hint: "for example 127.0.0.1:9464"}
	case (c.CertFile == "") != (c.KeyFile == ""):
		return &event.FieldError{Field: "admin.Config.CertFile", Problem: "and KeyFile belong together", Hint: "set both, or none"}
	case c.ClientCAFile != "" && c.CertFile == "":
		return &event.FieldError{Field: "admin.Config.ClientCAFile", Problem: "is set without TLS", Hint: "set CertFile and KeyFile too"}
	case c.Token != "" && len(c.Token) < minToken:
		return &event.FieldError{Field: "admin.Config.Token", Problem: fmt.Sprintf("has only %d bytes", len(c.Token)), Hint: fmt.Sprintf("at least %d, for example from: openssl rand -hex 24", minToken)}
	case strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return &event.FieldError{Field: "admin.Config.Token", Problem: "has a character that no header can carry", Hint: "letters, digits and punctuation of ASCII"}
	case c.Drain < 0:
		return &event.FieldError{Field: "admin.Config.Drain", Value: c.Drain.String(), Problem: "is negative"}
	}
	if loopback(host) {
		return nil
	}
	const elsewhere = "can be reached from elsewhere"
	switch {
	case c.CertFile == "":
		return &event.FieldError{Field: "admin.Config.Listen", Value: c.Listen, Problem: elsewhere + " without TLS", Hint: "set CertFile and KeyFile, and Token or ClientCAFile; or listen on 127.0.0.1"}
	case !c.guarded():
		return &event.FieldError{Field: "admin.Config.Listen", Value: c.Listen, Problem: elsewhere + " by everybody", Hint: "set Token or ClientCAFile; or listen on 127.0.0.1"}
	}
	return nil
}

// guarded reports whether requests must show who sends them.
func (c Config) guarded() bool { return c.Token != "" || c.ClientCAFile != "" }

// loopback reports whether nobody but this machine reaches a host. Other names than
// localhost may mean anything tomorrow.
func loopback(host string) bool {
	if strings.ToLower(host) == "localhost" { // EqualFold would take letters outside of ASCII
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
