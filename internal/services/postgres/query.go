package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func (s *Server) scan(ctx context.Context, to any, sql string, args ...any) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, sql, args...).Scan(to)
}

// waitTrue repeats a query for one boolean until it says true, for a minute at
// most.
func (s *Server) waitTrue(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var ok bool
		if err := s.scan(ctx, &ok, sql, args...); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s stays false: %w", sql, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
