package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// RunWatermill is watermill's forwarder until ctx ends. Work is the value of
// [WatermillEnv].
func RunWatermill(ctx context.Context, work string) error {
	var job watermillWork
	if err := json.Unmarshal([]byte(work), &job); err != nil {
		return fmt.Errorf("%s: %w", WatermillEnv, err)
	}
	w := Watermill{Tuned: job.Tuned}
	pool, err := pgxpool.New(ctx, job.Place.Database)
	if err != nil {
		return err
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	log := watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	from, err := w.subscriber(db, log)
	if err != nil {
		return err
	}
	to, err := w.publisher(job.Place.Brokers, log)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	f, err := forwarder.NewForwarder(from, to, log, forwarder.Config{ForwarderTopic: eventsTable})
	if err != nil {
		return err
	}
	return f.Run(ctx)
}

func (w Watermill) publisher(brokers []string, log watermill.LoggerAdapter) (*kafka.Publisher, error) {
	c := kafka.PublisherConfig{Brokers: brokers, Marshaler: kafka.DefaultMarshaler{}}
	if w.Tuned {
		c.Marshaler = kafka.NewWithPartitioningMarshaler(func(_ string, m *message.Message) (string, error) { return m.Metadata.Get("key"), nil })
		c.OverwriteSaramaConfig = kafka.DefaultSaramaSyncPublisherConfig()
		c.OverwriteSaramaConfig.Producer.RequiredAcks = sarama.WaitForAll
	}
	return kafka.NewPublisher(c, log)
}
