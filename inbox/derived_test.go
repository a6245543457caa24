package inbox_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/outbox"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// mail is what the order's consumer derives, and a second consumer derives from.
type mail struct {
	To string `avro:"to"`
}

var (
	mailCodec  = avro.MustParse(`{"type":"record","name":"Mail","fields":[{"name":"to","type":"string"}]}`)
	mailAsked  = event.Type[mail]{Name: "shop.mail.asked", Topic: "mail", Key: func(m mail) string { return m.To }, Codec: mailCodec}
	mailSent   = event.Type[mail]{Name: "shop.mail.sent", Topic: "mail", Key: func(m mail) string { return m.To }, Codec: mailCodec}
	derivation = avro.SingleObject(placedA.Codec.Schema(), mailCodec.Schema())
)

// writeDerived writes through the handler's transaction, in either form.
type writeDerived func(ctx context.Context, drafts ...event.Draft) error

// derive registers a handler in either form.
func derive[T any](form string, in *inbox.Inbox, ob *outbox.Outbox, typ event.Type[T], f func(context.Context, writeDerived, inbox.Event[T]) error) {
	if form == "pgx.Tx" {
		inbox.On(in, typ, func(ctx context.Context, tx pgx.Tx, e inbox.Event[T]) error {
			return f(ctx, func(ctx context.Context, d ...event.Draft) error { return ob.Write(ctx, tx, d...) }, e)
		})
		return
	}
	inbox.OnSQL(in, typ, func(ctx context.Context, tx *sql.Tx, e inbox.Event[T]) error {
		return f(ctx, func(ctx context.Context, d ...event.Draft) error { return ob.WriteSQL(ctx, tx, d...) }, e)
	})
}

type derivedRow struct{ ID, Type, Key, Correlation, Causation string }

// TestDerivedEvents follows an order over two services: each derives an event in
// the transaction in which it handles one.
func TestDerivedEvents(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"pgx.Tx", "sql.Tx"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			p := newPath(t, derivation)
			ob := p.outbox(placedA, mailAsked, mailSent)

			attempts := 0
			notify := p.consume(p.config("notify"), derivation, func(in *inbox.Inbox) {
				derive(form, in, ob, placedA, func(ctx context.Context, write writeDerived, e inbox.Event[orderA]) error {
					ask := mailAsked.New(mail{To: e.Data.ID})
					own := mailAsked.New(mail{To: "archive"})
					own.CausationID, own.CorrelationID = "mine", "my own"
					if err := write(ctx, ask, own); err != nil {
						return err
					}
					if attempts++; attempts == 1 {
						return errBroken // with two events in the transaction
					}
					return nil
				})
			})
			cfg := p.config("mailer")
			cfg.From = p.broker.Subscriber("mailer", "mail")
			mailer := p.consume(cfg, derivation, func(in *inbox.Inbox) {
				derive(form, in, ob, mailAsked, func(ctx context.Context, write writeDerived, e inbox.Event[mail]) error {
					return write(ctx, mailSent.New(e.Data))
				})
			})

			p.write(ob, placedA.New(orderA{"o-1", 1}))
			eventually(t, "both mails", func() bool {
				return p.count(`SELECT count(*) FROM outbox.event WHERE type = 'shop.mail.sent'`) == 2
			})
			// The order comes once more, as after a crash of the relay.
			p.publish(p.broker.Log("orders")...)
			eventually(t, "the duplicate", func() bool { return notify.Stats().Duplicates == 1 })
			require.NoError(t, notify.end())
			require.NoError(t, mailer.end())

			rows, err := p.pool.Query(t.Context(), `SELECT event_id::text, type, key, coalesce(correlation_id, ''), coalesce(causation_id, '')
				FROM outbox.event ORDER BY type, key`)
			require.NoError(t, err)
			all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[derivedRow])
			require.NoError(t, err)
			require.Len(t, all, 5, "nothing of the failed attempt, nothing of the duplicate")
			ownAsked, asked, ownSent, sent, order := all[0], all[1], all[2], all[3], all[4]
			id := order.ID
			require.Equal(t, derivedRow{id, "shop.order.placed", "o-1", "", ""}, order)
			require.Equal(t, derivedRow{asked.ID, "shop.mail.asked", "o-1", id, id}, asked)
			require.Equal(t, derivedRow{sent.ID, "shop.mail.sent", "o-1", id, asked.ID}, sent)
			require.Equal(t, derivedRow{ownAsked.ID, "shop.mail.asked", "archive", "my own", "mine"}, ownAsked, "what a draft says itself stands")
			require.Equal(t, derivedRow{ownSent.ID, "shop.mail.sent", "archive", "my own", ownAsked.ID}, ownSent)
		})
	}
}
