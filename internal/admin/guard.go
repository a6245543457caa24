package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"slices"
	"strings"
)

// maxBody bounds what a request may carry.
const maxBody = 1 << 20

// guard lets through who may ask.
type guard struct {
	next    http.Handler
	token   [sha256.Size]byte // of Config.Token
	byToken bool
	guarded bool
	open    []string
}

// protect returns next behind what cfg asks for. Browsers are told to be strict; next
// may set headers of its own instead.
func protect(cfg Config, next http.Handler) http.Handler {
	g := &guard{
		next: http.NewCrossOriginProtection().Handler(next), token: sha256.Sum256([]byte(cfg.Token)),
		byToken: cfg.Token != "", guarded: cfg.guarded(), open: cfg.Open,
	}
	return g
}

// ServeHTTP implements http.Handler.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case g.guarded && !g.isOpen(r) && !g.known(r):
		g.refuse(w)
		return
	case !g.guarded && !localName(r.Host):
		// A page from elsewhere whose name was pointed at this machine (DNS rebinding)
		// would otherwise read what a browser here may see.
		http.Error(w, "ask for 127.0.0.1 or localhost, or set a token", http.StatusMisdirectedRequest)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	g.next.ServeHTTP(w, r)
}

func (g *guard) refuse(w http.ResponseWriter) {
	if !g.byToken {
		http.Error(w, "show a client certificate", http.StatusForbidden)
		return
	}
	w.Header().Add("WWW-Authenticate", "Bearer")
	w.Header().Add("WWW-Authenticate", `Basic realm="outboxkit: any user, the token as password", charset="UTF-8"`)
	http.Error(w, "show the token", http.StatusUnauthorized)
}

func (g *guard) isOpen(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && slices.Contains(g.open, r.URL.Path)
}

// known reports whether a request comes with a client certificate, which the
// handshake has verified, or with the token.
func (g *guard) known(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	if !g.byToken {
		return false
	}
	if _, password, ok := r.BasicAuth(); ok {
		return g.isToken(password)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && g.isToken(strings.TrimSpace(token))
}

// isToken takes as long for any text: hashes have one length.
func (g *guard) isToken(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1
}

// localName reports whether a Host header names this machine in a way that no DNS
// server can.
func localName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return loopback(host)
}
