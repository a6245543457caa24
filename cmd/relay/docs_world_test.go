package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/pgtest"
	"github.com/outboxkit/outboxkit/internal/svctest"
)

// documentWorld is where the blocks of one document run: a folder, databases of its
// own and the test's brokers. Addresses that documents use for an example are
// replaced by theirs.
type documentWorld struct {
	t         *testing.T
	dir       string
	databases map[string]string // URLs by name
	kafka     string
	jobs      []*docJob
	patience  time.Duration // of a block that says "eventually"
}

// newDocumentWorld has "relay" in a folder of the PATH: the test binary.
func newDocumentWorld(t *testing.T) *documentWorld {
	t.Helper()
	w := &documentWorld{t: t, dir: t.TempDir(), databases: map[string]string{}, patience: time.Minute}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(w.dir, "bin", "relay")); err != nil {
		t.Fatal(err)
	}
	return w
}

// run runs all blocks and ends what still runs.
func (w *documentWorld) run(blocks []docBlock) error {
	for _, b := range blocks {
		if err := w.block(b); err != nil {
			return errors.Join(fmt.Errorf("line %d: %w", b.line, err), w.stopAll())
		}
	}
	return w.stopAll()
}

func (w *documentWorld) stopAll() error {
	var errs []error
	for i := range w.jobs {
		errs = append(errs, w.stop(i+1))
	}
	return errors.Join(errs...)
}

func (w *documentWorld) block(b docBlock) error {
	switch b.kind {
	case "console":
		return w.console(b)
	case "sql":
		return w.sql(b)
	case "yaml":
		if b.args["file"] == "" || b.args["file"] != filepath.Base(b.args["file"]) {
			return fmt.Errorf("file=%q is no file's name", b.args["file"])
		}
		return os.WriteFile(filepath.Join(w.dir, b.args["file"]), []byte(w.here(b.body)), 0o600)
	case "topic":
		return w.topics(strings.Fields(b.body))
	default:
		return fmt.Errorf("%q is no kind of block that can be run", b.kind)
	}
}

// What documents write for addresses.
const (
	exampleKafka = "localhost:9092"
	exampleAMQP  = "amqp://guest:guest@localhost:5672/"
)

var exampleDatabase = regexp.MustCompile(`postgres://[^\s'"/]+/(\w+)(\?[^\s'"]*)?`)

// here replaces the addresses of examples.
func (w *documentWorld) here(text string) string {
	text = exampleDatabase.ReplaceAllStringFunc(text, func(found string) string {
		m := exampleDatabase.FindStringSubmatch(found)
		u, err := url.Parse(w.database(m[1]))
		if err != nil {
			w.t.Fatal(err)
		}
		query := u.Query()
		if extra, err := url.ParseQuery(strings.TrimPrefix(m[2], "?")); err == nil {
			for name := range extra {
				query.Set(name, extra.Get(name))
			}
		}
		u.RawQuery = query.Encode()
		return u.String()
	})
	if strings.Contains(text, exampleKafka) {
		text = strings.ReplaceAll(text, exampleKafka, w.broker())
	}
	if strings.Contains(text, exampleAMQP) {
		text = strings.ReplaceAll(text, exampleAMQP, svctest.RabbitMQ(w.t))
	}
	return text
}

func (w *documentWorld) database(name string) string {
	if w.databases[name] == "" {
		w.databases[name] = pgtest.URL(w.t)
	}
	return w.databases[name]
}

func (w *documentWorld) broker() string {
	if w.kafka == "" {
		w.kafka = svctest.Kafka(w.t)[0]
	}
	return w.kafka
}

func (w *documentWorld) topics(names []string) error {
	admin, err := sarama.NewClusterAdmin([]string{w.broker()}, nil)
	if err != nil {
		return err
	}
	defer admin.Close()
	for _, name := range names {
		err := admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1}, false)
		if err != nil && !errors.Is(err, sarama.ErrTopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	return nil
}

// sql runs the statements as one script and compares the rows of its queries.
func (w *documentWorld) sql(b docBlock) error {
	if b.args["db"] == "" {
		return errors.New("it does not say in which database: db=NAME")
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.database(b.args["db"]))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	want, shown := b.wantRows()
	for begin := time.Now(); ; {
		got, err := rowsOf(ctx, conn, b.body)
		switch {
		case err != nil:
			return err
		case !shown || slices.Equal(got, want):
			return nil
		case !b.eventually || time.Since(begin) > w.patience:
			return fmt.Errorf("the rows are %q, the document says %q", got, want)
		}
		if err := shortPause(ctx); err != nil {
			return err
		}
	}
}

func rowsOf(ctx context.Context, conn *pgx.Conn, script string) ([]string, error) {
	results, err := conn.PgConn().Exec(ctx, script).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows []string
	for _, r := range results {
		for _, row := range r.Rows {
			rows = append(rows, string(bytes.Join(row, []byte(" | "))))
		}
	}
	return rows, nil
}

func shortPause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

func (w *documentWorld) console(b docBlock) error {
	commands, err := b.commands()
	if err != nil {
		return err
	}
	for _, c := range commands {
		if err := w.command(c, b.eventually); err != nil {
			return err
		}
	}
	return nil
}

func (w *documentWorld) command(c docCommand, eventually bool) error {
	var number int
	if _, err := fmt.Sscanf(c.text, "kill %%%d", &number); err == nil {
		return w.stop(number)
	}
	if c.background {
		return w.start(c)
	}
	for begin := time.Now(); ; {
		out, code, err := w.shell(c.text)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", c.text, err)
		case code == c.exit && asShown(out, c.want):
			return nil
		case !eventually || time.Since(begin) > w.patience:
			return fmt.Errorf("%s\nended with %d, the document says %d, and printed\n%s\nthe document says\n%s%s", c.text, code, c.exit, out, c.want, w.told())
		}
		if err := shortPause(w.t.Context()); err != nil {
			return err
		}
	}
}
