package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/page"
	"github.com/outboxkit/outboxkit/internal/redact"
	"github.com/outboxkit/outboxkit/relay"
)

// webPage is the web page of a daemon, fresh until it is closed.
type webPage struct {
	*page.Page
	stop    context.CancelFunc
	running sync.WaitGroup
	pools   func() // closes them
}

// startPage begins to read what the page of the configuration shows, which came from
// path. relays are those of this process, by the database's name. ctx ends it too.
func startPage(ctx context.Context, c config, path string, relays map[string]*relay.Relay, log *slog.Logger) (*webPage, error) {
	p, closePools, err := newPage(ctx, c, path, relays, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &webPage{Page: p, stop: cancel, pools: closePools}
	w.running.Go(func() { p.Run(ctx) })
	return w, nil
}

// mount serves the page at "/" of mux, beside what else is there.
func (w *webPage) mount(mux *http.ServeMux) {
	for _, pattern := range []string{"/{$}", "/assets/", "/api/"} {
		mux.Handle(pattern, w)
	}
}

// close ends it after the server: requests on their way need its connections.
func (w *webPage) close() {
	w.stop()
	w.running.Wait()
	w.pools()
}

// newPage is the page of the configuration that was read from path. It has
// connections of its own, a few to each database, so that people who look take none
// from the relay.
func newPage(ctx context.Context, c config, path string, relays map[string]*relay.Relay, log *slog.Logger) (*page.Page, func(), error) {
	rules, err := hideRules(c.Hide, nil)
	if err != nil {
		return nil, nil, err
	}
	b := &pageBuilder{path: path, relays: relays, hide: rules, cfg: page.Config{Version: readBuildInfo().Version, Logger: log}}
	if whole, err := filepath.Abs(path); err == nil {
		b.path = whole // the reader's shell is elsewhere
	}
	if _, err := os.Stat(b.path); err == nil { // else all is in the environment, for the commands too
		b.flags = []string{"--config", b.path}
	}
	b.cfg.Explain = func(ctx context.Context, id string) (string, error) {
		return explainOnPage(ctx, explainer{config: c, path: b.path, id: id, patience: pagePatience, scan: pageScan})
	}
	for _, d := range c.each() {
		if err := b.outbox(ctx, d); err != nil {
			b.close()
			return nil, nil, err
		}
	}
	if len(c.Inboxes) > 0 {
		if err := b.inboxes(ctx, c); err != nil {
			// A daemon need not have what their URLs need.
			b.cfg.Notes = append(b.cfg.Notes, "dead letters of the consumers in the list inboxes: "+explained(err))
		}
	}
	return page.New(b.cfg), b.close, nil
}

// Limits of an event's story: for each database, of which many are asked at once, and for
// the search through a whole log. The page ends its requests after ten seconds, and inboxes
// are asked after outboxes.
const (
	pagePatience = 4 * time.Second
	pageScan     = 3 * time.Second
)

// explainOnPage is what relay explain prints.
func explainOnPage(ctx context.Context, e explainer) (string, error) {
	stories := e.ask(ctx, e.config.each())
	var text strings.Builder
	for _, s := range stories {
		// Of the id: inboxes take events from elsewhere, whose ids may be any text.
		if field := (*event.FieldError)(nil); errors.As(s.err, &field) {
			return fmt.Sprintf("No outbox was asked: %q %s (%s).", e.id, field.Problem, field.Hint), nil
		}
		text.WriteString(s.text(e))
	}
	return printableLines(text.String()), failures(stories)
}

// told is an error as the commands print it: without passwords, and with what to do
// next.
func told(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(explained(err))
}

type pageBuilder struct {
	path   string   // of the configuration
	flags  []string // that name it to the commands
	relays map[string]*relay.Relay
	hide   redact.Rules
	cfg    page.Config
	pools  []*pgxpool.Pool
}

func (b *pageBuilder) close() {
	for _, pool := range b.pools {
		pool.Close()
	}
}

func (b *pageBuilder) open(ctx context.Context, d databaseConfig) (*pgxpool.Pool, error) {
	pool, err := openPool(ctx, config{Database: d})
	if err == nil {
		b.pools = append(b.pools, pool)
	}
	return pool, err
}

func (b *pageBuilder) outbox(ctx context.Context, d databaseEntry) error {
	pool, err := b.open(ctx, d.databaseConfig)
	if err != nil {
		return err
	}
	command := b.command()
	if d.Name != "" {
		command = b.command("--database", d.Name)
	}
	store := &pageStore{
		name: strings.TrimSpace("outbox " + d.Name), command: command, again: "published", finished: []string{"discarded"},
		open: func() deadStore { return outboxStore{pool, d.Schema, &decoder{hide: b.hide}} },
	}
	brokers := map[string]string{}
	for _, p := range d.Pipelines {
		brokers[p.Name] = p.broker()
	}
	database := page.Database{
		Name: d.Name, Store: store.name, Brokers: brokers, Command: command,
		Status: func(ctx context.Context) (relay.Status, error) {
			st, err := relay.ReadStatus(ctx, pool, d.Schema)
			return st, told(err)
		},
	}
	if r := b.relays[d.Name]; r != nil {
		database.LastErrors = func() map[string]page.LastError { return lastErrors(r.Stats()) }
	}
	b.cfg.Stores = append(b.cfg.Stores, store)
	b.cfg.Databases = append(b.cfg.Databases, database)
	return nil
}

func lastErrors(s relay.Stats) map[string]page.LastError {
	found := map[string]page.LastError{}
	for _, p := range s.Pipelines {
		found[p.Name] = page.LastError{Text: shorten(printable(withoutPasswords(p.LastError)), 500), At: p.LastErrorAt}
	}
	return found
}

// inboxes adds all or none, as relay dlq --inbox takes all or none.
func (b *pageBuilder) inboxes(ctx context.Context, c config) (err error) {
	c.Inboxes = slices.Clone(c.Inboxes)
	for i := range c.Inboxes {
		c.Inboxes[i].databaseConfig = c.Inboxes[i].copied()
	}
	v := &validator{file: b.path}
	v.checkInboxes(&c)
	if err := v.err(); err != nil {
		return err
	}
	wires := make([]event.WireFormat, len(c.Inboxes))
	for i := range c.Inboxes {
		if wires[i], err = c.Inboxes[i].Wire.open(b.path); err != nil {
			return fmt.Errorf("inbox %s: %w", c.Inboxes[i].Name, err)
		}
	}
	var stores []page.Store
	for i, entry := range c.Inboxes {
		pool, err := b.open(ctx, entry.databaseConfig)
		if err != nil {
			return err
		}
		stores = append(stores, &pageStore{
			name: "inbox " + entry.Name, command: b.command("--inbox", entry.Name), again: "handled", finished: []string{"redriven", "discarded"},
			open: func() deadStore { return inboxStore{pool, entry.Schema, &decoder{wire: wires[i], hide: b.hide}} },
		})
	}
	b.cfg.Stores = append(b.cfg.Stores, stores...)
	return nil
}

// command returns what makes command lines that work on the place that flags name.
func (b *pageBuilder) command(flags ...string) func(args ...string) string {
	return func(args ...string) string {
		line := "relay"
		for _, list := range [][]string{args, flags, b.flags} {
			for _, word := range list {
				line += " " + shellWord(word)
			}
		}
		return line
	}
}

const plainInShells = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"

// shellWord quotes what a shell would take apart.
func shellWord(word string) string {
	if word != "" && strings.Trim(word, plainInShells) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// broker says for people what a pipeline publishes to, without anything secret.
func (p pipelineConfig) broker() string {
	switch {
	case p.Kafka != nil:
		return "Kafka " + shorten(strings.Join(p.Kafka.Brokers, ", "), 60)
	case p.RabbitMQ != nil:
		if u, err := url.Parse(p.RabbitMQ.URL); err == nil {
			return "RabbitMQ " + u.Host
		}
		return "RabbitMQ"
	}
	return ""
}
