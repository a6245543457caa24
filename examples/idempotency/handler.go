package idempotency

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/dedup"
)

// Response is what a client gets, the first time and every other.
type Response struct {
	Status int         // 200 to 499
	Header http.Header // Content-Type, Location, ETag and the like; nothing of the moment such as cookies
	Body   []byte
}

// Command does the work through tx, which it must not end. An error undoes it and
// frees the key, so that the same request can be sent again; a refusal that would
// be the same again is a Response.
type Command func(ctx context.Context, tx pgx.Tx, r *http.Request, body []byte) (Response, error)

// Handler handles a command once for each Idempotency-Key.
type Handler struct {
	Pool  *pgxpool.Pool
	Store *dedup.Postgres
	// Scope is whose key it is: the authenticated user or tenant. Never a thing
	// that the client can make up, or it reads others' responses.
	Scope func(*http.Request) string
	Do    Command
}

const (
	maxBody = 1 << 20
	// frozen is when the database ends the transaction of a process that has
	// stopped talking to it, and with it the wait of others for its key.
	frozen = "30s"
)

// record is what the store keeps of a command.
type record struct {
	Request  [sha256.Size]byte // fingerprint
	Response Response
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, err := parseKey(r.Header.Values("Idempotency-Key"))
	if err != nil {
		problem(w, http.StatusBadRequest, "Idempotency-Key is missing or wrong", err.Error())
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		problem(w, http.StatusRequestEntityTooLarge, "The body cannot be read", err.Error())
		return
	}
	request := fingerprint(r, body)
	stored, err := h.once(r, dedup.Key{Source: r.Method + " " + r.URL.Path + " " + h.Scope(r), ID: key}, request, body)
	switch {
	case errors.Is(err, dedup.ErrInProgress):
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusConflict, "A request is outstanding for this Idempotency-Key", "send it again in a moment")
	case err != nil:
		// Rolled back, or nobody knows whether it was committed: the key tells.
		slog.ErrorContext(r.Context(), "command failed", "path", r.URL.Path, "error", err)
		problem(w, http.StatusInternalServerError, "Not handled", "send the same request with the same Idempotency-Key again")
	case stored.Request != request:
		problem(w, http.StatusUnprocessableEntity, "Idempotency-Key is already used", "it was used for another request: draw a new key for each command")
	default:
		reply(w, stored.Response)
	}
}

// once runs the command unless the key has been handled, and returns what was
// recorded, now or then. It returns after the commit.
func (h *Handler) once(r *http.Request, key dedup.Key, request [sha256.Size]byte, body []byte) (stored record, err error) {
	err = pgx.BeginFunc(r.Context(), h.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(r.Context(), `SET LOCAL idle_in_transaction_session_timeout = '`+frozen+`'`); err != nil {
			return err
		}
		answer, err := h.Store.In(tx).Once(r.Context(), key, func(ctx context.Context) ([]byte, error) {
			response, err := h.Do(ctx, tx, r, body)
			if err != nil {
				return nil, err
			}
			if response.Status < 200 || response.Status > 499 {
				return nil, fmt.Errorf("response with status %d: return an error for what should be tried again", response.Status)
			}
			return json.Marshal(record{Request: request, Response: response})
		})
		if err != nil {
			return err
		}
		return json.Unmarshal(answer.Response, &stored)
	})
	return stored, err
}

func reply(w http.ResponseWriter, response Response) {
	for name, values := range response.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	w.WriteHeader(response.Status)
	_, _ = w.Write(response.Body) // a client that has gone comes again with its key
}
