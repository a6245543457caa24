package peers

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Event is what a service writes.
type Event struct {
	ID      string // a UUID
	Topic   string
	Key     string
	Payload []byte
}

// Setting is one line of a peer's configuration that differs from its default.
type Setting struct {
	Name, Value string
	Why         string // with its source
}

// Place is where a peer works.
type Place struct {
	Database string   // URL
	Brokers  []string // Kafka
	Topic    string
	Dir      string // its own folder, which outlives its processes
}

// Log is the file for a peer's output.
func (p Place) Log() string { return filepath.Join(p.Dir, "log") }

// Peer moves events from a Postgres table to Kafka.
type Peer interface {
	// Name is that of the peer and its shape, for example "debezium_default".
	Name() string
	// Settings lists what was set.
	Settings() []Setting
	// Prepare makes its tables in a new database. What is written afterwards will
	// be moved by whoever starts later.
	Prepare(ctx context.Context, db *pgxpool.Pool, topic string) error
	// Fill writes n events at once, of 300 bytes and 1,000 keys.
	Fill(ctx context.Context, db *pgxpool.Pool, topic string, n int) error
	// Write writes one event in a transaction, as the peer's users do.
	Write(ctx context.Context, tx pgx.Tx, e Event) error
	// Start starts the process that moves events. It may be called again at the
	// same place after the process has ended.
	Start(ctx context.Context, at Place) (Process, error)
	// Forget ends what would keep the database from being dropped. No process of
	// the peer runs any more.
	Forget(ctx context.Context, db *pgxpool.Pool) error
}

// Process is a peer that runs.
type Process interface {
	Pid() int
	Done() <-chan struct{} // closed when it has ended
	Kill() error           // with SIGKILL
	Stop(ctx context.Context) error
}

// patience is how long a process may take to stop.
const patience = 30 * time.Second

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}
