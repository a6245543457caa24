package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers"
)

var _ brokers.Retainer = (*Subscriber)(nil)

// Retention implements brokers.Retainer: the longest retention.ms of the topics,
// Forever where it is -1 or a topic is compacted only. It needs the
// DescribeConfigs permission on them, and a connection of its own for the moment.
func (s *Subscriber) Retention(ctx context.Context) (keeps time.Duration, ok bool, err error) {
	if s.badCfg != nil {
		return 0, false, s.badCfg
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes the connections
	conf := s.cfg.client()
	dial(ctx, conf, s.cfg.TLSFiles, nil)
	client, err := sarama.NewClient(s.cfg.Brokers, conf)
	if err != nil {
		return 0, false, fmt.Errorf("kafka: %w", err)
	}
	defer func() { _ = client.Close() }() // nothing to lose
	broker := client.LeastLoadedBroker()
	if broker == nil {
		return 0, false, fmt.Errorf("kafka: topic configuration: %w", sarama.ErrOutOfBrokers)
	}
	req := &sarama.DescribeConfigsRequest{Version: 1}
	for _, topic := range s.topics {
		req.Resources = append(req.Resources, &sarama.ConfigResource{
			Type: sarama.TopicResource, Name: topic, ConfigNames: []string{configPolicy, configRetention},
		})
	}
	resp, err := broker.DescribeConfigs(req)
	if err != nil {
		return 0, false, fmt.Errorf("kafka: topic configuration: %w", err)
	}
	for _, r := range resp.Resources {
		if code := sarama.KError(r.ErrorCode); code != sarama.ErrNoError {
			return 0, false, fmt.Errorf("kafka: configuration of topic %q: %w", r.Name, code)
		}
		d, err := retention(r.Configs)
		if err != nil {
			return 0, false, fmt.Errorf("kafka: configuration of topic %q: %w", r.Name, err)
		}
		keeps = max(keeps, d)
	}
	return keeps, len(resp.Resources) > 0, nil
}

const (
	configPolicy    = "cleanup.policy"
	configRetention = "retention.ms"
)

// retention reads one topic's configuration. The broker names every setting, be
// it the topic's own or its default.
func retention(configs []*sarama.ConfigEntry) (time.Duration, error) {
	values := make(map[string]string, len(configs))
	for _, c := range configs {
		values[c.Name] = c.Value
	}
	if policy, told := values[configPolicy]; told && !slices.Contains(strings.Split(policy, ","), "delete") {
		return brokers.Forever, nil
	}
	ms, err := strconv.ParseInt(values[configRetention], 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s %q is not a number of milliseconds", configRetention, values[configRetention])
	case ms < 0 || ms > int64(brokers.Forever/time.Millisecond):
		return brokers.Forever, nil
	}
	return time.Duration(ms) * time.Millisecond, nil
}
