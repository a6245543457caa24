package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// CacheDir returns a folder of the given name that outlives runs and is shared
// by every checkout: $OUTBOXKIT_CACHE/name, else /var/cache/outboxkit/name for
// root, whose home the unprivileged servers could not read, else outboxkit/name
// in the user's cache folder.
func CacheDir(name string) (string, error) {
	base := os.Getenv("OUTBOXKIT_CACHE")
	switch {
	case base != "":
	case os.Geteuid() == 0:
		base = "/var/cache/outboxkit"
	default:
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder (set OUTBOXKIT_CACHE): %w", err)
		}
		base = filepath.Join(user, "outboxkit")
	}
	dir := filepath.Join(base, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create the cache folder (set OUTBOXKIT_CACHE to another): %w", err)
	}
	return dir, nil
}

// Lock waits for an exclusive lock on the file path, so that several processes
// do not fill a cache at once. The kernel frees it when the process dies.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TempDir creates a temporary folder that only the account can enter. The
// caller removes it; a folder whose process was killed before it could do so is
// removed by a later call.
func TempDir(name string, account *Account) (string, error) {
	removeOrphans()
	dir, err := os.MkdirTemp("", fmt.Sprintf("outboxkit-%d-%s-", os.Getpid(), name))
	if err != nil {
		return "", err
	}
	if err := account.Own(dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// removeOrphans removes the temporary folders of processes that are gone.
func removeOrphans() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "outboxkit-*-*-*"))
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "outboxkit-%d-", &pid); err != nil {
			continue
		}
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(dir) // not ours to report: another user's folder stays
		}
	}
}
