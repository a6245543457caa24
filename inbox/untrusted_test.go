package inbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/inbox"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

const parcelSchema = `{"type":"record","name":"Parcel","fields":[
  {"name":"id","type":"string"},
  {"name":"weights","type":{"type":"array","items":"long"}},
  {"name":"gaps","type":{"type":"array","items":"null"},"default":[]},
  {"name":"tags","type":{"type":"map","values":"string"},"default":{}},
  {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","SENT"]},"default":"NEW"},
  {"name":"note","type":["null","string"],"default":null},
  {"name":"inside","type":{"type":"array","items":"Parcel"},"default":[]}]}`

type parcel struct {
	ID      string            `avro:"id"`
	Weights []int64           `avro:"weights"`
	Gaps    []any             `avro:"gaps"`
	Tags    map[string]string `avro:"tags"`
	State   string            `avro:"state"`
	Note    *string           `avro:"note"`
	Inside  []parcel          `avro:"inside"`
}

var parcelSent = event.Type[parcel]{Name: "shop.parcel.sent", Topic: "orders", Codec: avro.MustParse(parcelSchema)}

// hostileRegistry knows the schema of parcels as id 1, and worse.
func hostileRegistry(t *testing.T) event.WireFormat {
	t.Helper()
	schemas := map[string]string{
		"1": parcelSchema,
		"3": `<html>`,
		"4": `{"type":"record","name":"Parcel","fields":[{"name":"id","type":"Parcel"}]}`,
		"5": strings.Repeat(`{"type":"array","items":`, 10_000) + `"int"` + strings.Repeat(`}`, 10_000),
		"7": `{"type":"fixed","name":"F","size":1099511627776}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		switch text, ok := schemas[id]; {
		case ok:
			_ = json.NewEncoder(w).Encode(map[string]any{"schema": text})
		case id == "6":
			_, err := fmt.Fprint(w, `{"schema":"`)
			for chunk := strings.Repeat("x", 1<<20); err == nil; {
				_, err = fmt.Fprint(w, chunk) // 100 MB and more: until nobody reads it
			}
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error_code":40403,"message":"Schema not found"}`)
		}
	}))
	t.Cleanup(server.Close)
	client, err := registry.New(registry.Config{URL: server.URL, HTTPClient: server.Client()})
	require.NoError(t, err)
	return registry.Confluent(client)
}

// Whatever comes over the network is handled or a dead letter with a clear reason:
// it takes no memory to speak of, holds up nothing, and kills nobody.
func TestHostileBytesAreDeadLettered(t *testing.T) {
	t.Parallel()
	const frame, id = "\x00\x00\x00\x00\x01", "\x02p"
	const rest = "\x00\x00\x00\x00\x00\x00" // nothing more of a parcel than its id
	tests := map[string]struct{ payload, want string }{
		"2^40 items in ten bytes": {frame + id + "\x80\x80\x80\x80\x80\x40\x00", "weights at byte 2: block of 1099511627776 items"},
		"smallest count":          {frame + id + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02", "block of -9223372036854775808 items"},
		"negative block size":     {frame + id + "\x01\x01\x00", "in -1 bytes"},
		"2^60 nulls":              {frame + id + "\x00\x80\x80\x80\x80\x80\x80\x80\x80\x20\x00", "gaps at byte 3: block of"},
		"truncated map":           {frame + id + "\x00\x00\x04\x02k\x02v", "tags"},
		"string of 1 GiB":         {frame + "\x80\x80\x80\x80\x08short", "id at byte 0: length 1073741824, but 5 bytes remain"},
		"not UTF-8":               {frame + "\x02\xff" + rest, "id at byte 0: string is not UTF-8"},
		"enum index":              {frame + id + "\x00\x00\x00\x04\x00\x00", "state at byte 5: enum symbol 2 of 2"},
		"union index":             {frame + id + "\x00\x00\x00\x00\x04\x00", "note at byte 6: union branch 2 of 2"},
		"bytes after the end":     {frame + id + rest + "\x00", "1 bytes follow the end"},
		"recursion 10,000 deep":   {frame + strings.Repeat(id+"\x00\x00\x00\x00\x00\x02", 10_000), "nested deeper than 512"},
		"wrong magic byte":        {"\x01" + frame[1:] + id + rest, "not in Confluent's wire format"},
		"too short for a frame":   {"\x00\x00", "not in Confluent's wire format"},
		"unknown id":              {"\x00\x00\x00\x00\x02" + id + rest, "the registry does not know the schema id"},
		"no schema":               {"\x00\x00\x00\x00\x03" + id + rest, "invalid Avro schema: not JSON"},
		"recursive schema":        {"\x00\x00\x00\x00\x04" + id + rest, "id"},
		"deep schema":             {"\x00\x00\x00\x00\x05" + id + rest, "invalid Avro schema"},
		"schema of 100 MB":        {"\x00\x00\x00\x00\x06" + id + rest, "larger than 2 MiB"},
		"schema of a huge value":  {"\x00\x00\x00\x00\x07" + id + rest, "has size 1099511627776"},
	}
	w := newWorld(t)
	cfg := w.config("parcels")
	cfg.Wire = hostileRegistry(t)
	for name, tt := range tests {
		m := message(name, 1)
		m.Type, m.Payload = parcelSent.Name, []byte(tt.payload)
		w.publish(m)
	}
	good := message("good", 1)
	good.Type, good.Payload = parcelSent.Name, []byte(frame+id+rest)
	w.publish(good)

	in, err := inbox.New(w.pool, cfg)
	require.NoError(t, err)
	inbox.On(in, parcelSent, func(ctx context.Context, tx pgx.Tx, e inbox.Event[parcel]) error {
		return effect(ctx, tx, "parcels", e.Data.ID)
	})
	running := run(t, in)
	w.settled("parcels")
	require.NoError(t, running.end())

	died := map[string]dead{}
	for _, d := range w.dead() {
		died[d.Key] = d
	}
	for name, tt := range tests {
		d := died[name]
		require.Equal(t, "undecodable", d.Reason, name)
		require.Contains(t, d.Error, tt.want, name)
		require.Less(t, len(d.Error), 8<<10, name)
		require.Equal(t, tt.payload, string(d.Payload), name)
	}
	require.Len(t, died, len(tests))
	require.Equal(t, 1, w.effects(), "the good one")
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	require.Less(t, mem.Sys, uint64(1<<30), "of this process, other tests included")
}
