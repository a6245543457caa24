package faults

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/relay"
)

// operate is the person on call: now and then they cure some of the poison and
// redrive it, with what waits behind it. The rest stays dead.
func (w *world) operate(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, 7*time.Second)
		_ = w.cure(ctx) // the database may be away: another time
	}
}

func (w *world) cure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	db := w.warehouse.db()
	rows, err := db.Query(ctx, `SELECT DISTINCT id FROM inbox.dead WHERE state = 'dead' AND reason = 'permanent' AND hashtext(id) % 3 <> 0 LIMIT 5`)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := db.Exec(ctx, `INSERT INTO cured VALUES ($1) ON CONFLICT DO NOTHING`, id); err != nil {
			return err
		}
		if _, err := inbox.Redrive(ctx, db, "", inbox.DeadFilter{ID: id, State: "dead"}, inbox.DeadAction{By: "faults", Reason: "cured"}); err != nil {
			return err
		}
	}
	return nil
}

// mend redrives what the relays parked because a destination was missing: it is
// there again.
func (w *world) mend(ctx context.Context) error {
	for _, c := range []*cluster{w.shop, w.warehouse} {
		_, err := relay.Redrive(ctx, c.db(), "", relay.ParkedFilter{Class: "destination"}, relay.ParkedAction{By: "faults", Reason: "the queues are bound again"})
		if err != nil {
			return err
		}
	}
	return nil
}
