//go:build faults

package relay

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/model"
)

// trace records what really happens, as steps of internal/model. The database's part
// is written by triggers, so that it does not depend on what the relay says of
// itself; a step of a transaction that is rolled back vanishes with it. The broker's
// part is written by the broker. All are numbered by one sequence: within a part's
// lease, whose row every writer locks, that is the order in which they take effect.
type trace struct {
	db    *database
	mu    sync.Mutex
	steps []traced
}

type traced struct {
	n    int64
	tx   int64 // its transaction; 0 = none
	step model.Step
}

const traceTables = `CREATE SCHEMA trace; CREATE SEQUENCE trace.clock;
CREATE TABLE trace.step (n bigint NOT NULL, tx bigint NOT NULL, kind text NOT NULL, new jsonb, old jsonb);
CREATE FUNCTION trace.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  INSERT INTO trace.step VALUES (nextval('trace.clock'), pg_current_xact_id()::text::bigint, TG_ARGV[0] || ' ' || lower(TG_OP),
    CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END, CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END);
  RETURN NULL; END $$;
CREATE FUNCTION trace.event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  INSERT INTO trace.step VALUES (nextval('trace.clock'), NEW.xid::text::bigint, TG_ARGV[0], jsonb_build_object('Name', NEW.event_id, 'ID', NEW.id,
    'Xid', NEW.xid::text::bigint, 'Key', NEW.key, 'Shard', outbox.shard(NEW.key, NEW.event_id), 'Slot', NEW.slot));
  RETURN NULL; END $$;
CREATE FUNCTION trace.cut() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  INSERT INTO trace.step VALUES (nextval('trace.clock'), pg_current_xact_id()::text::bigint, 'truncate', jsonb_build_object('Slot', right(TG_TABLE_NAME, 1)::int));
  RETURN NULL; END $$;
CREATE TRIGGER t AFTER INSERT ON outbox.event FOR EACH ROW EXECUTE FUNCTION trace.event('insert');
-- Deferred: the last thing before the transaction commits.
CREATE CONSTRAINT TRIGGER c AFTER INSERT ON outbox.event DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trace.event('commit');
CREATE TRIGGER t AFTER INSERT ON outbox.position FOR EACH ROW EXECUTE FUNCTION trace.note('position');
CREATE TRIGGER t AFTER UPDATE ON outbox.lease FOR EACH ROW EXECUTE FUNCTION trace.note('lease');
CREATE TRIGGER t AFTER INSERT OR DELETE ON outbox.instance FOR EACH ROW EXECUTE FUNCTION trace.note('instance');
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON outbox.parked FOR EACH ROW EXECUTE FUNCTION trace.note('parked');
DO $$ BEGIN FOR n IN 0..7 LOOP
  EXECUTE format('CREATE TRIGGER cut AFTER TRUNCATE ON outbox.event_%s FOR EACH STATEMENT EXECUTE FUNCTION trace.cut()', n);
END LOOP; END $$`

func newTrace(t testing.TB, db *database) *trace {
	db.exec(t, traceTables)
	return &trace{db: db}
}

