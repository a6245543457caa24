package main

import (
	"fmt"

	"github.com/IBM/sarama"
)

// topicEnds counts a topic's records without reading them: with one small
// request, because who is measured shares the machine.
type topicEnds struct {
	client     sarama.Client
	topic      string
	partitions []int32
}

func newTopicEnds(brokers []string, topic string) (*topicEnds, error) {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	client, err := sarama.NewClient(brokers, c)
	if err != nil {
		return nil, err
	}
	t := &topicEnds{client: client, topic: topic}
	if t.partitions, err = client.Partitions(topic); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
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
