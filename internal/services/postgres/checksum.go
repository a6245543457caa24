package postgres

import (
	"crypto/sha256"
	_ "embed" // the list of checksums
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// sums lists the archives of DefaultVersion, in the format of sha256sum.
//
//go:embed SHA256SUMS
var sums string

// verify checks the archive of DefaultVersion against the list. Other versions
// and platforms, which somebody asked for, are compared by embedded-postgres
// with the checksum beside the download, and with nothing else.
func verify(archive, sums string) error {
	name := filepath.Base(archive)
	var want string
	for line := range strings.Lines(sums) {
		if sum, file, _ := strings.Cut(strings.TrimSpace(line), "  "); file == name {
			want = sum
		}
	}
	if want == "" {
		return nil
	}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, the list says %s: the download is damaged or not what we tested", name, got, want)
	}
	return nil
}
