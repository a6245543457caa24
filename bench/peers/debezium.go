package peers

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// Debezium is Debezium Server with the outbox event router, which reads a
// logical replication slot and publishes to Kafka.
type Debezium struct {
	// Tuned sets what its documentation recommends; false: its defaults.
	Tuned bool
	// Delete makes writers delete their row in the transaction that inserts it,
	// as Quarkus's outbox extension does; false: rows stay until somebody cleans
	// the table up.
	Delete bool
	// Heap is the most that the JVM's heap may take, for example "256m"; empty:
	// its default, a quarter of the machine.
	Heap string
}

// Names of a database's replication slot and publication. A slot's name is the
// server's, not the database's.
const (
	slot        = `'peer_' || current_database()`
	publication = "outbox_events"
)

// Name implements [Peer].
func (d Debezium) Name() string {
	if d.Heap != "" {
		return "debezium-heap-" + d.Heap // apart from what is compared with
	}
	name := "debezium_default"
	if d.Tuned {
		name = "debezium_tuned"
	}
	if d.Delete {
		name += "_delete"
	}
	return name
}

// Prepare implements [Peer]: the table that the event router expects, and the
// slot, from which on Debezium will read.
func (d Debezium) Prepare(ctx context.Context, db *pgxpool.Pool, _ string) error {
	_, err := db.Exec(ctx, `CREATE TABLE outboxevent (
  id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL,
  source text NOT NULL, content_type text, correlation_id text, traceparent text, payload bytea)`)
	if err != nil {
		return fmt.Errorf("debezium's table: %w", err)
	}
	if _, err := db.Exec(ctx, `CREATE PUBLICATION `+publication+` FOR TABLE outboxevent`); err != nil {
		return fmt.Errorf("debezium's publication: %w", err)
	}
	if _, err := db.Exec(ctx, `SELECT pg_create_logical_replication_slot(`+slot+`, 'pgoutput')`); err != nil {
		return fmt.Errorf("debezium's replication slot: %w", err)
	}
	return nil
}

// Fill implements [Peer].
func (d Debezium) Fill(ctx context.Context, db *pgxpool.Pool, topic string, n int) error {
	_, err := db.Exec(ctx, `INSERT INTO outboxevent
SELECT gen_random_uuid(), $1, 'key-' || g % 1000, 'com.example.OrderPlaced', '/shop/orders', 'application/avro', gen_random_uuid()::text,
  '00-' || md5(g::text) || '-00f067aa0ba902b7-01',
  convert_to(rpad('{"orderId":"' || md5(g::text) || '","customer":"' || md5((-g)::text) || '","sum":' || g || ',"items":["', 300, 'sku-' || g % 97 || ' '), 'UTF8')
FROM generate_series(1, $2::int) g`, topic, n)
	return err
}

// Write implements [Peer].
func (d Debezium) Write(ctx context.Context, tx pgx.Tx, e Event) error {
	_, err := tx.Exec(ctx, `INSERT INTO outboxevent (id, aggregatetype, aggregateid, type, source, content_type, traceparent, payload)
VALUES ($1::uuid, $2, $3, 'com.example.OrderPlaced', '/shop/orders', 'application/json', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', $4)`,
		e.ID, e.Topic, e.Key, e.Payload)
	if err == nil && d.Delete {
		_, err = tx.Exec(ctx, `DELETE FROM outboxevent WHERE id = $1::uuid`, e.ID)
	}
	return err
}

// Forget implements [Peer]: it drops the slot, which keeps its database and the
// server's log.
func (d Debezium) Forget(ctx context.Context, db *pgxpool.Pool) error {
	_, err := db.Exec(ctx, `SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots WHERE slot_name = `+slot+` AND active_pid IS NOT NULL`)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = `+slot)
	return err
}

// Start implements [Peer].
func (d Debezium) Start(ctx context.Context, at Place) (Process, error) {
	f, err := fetch(ctx)
	if err != nil {
		return nil, err
	}
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	text, err := d.properties(at, port)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(at.Dir, "config", "application.properties"), text); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(at.Dir, "data", "made"), ""); err != nil {
		return nil, err
	}
	// As its run.sh does, in a folder that has config/: with what the JVM's defaults
	// are on this machine.
	jars := filepath.Join(f.server, "*") + ":" + filepath.Join(f.server, "lib", "*")
	args := []string{"-cp", jars, "io.debezium.server.Main"}
	if d.Heap != "" {
		args = append([]string{"-Xmx" + d.Heap}, args...)
	}
	p, err := proc.Start(proc.Spec{Name: "debezium", Path: f.java, Dir: at.Dir, LogFile: at.Log(), Args: args})
	if err != nil {
		return nil, err
	}
	return process{p}, nil
}

// properties is its configuration file.
func (d Debezium) properties(at Place, port int) (string, error) {
	u, err := url.Parse(at.Database)
	if err != nil {
		return "", err
	}
	password, _ := u.User.Password()
	database := strings.TrimPrefix(u.Path, "/")
	lines := []string{
		"quarkus.http.host=127.0.0.1",
		fmt.Sprint("quarkus.http.port=", port),
		"debezium.sink.kafka.producer.bootstrap.servers=" + strings.Join(at.Brokers, ","),
		"debezium.source.database.hostname=" + u.Hostname(),
		"debezium.source.database.port=" + u.Port(),
		"debezium.source.database.user=" + u.User.Username(),
		"debezium.source.database.password=" + password,
		"debezium.source.database.dbname=" + database,
		"debezium.source.slot.name=peer_" + database,
		"debezium.source.publication.name=" + publication,
		"debezium.source.offset.storage.file.filename=" + filepath.Join(at.Dir, "data", "offsets.dat"),
	}
	for _, s := range d.Settings() {
		// The configuration parser would expand what a $ begins.
		lines = append(lines, s.Name+"="+strings.ReplaceAll(s.Value, "$", "$$"))
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// process is a child that owns all that it needs.
type process struct{ *proc.Process }

func (p process) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Process.Stop(ctx, syscall.SIGTERM)
}
