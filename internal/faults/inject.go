package faults

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/outboxkit/outboxkit/brokers/rabbitmq"
)

// injectGarbage sends what no relay of ours would: bytes without any attribute, and
// a well-addressed order whose data cannot be decoded. Nothing but the second can
// be told apart afterwards; it must become a dead letter, once.
func (w *world) injectGarbage(ctx context.Context, s step) error {
	id := uuid.Must(uuid.NewV7()).String()
	key := "garbage-" + id[:13]
	bytes := []byte(noise([2]uint64{w.cfg.Seed, uint64(s.At)}, 10+rand.New(rand.NewPCG(w.cfg.Seed, uint64(s.At))).IntN(2000)))
	w.mu.Lock()
	w.garbage[id] = s.Target
	w.mu.Unlock()
	var err error
	if s.Target == overKafka {
		err = w.garbageToKafka(id, key, bytes)
	} else {
		err = w.garbageToRabbitMQ(ctx, id, key, bytes)
	}
	if err != nil { // the broker is away, and may still have it
		w.mu.Lock()
		w.unsure[id] = true
		w.mu.Unlock()
	}
	return nil
}

func (w *world) garbageToKafka(id, key string, bytes []byte) error {
	cfg := sarama.NewConfig()
	cfg.Producer.Return.Successes, cfg.Producer.Retry.Max = true, 0
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Net.DialTimeout, cfg.Net.ReadTimeout = 2*time.Second, 5*time.Second
	cfg.Metadata.Retry.Max = 0
	p, err := sarama.NewSyncProducer(w.kafka.Brokers(), cfg)
	if err != nil {
		return err
	}
	defer p.Close() //nolint:errcheck // each message has been answered
	if _, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topicOrders, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(bytes)}); err != nil {
		return err
	}
	var headers []sarama.RecordHeader
	for k, v := range map[string]string{"ce_specversion": "1.0", "ce_id": id, "ce_source": sourceShop, "ce_type": placedType().Name, "content-type": "avro/binary"} {
		headers = append(headers, sarama.RecordHeader{Key: []byte(k), Value: []byte(v)})
	}
	_, _, err = p.SendMessage(&sarama.ProducerMessage{Topic: topicOrders, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(bytes), Headers: headers})
	return err
}

func (w *world) garbageToRabbitMQ(ctx context.Context, id, key string, bytes []byte) error {
	return w.onRabbitMQ(func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		queue := rabbitmq.QueueName(topicOrders, key, queuesPerTopic)
		for _, m := range []amqp.Publishing{{Body: bytes}, {
			Body: bytes, MessageId: id, Type: placedType().Name, ContentType: "avro/binary", DeliveryMode: amqp.Persistent,
			Headers: amqp.Table{
				"cloudEvents:specversion": "1.0", "cloudEvents:id": id, "cloudEvents:source": sourceShop,
				"cloudEvents:type": placedType().Name, "cloudEvents:partitionkey": key,
			},
		}} {
			c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false, m)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			_, err = c.WaitContext(ctx)
			cancel()
			if err != nil {
				return err
			}
		}
		return nil
	})
}
