package inboxtest

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/brokers"
)

// DeadLetter is an event that was not handled.
type DeadLetter struct {
	ID       string
	Type     string
	Topic    string
	Key      string
	State    string // as in the column dead.state: "dead", "blocked" (behind a dead one of its key), …
	Reason   string // as in the column dead.reason: "attempts", "permanent", "undecodable", …
	Error    string // the last error
	Attempts int
}

// String is a line for people, and the error.
func (d DeadLetter) String() string {
	s := fmt.Sprintf("%s of key %q (%s) is %s: ", d.Type, d.Key, d.ID, d.State)
	if d.State == "blocked" {
		return s + "it waits behind a dead letter of its key"
	}
	return s + fmt.Sprintf("%s after %d attempts: %s", d.Reason, d.Attempts, d.Error)
}

// deadLetters returns those among msgs, in the order of their writing.
func deadLetters(ctx context.Context, pool *pgxpool.Pool, schema string, msgs []brokers.Message) ([]DeadLetter, error) {
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		ids[i] = m.ID
	}
	rows, err := pool.Query(ctx, fmt.Sprintf(`SELECT id, type, topic, key, state, reason, error, attempts
		FROM %s.dead WHERE id = ANY($1) ORDER BY n`, pgx.Identifier{schema}.Sanitize()), ids)
	var dead []DeadLetter
	if err == nil {
		dead, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DeadLetter])
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "42P01" {
		err = fmt.Errorf("%w (set Consumer.Schema to the inbox's Config.Schema)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the dead letters: %w", err)
	}
	return dead, nil
}
