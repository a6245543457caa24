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
	require.Regexp(t, `undecodable: .*single-object encoding, and Config.Wire is not set`, reason("single"))
	require.Regexp(t, `undecodable: .*schema registry's frame, and Config.Wire is not set`, reason("registry"))
	require.NotContains(t, reason("garbage"), "Wire")
}
