package registry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/certs"
	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

var ctx = context.Background()

func schemaOf(text string) event.Schema { return avro.MustParse(text).Schema() }

func TestSealAndOpen(t *testing.T) {
	f := newFake(t)
	wire := registry.Confluent(f.client(t))
	sealed, err := wire.Seal(ctx, "orders", schemaOf(`"string"`), []byte("\x04hi"))
	require.NoError(t, err)
	require.Equal(t, []byte("\x00\x00\x00\x00\x01\x04hi"), sealed)
	require.Equal(t, "/subjects/orders-value/versions", f.last.Load().URL.Path)

	other := registry.Confluent(f.client(t))
	for range 3 {
		s, data, err := other.Open(ctx, "orders", sealed)
		require.NoError(t, err)
		require.Equal(t, schemaOf(`"string"`), s)
		require.Equal(t, []byte("\x04hi"), data)
		_, err = wire.Seal(ctx, "orders", schemaOf(`"string"`), []byte("\x04ho"))
		require.NoError(t, err)
	}
	require.EqualValues(t, 2, f.calls.Load(), "one to register, one to look up, the rest from the cache")

	sealed, err = wire.Seal(ctx, "orders", schemaOf(`"int"`), []byte{})
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 0, 0, 2}, sealed, "empty is not a tombstone")
}

func TestTombstonesAreNotFramed(t *testing.T) {
	f := newFake(t)
	wire := registry.Confluent(f.client(t))
	sealed, err := wire.Seal(ctx, "orders", schemaOf(`"string"`), nil)
	require.NoError(t, err)
	require.Nil(t, sealed)
	s, data, err := wire.Open(ctx, "orders", nil)
	require.NoError(t, err)
	require.True(t, s.IsZero())
	require.Nil(t, data)
	require.Zero(t, f.calls.Load())
}

func TestOpenRefusesOtherFormats(t *testing.T) {
	wire := registry.Confluent(newFake(t).client(t))
	for _, b := range [][]byte{{}, {0}, {0, 0, 0, 1}, {1, 0, 0, 0, 1, 2}, []byte(`{"id":1}`)} {
		_, _, err := wire.Open(ctx, "t", b)
		require.ErrorContains(t, err, "not in Confluent's wire format")
		require.NotErrorIs(t, err, event.ErrSchemaUnavailable)
	}
}

func TestLookupOnly(t *testing.T) {
	f := newFake(t)
	lookup := func(c *registry.Config) {
		c.Register = false
		c.Subject = func(topic string, _ event.Schema) (string, error) { return topic + "/x y", nil }
	}
	_, err := registry.Confluent(f.client(t, lookup)).Seal(ctx, "t", schemaOf(`"string"`), []byte{0})
	require.ErrorIs(t, err, event.ErrSchemaUnavailable, "somebody may register it yet")
	require.ErrorIs(t, err, event.ErrSchemaUnregistered)
	require.ErrorContains(t, err, "set Config.Register")
	require.ErrorContains(t, err, `subject "t/x y"`)
	require.Equal(t, "/subjects/t%2Fx%20y", f.last.Load().URL.EscapedPath())

	_, err = f.client(t).ID(ctx, "t", schemaOf(`"string"`))
	require.NoError(t, err)
	id, err := f.client(t, lookup).ID(ctx, "t", schemaOf(`"string"`))
	require.NoError(t, err)
	require.EqualValues(t, 1, id)
}

func TestBurstMakesOneCall(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	f.answer(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		fmt.Fprint(w, `{"id":7,"schema":"\"string\""}`)
	})
	c := f.client(t)
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			id, err := c.ID(ctx, "t", schemaOf(`"string"`))
			if err == nil && id != 7 {
				err = errors.New("wrong id")
			}
			_, e := c.Schema(ctx, 3)
			errs[i] = errors.Join(err, e)
		})
	}
	require.Eventually(t, func() bool { return f.calls.Load() >= 1 }, 5*time.Second, time.Millisecond)
	close(release)
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, 2, f.calls.Load())
}

