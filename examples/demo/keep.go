package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/outboxkit/outboxkit/examples/demo/events"
)

// connections is how to reach what --keep leaves running.
type connections struct {
	Databases map[string]string `json:"databases"` // URL by service
	Kafka     []string          `json:"kafka"`
	Logs      string            `json:"logs"`  // folder
	Write     string            `json:"write"` // command that writes an event
	Psql      string            `json:"psql"`  // the same without Go: a plain INSERT
}

func (s *stage) connections() (*connections, error) {
	c := &connections{Databases: map[string]string{}, Kafka: s.kafka.ListenAddrs(), Logs: s.dir}
	for _, name := range []string{"orders", "inventory", "notification"} {
		c.Databases[name] = s.postgres.URL(name)
	}
	typ := events.OrderPlacedV1
	payload, err := typ.Codec.Encode(events.OrderPlaced{OrderID: "0", UserID: "you", Items: []string{"tea"}})
	if err != nil {
		return nil, err
	}
	c.Write = fmt.Sprintf("go run ./examples/demo write --database '%s' --user you --item tea", c.Databases["orders"])
	c.Psql = fmt.Sprintf(`psql '%s' -c "INSERT INTO outbox.event (topic, key, type, source, payload, schema_fp)`+
		` VALUES ('%s', 'you', '%s', '/shop/orders', '\x%x', %d)"`,
		c.Databases["orders"], typ.Topic, typ.Name, payload, typ.Codec.Schema().Fingerprint())
	return c, nil
}

// String is for people.
func (c *connections) String() string {
	var b strings.Builder
	b.WriteString("\nEverything is left running until Ctrl-C:\n")
	for _, name := range []string{"orders", "inventory", "notification"} {
		fmt.Fprintf(&b, "  %-13s %s\n", name, c.Databases[name])
	}
	fmt.Fprintf(&b, "  %-13s %s\n", "kafka", strings.Join(c.Kafka, ","))
	fmt.Fprintf(&b, "  %-13s %s\n", "logs", c.Logs)
	fmt.Fprintf(&b, "\nWrite an event and watch it arrive here:\n  %s\nor, from any language, with a plain INSERT:\n  %s\n\n", c.Write, c.Psql)
	return b.String()
}

// keep says what takes effect from now on, until ctx ends.
func (s *scenario) keep(ctx context.Context) {
	seen := map[*consumer]int64{}
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for old := true; ctx.Err() == nil; old = false {
		for _, c := range s.consumers {
			effects, _ := c.effectsAfter(ctx, seen[c]) // after an error the next round asks again
			for _, e := range effects {
				seen[c] = e.Seq
				if !old {
					s.screen.say("%s: order %d of %s has taken effect", c.name, e.N, e.Key)
				}
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
}
