package inbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Who forgets Config.Wire has every message in the table dead: there it says why.
func TestFramedBytesWithoutWireFormat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for key, payload := range map[string]string{"single": "\xC3\x01abcdefgh{}", "registry": "\x00\x00\x00\x00\x07{}", "garbage": "garbage"} {
		m := message(key, 1)
		m.Payload = []byte(payload)
		w.publish(m)
	}
	in := w.start(w.config("inventory"), insert("inventory"))
	w.settled("inventory")
	require.NoError(t, in.end())
	reason := func(key string) (text string) {
		require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT reason || ': ' || error FROM inbox.dead WHERE key = $1`, key).Scan(&text))
		return text
	}
	require.Regexp(t, `^undecodable: Config.Wire is not set, but the bytes begin like Avro's single-object encoding: decode: `, reason("single"))
	require.Regexp(t, `^undecodable: Config.Wire is not set, but the bytes begin like a schema registry's frame: decode: `, reason("registry"))
	require.NotContains(t, reason("garbage"), "Wire")
}
