package page

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/outboxkit/outboxkit/relay"
)

// Config says what a page shows. Only Databases is required.
type Config struct {
	Databases []Database
	// Stores are where dead letters are, in the order in which the page offers them.
	Stores []Store
	// Explain tells an event's story in words, as "relay explain" prints it. Default:
	// the page tells in which stores the event is.
	Explain func(ctx context.Context, id string) (string, error)
	// Notes are what the page cannot show, and why.
	Notes []string
	// Version of the program. Default: it is not shown.
	Version string
	// Logger gets what fails. Default: slog.Default().
	Logger *slog.Logger
}

// Database is an outbox that the daemon serves.
type Database struct {
	Name   string // "" where there is only one
	Status func(context.Context) (relay.Status, error)
	// Store is the name of the store with the dead letters of its pipelines.
	Store string
	// Brokers says for each pipeline what it publishes to, for people. One that is
	// not there is not in this daemon's configuration.
	Brokers map[string]string
	// LastErrors are the last ones of the relay in this process, by pipeline. The
	// database does not know them. Default: they are not shown.
	LastErrors func() map[string]LastError
	// Command is a command line of the operator's tool for this database, ready for a
	// shell. Default: "relay" and the arguments.
	Command func(args ...string) string
}

// LastError is why something could not be published, however long ago.
type LastError struct {
	Text string
	At   time.Time
}

// Store is a place with dead letters. Its methods are called concurrently.
type Store interface {
	// Name is shown, and unique among a page's stores.
	Name() string
	// List returns up to limit letters that match, in the order in which they were put
	// aside, from the one after number after on.
	List(ctx context.Context, f Filter, after int64, limit int) ([]Letter, error)
	// Show returns one with lines, payload and commands.
	Show(ctx context.Context, n int64) (Letter, error)
	// Find returns up to limit letters of an event, whatever their state.
	Find(ctx context.Context, id string, limit int) ([]Letter, error)
}

// Filter chooses letters: all fields that are set must match.
type Filter struct {
	Owner  string // pipeline or consumer
	State  string // "" = all that wait
	Type   string
	Key    string
	ID     string // the event's
	Reason string // part of the last failure's text
}

// Letter is an event that was put aside. Its texts are shown as they are: nothing in
// them may be hidden from the reader of the page.
type Letter struct {
	N        int64     `json:"n"`
	Owner    string    `json:"owner"` // pipeline or consumer
	State    string    `json:"state"`
	Topic    string    `json:"topic"`
	Key      string    `json:"key"`
	Type     string    `json:"type"`
	Class    string    `json:"class"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	StoredAt time.Time `json:"stored_at"`

	// Only from Show.
	Lines    []Line    `json:"lines,omitempty"` // all there is to know but the payload
	Payload  string    `json:"payload,omitempty"`
	Cut      bool      `json:"cut,omitempty"` // the payload is longer; set by the page
	Commands []Command `json:"commands,omitempty"`
}

// Line is a named text.
type Line struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Command is what a person can do, and the command line that does it.
type Command struct {
	What    string `json:"what"`
	Command string `json:"command"`
}

// Bounds.
const (
	// PageSize is how many letters a request returns at most.
	PageSize = 50
	// PayloadShown is how many bytes of a decoded payload are shown.
	PayloadShown = 256 << 10

	atWork         = 4                // requests in the databases at once, and as many samples
	requestTimeout = 10 * time.Second // with the wait for a place
	sampleTimeout  = 5 * time.Second
	storeTimeout   = 4 * time.Second // of several that are asked at once
)

// Page is an [http.Handler] for "GET /" and what lies below it. Mounted elsewhere it
// needs [http.StripPrefix] and a path that ends with a slash.
type Page struct {
	cfg       Config
	databases []*watched
	stores    map[string]Store
	work      chan struct{} // places of requests that work in a database
	sampling  chan struct{} // of samples: many databases that do not answer must not keep readers waiting
	handler   http.Handler
	started   time.Time

	// live is how old a status may be while somebody looks, background while nobody
	// does. Both grow with the number of databases.
	live, background time.Duration

	// patience is how long one store may take to find an event.
	patience time.Duration
}

// New returns a page. Without [Page.Run] it shows no status.
func New(cfg Config) *Page {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	n := time.Duration(len(cfg.Databases))
	p := &Page{
		cfg: cfg, stores: map[string]Store{}, work: make(chan struct{}, atWork), sampling: make(chan struct{}, atWork), started: time.Now(),
		live: max(2*time.Second, n*50*time.Millisecond), background: max(10*time.Second, n*500*time.Millisecond),
		patience: storeTimeout,
	}
	for _, d := range cfg.Databases {
		if d.Command == nil {
			d.Command = plainCommand
		}
		p.databases = append(p.databases, newWatched(d))
	}
	for _, s := range cfg.Stores {
		p.stores[s.Name()] = s
	}
	p.handler = p.routes()
	return p
}

// Run reads the status of all databases until ctx ends, for the history and for
// whoever looks.
func (p *Page) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, w := range p.databases {
		running.Go(func() { p.watch(ctx, w) })
	}
	running.Wait()
}

// enter waits for one of the places.
func enter(ctx context.Context, places chan struct{}) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func plainCommand(args ...string) string {
	line := "relay"
	for _, a := range args {
		line += " " + a
	}
	return line
}