// The caller that happens to make the request gives up; the others get an answer.
func TestOneCallerGivesUp(t *testing.T) {
	f := newFake(t)
	entered := make(chan struct{}, 10)
	f.answer(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if f.calls.Load() == 1 {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `{"schema":"\"int\""}`)
	})
	c := f.client(t)
	leaderCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	leader, follower := make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.Schema(leaderCtx, 1); leader <- err }()
	<-entered
	go func() { _, err := c.Schema(ctx, 1); follower <- err }()
	cancel()
	err := <-leader
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
	require.NoError(t, <-follower)
}

func TestErrors(t *testing.T) {
	const sealing, opening = true, false
	tests := map[string]struct {
		answer http.HandlerFunc
		seal   bool
		retry  bool
		is     error
		want   string
	}{
		"unknown id":        {nil, opening, false, registry.ErrUnknownID, "schema id 99"},
		"other 404":         {status(404, "<html>no such page"), opening, true, nil, "status 404"},
		"server error":      {status(500, `{"error_code":50001,"message":"store"}`), opening, true, nil, `code 50001: "store"`},
		"unavailable":       {status(503, ""), sealing, true, nil, "status 503"},
		"unauthorized":      {status(401, `{"error_code":401,"message":"who"}`), sealing, true, nil, "status 401"},
		"incompatible":      {status(409, `{"error_code":409,"message":"incompatible"}`), sealing, false, registry.ErrRefused, "incompatible"},
		"invalid":           {status(422, `{"error_code":42201,"message":"invalid"}`), sealing, false, registry.ErrRefused, "code 42201"},
		"no JSON":           {status(200, "<html>"), opening, true, nil, "decode"},
		"no schema":         {status(200, "{}"), opening, true, nil, "no schema"},
		"no id":             {status(200, "{}"), sealing, true, nil, "id 0"},
		"negative id":       {status(200, `{"id":-1}`), sealing, true, nil, "id -1"},
		"id of 33 bits":     {status(200, `{"id":4294967296}`), sealing, true, nil, "id 4294967296"},
		"references":        {status(200, `{"schema":"\"x.Y\"","references":[{"name":"x","subject":"s","version":1}]}`), opening, false, nil, "refers to other schemas"},
		"protobuf":          {status(200, `{"schema":"message M {}","schemaType":"PROTOBUF"}`), opening, false, nil, "PROTOBUF, which is not supported"},
		"long error":        {status(500, strings.Repeat("x", 10000)), opening, true, nil, "xxx"},
		"connection closed": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, opening, true, nil, "EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if tt.answer != nil {
				f.answer(tt.answer)
			}
			wire := registry.Confluent(f.client(t))
			var err error
			if tt.seal {
				_, err = wire.Seal(ctx, "t", schemaOf(`"string"`), []byte{0})
			} else {
				_, _, err = wire.Open(ctx, "t", []byte{0, 0, 0, 0, 99, 0})
			}
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, tt.retry, errors.Is(err, event.ErrSchemaUnavailable), err)
			if tt.is != nil {
				require.ErrorIs(t, err, tt.is)
			}
			require.NotErrorIs(t, err, event.ErrSchemaUnregistered, "the registry did not say so")
			require.Less(t, len(err.Error()), 600)
		})
	}
	_, err := newFake(t).client(t).ID(ctx, "t", event.Schema{Format: "json"})
	require.ErrorContains(t, err, "has no schema")
	require.NotErrorIs(t, err, event.ErrSchemaUnavailable)
}

// Whatever its size claims, a response is read up to a limit.
func TestHugeResponseIsRefused(t *testing.T) {
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	for name, length := range map[string]string{"announced": "104857600", "streamed": ""} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			sent := 0
			done := make(chan struct{})
			f.answer(func(w http.ResponseWriter, _ *http.Request) {
				defer close(done)
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				_, err := w.Write([]byte(`{"schema":"`))
				for ; err == nil && sent < 100; sent++ {
					_, err = w.Write(chunk)
				}
			})
			_, err := f.client(t).Schema(ctx, 1)
			require.ErrorContains(t, err, "larger than 2 MiB")
			require.NotErrorIs(t, err, event.ErrSchemaUnavailable)
			<-done
			require.Less(t, sent, 50)
		})
	}
}

