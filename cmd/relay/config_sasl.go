package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/outboxkit/outboxkit/brokers/kafka"
)

// oauthConfig gets tokens for Kafka's OAUTHBEARER from an issuer (client credentials).
type oauthConfig struct {
	TokenURL     string     `yaml:"token_url" doc:"required: where tokens are asked for (OAuth 2 client credentials)"`
	ClientID     string     `yaml:"client_id" doc:"required"`
	ClientSecret string     `yaml:"client_secret" secret:"value" doc:"required"`
	Scopes       []string   `yaml:"scopes" doc:"what to ask for"`
	TLS          *tlsConfig `yaml:"tls"`
}

func (v *validator) checkSASL(at string, k *kafkaConfig) {
	for _, m := range []kafka.Mechanism{kafka.Plain, kafka.ScramSHA256, kafka.ScramSHA512, kafka.OAuthBearer} {
		if strings.EqualFold(k.Mechanism, string(m)) {
			k.Mechanism = string(m)
		}
	}
	k.Password = v.optional(at+".password", k.Password)
	k.TokenFile = v.optional(at+".token_file", k.TokenFile)
	if k.OAuth == nil {
		return
	}
	if k.TokenFile != "" {
		v.fail(at+".token_file", "stands beside oauth: use one of them")
	}
	o := k.OAuth
	o.TokenURL = v.required(at+".oauth.token_url", o.TokenURL, "https://login.example.com/oauth2/token")
	o.ClientID = v.required(at+".oauth.client_id", o.ClientID, "relay")
	o.ClientSecret = v.required(at+".oauth.client_secret", o.ClientSecret, "${RELAY_CLIENT_SECRET}")
	v.checkTLS(at+".oauth", o.TLS)
	u, err := url.Parse(o.TokenURL)
	switch {
	case o.TokenURL == "":
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil:
		v.fail(at+".oauth.token_url", "is no http or https URL without a user") // it may hold a password
	case o.TLS != nil && u.Scheme != "https":
		v.fail(at+".oauth.tls", "is set but token_url is plain text: write https://")
	}
}

// token returns how to get tokens, nil if none are configured.
func (k *kafkaConfig) token() func(context.Context) (string, error) {
	switch {
	case k.TokenFile != "":
		return func(context.Context) (string, error) { return readToken(k.TokenFile) }
	case k.OAuth != nil:
		return k.OAuth.token()
	}
	return nil
}

// readToken reads the file each time: whoever put it there renews it.
func readToken(file string) (string, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("token_file: %s is empty", file)
	}
	return token, nil
}

// token remembers a token until shortly before it expires.
func (o *oauthConfig) token() func(context.Context) (string, error) {
	client := *o.TLS.httpClient()
	client.Timeout = 5 * time.Second
	c := clientcredentials.Config{ClientID: o.ClientID, ClientSecret: o.ClientSecret, TokenURL: o.TokenURL, Scopes: o.Scopes}
	// The context is only how the library is given a client.
	source := c.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, &client))
	return func(context.Context) (string, error) {
		t, err := source.Token()
		if err == nil {
			return t.AccessToken, nil
		}
		// Not the library's own text: that repeats the issuer's whole answer.
		var answer *oauth2.RetrieveError
		if errors.As(err, &answer) && answer.Response != nil {
			return "", fmt.Errorf("oauth: the issuer answered %s %s", answer.Response.Status, answer.ErrorCode)
		}
		return "", fmt.Errorf("oauth: %w", err)
	}
}
