package faults

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/history"
)

// release is one of the two of a run with [Config.Beside]. As a suffix of a process's
// name it goes into records, effects and ledgers.
type release string

const (
	this     release = ""
	previous release = "@previous"
)

func (r release) mark(name string) string { return name + string(r) }

func (r release) String() string {
	if r == previous {
		return "previous"
	}
	return "this"
}

// releaseOf reads a mark, whatever follows it.
func releaseOf(name string) release {
	if strings.Contains(name, string(previous)) {
		return previous
	}
	return this
}

// release is what a process is at its start, counted from 0: each redeploy upgrades
// it or goes back.
func (w *world) release(start int) release {
	if w.cfg.Beside != "" && start%2 == 0 {
		return previous
	}
	return this
}

func (w *world) program(r release, name string) string {
	if r == previous {
		return filepath.Join(w.cfg.Beside, name)
	}
	return filepath.Join(w.dir, name)
}

// firstTables are those that the processes of the first start are made for.
func (w *world) firstTables(cluster string) tables {
	sets := setsOf[cluster]
	if w.cfg.Beside == "" {
		return current(sets)
	}
	return func(ctx context.Context, conn *pgx.Conn) error {
		for _, set := range sets {
			sql, err := exec.CommandContext(ctx, w.program(previous, "relay"), "migrate", "sql", set.Schema()).Output()
			if err != nil {
				return fmt.Errorf("the previous release's relay migrate sql %s: %w", set.Schema(), err)
			}
			if _, err := conn.Exec(ctx, string(sql)); err != nil {
				return fmt.Errorf("the previous release's tables of %s: %w", set.Schema(), err)
			}
		}
		return nil
	}
}

// upgrade does what docs/upgrading.md says, half way: it migrates while the previous
// release works and makes every second process one of this release. It returns when
// consumers of both have handled orders beside each other.
func (d *dealer) upgrade(ctx context.Context) error {
	if d.cfg.Beside == "" {
		return nil
	}
	d.say("the previous release works; migrating under its traffic")
	for _, c := range []*cluster{d.shop, d.warehouse} {
		// Again, like relay migrate up --grant: a grant fails when a slot is truncated just
		// then ("tuple concurrently updated").
		err := until(ctx, 10*time.Second, "migrate "+c.name, func(ctx context.Context) (bool, error) {
			err := c.migrate(ctx, current(setsOf[c.name]))
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	d.say("redeploying every second process as this release")
	for i, p := range d.processes {
		if i%2 == 1 {
			p.change(ctx)
		}
	}
	return d.beside(ctx)
}

// change redeploys a process as the other release. All servers are there, so it must
// end well.
func (p *process) change(ctx context.Context) {
	if code := p.redeploy(ctx); code != 0 {
		p.problem("%s ended with exit code %d after SIGTERM, in an upgrade", p.name, code)
	}
}

// besideOrders are as many orders of each release's consumers as show every way
// through the two releases.
const besideOrders = 100

// beside waits for them, over both brokers. Two consumers are of one release, and the
// third may have got queues of derived events alone: then each becomes the other
// release, so that those who handle orders are of the other one.
func (d *dealer) beside(ctx context.Context) error {
	var before int64
	if err := d.warehouse.db().QueryRow(ctx, `SELECT coalesce(max(seq), 0) FROM effects`).Scan(&before); err != nil {
		return err
	}
	wait := func(limit time.Duration) error {
		return until(ctx, limit, "orders are handled by consumers of both releases", func(ctx context.Context) (ok bool, err error) {
			err = d.warehouse.db().QueryRow(ctx, `SELECT count(*) = 4 AND min(n) >= $3 FROM (
				SELECT count(*) AS n FROM effects WHERE seq > $1 AND of = 'order' GROUP BY consumer, strpos(member, $2) > 0) AS sums`,
				before, string(previous), besideOrders).Scan(&ok)
			return ok, err
		})
	}
	if wait(45*time.Second) == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	d.say("consumers of one release have no orders: each becomes the other release")
	for _, p := range d.processes {
		if p.kind == "consumer" {
			p.change(ctx)
		}
	}
	return wait(90 * time.Second)
}

// migrate brings the tables up to date, over the suite's own connection.
func (c *cluster) migrate(ctx context.Context, to tables) error {
	return c.db().AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return to(ctx, conn.Conn()) })
}

// Way names the way of orders through the releases in [Report.Numbers]: which one
// wrote, published and handled them. Each is "previous" or "this".
func Way(over, wrote, published, handled string) string {
	return fmt.Sprintf("orders over %s, written by %s, published by %s, handled by %s release", over, wrote, published, handled)
}

// paths counts the orders by the ways that they took.
func (w *world) paths(ctx context.Context, over string, h *history.Run, r *Report) error {
	if w.cfg.Beside == "" {
		return nil
	}
	if keys := scattered(h); len(keys) > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("over %s %d keys are in several partitions or queues, for example %s", over, len(keys), keys[0]))
	}
	wrote := map[string]entry{}
	for _, name := range serviceNames {
		if err := readLedger(w.ledger(previous.mark(name)), wrote); err != nil {
			return err
		}
	}
	published := map[string]release{}
	for _, p := range h.Published {
		if _, again := published[p.ID]; !again {
			published[p.ID] = releaseOf(p.By)
		}
	}
	rows, err := w.warehouse.db().Query(ctx, `SELECT id, member FROM effects WHERE consumer = $1 AND of = 'order'`, over)
	if err != nil {
		return err
	}
	var id, member string
	_, err = pgx.ForEachRow(rows, []any{&id, &member}, func() error {
		writer := this
		if _, ok := wrote[id]; ok {
			writer = previous
		}
		r.count(Way(over, writer.String(), published[id].String(), releaseOf(member).String()), 1)
		return nil
	})
	return err
}

// scattered are the keys whose records are not all in one partition or queue, because
// the releases do not agree on it. Consumers may still see them in order, by luck.
func scattered(h *history.Run) []string {
	keys, units, found := map[string]string{}, map[string]string{}, map[string]string{}
	for _, e := range h.Written {
		keys[e.ID] = e.Key
	}
	for _, p := range h.Published {
		key := keys[p.ID]
		if key == "" {
			continue // no order
		}
		if unit, ok := units[key]; ok && unit != p.Unit {
			found[key] = fmt.Sprintf("%s in %s and %s", key, unit, p.Unit)
		}
		units[key] = p.Unit
	}
	return slices.Sorted(maps.Values(found))
}
