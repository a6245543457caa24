package svctest

import (
	"os/exec"
	"testing"
)

// Chromium returns the path of a Chromium: the first of those in $PATH.
func Chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, "no Chromium in $PATH: install Debian's package chromium")
	return ""
}
