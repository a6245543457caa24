package inbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
)

// dead is a row of inbox.dead, but for its number and time.
type dead struct {
	State, Reason, Error                    string
	Attempts                                int
	Topic, Key, ID, Source, Type            string
	Time                                    *time.Time
	ContentType, CorrelationID, CausationID string
	Headers                                 map[string]string
	Payload                                 []byte
	OriginBroker, OriginTopic               string
	OriginPartition, OriginOffset           int
}

func (w *world) dead() []dead {
	w.t.Helper()
	rows, err := w.pool.Query(context.Background(), `SELECT state, reason, error, attempts, topic, key, id, source, type, time,
		content_type, correlation_id, causation_id, headers, payload, origin_broker, origin_topic, origin_partition, origin_offset
		FROM inbox.dead ORDER BY n`)
	require.NoError(w.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dead])
	require.NoError(w.t, err)
	return all
}

func failing(context.Context, pgx.Tx, inbox.Event[order]) error { return errBroken }

func TestDeadLetterRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("a", 1)
	m.Key, m.CorrelationID, m.CausationID = "a", "cor", "cau"
	in := w.start(w.config("inventory"), failing)
	w.publish(m)
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Failures: 3, DeadLettered: 1}, in.Stats())
	rows := w.dead()
	require.Len(t, rows, 1)
	require.WithinDuration(t, m.Time, *rows[0].Time, time.Microsecond)
	rows[0].Time = nil
	rows[0].OriginPartition = 0
	require.Equal(t, dead{
		State: "dead", Reason: "attempts", Error: errBroken.Error(), Attempts: 3,
		Topic: "orders", Key: "a", ID: m.ID, Source: source, Type: placed.Name,
		ContentType: "application/json", CorrelationID: "cor", CausationID: "cau",
		Headers: map[string]string{"tenant": "a"}, Payload: m.Payload, OriginBroker: "memory", OriginTopic: "orders",
	}, rows[0])
	require.Equal(t, 1, w.claims(), "the claim is there, so that a duplicate is not handled")

	require.Equal(t, inbox.Stats{Duplicates: 1}, deliver(w, m))
	require.Zero(t, w.effects())
}

func TestWhyEventsDie(t *testing.T) {
	t.Parallel()
	poison := message("a", 1)
	poison.Payload = []byte("\x00\xffnot json")
	noType := message("a", 1)
	noType.Type = ""
	unknown := message("a", 1)
	unknown.Type = "shop.order.cancelled"
	fine := message("a", 1)
	tests := map[string]struct {
		message     brokers.Message
		handle      func(context.Context, pgx.Tx, inbox.Event[order]) error
		reason, err string
		attempts    int
	}{
		"poison bytes": {poison, nil, "undecodable", "decode: invalid character", 0},
		"no type":      {noType, nil, "no_type", "no event type", 0},
		"unknown type": {unknown, nil, "unknown_type", "shop.order.cancelled", 0},
		"permanent": {fine, func(context.Context, pgx.Tx, inbox.Event[order]) error {
			return fmt.Errorf("order: %w", inbox.Permanent(errBroken))
		}, "permanent", "order: the handler is broken", 1},
		"panic": {fine, func(context.Context, pgx.Tx, inbox.Event[order]) error { panic("at the disco") }, "attempts", "panic: at the disco", 3},
		"timeout": {fine, func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
			_, err := tx.Exec(ctx, `SELECT pg_sleep(60)`)
			return err
		}, "attempts", "handler timed out after 100ms", 3},
		"timeout outside the database": {fine, func(ctx context.Context, _ pgx.Tx, _ inbox.Event[order]) error {
			<-ctx.Done()
			return ctx.Err()
		}, "attempts", "handler timed out after 100ms", 3},
		"swallowed SQL error": {fine, func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
			_, _ = tx.Exec(ctx, `SELECT 1/0`)
			return nil
		}, "attempts", "returned nil though a statement of its transaction had failed", 3},
		"refused at commit": {fine, func(ctx context.Context, tx pgx.Tx, _ inbox.Event[order]) error {
			_, err := tx.Exec(ctx, `CREATE TEMP TABLE d (i int UNIQUE DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP; INSERT INTO d VALUES (1), (1)`)
			return err
		}, "attempts", "duplicate key", 3},
		"commits itself": {fine, func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
			if err := insert("inventory")(ctx, tx, e); err != nil {
				return err
			}
			_ = tx.Commit(ctx)
			return nil
		}, "attempts", "the handler ended its transaction", 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cfg := w.config("inventory")
			cfg.Unknown = inbox.UnknownDeadLetter
			if tt.handle == nil {
				tt.handle = insert("inventory")
			} else if tt.err == "handler timed out after 100ms" {
				cfg.HandlerTimeout = 100 * time.Millisecond
			}
			in := w.start(cfg, tt.handle)
			w.publish(tt.message)
			w.settled("inventory")
			require.NoError(t, in.end())
			rows := w.dead()
			require.Len(t, rows, 1)
			require.Equal(t, "dead", rows[0].State)
			require.Equal(t, tt.reason, rows[0].Reason)
			require.Contains(t, rows[0].Error, tt.err)
			require.Equal(t, tt.attempts, rows[0].Attempts)
			require.Equal(t, tt.message.Payload, rows[0].Payload)
			require.Zero(t, w.effects())
			require.Equal(t, 1, w.claims())
		})
	}
}