// The registry hands out a schema that is none, or one made to harm: the codec
// says so, and it is final.
func TestHostileSchema(t *testing.T) {
	recursive := `{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}`
	for name, text := range map[string]string{"no schema": `<html>`, "recursive": recursive, "deep": strings.Repeat(`[`, 100_000)} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.schemas = []string{text}
			s, data, err := registry.Confluent(f.client(t)).Open(ctx, "t", []byte{0, 0, 0, 0, 1, 2})
			require.NoError(t, err)
			var v any
			err = avro.MustParse(`"string"`).Decode(data, s, &v)
			require.Error(t, err)
			require.NotErrorIs(t, err, event.ErrSchemaUnavailable)
		})
	}
}

func TestRetriesAreBounded(t *testing.T) {
	f := newFake(t)
	f.answer(status(503, "later"))
	c := f.client(t, func(c *registry.Config) { c.Attempts = 3 })
	_, err := c.Schema(ctx, 1)
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
	require.EqualValues(t, 3, f.calls.Load())
	_, err = c.Schema(ctx, 1)
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
	require.EqualValues(t, 3, f.calls.Load(), "an error is remembered for a moment")

	f.answer(status(200, `{"schema":"\"int\""}`))
	require.Eventually(t, func() bool { _, err := c.Schema(ctx, 1); return err == nil }, 10*time.Second, 20*time.Millisecond)

	f.answer(status(401, ""))
	before := f.calls.Load()
	_, err = c.Schema(ctx, 2)
	require.Error(t, err)
	require.EqualValues(t, 1, f.calls.Load()-before, "asking again does not help")
}

func TestRegistryAway(t *testing.T) {
	f := newFake(t)
	c := f.client(t)
	f.Close()
	_, err := c.Schema(ctx, 1)
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)

	slow := newFake(t)
	release := make(chan struct{})
	defer close(release)
	slow.answer(func(http.ResponseWriter, *http.Request) { <-release })
	_, err = slow.client(t, func(c *registry.Config) { c.Timeout = 30 * time.Millisecond }).Schema(ctx, 1)
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
}

// What was asked once is known for ever, whatever becomes of the registry.
func TestCacheOutlivesTheRegistry(t *testing.T) {
	f := newFake(t)
	wire := registry.Confluent(f.client(t))
	known := schemaOf(`"string"`)
	sealed, err := wire.Seal(ctx, "t", known, []byte{2, 'x'})
	require.NoError(t, err)
	_, _, err = wire.Open(ctx, "t", sealed)
	require.NoError(t, err)
	f.Close()
	again, err := wire.Seal(ctx, "t", known, []byte{2, 'x'})
	require.NoError(t, err)
	require.Equal(t, sealed, again)
	s, _, err := wire.Open(ctx, "t", sealed)
	require.NoError(t, err)
	require.Equal(t, known.Text, s.Text)
	_, err = wire.Seal(ctx, "t", schemaOf(`"int"`), []byte{2})
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
	require.NotErrorIs(t, err, event.ErrSchemaUnregistered, "it did not say so")
}

func TestCredentials(t *testing.T) {
	f := newFake(t)
	f.answer(status(403, "no"))
	check := func(want string, change func(*registry.Config)) {
		t.Helper()
		_, err := f.client(t, change).Schema(ctx, 1)
		require.Equal(t, want, f.last.Load().Header.Get("Authorization"))
		require.NotContains(t, err.Error(), "s3cret")
	}
	const basic = "Basic dXNlcjpzM2NyZXQ="
	check("", func(*registry.Config) {})
	check(basic, func(c *registry.Config) { c.URL = withUser(c.URL) })
	check(basic, func(c *registry.Config) { c.Username, c.Password = "user", "s3cret" })
	check("Bearer s3cret", func(c *registry.Config) { c.BearerToken = "s3cret" })

	gone := newFake(t)
	c := gone.client(t, func(c *registry.Config) { c.URL = withUser(c.URL) })
	gone.Close()
	_, err := c.Schema(ctx, 1)
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
	require.NotContains(t, err.Error(), "s3cret")
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(status(200, `{"schema":"\"int\""}`))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	c, err := registry.New(registry.Config{URL: srv.URL, TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}})
	require.NoError(t, err)
	_, err = c.Schema(ctx, 1)
	require.NoError(t, err)
}

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]registry.Config{
		"Config.URL is empty":                {},
		"Config.URL is no http or https URL": {URL: "ftp://user:s3cret@host"},
		"Config.URL has a query":             {URL: "http://host?x=s3cret"},
		"Config.Username is set":             {URL: "http://user:s3cret@host", Username: "u"},
		"Config.BearerToken is set":          {URL: "http://user:s3cret@host", BearerToken: "t"},
		"Config.TLS is set":                  {URL: "http://host", TLS: &tls.Config{MinVersion: tls.VersionTLS12}, HTTPClient: &http.Client{}},
		"Config.TLSFiles is set together":    {URL: "https://host", TLSFiles: &certs.Files{}, HTTPClient: &http.Client{}},
		"Config.TLSFiles is set but the URL": {URL: "http://host", TLSFiles: &certs.Files{}},
		`Config.Timeout "-1s" is negative`:   {URL: "http://host", Timeout: -time.Second},
		"Config.Attempts is negative":        {URL: "http://host", Attempts: -1},
	} {
		_, err := registry.New(cfg)
		var fe *event.FieldError
		require.ErrorAs(t, err, &fe)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, err := registry.New(registry.Config{URL: "http://user:s3cret@ho st"})
	require.ErrorContains(t, err, "is no http or https URL")
	require.NotContains(t, err.Error(), "s3cret")
}

