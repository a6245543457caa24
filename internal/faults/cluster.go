package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/internal/services/postgres"
	"github.com/outboxkit/outboxkit/migrate"
)

// cluster is a Postgres with a standby, and the links to whichever is the primary.
type cluster struct {
	name  string
	links *links

	faulty  sync.Mutex // one fault of the servers at a time
	mu      sync.Mutex
	primary *postgres.Server
	standby *postgres.Server
	pool    *pgxpool.Pool // of the suite itself, to the primary
}

const roles = `DO $$ DECLARE r text; BEGIN
	FOREACH r IN ARRAY ARRAY['outbox_writer', 'outbox_relay', 'inbox_consumer'] LOOP
		BEGIN EXECUTE 'CREATE ROLE ' || r || ' LOGIN'; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
	END LOOP; END $$`

func startCluster(ctx context.Context, name string, l *links, schema string, first tables) (*cluster, error) {
	c := &cluster{name: name, links: l}
	var err error
	c.primary, err = postgres.Start(ctx, postgres.Config{
		Clock:    postgres.ClockAvailable() == nil,
		Settings: map[string]string{"wal_keep_size": "256MB", "shared_buffers": "64MB", "max_connections": "150"},
	})
	if err != nil {
		return nil, err
	}
	if err := c.prepare(ctx, schema, first); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	if err := c.follow(ctx); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	return c, l.open(name, c.primary.Addr())
}

// tables makes or migrates the tables of outbox and inbox, with the printed grants:
// processes run as roles that have nothing more.
type tables func(ctx context.Context, conn *pgx.Conn) error

// current are the tables of this release.
func current(sets []migrate.Set) tables {
	return func(ctx context.Context, conn *pgx.Conn) error {
		for _, set := range sets {
			if err := set.Up(ctx, conn); err != nil {
				return err
			}
			grants, err := set.Grants(migrate.Roles{})
			if err != nil {
				return err
			}
			if _, err := conn.Exec(ctx, grants); err != nil {
				return err
			}
		}
		return nil
	}
}

func (c *cluster) prepare(ctx context.Context, schema string, first tables) error {
	conn, err := pgx.Connect(ctx, c.primary.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, roles); err != nil {
		return err
	}
	if err := first(ctx, conn); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, schema)
	return err
}

// follow connects the suite to the primary, and gives that a new standby.
func (c *cluster) follow(ctx context.Context) error {
	pool, err := connect(ctx, c.primary.URL("postgres"), "faults", 8)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.pool != nil {
		go c.pool.Close() // waits for whoever has a connection
	}
	c.pool = pool
	c.mu.Unlock()
	standby, err := c.primary.Standby(ctx, nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.standby = standby
	return nil
}

func (c *cluster) db() *pgxpool.Pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool
}

// crash kills the primary and starts it again after d.
func (c *cluster) crash(ctx context.Context, d time.Duration) error {
	c.faulty.Lock()
	defer c.faulty.Unlock()
	if err := c.primary.Kill(); err != nil {
		return err
	}
	pause(ctx, d)
	return c.primary.Start(context.WithoutCancel(ctx))
}

// promote kills the primary and makes its standby the new one. A synchronous
// standby has everything that was acknowledged; another one has not what was
// committed in the last moments, d long.
func (c *cluster) promote(ctx context.Context, synchronous bool, d time.Duration) error {
	c.faulty.Lock()
	defer c.faulty.Unlock()
	ctx = context.WithoutCancel(ctx)
	if err := c.standby.CatchUp(ctx, c.primary); err != nil {
		return err
	}
	if synchronous {
		if err := c.synchronous(ctx); err != nil {
			return err
		}
	} else if err := c.standby.Detach(ctx); err != nil {
		return err
	}
	pause(ctx, d)
	old := c.primary
	if err := old.Kill(); err != nil {
		return err
	}
	if err := c.standby.Promote(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.primary, c.standby = c.standby, nil
	c.mu.Unlock()
	if err := errors.Join(c.links.open(c.name, c.primary.Addr()), old.Close(ctx)); err != nil {
		return err
	}
	return c.follow(ctx)
}

// synchronous makes commits wait for the standby, and returns when they do.
func (c *cluster) synchronous(ctx context.Context) error {
	for _, sql := range []string{`ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`} {
		if _, err := c.db().Exec(ctx, sql); err != nil {
			return err
		}
	}
	return until(ctx, time.Minute, c.name+": the standby becomes synchronous", func(ctx context.Context) (ok bool, err error) {
		err = c.db().QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')`).Scan(&ok)
		return ok, err
	})
}

func (c *cluster) setClock(ahead time.Duration) error {
	c.faulty.Lock()
	defer c.faulty.Unlock()
	return c.primary.SetClock(ahead)
}

func (c *cluster) close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	if c.pool != nil {
		c.pool.Close()
	}
	for _, s := range []*postgres.Server{c.standby, c.primary} {
		if s != nil {
			errs = append(errs, s.Close(ctx))
		}
	}
	return errors.Join(errs...)
}

// as is the URL of the database for a role, at an address.
func as(role, addr string) string {
	return fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", role, addr)
}

// until polls ready.
func until(ctx context.Context, limit time.Duration, what string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		ok, err := ready(ctx)
		if ok && err == nil {
			return nil
		}
		if err != nil && !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			last = err
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%s: not within %s", what, limit), last)
		}
		pause(ctx, 50*time.Millisecond)
	}
}
