package main

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/relay"
)

func newRebase() *cobra.Command {
	var at place
	var yes bool
	cmd := &cobra.Command{
		Use:   "rebase --config relay.yaml --yes",
		Short: "Accept an outbox that was restored or copied into another database",
		Long: `Accept an outbox that was restored or copied into another database.

Transaction ids mean something else there, so the relay refuses such an outbox:
its positions would skip events silently. rebase gives every event a place before
or after one new position: what all pipelines had published stays published,
everything else is published again from the start, which consumers with an inbox
swallow. Stop all relays and writers of the database first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("this rewrites the positions of all pipelines: stop relays and writers, then repeat with --yes")
			}
			return at.on(cmd.Context(), func(pool *pgxpool.Pool, c config) error {
				if err := relay.Rebase(cmd.Context(), pool, c.Database.Schema); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "rebased; start the relay again")
				return err
			})
		},
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "really do it")
	return cmd
}
