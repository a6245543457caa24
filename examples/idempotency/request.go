package idempotency

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const maxKey = 255

// parseKey reads the header: a string of RFC 8941, in quotes. Many clients leave
// the quotes out, which is taken too.
func parseKey(values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("the header must be there once, not %d times", len(values))
	}
	key := values[0]
	if quoted := strings.HasPrefix(key, `"`); quoted {
		if len(key) < 2 || !strings.HasSuffix(key, `"`) {
			return "", errors.New("a quote is missing")
		}
		key = key[1 : len(key)-1]
	}
	switch {
	case key == "" || len(key) > maxKey:
		return "", fmt.Errorf("the key has %d characters: 1 to %d, best a random UUID", len(key), maxKey)
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }):
		return "", errors.New("the key has other characters than letters, digits and punctuation")
	}
	return key, nil
}

// fingerprint tells requests apart that a client sends with one key by mistake.
func fingerprint(r *http.Request, body []byte) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q\n", r.URL.RawQuery, r.Header.Get("Content-Type"))
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// problem answers as RFC 9457 has it.
func problem(w http.ResponseWriter, status int, title, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": title, "detail": detail, "status": status}) // the client has gone
}
