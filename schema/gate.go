package schema

import (
	"context"
	"fmt"

	"github.com/outboxkit/outboxkit/event"
)

// Gate returns a check for outbox.Config.Gate: a type's schema must be allowed to
// follow the versions that the registry has under the type's subject. For avro.Files
// name subjects with [ByRecord]. Compare explains what a server refuses; for Avro it
// is avro.Compare. Types without a schema, such as plain JSON, pass.
//
// Nothing is registered: that is done before the deployment (relay schema register),
// or by the relay when it publishes.
func Gate(r Registry, subject Strategy, compare Compare) func(context.Context, event.Info) error {
	return func(ctx context.Context, t event.Info) error {
		s := t.Codec.Schema()
		if s.Text == "" {
			return nil
		}
		name, err := subject(t.Topic, s)
		if err != nil {
			return err
		}
		v, err := Check(ctx, r, name, s, compare)
		if err != nil {
			return fmt.Errorf("schema: subject %q: %w", name, err)
		}
		if err := v.Error(); err != nil {
			return fmt.Errorf("subject %q, mode %s: %w", name, v.Mode, err)
		}
		return nil
	}
}