func TestBlockKey(t *testing.T) {
	t.Parallel()
	poison := func(ctx context.Context, tx pgx.Tx, e inbox.Event[order]) error {
		if e.Key == "a" && e.Data.N == 1 {
			return errBroken
		}
		return insert("inventory")(ctx, tx, e)
	}
	msgs := []brokers.Message{message("a", 0), message("a", 1), message("a", 2), message("b", 3), message("a", 4), message("", 5)}
	elsewhere := message("a", 6)
	elsewhere.Topic = "returns"

	t.Run("on", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.broker.CreateTopic("returns", 1, 0)
		w.publish(msgs[:3]...)
		in := w.start(w.config("inventory"), poison)
		w.settled("inventory")
		require.NoError(t, in.end())

		cfg := w.config("inventory") // a restart later
		cfg.From = w.broker.Subscriber("inventory", "orders", "returns")
		in = w.start(cfg, poison)
		w.publish(append(msgs[3:], elsewhere)...)
		w.settled("inventory")
		eventually(t, "the other topic", func() bool { return w.broker.Unacked("inventory", "returns") == 0 })
		require.NoError(t, in.end())

		require.Equal(t, 1, w.effects(msgs[0].ID))
		require.Equal(t, 1, w.effects(msgs[3].ID), "another key goes on")
		require.Equal(t, 1, w.effects(msgs[5].ID), "no key goes on")
		require.Equal(t, 1, w.effects(elsewhere.ID), "the same key of another topic goes on")
		require.Equal(t, 4, w.effects())
		rows := w.dead()
		require.Len(t, rows, 3)
		for i, want := range []struct{ id, state, reason string }{
			{msgs[1].ID, "dead", "attempts"}, {msgs[2].ID, "blocked", "blocked"}, {msgs[4].ID, "blocked", "blocked"},
		} {
			require.Equal(t, want.id, rows[i].ID)
			require.Equal(t, want.state, rows[i].State)
			require.Equal(t, want.reason, rows[i].Reason)
		}
		require.Equal(t, msgs[4].Payload, rows[2].Payload)
		require.Equal(t, inbox.Stats{Handled: 3, Blocked: 1}, in.Stats())
		require.Equal(t, inbox.Stats{Duplicates: 2}, deliver(w, msgs[1], msgs[2]))

		w.exec(`UPDATE inbox.dead SET state = 'discarded'`)
		require.Equal(t, inbox.Stats{Handled: 1}, deliver(w, message("a", 7)), "resolved: the key goes on")
	})

	t.Run("off", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		cfg := w.config("inventory")
		cfg.BlockKey = new(false)
		w.publish(msgs...)
		in := w.start(cfg, poison)
		w.settled("inventory")
		require.NoError(t, in.end())
		require.Equal(t, 5, w.effects())
		require.Equal(t, inbox.Stats{Handled: 5, Failures: 3, DeadLettered: 1}, in.Stats())
	})
}

