package deduptest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/dedup"
)

var errFailed = errors.New("failed on purpose")

func duplicateGetsTheFirstResponse(t *testing.T, s *store) {
	type word struct{}
	ctx := context.WithValue(t.Context(), word{}, "mine")
	answer, err := s.once(ctx, key("1"), func(ctx context.Context) ([]byte, error) {
		require.Equal(t, "mine", ctx.Value(word{}), "the caller's context")
		return []byte("first"), nil
	})
	require.NoError(t, err)
	require.Equal(t, dedup.Answer{Response: []byte("first")}, answer)
	answer.Response[0] = 'X' // it is the caller's
	for range 3 {
		answer, err = s.once(ctx, key("1"), s.never)
		require.NoError(t, err)
		require.Equal(t, dedup.Answer{Response: []byte("first"), Duplicate: true}, answer)
		answer.Response[0] = 'Y'
	}
}

func responsesAreKeptAsTheyAre(t *testing.T, s *store) {
	for id, response := range map[string][]byte{
		"nil": nil, "empty": {}, "binary": []byte("\x00\xff\xfe"), "large": []byte(strings.Repeat("0123456789", 30_000)),
	} {
		_, err := s.once(t.Context(), key(id), func(context.Context) ([]byte, error) { return response, nil })
		require.NoError(t, err)
		answer, err := s.once(t.Context(), key(id), s.never)
		require.NoError(t, err)
		require.True(t, answer.Duplicate)
		require.Equal(t, string(response), string(answer.Response), id)
	}
}

func keysAreSourceAndID(t *testing.T, s *store) {
	const v7 = "018f0000-0000-7000-8000-00000000000a"
	keys := []dedup.Key{
		{Source: "/a", ID: "1"}, {Source: "/b", ID: "1"}, {Source: "/a", ID: "2"}, {Source: "/a1", ID: ""}, {Source: "", ID: "/a1"}, {Source: "", ID: ""},
		{Source: "/a", ID: v7}, {Source: "/b", ID: v7}, {Source: "/a", ID: "\xff\x00"}, {Source: "/a", ID: "\xff"}, {Source: "/a", ID: strings.Repeat("x", 10_000)},
	}
	for i, k := range keys {
		answer, err := s.once(t.Context(), k, returns(string(rune('a'+i))))
		require.NoError(t, err)
		require.False(t, answer.Duplicate, "%q", k)
	}
	for i, k := range keys {
		answer, err := s.once(t.Context(), k, s.never)
		require.NoError(t, err)
		require.Equal(t, string(rune('a'+i)), string(answer.Response), "%q", k)
	}
	answer, err := s.once(t.Context(), dedup.Key{Source: "/a", ID: strings.ToUpper(v7)}, s.never)
	require.NoError(t, err)
	require.True(t, answer.Duplicate, "a UUID is the same in capitals")
}

func failureFreesTheKey(t *testing.T, s *store) {
	for range 2 {
		_, err := s.once(t.Context(), key("1"), func(context.Context) ([]byte, error) { return []byte("lost"), errFailed })
		require.ErrorIs(t, err, errFailed)
	}
	answer, err := s.once(t.Context(), key("1"), returns("second"))
	require.NoError(t, err)
	require.Equal(t, dedup.Answer{Response: []byte("second")}, answer)
}

func panicFreesTheKey(t *testing.T, s *store) {
	require.PanicsWithValue(t, "on purpose", func() {
		_, _ = s.once(t.Context(), key("1"), func(context.Context) ([]byte, error) { panic("on purpose") })
	})
	answer, err := s.once(t.Context(), key("1"), returns("second"))
	require.NoError(t, err)
	require.False(t, answer.Duplicate)
}

// A transaction that rolls back although its call succeeded takes the call back.
// A store without transactions has nothing to roll back.
func rollbackFreesTheKey(t *testing.T, s *store) {
	in, end, err := s.begin(t.Context())
	require.NoError(t, err)
	_, err = in.Once(t.Context(), key("1"), returns("first"))
	require.NoError(t, err)
	again, err := in.Once(t.Context(), key("1"), s.never)
	require.NoError(t, err)
	require.True(t, again.Duplicate, "in the same transaction")
	require.NoError(t, end(false))
	answer, err := s.once(t.Context(), key("1"), returns("second"))
	require.NoError(t, err)
	if answer.Duplicate { // no transactions
		require.Equal(t, "first", string(answer.Response))
		return
	}
	require.Equal(t, "second", string(answer.Response))
}