// note adds a step of the broker's.
func (tr *trace) note(steps ...model.Step) {
	var n int64
	if err := tr.db.admin.QueryRow(context.Background(), `SELECT nextval('trace.clock')`).Scan(&n); err != nil {
		panic(err) // a trace with holes proves nothing
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, s := range steps {
		tr.steps = append(tr.steps, traced{n: n, step: s})
	}
}

// story is the whole trace: the steps of a transaction, but for the insertion of
// events, as one step at its last.
func (tr *trace) story(t testing.TB) (story []model.Step) {
	rows, err := tr.db.admin.Query(t.Context(), `SELECT n, tx, kind, new, old FROM trace.step ORDER BY n`)
	require.NoError(t, err)
	defer rows.Close()
	tr.mu.Lock()
	all := slices.Clone(tr.steps)
	tr.mu.Unlock()
	for rows.Next() {
		var at traced
		var kind string
		var row, old []byte
		require.NoError(t, rows.Scan(&at.n, &at.tx, &kind, &row, &old))
		if at.step = stepOf(t, kind, row, old); at.step == nil {
			continue
		}
		if strings.HasPrefix(kind, "insert") || kind == "commit" {
			at.tx = 0
		}
		all = append(all, at)
	}
	require.NoError(t, rows.Err())
	slices.SortStableFunc(all, func(a, b traced) int { return cmp.Compare(a.n, b.n) })
	open := map[int64]model.Tx{}
	last := map[int64]int{}
	for i, at := range all {
		last[at.tx] = i
	}
	for i, at := range all {
		if at.tx == 0 {
			story = append(story, at.step)
			continue
		}
		if _, parks := at.step.(model.Park); parks { // before the position that passes it
			open[at.tx] = append(model.Tx{at.step}, open[at.tx]...)
		} else {
			open[at.tx] = append(open[at.tx], at.step)
		}
		if last[at.tx] == i {
			story = append(story, parksInOrder(open[at.tx]))
		}
	}
	return story
}

// parksInOrder undoes the reversal of the parks that were put in front.
func parksInOrder(tx model.Tx) model.Tx {
	n := 0
	for n < len(tx) {
		if _, ok := tx[n].(model.Park); !ok {
			break
		}
		n++
	}
	slices.Reverse(tx[:n])
	return tx
}

// stepOf makes a step of what a trigger has written; nil if the model has none.
func stepOf(t testing.TB, kind string, row, old []byte) model.Step {
	parse := func(data []byte, into any) { require.NoError(t, json.Unmarshal(data, into), "%s", data) }
	var instance struct{ Name string }
	switch kind {
	case "insert":
		var e model.Event
		parse(row, &e)
		return model.Insert{Event: e}
	case "commit":
		var e model.Event
		parse(row, &e)
		return model.Commit{Xid: e.Xid}
	case "truncate":
		var s model.Truncate
		parse(row, &s)
		return s
	case "instance insert":
		parse(row, &instance)
		return model.Join{Owner: instance.Name}
	case "instance delete":
		parse(old, &instance)
		return model.Gone{Owner: instance.Name}
	case "lease update":
		var l, was struct {
			Pipeline, Owner string
			Shard           int
			Epoch           int64
		}
		parse(row, &l)
		parse(old, &was)
		part := model.Part{Pipeline: l.Pipeline, Shard: l.Shard}
		if l.Owner == "" {
			return model.Release{Part: part, Owner: was.Owner}
		}
		return model.Take{Part: part, Owner: l.Owner, Epoch: l.Epoch}
	case "position insert":
		return storeOf(t, row)
	}
	return parkingStep(t, strings.TrimPrefix(kind, "parked "), row, old)
}

func storeOf(t testing.TB, row []byte) model.Step {
	var p struct {
		Pipeline, Owner, S string
		Shards             []int
		H, C               int64
		B                  json.Number
		S2                 *string
		H2                 *int64
		B2                 *json.Number
	}
	require.NoError(t, json.Unmarshal(row, &p), "%s", row)
	probe := func(s string, h int64, b json.Number) model.Probe {
		snap, err := model.ParseSnapshot(s)
		require.NoError(t, err)
		xid, err := b.Int64()
		require.NoError(t, err)
		return model.Probe{S: snap, H: h, B: uint64(xid)} //nolint:gosec // never negative
	}
	at := model.Position{At: probe(p.S, p.H, p.B), C: p.C}
	if p.S2 != nil {
		to := probe(*p.S2, *p.H2, *p.B2)
		at.To = &to
	}
	return model.Store{Pipeline: p.Pipeline, Shards: p.Shards, Owner: p.Owner, Position: at}
}

func parkingStep(t testing.TB, op string, row, old []byte) model.Step {
	var p, was struct {
		N          int64
		Pipeline   string
		EventID    string `json:"event_id"`
		State      model.State
		Claim      int64
		Unanswered bool
	}
	if op == "delete" {
		require.NoError(t, json.Unmarshal(old, &was))
		return model.Unpark{Pipeline: was.Pipeline, N: was.N}
	}
	require.NoError(t, json.Unmarshal(row, &p))
	if op == "insert" {
		return model.Park{Pipeline: p.Pipeline, N: p.N, Name: p.EventID, State: p.State}
	}
	return model.Change{Pipeline: p.Pipeline, N: p.N, State: p.State, Claim: p.Claim, Unanswered: p.Unanswered}
}

// replay has the model make the recorded steps and returns the first that it does
// not allow. Settled, nothing may be missing at the end.
func replay(story []model.Step, settled bool) error {
	w := model.NewWorld()
	w.Untimed = true
	for _, s := range story {
		if err := w.Do(s); err != nil {
			return err
		}
	}
	if w.Quiet(); settled && len(w.Breaches) > 0 {
		return w.Breaches[0]
	}
	return nil
}

var eventID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// about is what a trace tells of the events that a breach names.
func about(story []model.Step, breach error) string {
	var text strings.Builder
	if breach == nil {
		return ""
	}
	ids := eventID.FindAllString(breach.Error(), -1)
	for i, s := range story {
		line := fmt.Sprintf("%d %T%+v", i, s, s)
		if slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(line, id) }) {
			text.WriteString(line + "\n")
		}
	}
	return text.String()
}
