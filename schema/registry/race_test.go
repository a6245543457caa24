package registry_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/schema/registry"
)

const exists = `{"error_code":409,"message":"An artifact with ID 'orders-value' in group 'null' already exists."}`

// Who loses the race to register a subject's first schema is told that it exists
// already: with the same schema that is no refusal, and with another one it is the
// next version.
func TestConflictsThatAreRaces(t *testing.T) {
	t.Parallel()
	schema := event.Schema{Format: "avro", Text: `"string"`}
	for name, other := range map[string]string{"the same schema": `"string"`, "another schema": `"long"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answer(func(w http.ResponseWriter, r *http.Request) { // the first request, overtaken
				f.instead.Store(nil)
				f.mu.Lock()
				f.schemas = append(f.schemas, other)
				f.mu.Unlock()
				status(409, exists)(w, r)
			})
			id, err := f.client(t).ID(t.Context(), "orders-value", schema)
			require.NoError(t, err)
			f.mu.Lock()
			defer f.mu.Unlock()
			require.Equal(t, schema.Text, f.schemas[id-1])
		})
	}
}

// Many relays that start at once with a type that the registry does not know.
func TestManyRegisterAtOnce(t *testing.T) {
	t.Parallel()
	url := svctest.Registry(t)
	for range 5 {
		subject := svctest.Unique("orders") + "-value"
		schema := event.Schema{Format: "avro", Text: `{"type":"enum","name":"E` + strings.ReplaceAll(svctest.Unique("x"), "-", "_") + `","symbols":["A"]}`}
		var ids [8]uint32
		var errs [8]error
		var all sync.WaitGroup
		for i := range ids {
			c, err := registry.New(registry.Config{URL: url, Register: true})
			require.NoError(t, err)
			all.Go(func() { ids[i], errs[i] = c.ID(t.Context(), subject, schema) })
		}
		all.Wait()
		for i := range ids {
			require.NoError(t, errs[i])
			require.Equal(t, ids[0], ids[i])
		}
	}
}
