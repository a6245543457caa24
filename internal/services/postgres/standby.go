package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/outboxkit/outboxkit/internal/services/proc"
)

// Standby starts a streaming, read-only copy of the running server, with its
// own port and data. The caller must Close it. Its settings are the primary's,
// with those of extra on top.
//
// The copy is made with pg_backup_start and plain files, so that it needs no
// installed pg_basebackup. Replication is asynchronous: commits after Detach are
// lost in a failover to the standby.
func (s *Server) Standby(ctx context.Context, extra map[string]string) (*Server, error) {
	cfg := s.cfg
	cfg.Port = 0
	cfg.Settings = maps.Clone(s.cfg.Settings)
	if cfg.Settings == nil {
		cfg.Settings = map[string]string{}
	}
	maps.Copy(cfg.Settings, extra)
	standby, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	err = s.copyTo(ctx, standby)
	if err == nil {
		err = standby.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a standby: %w", err), standby.Close(ctx))
	}
	return standby, nil
}

// copyTo takes a base backup of s into the data folder of a new server.
func (s *Server) copyTo(ctx context.Context, to *Server) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	start, stop := "SELECT pg_backup_start('standby', true)", "SELECT labelfile FROM pg_backup_stop(false)"
	if s.Major() < 15 {
		start, stop = "SELECT pg_start_backup('standby', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, start); err != nil {
		return err
	}
	if err := copyData(s.data(), to.data(), to.account); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	auto := filepath.Join(to.data(), "postgresql.auto.conf")
	upstream := fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=postgres sslmode=disable'\n", s.cfg.Port)
	return errors.Join(
		writeOwned(auto, upstream, to.account), // here and not an argument, so that Detach can change it
		writeOwned(filepath.Join(to.data(), "backup_label"), label, to.account),
		writeOwned(filepath.Join(to.data(), "standby.signal"), "", to.account),
		// The log of the copy's own time: it is still in the primary's pg_wal.
		copyData(filepath.Join(s.data(), "pg_wal"), filepath.Join(to.data(), "pg_wal"), to.account),
	)
}

// copyData copies the files of a live data folder. Files may vanish or change
// while it reads: recovery from the log repairs both.
func copyData(from, to string, account *proc.Account) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case rel == "postmaster.pid", rel == "postmaster.opts", strings.HasPrefix(rel, "pg_replslot"+string(filepath.Separator)):
			return nil
		case d.IsDir():
			if err := os.MkdirAll(target, 0o700); err != nil {
				return err
			}
			return account.Own(target)
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return writeOwned(target, string(content), account)
	})
}

func writeOwned(path, content string, account *proc.Account) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return account.Own(path)
}

// CatchUp waits until the standby has applied all that the primary has written
// up to now.
func (s *Server) CatchUp(ctx context.Context, primary *Server) error {
	var written string
	if err := primary.scan(ctx, &written, "SELECT pg_current_wal_lsn()::text"); err != nil {
		return err
	}
	return s.waitTrue(ctx, "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)", written)
}

// Detach makes the standby receive no more of the primary's changes, and
// returns when the connection between them is closed.
func (s *Server) Detach(ctx context.Context) error {
	if err := s.exec(ctx, "ALTER SYSTEM SET primary_conninfo = ''"); err != nil {
		return err
	}
	if err := s.exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return s.waitTrue(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
}

// Promote turns a standby into a primary and returns when it takes writes. The
// old primary should be dead by then: nothing here keeps it from writing on.
func (s *Server) Promote(ctx context.Context) error {
	return s.waitTrue(ctx, "SELECT pg_promote(true, 60)")
}
