package page

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
)

//go:embed assets
var embedded embed.FS

func (p *Page) routes() http.Handler {
	assets, err := fs.Sub(embedded, "assets")
	if err != nil {
		panic(err) // the name is a valid one
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, assets, "index.html") })
	mux.HandleFunc("GET /assets/{name}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := fs.Stat(assets, r.PathValue("name")); err != nil {
			http.NotFound(w, r)
			return
		}
		http.ServeFileFS(w, r, assets, r.PathValue("name"))
	})
	mux.HandleFunc("GET /api/status", p.serveStatus)
	mux.HandleFunc("GET /api/letters", p.inDatabase(p.letters))
	mux.HandleFunc("GET /api/letter", p.inDatabase(p.letter))
	mux.HandleFunc("GET /api/event", p.inDatabase(p.event))
	return mux
}

func (p *Page) serveStatus(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	after, err := number(q, "after")
	if err != nil {
		fail(w, err)
		return
	}
	o, found := p.view(q.Get("database"), after)
	if !found {
		fail(w, &badRequest{fmt.Sprintf("database %q is not served here", q.Get("database"))})
		return
	}
	reply(w, http.StatusOK, o)
}

// inDatabase answers with what f finds, within a time and with a bounded number at
// work.
func (p *Page) inDatabase(f func(context.Context, url.Values) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		leave, err := enter(ctx, p.work)
		if err != nil {
			fail(w, errBusy)
			return
		}
		defer leave()
		found, err := f(ctx, r.URL.Query())
		if err != nil {
			p.cfg.Logger.Debug("page: request failed", "path", r.URL.Path, "error", err)
			fail(w, err)
			return
		}
		reply(w, http.StatusOK, found)
	}
}

var errBusy = errors.New("the databases are slow and other requests wait for them: try again, or use relay dlq")

// badRequest is an error of whoever asks.
type badRequest struct{ problem string }

func (e *badRequest) Error() string { return e.problem }

// letterList is a page of a store's letters.
type letterList struct {
	Letters []Letter `json:"letters"`
	// Next is the number to go on after, 0 at the end.
	Next int64 `json:"next"`
}

func (p *Page) letters(ctx context.Context, q url.Values) (any, error) {
	s, err := p.store(q)
	if err != nil {
		return nil, err
	}
	after, err := number(q, "after")
	if err != nil {
		return nil, err
	}
	f := Filter{Owner: q.Get("owner"), State: q.Get("state"), Type: q.Get("type"), Key: q.Get("key"), ID: q.Get("id"), Reason: q.Get("reason")}
	list, err := s.List(ctx, f, after, PageSize+1) // one more tells whether there are more
	if err != nil {
		return nil, err
	}
	found := letterList{Letters: append([]Letter{}, list[:min(len(list), PageSize)]...)}
	if len(list) > PageSize {
		found.Next = list[PageSize-1].N
	}
	return found, nil
}

func (p *Page) letter(ctx context.Context, q url.Values) (any, error) {
	s, err := p.store(q)
	if err != nil {
		return nil, err
	}
	n, err := number(q, "n")
	if err != nil {
		return nil, err
	}
	l, err := s.Show(ctx, n)
	l.Payload, l.Cut = cut(l.Payload, PayloadShown)
	return l, err
}

// cut shortens a text to some bytes, at the border of a letter.
func cut(text string, most int) (string, bool) {
	if len(text) <= most {
		return text, false
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most], true
}

// story is what is known of an event.
type story struct {
	Explained string    `json:"explained"` // "" if nobody explains
	Found     []foundIn `json:"found"`
	Problems  []string  `json:"problems"` // what could not be asked
}

type foundIn struct {
	Store   string   `json:"store"`
	Letters []Letter `json:"letters"`
}

// foundShown is how many letters of an event a store tells of: there is one for each
// pipeline or consumer, and discarded ones.
const foundShown = 20

// storesAtOnce is how many are asked for an event at once.
const storesAtOnce = 16

// event asks all at once, each for a limited time: what does not answer must not hide
// what the others know.
func (p *Page) event(ctx context.Context, q url.Values) (any, error) {
	id := strings.TrimSpace(q.Get("id"))
	if id == "" {
		return nil, &badRequest{"id is empty: give the event's id"}
	}
	s := story{Found: []foundIn{}, Problems: []string{}}
	lists, failed := make([][]Letter, len(p.cfg.Stores)), make([]error, len(p.cfg.Stores))
	var explaining error
	var asking errgroup.Group
	asking.SetLimit(storesAtOnce)
	if p.cfg.Explain != nil {
		asking.Go(func() error {
			s.Explained, explaining = p.cfg.Explain(ctx, id)
			return nil
		})
	}
	for i, store := range p.cfg.Stores {
		asking.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, p.patience)
			defer cancel()
			lists[i], failed[i] = store.Find(limited, id, foundShown)
			return nil
		})
	}
	_ = asking.Wait() // errors are told below
	if explaining != nil {
		s.Problems = append(s.Problems, explaining.Error())
	}
	for i, store := range p.cfg.Stores {
		if failed[i] != nil {
			s.Problems = append(s.Problems, fmt.Sprintf("%s: %v", store.Name(), failed[i]))
		} else if len(lists[i]) > 0 {
			s.Found = append(s.Found, foundIn{store.Name(), lists[i]})
		}
	}
	return s, nil
}

func (p *Page) store(q url.Values) (Store, error) {
	s, ok := p.stores[q.Get("store")]
	if !ok {
		return nil, &badRequest{fmt.Sprintf("store %q is not known here", q.Get("store"))}
	}
	return s, nil
}

// number is a parameter, 0 if it is not there.
func number(q url.Values, name string) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, &badRequest{fmt.Sprintf("%s: %q is not a number", name, text)}
	}
	return n, nil
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	if bad := (*badRequest)(nil); errors.As(err, &bad) {
		code = http.StatusBadRequest
	}
	reply(w, code, map[string]string{"error": err.Error()})
}

func reply(w http.ResponseWriter, code int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // all of it is ours
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(data) // the browser has gone
}
