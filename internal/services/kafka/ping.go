package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ping succeeds once the broker tells clients about itself: an open port alone
// comes too early after a restart.
func (s *Server) ping(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.Addr()), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(answer.Brokers) == 0 {
		return errors.New("the broker has not registered yet")
	}
	return nil
}
