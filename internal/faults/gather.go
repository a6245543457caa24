package faults

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/internal/history"
)

// logs are the brokers' records by topic, read with plain clients.
type logs map[string][]history.Published

// read reads everything that both brokers have been given.
func (w *world) readLogs(ctx context.Context) (kafka, rabbitMQ logs, err error) {
	kafka, err = w.readKafka(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read Kafka's log: %w", err)
	}
	rabbitMQ, err = w.readRabbitMQ(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read RabbitMQ's log: %w", err)
	}
	return kafka, rabbitMQ, nil
}

func (w *world) readKafka(ctx context.Context) (logs, error) {
	client, err := sarama.NewClient(w.kafka.Brokers(), nil)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // it only reads
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	all := logs{}
	for _, topic := range []string{topicOrders, topicReserved} {
		for partition := range int32(partitions) {
			end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
			if err != nil {
				return nil, err
			}
			if err := readPartition(ctx, consumer, all, topic, partition, end); err != nil {
				return nil, err
			}
		}
	}
	return all, consumer.Close()
}

func readPartition(ctx context.Context, consumer sarama.Consumer, all logs, topic string, partition int32, end int64) error {
	if end == 0 {
		return nil
	}
	from, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // it only reads
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(30 * time.Second):
			return fmt.Errorf("%s/%d: nothing for 30 s before offset %d", topic, partition, end)
		case m := <-from.Messages():
			p := history.Published{Unit: fmt.Sprintf("%s/%d", topic, partition), Offset: m.Offset, At: m.Timestamp}
			for _, h := range m.Headers {
				set(&p, string(h.Key), string(h.Value))
			}
			if p.ID != "" {
				all[topic] = append(all[topic], p)
			}
			if m.Offset >= end-1 {
				return nil
			}
		}
	}
}

// readRabbitMQ empties the log up to a marker that it puts there.
func (w *world) readRabbitMQ(ctx context.Context) (logs, error) {
	all := logs{}
	err := w.onRabbitMQ(func(ch *amqp.Channel) error {
		const marker = "end"
		if err := errors.Join(ch.Qos(500, 0, false), ch.PublishWithContext(ctx, "", logQueue, false, false, amqp.Publishing{Type: marker, DeliveryMode: amqp.Persistent})); err != nil {
			return err
		}
		messages, err := ch.ConsumeWithContext(ctx, logQueue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		for offset := int64(0); ; offset++ {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(30 * time.Second):
				return errors.New("nothing for 30 s before the end")
			case m, ok := <-messages:
				if !ok {
					return errors.New("the channel was closed")
				}
				if m.Type == marker {
					return nil
				}
				all.add(m, offset)
				if err := m.Ack(false); err != nil {
					return err
				}
			}
		}
	})
	return all, err
}

func (l logs) add(m amqp.Delivery, offset int64) {
	p := history.Published{Unit: m.RoutingKey, At: m.Timestamp, ID: m.MessageId, Offset: offset}
	for k, v := range m.Headers {
		if s, ok := v.(string); ok {
			set(&p, k, s)
		}
	}
	topic := topicOrders
	if len(m.RoutingKey) > len(topicBilled) && m.RoutingKey[:len(topicBilled)] == topicBilled {
		topic = topicBilled
	}
	l[topic] = append(l[topic], p)
}

// set takes a header that says something about a record.
func set(p *history.Published, header, value string) {
	switch header {
	case "ce_id":
		p.ID = value
	case "faults-by":
		p.By = value
	case "faults-at":
		p.Handed, _ = time.Parse(time.RFC3339Nano, value) // ours
	}
}
