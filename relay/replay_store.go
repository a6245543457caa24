package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
)

// replaysKept is how many replays stay on record.
const replaysKept = 1000

// States of a stored replay.
const (
	replayRunning   = "running" // or its process was killed
	replayStopped   = "stopped" // can be resumed
	replayTruncated = "truncated"
	replayDone      = "done"
)

func (r *replayer) store(ctx context.Context) error {
	filter, err := json.Marshal(r.scope.filter)
	if err != nil {
		return err
	}
	marks, err := json.Marshal(r.scope.marks)
	if err != nil {
		return err
	}
	bound, err := json.Marshal(r.scope.bound)
	if err != nil {
		return err
	}
	op, cancel := r.relay.op(ctx)
	defer cancel()
	err = r.relay.pool.QueryRow(op, r.sql(sqlReplayStart), r.scope.pipeline, r.scope.to, string(filter), string(marks), string(bound),
		r.scope.first, r.scope.last, r.runner, r.cfg.RequestedBy, r.cfg.Reason).Scan(&r.id)
	if err == nil {
		_, err = r.relay.pool.Exec(op, r.sql(sqlReplayForget), replaysKept)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// resume takes a stored replay over from whoever runs it.
func (r *replayer) resume(ctx context.Context) error {
	op, cancel := r.relay.op(ctx)
	defer cancel()
	r.id = r.cfg.Resume
	state, _, err := r.load(op)
	if err != nil {
		return err
	}
	switch {
	case r.scope.pipeline != r.cfg.Pipeline.Name:
		return &event.FieldError{Field: "ReplayConfig.Pipeline.Name", Value: r.cfg.Pipeline.Name, Problem: "is not the replay's", Hint: fmt.Sprintf("%q", r.scope.pipeline)}
	case r.scope.to != r.to.Name:
		return &event.FieldError{Field: "ReplayConfig.To.Name", Value: r.to.Name, Problem: "is not the replay's destination", Hint: fmt.Sprintf("%q", r.scope.to)}
	}
	tag, err := r.relay.pool.Exec(op, r.sql(sqlReplayTake), r.id, r.runner)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: replay %s is %s", ErrReplayEnded, r.id, state)
	}
	_, _, err = r.load(op) // again: the other may have gone on until it was taken over
	return err
}

// reload begins again with what is stored, after a recovery of the database.
func (r *replayer) reload(ctx context.Context) error {
	token, err := r.relay.incarnation(ctx)
	if err != nil {
		return err
	}
	op, cancel := r.relay.op(ctx)
	defer cancel()
	_, runner, err := r.load(op)
	if err != nil {
		return err
	}
	if runner != r.runner {
		return ErrReplayTaken
	}
	r.token = token
	return nil
}

func (r *replayer) load(ctx context.Context) (state, runner string, err error) {
	var s replayScope
	var filter, marks, bound, refused []byte
	var f refusals
	var cursor, published int64
	err = r.relay.pool.QueryRow(ctx, r.sql(sqlReplayLoad), r.id).Scan(&s.pipeline, &s.to, &filter, &marks, &bound,
		&s.first, &s.last, &cursor, &published, &state, &runner, &f.held, &refused)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", "", fmt.Errorf("%w: %q", ErrNoReplay, r.id)
	}
	if err == nil {
		err = errors.Join(json.Unmarshal(filter, &s.filter), json.Unmarshal(marks, &s.marks), json.Unmarshal(bound, &s.bound), json.Unmarshal(refused, &f.list))
	}
	if err != nil {
		return "", "", fmt.Errorf("load: %w", err)
	}
	for _, e := range f.list {
		f.block(e, r.blocks())
	}
	r.scope, r.cursor, r.published, r.refused = s, cursor, published, f
	return state, runner, nil
}

func (r *replayer) save(ctx context.Context, state string, problem error) error {
	text := ""
	if problem != nil {
		text = reasonText(problem)
	}
	op, cancel := r.relay.op(ctx)
	defer cancel()
	tag, err := r.relay.pool.Exec(op, r.sql(sqlReplaySave), r.id, r.runner, r.cursor, r.published, state, text, r.refused.held, r.refused.text())
	if err != nil {
		return fmt.Errorf("store progress: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrReplayTaken
	}
	r.saved, r.refused.dirty = time.Now(), false
	return nil
}

// finish stores how a run ended, also when its context is what ended it, and returns
// why.
func (r *replayer) finish(ctx context.Context, state string, why error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(why, r.save(bounded, state, why))
}

// ReplayInfo is a replay as it is stored.
type ReplayInfo struct {
	ID          string       `json:"id"`
	Pipeline    string       `json:"pipeline"`
	Destination string       `json:"destination"`
	Where       ReplayFilter `json:"where"`
	State       string       `json:"state"` // running, stopped, truncated or done
	Error       string       `json:"error"`
	Published   int64        `json:"published"`
	// Refused and Held are as in ReplayResult.
	Refused     []ReplayFailure `json:"refused"`
	Held        int64           `json:"held"`
	Part        float64         `json:"part"` // of the log that has been looked through, 0 to 1
	RequestedBy string          `json:"requestedBy"`
	Role        string          `json:"role"` // database role
	Reason      string          `json:"reason"`
	StartedAt   time.Time       `json:"startedAt"`
	UpdatedAt   time.Time       `json:"updatedAt"` // a running one that is minutes old was killed
}

// Replays lists the stored replays, newest first. An empty schema means "outbox".
func Replays(ctx context.Context, pool *pgxpool.Pool, schema string) ([]ReplayInfo, error) {
	cfg := Config{Schema: schema}.withDefaults()
	if err := cfg.checkSchema(); err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, inSchema(sqlReplayList, cfg.Schema))
	if err != nil {
		return nil, fmt.Errorf("replays: %w", notMigrated(err))
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i ReplayInfo, err error) {
		err = row.Scan(&i.ID, &i.Pipeline, &i.Destination, &i.Where, &i.State, &i.Error, &i.Published, &i.Refused, &i.Held, &i.Part,
			&i.RequestedBy, &i.Role, &i.Reason, &i.StartedAt, &i.UpdatedAt)
		return i, err
	})
	if err != nil {
		return nil, fmt.Errorf("replays: %w", notMigrated(err))
	}
	return list, nil
}
