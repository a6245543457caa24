package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Finding is what a check of [Diagnose] found. A check that finds nothing wrong has
// one that says so.
type Finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"` // ok, warning, failure, unknown
	Detail  string `json:"detail"`
	Cure    string `json:"cure,omitempty"` // what to do; "" if there is nothing
}

// Verdicts of a [Finding].
const (
	VerdictOK      = "ok"
	VerdictWarning = "warning" // works, and will not for ever, or not as promised
	VerdictFailure = "failure" // something stands still or is not as promised
	VerdictUnknown = "unknown" // could not be checked
)

// DiagnoseConfig says what to look for.
type DiagnoseConfig struct {
	// Schema is the database schema of the outbox. Default: "outbox".
	Schema string
	// Pipelines are those of the configuration, by name, with their filters. Default:
	// not compared.
	Pipelines map[string]Filter
	// Retention is the relays'. Default: 72 h.
	Retention time.Duration
	// Writer is the role of services that write events. Default: outbox_writer, if
	// there is one.
	Writer string
	// Relay is the role of the relays. Default: the one that asks.
	Relay string
	// Long is the age from which on an open transaction counts as forgotten.
	// Default: 5 min.
	Long time.Duration
}

// diagnoseLimit bounds one check.
const diagnoseLimit = 15 * time.Second

// Diagnose looks for what keeps an outbox from working, or will, in its database:
// what it finds is listed with the cure. It changes nothing and reads no event's
// payload. It returns findings alone: a database that does not answer is one. The
// relay's grants are enough; with pg_read_all_stats it sees more of transactions.
func Diagnose(ctx context.Context, pool *pgxpool.Pool, cfg DiagnoseConfig) []Finding {
	if cfg.Schema == "" {
		cfg.Schema = "outbox"
	}
	setDefault(&cfg.Retention, 72*time.Hour)
	setDefault(&cfg.Long, 5*time.Minute)
	d := &diagnosis{pool: pool, cfg: cfg, asked: cfg.Writer}
	if err := (Config{Schema: cfg.Schema}).checkSchema(); err != nil {
		d.add("postgres", VerdictFailure, "", "%v", err)
		return d.list
	}
	if d.cfg.Writer == "" {
		d.cfg.Writer = "outbox_writer"
	}
	if !d.check(ctx, "postgres", d.postgres) || !d.check(ctx, "migrations", d.migrations) {
		return d.list // all others would fail in more puzzling ways
	}
	for _, c := range []struct {
		name string
		f    func(context.Context) (string, error)
	}{
		{"clock", d.clock},
		{"durability", d.durability},
		{"grants", d.grants},
		{"identity", d.identity},
		{"incarnation", d.incarnation},
		{"leases", d.leases},
		{"pipelines", d.pipelines},
		{"transactions", d.transactions},
		{"prepared transactions", d.prepared},
		{"replication slots", d.replicationSlots},
		{"log slots", d.logSlots},
		{"indexes", d.indexes},
		{"page plan", d.pagePlan},
		{"sequence", d.sequence},
		{"parked", d.parked},
	} {
		d.check(ctx, c.name, c.f)
	}
	return d.list
}

type diagnosis struct {
	pool  *pgxpool.Pool
	cfg   DiagnoseConfig
	asked string // cfg.Writer as the caller gave it
	now   string // the name of the running check
	list  []Finding
}

func (d *diagnosis) sql(query string) string { return inSchema(query, d.cfg.Schema) }

// check runs one check, which adds what is wrong and returns what to say if nothing
// is. It tells whether later checks make sense.
func (d *diagnosis) check(ctx context.Context, name string, f func(context.Context) (string, error)) bool {
	ctx, cancel := context.WithTimeout(ctx, diagnoseLimit)
	defer cancel()
	d.now = name
	before := len(d.list)
	fine, err := f(ctx)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "42501":
		d.add(name, VerdictUnknown, "ask as a role that may, or grant it; relay migrate sql prints the grants", "this role may not ask: %v", err)
	case err != nil:
		d.add(name, VerdictUnknown, "", "could not be checked: %v", err)
	case len(d.list) == before:
		d.add(name, VerdictOK, "", "%s", fine)
	}
	for _, found := range d.list[before:] {
		if found.Verdict == VerdictFailure || found.Verdict == VerdictUnknown {
			return false
		}
	}
	return true
}

func (d *diagnosis) add(check, verdict, cure, format string, args ...any) {
	d.list = append(d.list, Finding{Check: check, Verdict: verdict, Detail: fmt.Sprintf(format, args...), Cure: cure})
}

func (d *diagnosis) warn(cure, format string, args ...any) {
	d.list = append(d.list, Finding{Check: d.now, Verdict: VerdictWarning, Detail: fmt.Sprintf(format, args...), Cure: cure})
}

func (d *diagnosis) fail(cure, format string, args ...any) {
	d.list = append(d.list, Finding{Check: d.now, Verdict: VerdictFailure, Detail: fmt.Sprintf(format, args...), Cure: cure})
}

func (d *diagnosis) unknown(cure, format string, args ...any) {
	d.list = append(d.list, Finding{Check: d.now, Verdict: VerdictUnknown, Detail: fmt.Sprintf(format, args...), Cure: cure})
}

// one scans a single row.
func (d *diagnosis) one(ctx context.Context, query string, args []any, dest ...any) error {
	return d.pool.QueryRow(ctx, d.sql(query), args...).Scan(dest...)
}
