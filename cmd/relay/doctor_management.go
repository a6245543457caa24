package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// management is RabbitMQ's management API, which tells what AMQP does not.
type management struct {
	base           string // without user
	user, password string
	vhost          string
	client         *http.Client
}

// newManagement takes user and password from the broker's URL where its own has none,
// and the virtual host always.
func newManagement(address, amqpURL string, client *http.Client) (*management, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, errors.New("rabbitmq.management is not an address such as https://user:password@host:15671") // its own error may repeat the password
	}
	broker, err := url.Parse(amqpURL)
	if err != nil {
		return nil, errors.New("rabbitmq.url is not a URL")
	}
	from := u.User
	if from == nil {
		from = broker.User
	}
	m := &management{vhost: "/", client: client}
	if vhost, err := url.PathUnescape(strings.TrimPrefix(broker.EscapedPath(), "/")); err == nil && vhost != "" {
		m.vhost = vhost
	}
	m.user = "guest"
	m.password = "guest" // RabbitMQ's own defaults, as in AMQP URLs
	if from != nil {
		m.user = from.Username()
		m.password, _ = from.Password()
	}
	u.User = nil
	m.base = strings.TrimSuffix(u.String(), "/")
	return m, nil
}

// managedQueue is what the API says of a queue.
type managedQueue struct {
	Name      string         `json:"name"`
	Type      string         `json:"type"`
	Durable   bool           `json:"durable"`
	Arguments map[string]any `json:"arguments"`
	Policy    map[string]any `json:"effective_policy_definition"`
}

// setting is an argument of the queue, or of the policy that applies; nil if it has
// neither. Where both are limits the broker takes the lower one, which the argument
// usually is.
func (q managedQueue) setting(name string) any {
	if v, ok := q.Arguments["x-"+name]; ok {
		return v
	}
	return q.Policy[name]
}

func (q managedQueue) text(name string) (string, bool) {
	s, ok := q.setting(name).(string)
	return s, ok
}

func (q managedQueue) number(name string) (int64, bool) {
	f, ok := q.setting(name).(float64)
	return int64(f), ok
}

// managementBytes bounds an answer.
const managementBytes = 1 << 20

func (m *management) queue(ctx context.Context, name string) (q managedQueue, err error) {
	// An empty list stands for an empty object.
	var raw struct {
		managedQueue
		Arguments json.RawMessage `json:"arguments"`
		Policy    json.RawMessage `json:"effective_policy_definition"`
	}
	if _, err := m.get(ctx, &raw, "queues", m.vhost, name); err != nil {
		return q, fmt.Errorf("queue %q: %w", name, err)
	}
	q = raw.managedQueue
	_ = json.Unmarshal(raw.Arguments, &q.Arguments) // a list leaves it empty
	_ = json.Unmarshal(raw.Policy, &q.Policy)
	return q, nil
}

// binding is a way from an exchange.
type binding struct {
	Destination string `json:"destination"`
	Kind        string `json:"destination_type"`
	Key         string `json:"routing_key"`
}

// bindings are the ways from an exchange, if that is there: the API has an empty list
// of bindings for one that is not.
func (m *management) bindings(ctx context.Context, exchange string) (list []binding, there bool, err error) {
	if there, err = m.get(ctx, &struct{}{}, "exchanges", m.vhost, exchange); !there {
		return nil, false, nil
	}
	if err == nil {
		_, err = m.get(ctx, &list, "exchanges", m.vhost, exchange, "bindings", "source")
	}
	return list, true, err
}

// get reads an answer. There is false if the server says that there is no such thing.
func (m *management) get(ctx context.Context, into any, path ...string) (there bool, err error) {
	address := m.base + "/api"
	for _, part := range path {
		address += "/" + url.PathEscape(part)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return true, fmt.Errorf("management API: %w", err)
	}
	req.SetBasicAuth(m.user, m.password)
	resp, err := m.client.Do(req)
	if err != nil {
		return true, fmt.Errorf("management API: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or not wanted
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode != http.StatusNotFound, fmt.Errorf("management API: %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, managementBytes)).Decode(into); err != nil {
		return true, fmt.Errorf("management API: %w", err)
	}
	return true, nil
}
