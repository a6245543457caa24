//go:build faults

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/outboxkit/outboxkit/brokers"
)

// marked writes into each message which process hands it over and when, for the
// fault suite: a daemon of the product does not.
func marked(to brokers.Publisher) brokers.Publisher {
	return &marker{Publisher: to, by: fmt.Sprintf("%s#%d", os.Getenv("OUTBOXKIT_FAULTS_NAME"), os.Getpid())}
}

type marker struct {
	brokers.Publisher
	by string
}

func (m *marker) Publish(ctx context.Context, msgs []brokers.Message) []error {
	at := time.Now().Format(time.RFC3339Nano)
	out := make([]brokers.Message, len(msgs))
	for i, msg := range msgs {
		msg.Headers = maps.Clone(msg.Headers)
		if msg.Headers == nil {
			msg.Headers = map[string]string{}
		}
		msg.Headers["faults-by"], msg.Headers["faults-at"] = m.by, at
		out[i] = msg
	}
	return m.Publisher.Publish(ctx, out)
}
