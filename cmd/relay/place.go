package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
)

// place is the database that a command works on.
type place struct{ path, database string }

func (p *place) flags(cmd *cobra.Command) {
	configFlag(cmd, &p.path)
	cmd.Flags().StringVar(&p.database, "database", "", "`name` of the database, where the configuration lists several")
	completeFlag(cmd, "database", p.databases)
}

// on runs f on the database, with the configuration as if it were the only one.
func (p *place) on(ctx context.Context, f func(*pgxpool.Pool, config) error) error {
	c, err := loadConfig(p.path)
	if err != nil {
		return err
	}
	if c, err = c.one(p.database); err != nil {
		return err
	}
	pool, err := openPool(ctx, c)
	if err != nil {
		return err
	}
	defer pool.Close()
	return f(pool, c)
}

// each lists the databases of a command that looks at all of the configuration, or at
// the one that is named.
func (p *place) each() (config, []databaseEntry, error) {
	c, err := loadConfig(p.path)
	if err != nil || p.database == "" {
		return c, c.each(), err
	}
	one, err := c.one(p.database)
	return c, []databaseEntry{{databaseConfig: one.Database, Name: p.database, Pipelines: one.Pipelines}}, err
}

// connect opens one connection. The library's own error for a bad URL may repeat the
// password.
func connect(ctx context.Context, flag, url string) (*pgx.Conn, error) {
	url, err := expand(url)
	if err != nil {
		return nil, wrongUse("%s: %w", flag, err)
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, wrongUse("%s is not a Postgres URL: write postgres://user:password@host:5432/database", flag)
	}
	return pgx.ConnectConfig(ctx, cfg)
}
