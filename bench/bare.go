package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/outboxkit/outboxkit/dedup"
)

// The references: loops over pgx that run the same statements as the inbox, its
// text copied, in as many round trips, for messages that are in memory. They
// read no broker, decode nothing, keep no order and know no failure.

const (
	bareIdle    = `set_config('idle_in_transaction_session_timeout', $1::text, true)`
	bareBlocked = `state IN ('dead', 'blocked', 'moving', 'moved')`
	bareOne     = `SELECT ` + bareIdle + `, EXISTS (SELECT FROM inbox.dead WHERE consumer = $2 AND key_hash = $3
  AND topic = $4 AND key = $5 AND ` + bareBlocked + `)`
	bareMany = `SELECT ` + bareIdle + `, coalesce((SELECT string_agg(DISTINCT key_hash::text, ' ') FROM inbox.dead
  WHERE consumer = $2 AND key_hash = ANY($3::bigint[]) AND ` + bareBlocked + `), '')`
	bareClaim = `WITH w AS (SELECT $3::bigint > forgotten
    AND $3::bigint BETWEEN extract(epoch FROM statement_timestamp())::bigint - $4::bigint
      AND extract(epoch FROM statement_timestamp())::bigint + 3600 AS inside FROM inbox.retention),
c AS (INSERT INTO inbox.seen_%[1]d (slot, consumer, event_key)
  SELECT %[1]d, $1::integer, $2::uuid FROM w WHERE inside ON CONFLICT DO NOTHING RETURNING 1)
SELECT EXISTS (SELECT FROM c),
  (inside OR EXISTS (SELECT FROM inbox.seen_%[1]d WHERE event_key = $2::uuid AND consumer = $1::integer))::integer::bigint FROM w`
	bareClaims = `WITH w AS (SELECT forgotten, extract(epoch FROM statement_timestamp())::bigint AS now FROM inbox.retention),
c AS (INSERT INTO inbox.seen_%[1]d (slot, consumer, event_key)
  SELECT %[1]d, $1::integer, k FROM unnest($2::uuid[], $3::bigint[]) u (k, at)
  WHERE at > (SELECT forgotten FROM w) AND at BETWEEN (SELECT now - $4::bigint FROM w) AND (SELECT now + 3600 FROM w)
  ON CONFLICT DO NOTHING RETURNING event_key)
SELECT (SELECT string_agg(uuid_send(event_key), '') FROM c),
  (SELECT string_agg(uuid_send(k), '') FROM unnest($2::uuid[], $3::bigint[]) u (k, at)
   WHERE NOT (at > forgotten AND at BETWEEN now - $4::bigint AND now + 3600)
     AND EXISTS (SELECT FROM inbox.seen_%[1]d WHERE event_key = k AND consumer = $1::integer OFFSET 0)),
  forgotten, now FROM w`

	// What somebody would write who wants nothing but the claim.
	plainClaim = `INSERT INTO inbox.seen_%[1]d (slot, consumer, event_key) VALUES (%[1]d, $1, $2) ON CONFLICT DO NOTHING`

	idleMillis    = "35000"
	windowSeconds = 7 * 24 * 60 * 60
)

// bareMessage is a message that needs no broker.
type bareMessage struct {
	id   uuid.UUID
	hash int64
	data placed
}

// bareForm is how a loop works.
type bareForm struct {
	size   int  // of a transaction; 1: with the statements for one
	plain  bool // with the plain claim
	joined bool // the rows of a transaction by one statement
}

// bare handles msgs with so many workers and connections, and returns messages a
// second.
func (d *database) bare(ctx context.Context, msgs []bareMessage, workers int, form bareForm) (float64, error) {
	store, err := dedup.NewPostgres(ctx, d.Pool, dedup.Config{Consumer: consumerName})
	if err != nil {
		return 0, err
	}
	keys := make([]uuid.UUID, len(msgs)) // what the inbox claims: where it stands in the index has a price
	for i := range msgs {
		keys[i] = store.UUID(dedup.Key{Source: orderSource, ID: msgs[i].id.String()})
	}
	slot := time.Now().Unix() / 86400 % 36
	loop := &bareLoop{database: d, bareForm: form, consumer: store.ConsumerID()}
	loop.claim, loop.claims = fmt.Sprintf(bareClaim, slot), fmt.Sprintf(bareClaims, slot)
	if form.plain {
		loop.least = fmt.Sprintf(plainClaim, slot)
	}
	var next atomic.Int64
	var begin sync.Once
	var began time.Time
	warm := len(msgs) / warmPart
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			for {
				to := int(next.Add(int64(form.size)))
				from := to - form.size
				if from >= len(msgs) {
					return nil
				}
				if from >= warm {
					begin.Do(func() { began = time.Now() })
				}
				to = min(to, len(msgs))
				if err := loop.handle(ctx, msgs[from:to], keys[from:to]); err != nil {
					return err
				}
			}
		})
	}
	err = group.Wait()
	return float64(len(msgs)-warm) / time.Since(began).Seconds(), err
}

type bareLoop struct {
	*database
	bareForm

	consumer             int32
	claim, claims, least string
}

func (l *bareLoop) handle(ctx context.Context, msgs []bareMessage, keys []uuid.UUID) error {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if l.size > 1 {
		l.queueMany(b, msgs, keys)
	} else {
		l.queueOne(b, &msgs[0], keys[0])
	}
	results := l.SendBatch(ctx, b)
	err := results.Close()
	tx := results.Tx()
	defer func() { _ = tx.Rollback(ctx) }() // nothing after the commit
	if err != nil {
		return err
	}
	if l.size > 1 {
		err = insertAll(ctx, tx, l.joined, len(msgs), func(i int) *placed { return &msgs[i].data })
	} else {
		m := &msgs[0].data
		_, err = tx.Exec(ctx, insertOne, m.OrderID, m.Customer, m.Sum)
	}
	if err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func (l *bareLoop) queueOne(b *pgx.Batch, m *bareMessage, key uuid.UUID) {
	if l.plain {
		b.Queue(l.least, l.consumer, pgtype.UUID{Bytes: key, Valid: true})
		return
	}
	var blocked, claimed bool
	var inside int64
	b.Queue(bareOne, idleMillis, l.consumer, m.hash, "orders", m.data.Customer).QueryRow(func(row pgx.Row) error { return row.Scan(nil, &blocked) })
	b.Queue(l.claim, l.consumer, pgtype.UUID{Bytes: key, Valid: true}, time.Now().Unix(), windowSeconds).QueryRow(func(row pgx.Row) error { return row.Scan(&claimed, &inside) })
}

func (l *bareLoop) queueMany(b *pgx.Batch, msgs []bareMessage, keys []uuid.UUID) {
	ids, hashes, times := make([][16]byte, len(msgs)), make([]int64, len(msgs)), make([]int64, len(msgs))
	now := time.Now().Unix()
	for i := range msgs {
		ids[i], hashes[i], times[i] = keys[i], msgs[i].hash, now
	}
	var blocked string
	var claimed, known []byte
	var forgotten int64
	b.Queue(bareMany, idleMillis, l.consumer, hashes).QueryRow(func(row pgx.Row) error { return row.Scan(nil, &blocked) })
	b.Queue(l.claims, l.consumer, ids, times, windowSeconds).QueryRow(func(row pgx.Row) error { return row.Scan(&claimed, &known, &forgotten, &now) })
}
