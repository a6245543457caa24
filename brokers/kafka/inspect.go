package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// TopicState is what a cluster says of one topic. Where Err is set nothing else is.
type TopicState struct {
	Topic string
	// Err says why the cluster tells nothing: the topic does not exist, or this user
	// may not ask.
	Err        error
	Partitions int
	Leaderless int // partitions without a leader
	// Replicas and InSync are of the partition that has the fewest.
	Replicas, InSync int
	// MinInSync is min.insync.replicas, 0 if the cluster does not tell.
	MinInSync int
	// Unclean is unclean.leader.election.enable: a replica that lacks confirmed
	// messages may become leader.
	Unclean bool
	// Retention is how long messages are kept by age; brokers.Forever if they are.
	Retention time.Duration
	// Unsettled says why the settings are not known, nil if they are.
	Unsettled error
}

const (
	configMinInSync = "min.insync.replicas"
	configUnclean   = "unclean.leader.election.enable"
	// noTopic is asked for where there is no topic to ask for: any answer will do.
	noTopic = "outboxkit.is.it.there"
)

// Inspect asks a cluster how it keeps topics, for a diagnosis. It changes nothing and
// creates no topic. An error says that no broker answers; with no topics it asks only
// that. It needs the Describe and DescribeConfigs permissions, and connections of its
// own for the moment.
func Inspect(ctx context.Context, cfg Config, topics []string) ([]TopicState, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes the connections
	conf := cfg.withDefaults().client()
	conf.Metadata.Retry.Max = 0
	dial(ctx, conf, cfg.TLSFiles, nil)
	client, err := sarama.NewClient(cfg.Brokers, conf)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	defer func() { _ = client.Close() }() // nothing to lose
	if len(topics) == 0 {
		_, err := look(client, noTopic)
		return nil, err
	}
	var list []TopicState
	for _, name := range topics {
		t, err := look(client, name)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, settle(client, list)
}

// look reads a topic's partitions. An error means that the cluster does not answer.
func look(client sarama.Client, name string) (TopicState, error) {
	t := TopicState{Topic: name}
	switch err := client.RefreshMetadata(name); {
	case err == nil, errors.Is(err, sarama.ErrLeaderNotAvailable):
	case isDestination(err), errors.Is(err, sarama.ErrUnknownTopicOrPartition):
		t.Err = err
		return t, nil
	default:
		return t, fmt.Errorf("kafka: %w", err)
	}
	partitions, err := client.Partitions(name)
	if err != nil {
		t.Err = err
		return t, nil
	}
	t.Partitions = len(partitions)
	for i, p := range partitions {
		if _, err := client.Leader(name, p); err != nil {
			t.Leaderless++
		}
		replicas, _ := client.Replicas(name, p) // a partition without leader has them all the same
		inSync, _ := client.InSyncReplicas(name, p)
		if i == 0 {
			t.Replicas, t.InSync = len(replicas), len(inSync)
		}
		t.Replicas, t.InSync = min(t.Replicas, len(replicas)), min(t.InSync, len(inSync))
	}
	return t, nil
}

// settle reads the settings of the topics that are there, from the first broker that
// answers.
func settle(client sarama.Client, list []TopicState) error {
	req := &sarama.DescribeConfigsRequest{Version: 1}
	for _, t := range list {
		if t.Err == nil {
			req.Resources = append(req.Resources, &sarama.ConfigResource{
				Type: sarama.TopicResource, Name: t.Topic, ConfigNames: []string{configPolicy, configRetention, configMinInSync, configUnclean},
			})
		}
	}
	if len(req.Resources) == 0 {
		return nil
	}
	last := error(sarama.ErrOutOfBrokers)
	for _, b := range client.Brokers() {
		if err := b.Open(client.Config()); err != nil && !errors.Is(err, sarama.ErrAlreadyConnected) {
			last = err
			continue
		}
		resp, err := b.DescribeConfigs(req)
		if err != nil {
			last = err
			continue
		}
		for _, r := range resp.Resources {
			for i := range list {
				if list[i].Topic == r.Name {
					list[i].read(r)
				}
			}
		}
		return nil
	}
	return fmt.Errorf("kafka: topic configuration: %w", last)
}

func (t *TopicState) read(r *sarama.ResourceResponse) {
	if code := sarama.KError(r.ErrorCode); code != sarama.ErrNoError {
		t.Unsettled = code
		return
	}
	for _, c := range r.Configs {
		switch c.Name {
		case configMinInSync:
			t.MinInSync, _ = strconv.Atoi(c.Value) // 0 if the cluster does not tell
		case configUnclean:
			t.Unclean = strings.EqualFold(c.Value, "true")
		}
	}
	t.Retention, t.Unsettled = retention(r.Configs)
}
