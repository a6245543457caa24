package admin

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequest: no bytes get past the guard without the token.
func FuzzRequest(f *testing.F) {
	basic := base64.StdEncoding.EncodeToString([]byte("x:" + token))
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic " + basic + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer\r\n\r\n",
		"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
		"GET //livez HTTP/1.1\r\nHost: [::1\r\n\r\n",
		"GET http://localhost/livez?x HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, cfg := range []Config{{Token: token, Open: []string{"/livez"}}, {ClientCAFile: "x"}, {}} {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil {
				return
			}
			reached := false
			protect(cfg, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				reached = true
				_, _ = io.Copy(io.Discard, r.Body)
			})).ServeHTTP(httptest.NewRecorder(), r)
			if reached && !mayPass(cfg, r) {
				t.Fatalf("%+v let this through: %q", cfg, raw)
			}
		}
	})
}

// mayPass says the same as the guard in other words.
func mayPass(cfg Config, r *http.Request) bool {
	switch {
	case cfg.Token != "":
		shown := r.Header.Get("Authorization")
		_, coded, _ := strings.Cut(shown, " ")
		plain, _ := base64.StdEncoding.DecodeString(coded)
		open := r.URL.Path == "/livez" && (r.Method == "GET" || r.Method == "HEAD")
		bearer := strings.HasPrefix(strings.ToLower(shown), "bearer ") && strings.HasSuffix(strings.TrimSpace(shown), token)
		return open || bearer || strings.HasSuffix(string(plain), ":"+token)
	case cfg.ClientCAFile != "":
		return false // there is no TLS here
	default:
		name := strings.TrimLeft(strings.ToLower(r.Host), "[")
		return strings.HasPrefix(name, "localhost") || strings.HasPrefix(name, "127.") || strings.Contains(name, ":")
	}
}
