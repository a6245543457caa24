package kafka_test

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/outboxkit/outboxkit/brokers/kafka"
	"github.com/outboxkit/outboxkit/certs"
)

// Azure Event Hubs by its Kafka endpoint: docs/brokers.md says why each setting.
func ExampleConfig_eventHubs() {
	// From the environment or a file, not from the code.
	connectionString := "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=relay;SharedAccessKey=…"
	cfg := kafka.Config{
		Brokers:         []string{"shop.servicebus.windows.net:9093"},
		TLSFiles:        &certs.Files{}, // the system's authorities
		Username:        "$ConnectionString",
		Password:        connectionString,
		PublishTimeout:  time.Minute,
		MaxRequestBytes: 1_000_000,
		Group:           "inventory",
		Sarama: func(c *sarama.Config) {
			c.Producer.Compression = sarama.CompressionNone // gzip on Premium and Dedicated
			c.Consumer.Group.Session.Timeout = 30 * time.Second
		},
	}
	fmt.Println(cfg.Validate())
	// Output: <nil>
}