func TestRealRegistry(t *testing.T) {
	url := svctest.Registry(t)
	topic := svctest.Unique("orders")
	config := func(register bool) *registry.Client {
		c, err := registry.New(registry.Config{URL: url, Register: register, Timeout: 30 * time.Second})
		require.NoError(t, err)
		return c
	}
	name := strings.ReplaceAll(topic, "-", "_")
	v1 := avro.MustParse(`{"type":"record","name":"` + name + `","doc":"first","fields":[{"name":"id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}`)
	v2 := avro.MustParse(`{"type":"record","name":"` + name + `","fields":[{"name":"id","type":["null","string"]},{"name":"note","type":"string","default":"-"}]}`)

	_, err := config(false).ID(ctx, topic+"-value", v1.Schema())
	require.ErrorIs(t, err, event.ErrSchemaUnavailable)
	data, err := v1.Encode(map[string]any{"id": "o-1", "at": time.UnixMicro(5)})
	require.NoError(t, err)
	sealed, err := registry.Confluent(config(true)).Seal(ctx, topic, v1.Schema(), data)
	require.NoError(t, err)
	again, err := registry.Confluent(config(false)).Seal(ctx, topic, v1.Schema(), data)
	require.NoError(t, err)
	require.Equal(t, sealed, again, "a lookup finds what was registered")
	newer, err := config(true).ID(ctx, topic+"-value", v2.Schema())
	require.NoError(t, err)
	require.NotEqual(t, sealed[1:5], []byte{byte(newer >> 24), byte(newer >> 16), byte(newer >> 8), byte(newer)})

	writer, bare, err := registry.Confluent(config(false)).Open(ctx, topic, sealed)
	require.NoError(t, err)
	require.Equal(t, data, bare)
	require.Contains(t, writer.Text, "timestamp-micros")
	var got map[string]any
	require.NoError(t, v2.Decode(bare, writer, &got))
	require.Equal(t, map[string]any{"id": "o-1", "note": "-"}, got)

	_, _, err = registry.Confluent(config(false)).Open(ctx, topic, []byte{0, 0x7f, 0xff, 0xff, 0xff, 0})
	require.ErrorIs(t, err, registry.ErrUnknownID)
	require.NotErrorIs(t, err, event.ErrSchemaUnavailable)
	_, err = config(true).ID(ctx, topic+"-value", event.Schema{Format: "avro", Text: `{"type":"nonsense"}`})
	require.ErrorIs(t, err, registry.ErrRefused)
}

func ExampleConfluent() {
	srv := httptest.NewServer(status(200, `{"id":42,"schema":"\"string\""}`)) // your registry
	defer srv.Close()
	client, err := registry.New(registry.Config{URL: srv.URL, Register: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	wire := registry.Confluent(client)
	greeting := avro.MustParse(`"string"`)
	data, _ := greeting.Encode("hi")
	message, err := wire.Seal(ctx, "greetings", greeting.Schema(), data)
	fmt.Printf("% x %v\n", message, err)

	writer, data, err := wire.Open(ctx, "greetings", message)
	var s string
	fmt.Println(greeting.Decode(data, writer, &s), s, err)
	// Output:
	// 00 00 00 00 2a 04 68 69 <nil>
	// <nil> hi <nil>
}
