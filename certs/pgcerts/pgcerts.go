// Package pgcerts uses certificate files that may be renewed for connections to
// Postgres.
package pgcerts

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxkit/outboxkit/certs"
)

// BeforeConnect returns a function for pgxpool.Config.BeforeConnect: each new
// connection uses TLS with the files as they are then, and verifies the server as
// sslmode=verify-full does. It replaces every sslmode and certificate of the
// connection string, and never falls back to plain text. Unix sockets have no TLS.
//
//	pc, err := pgxpool.ParseConfig("postgres://app@db/shop")
//	pc.BeforeConnect = pgcerts.BeforeConnect(certs.Files{CAFile: "/certs/ca.crt"})
//
// A setting sslnegotiation=direct is kept.
func BeforeConnect(files certs.Files) func(context.Context, *pgx.ConnConfig) error {
	return func(_ context.Context, cc *pgx.ConnConfig) error {
		// The client lists a host twice where its sslmode allows two ways to it.
		hosts := []*pgconn.FallbackConfig{{Host: cc.Host, Port: cc.Port}}
		for _, f := range cc.Fallbacks {
			known := func(h *pgconn.FallbackConfig) bool { return h.Host == f.Host && h.Port == f.Port }
			if !slices.ContainsFunc(hosts, known) {
				hosts = append(hosts, &pgconn.FallbackConfig{Host: f.Host, Port: f.Port})
			}
		}
		for _, h := range hosts {
			if h.TLSConfig = nil; strings.HasPrefix(h.Host, "/") {
				continue // a Unix socket
			}
			fresh, err := files.Config(h.Host)
			if err != nil {
				return err
			}
			if cc.SSLNegotiation == "direct" {
				fresh.NextProtos = []string{"postgresql"}
			}
			h.TLSConfig = fresh
		}
		cc.TLSConfig, cc.Fallbacks = hosts[0].TLSConfig, hosts[1:]
		return nil
	}
}
