package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// topicEnds counts a topic's records without reading them: with one small
// request, because who is measured shares the machine.
type topicEnds struct {
	client     sarama.Client
	topic      string
	partitions []int32
}

// newTopicEnds returns when the broker answers for all partitions of the topic,
// which it has just created.
func newTopicEnds(ctx context.Context, brokers []string, topic string) (*topicEnds, error) {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	client, err := sarama.NewClient(brokers, c)
	if err != nil {
		return nil, err
	}
	t := &topicEnds{client: client, topic: topic}
	for range int32(partitions) {
		t.partitions = append(t.partitions, int32(len(t.partitions)))
	}
	for began := time.Now(); ; {
		_, err := t.count()
		if err == nil {
			return t, nil
		}
		err = errors.Join(err, client.RefreshMetadata(topic), pause(ctx, 50*time.Millisecond))
		if time.Since(began) > peerStall || ctx.Err() != nil {
			t.close()
			return nil, fmt.Errorf("topic %s: %w", topic, err)
		}
	}
}

// close deletes the topic, which may be large.
func (t *topicEnds) close() {
	if admin, err := sarama.NewClusterAdminFromClient(t.client); err == nil {
		_ = admin.DeleteTopic(t.topic)
	}
	_ = t.client.Close()
}

// count returns how many records a consumer could read.
func (t *topicEnds) count() (total int64, err error) {
	leader, err := t.client.Leader(t.topic, t.partitions[0]) // the only broker
	if err != nil {
		return 0, err
	}
	request := &sarama.OffsetRequest{Version: 1}
	for _, p := range t.partitions {
		request.AddBlock(t.topic, p, sarama.OffsetNewest, 1)
	}
	answer, err := leader.GetAvailableOffsets(request)
	if err != nil {
		return 0, err
	}
	for _, p := range t.partitions {
		block := answer.GetBlock(t.topic, p)
		if block == nil || block.Err != sarama.ErrNoError {
			return 0, fmt.Errorf("end of partition %d of %s: %+v", p, t.topic, block)
		}
		total += block.Offset
	}
	return total, nil
}
