package page

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRequest: whatever is asked for, the answer is guarded, and is one of those that
// are meant.
func FuzzRequest(f *testing.F) {
	for _, path := range paths {
		path, query, _ := strings.Cut(path, "?")
		f.Add(path, query)
	}
	f.Add("/api/letters", "store=outbox&after=9223372036854775807")
	f.Add("/assets/../page.go", "a=%zz;b")
	p := New(Config{
		Databases: []Database{{Status: healthy}}, Logger: slog.New(slog.DiscardHandler),
		Stores: []Store{&memory{name: "outbox", letters: 3}},
	})
	f.Fuzz(func(t *testing.T, path, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.Path, r.URL.RawQuery = path, query
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		require.Contains(t, []int{
			http.StatusOK, http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusBadRequest, http.StatusNotFound, http.StatusServiceUnavailable,
		}, w.Code)
		require.Equal(t, policy, w.Header().Get("Content-Security-Policy"))
		if strings.HasPrefix(path, "/api/") && w.Code == http.StatusOK {
			require.True(t, json.Valid(w.Body.Bytes()))
		}
	})
}
