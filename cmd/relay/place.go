package main

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
)

// place is the database that a command works on.
type place struct{ path, database string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.path, "config", "c", "relay.yaml", "configuration `file`")
	cmd.Flags().StringVar(&p.database, "database", "", "`name` of the database, where the configuration lists several")
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
