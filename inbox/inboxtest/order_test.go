package inboxtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

func messages(keys ...string) (msgs []brokers.Message) {
	for n, key := range keys {
		msgs = append(msgs, brokers.Message{Topic: "t", Key: key, ID: fmt.Sprint(n)})
	}
	return msgs
}

func ids(msgs []brokers.Message) (ids []string) {
	for _, m := range msgs {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestKeysReversed(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"4", "2", "5", "1", "0", "3"}, ids(keysReversed(messages("a", "", "b", "a", "", "b"), nil)))
}

func TestShuffledKeepsTheOrderOfKeys(t *testing.T) {
	t.Parallel()
	msgs := messages("a", "b", "c", "a", "b", "c", "a", "b", "c", "", "", "")
	msgs[5].Topic = "u" // the same key elsewhere is another
	orders := map[string]bool{}
	for seed := range uint64(200) {
		got := shuffled(msgs, rand.New(rand.NewPCG(seed, 0)))
		require.ElementsMatch(t, msgs, got)
		orders[fmt.Sprint(ids(got))] = true
		for _, lane := range []string{"036", "147", "28"} {
			var places []int
			for _, id := range lane {
				places = append(places, slices.Index(ids(got), string(id)))
			}
			require.True(t, slices.IsSorted(places), "%s in %v", lane, ids(got))
		}
		require.Equal(t, got, shuffled(msgs, rand.New(rand.NewPCG(seed, 0))), "a seed repeats")
	}
	require.Greater(t, len(orders), 190)
}

func TestRepeatedDeliversTwiceAndFirstInOrder(t *testing.T) {
	t.Parallel()
	msgs := messages("a", "a", "b", "a", "b")
	late := false
	for seed := range uint64(100) {
		got := repeated(msgs, rand.New(rand.NewPCG(seed, 0)))
		require.ElementsMatch(t, append(slices.Clone(msgs), msgs...), got)
		var first []string
		for _, id := range ids(got) {
			if !slices.Contains(first, id) {
				first = append(first, id)
			}
		}
		require.Equal(t, ids(msgs), first)
		late = late || got[1].ID == "1"
	}
	require.True(t, late, "a repetition may come after later events")
}

func TestDifference(t *testing.T) {
	t.Parallel()
	require.Empty(t, difference("a\nb", "a\nb"))
	require.Equal(t, "- b\n+ a\n+ c\n", difference("a\nb", "a\na\nc"))
	require.Equal(t, "the same lines in another order, from line 2:\n- b\n+ c\n", difference("a\nb\nc", "a\nc\nb"))
	long := difference("", fmt.Sprint(slices.Repeat([]string{"x\n"}, 30)))
	require.Contains(t, long, "+ and 11 more\n")
}
