package avro

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
)

// The vectors were made with fastavro 1.13.1 (Python); for those without logical
// types the avro 1.12.0 package of PyPI gives the same.
func TestCanonicalFormAndCRC64(t *testing.T) {
	raw, err := os.ReadFile("testdata/canonical.json")
	require.NoError(t, err)
	var vectors []struct {
		Schema    json.RawMessage
		Canonical string
		CRC64     string
	}
	require.NoError(t, json.Unmarshal(raw, &vectors))
	require.NotEmpty(t, vectors)
	for _, v := range vectors {
		t.Run(v.Canonical, func(t *testing.T) {
			root, err := parseSchema(string(v.Schema))
			require.NoError(t, err)
			require.Equal(t, v.Canonical, canonical(root, false))
			fp := binary.LittleEndian.AppendUint64(nil, crc64(v.Canonical))
			require.Equal(t, v.CRC64, hex.EncodeToString(fp))
		})
	}
}

func TestSingleObject(t *testing.T) {
	ctx := context.Background()
	v1, v2 := MustParse(rec(fld("a", `"int"`))), MustParse(rec(fld("a", `"long"`), fld("b", `"int"`, `,"default":2`)))
	wf := SingleObject(v1.Schema(), v2.Schema())
	data, err := v1.Encode(map[string]any{"a": 5})
	require.NoError(t, err)
	wire, err := wf.Seal(ctx, "t", v1.Schema(), data)
	require.NoError(t, err)
	require.Equal(t, []byte{0xc3, 0x01}, wire[:2])
	schema, bare, err := wf.Open(ctx, "t", wire)
	require.NoError(t, err)
	require.Equal(t, v1.Schema(), schema)
	require.Equal(t, data, bare)
	var got map[string]any
	require.NoError(t, v2.Decode(bare, schema, &got))
	require.Equal(t, map[string]any{"a": int64(5), "b": 2}, got)

	for _, bad := range [][]byte{{}, {0xc3}, wire[:9], append([]byte{0}, wire[1:]...)} {
		_, _, err = wf.Open(ctx, "t", bad)
		require.ErrorContains(t, err, "no single-object encoding")
	}
	_, _, err = SingleObject(v2.Schema()).Open(ctx, "t", wire)
	require.ErrorIs(t, err, ErrUnknownFingerprint)
	require.NotErrorIs(t, err, event.ErrSchemaUnavailable)

	tombstone, err := wf.Seal(ctx, "t", v1.Schema(), nil)
	require.NoError(t, err)
	require.Nil(t, tombstone)
	schema, bare, err = wf.Open(ctx, "t", nil)
	require.NoError(t, err)
	require.True(t, schema.IsZero())
	require.Nil(t, bare)

	_, err = wf.Seal(ctx, "t", event.Schema{Format: "json"}, data)
	require.ErrorContains(t, err, `format "json"`)
	_, err = wf.Seal(ctx, "t", avroSchema("{"), data)
	require.ErrorIs(t, err, ErrSchema)
	require.Panics(t, func() { SingleObject(avroSchema("{")) })
}