// Who resolves the last dead letter holds the key's lock; an event that finds
// its key blocked waits for it and looks again.
func TestBlockedKeyIsLookedAtAgainUnderTheLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.start(w.config("inventory"), failing)
	w.publish(message("a", 1))
	w.settled("inventory")
	require.NoError(t, in.end())

	var lock int64
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT key_hash # (consumer::bigint << 32) # x'6465616420'::bigint FROM inbox.dead`).Scan(&lock))
	redrive, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = redrive.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, lock)
	require.NoError(t, err)
	_, err = redrive.Exec(t.Context(), `UPDATE inbox.dead SET state = 'redriven'`)
	require.NoError(t, err)
	in = w.start(w.config("inventory"), insert("inventory"))
	w.publish(message("a", 2))
	eventually(t, "the event to wait for the key's lock", func() bool {
		return w.count(`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 1
	})
	require.NoError(t, redrive.Commit(t.Context()))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 1}, in.Stats())
}

func TestTextThatPostgresCannotStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("\x00\x00\x00\x00\x05\xffkey", 1)
	m.Payload = nil
	m.Headers = map[string]string{"trace": "a\x00b", "h\xff": `\x41`, "plain": "ü"}
	m.ID, m.Type = "\x00\xff", "type\x00"
	behind := message(m.Key, 2)
	cfg := w.config("inventory")
	cfg.Unknown = inbox.UnknownDeadLetter
	in := w.start(cfg, insert("inventory"))
	w.publish(m, behind, message("other", 3))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 1, DeadLettered: 1, Blocked: 1}, in.Stats())
	row := w.dead()[0]
	require.Equal(t, `\x0000000005ff6b6579`, row.Key)
	require.Equal(t, `\x00ff`, row.ID)
	require.Equal(t, `\x7479706500`, row.Type)
	require.Equal(t, map[string]string{"trace": `\x610062`, `\x68ff`: `\x5c783431`, "plain": "ü"}, row.Headers)
	require.Nil(t, row.Payload)
}

func TestUnknownTypes(t *testing.T) {
	t.Parallel()
	unknown := message("a", 1)
	unknown.Type = "shop.order.cancelled"
	t.Run("ignored", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		withoutID := unknown
		withoutID.ID = ""
		require.Equal(t, inbox.Stats{Ignored: 2, Handled: 1}, deliver(w, unknown, withoutID, message("a", 2)))
		require.Empty(t, w.dead())
		require.Equal(t, 1, w.claims())
	})
	t.Run("failed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		cfg := w.config("inventory")
		cfg.Unknown = inbox.UnknownFail
		in := w.start(cfg, insert("inventory"))
		w.publish(unknown, message("a", 2))
		require.ErrorContains(t, in.wait(), `no handler for type "shop.order.cancelled" (memory orders/`)
		require.Equal(t, 2, w.broker.Unacked("inventory", "orders"))
		require.Zero(t, w.effects())
	})
	// UnknownDeadLetter: TestWhyEventsDie
}

// framed is a wire format of one byte before the data.
type framed struct{ open func(wire []byte) error }

func (framed) Seal(context.Context, string, event.Schema, []byte) ([]byte, error) {
	panic("not called")
}

func (f framed) Open(_ context.Context, topic string, wire []byte) (event.Schema, []byte, error) {
	if topic != "orders" {
		return event.Schema{}, nil, fmt.Errorf("topic %q", topic)
	}
	if err := f.open(wire); err != nil {
		return event.Schema{}, nil, err
	}
	return event.Schema{Format: "json"}, wire[1:], nil
}

func TestWireFormat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg := w.config("inventory")
	cfg.Attempts = 2
	away := 10
	cfg.Wire = framed{open: func(wire []byte) error {
		switch {
		case wire[0] == 'x':
			return errBroken
		case away > 0:
			away--
			return fmt.Errorf("registry: %w", event.ErrSchemaUnavailable)
		}
		return nil
	}}
	frame := func(m brokers.Message, b byte) brokers.Message {
		m.Payload = append([]byte{b}, m.Payload...)
		return m
	}
	cfg.Concurrency = 1
	w.publish(frame(message("a", 7), 'j'), frame(message("b", 8), 'x'))
	in := w.start(cfg, insert("inventory"))
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Handled: 1, DeadLettered: 1}, in.Stats(), "a registry that is away is no failed attempt")
	require.Equal(t, 7, w.count(`SELECT n FROM effect`))
	require.Equal(t, "open the wire format: the handler is broken", w.dead()[0].Error)
	require.Equal(t, byte('x'), w.dead()[0].Payload[0], "bytes as received")
}

func TestHeadersOfADeadLetterAreReadableInSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := message("a", 1)
	m.Payload = []byte("{")
	deliver(w, m)
	var raw []byte
	require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT headers FROM inbox.dead WHERE headers->>'tenant' = 'a'`).Scan(&raw))
	require.True(t, json.Valid(raw))
}

func TestDeadLettersOverSQL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.established("inventory")
	late := message("late", 1)
	late.ID = v7At(timeDaysAgo(30))
	w.publish(message("bad", 1), message("bad", 2), late)
	in := handlerForms()["sql.Tx"](w, w.config("inventory"), func(execFunc, inbox.Event[order]) error { return errBroken })
	w.settled("inventory")
	require.NoError(t, in.end())
	require.Equal(t, inbox.Stats{Failures: 3, DeadLettered: 2, Blocked: 1}, in.Stats())
	require.Equal(t, 1, w.count(`SELECT count(*) FROM inbox.dead WHERE state = 'blocked' AND key = 'bad' AND payload IS NOT NULL`))
}
