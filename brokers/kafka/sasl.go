package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Mechanism is how a client proves to the broker who it is.
type Mechanism string

// The SASL mechanisms.
const (
	Plain       Mechanism = "PLAIN"
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
	OAuthBearer Mechanism = "OAUTHBEARER"
)

// mechanism returns Mechanism or its default.
func (c Config) mechanism() Mechanism {
	switch {
	case c.Mechanism != "":
		return c.Mechanism
	case c.Username != "":
		return Plain
	case c.Token != nil:
		return OAuthBearer
	}
	return ""
}

// validateSASL never repeats a user or password.
func (c Config) validateSASL() error {
	m := c.mechanism()
	switch m {
	case "":
		if c.Password != "" {
			return errors.New("kafka: Config.Username is empty but Config.Password is set (set both for SASL)")
		}
	case Plain, ScramSHA256, ScramSHA512:
		switch {
		case c.Username == "":
			return fmt.Errorf("kafka: Config.Username is empty, which %s needs", m)
		case c.Password == "":
			return fmt.Errorf("kafka: Config.Password is empty, which %s needs", m)
		case c.Token != nil:
			return fmt.Errorf("kafka: Config.Token is set, and a user with %s too (leave one of them out)", m)
		}
	case OAuthBearer:
		switch {
		case c.Token == nil:
			return errors.New("kafka: Config.Token is missing, which OAUTHBEARER needs")
		case c.Username != "" || c.Password != "":
			return errors.New("kafka: Config.Username is set, and OAUTHBEARER has none (leave user and password out)")
		}
	default:
		return fmt.Errorf("kafka: Config.Mechanism %q is not known (use %s, %s, %s or %s, or set others through Sarama)", m, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
	}
	return nil
}

func (c Config) sasl(sc *sarama.Config) {
	m := c.mechanism()
	if m == "" {
		return
	}
	s := &sc.Net.SASL
	s.Enable, s.Mechanism = true, sarama.SASLMechanism(m)
	s.User, s.Password = c.Username, c.Password
	switch m {
	case ScramSHA256:
		s.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.Auth.AsSha256Mechanism} }
	case ScramSHA512:
		s.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: scram.Auth.AsSha512Mechanism} }
	case OAuthBearer:
		s.TokenProvider = &tokens{get: c.Token, timeout: sc.Net.DialTimeout}
	case Plain:
	}
}

// tokens implements the client's interface, which has no context.
type tokens struct {
	get     func(context.Context) (string, error)
	timeout time.Duration
}

// Token implements sarama.AccessTokenProvider.
func (t *tokens) Token() (*sarama.AccessToken, error) {
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	token, err := t.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("kafka: Config.Token: %w", err)
	}
	return &sarama.AccessToken{Token: token}, nil
}

// scramClient is one exchange. It gives franz-go's implementation, which the module
// has anyway, the shape that the client asks for.
type scramClient struct {
	hash    func(scram.Auth) sasl.Mechanism
	session sasl.Session
	first   []byte // the first message, nil once it is sent
	done    bool
}

// Begin implements sarama.SCRAMClient.
func (c *scramClient) Begin(user, password, authzID string) (err error) {
	c.session, c.first, err = c.hash(scram.Auth{User: user, Pass: password, Zid: authzID}).Authenticate(context.Background(), "")
	return err
}

// Step implements sarama.SCRAMClient.
func (c *scramClient) Step(challenge string) (string, error) {
	if c.first != nil {
		first := c.first
		c.first = nil
		return string(first), nil
	}
	var answer []byte
	var err error
	c.done, answer, err = c.session.Challenge([]byte(challenge))
	return string(answer), err
}

// Done implements sarama.SCRAMClient.
func (c *scramClient) Done() bool { return c.done }
