package schema_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/json"
)

func avroOf(text string) event.Schema { return event.Schema{Format: "avro", Text: text} }

func TestParseMode(t *testing.T) {
	for _, name := range []string{"FULL_TRANSITIVE", "full_transitive", "Full-Transitive"} {
		m, err := schema.ParseMode(name)
		require.NoError(t, err)
		require.Equal(t, schema.FullTransitive, m)
		require.True(t, m.Transitive())
	}
	_, err := schema.ParseMode("both")
	require.ErrorContains(t, err, `mode "both" is not known (use NONE, BACKWARD, `)
}

func TestStrategies(t *testing.T) {
	order := avroOf(`{"type":"record","namespace":"shop","name":"Order","fields":[]}`)
	for name, want := range map[string]string{"": "t-value", "topic": "t-value", "record": "shop.Order", "topic-record": "t-shop.Order", "topic_record": "t-shop.Order"} {
		s, err := schema.ParseStrategy(name)
		require.NoError(t, err)
		got, err := s("t", order)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := schema.ParseStrategy("key")
	require.ErrorContains(t, err, "use topic, record or topic-record")
	for text, want := range map[string]string{
		`{"type":"record","name":"a.b.C","namespace":"x"}`: "a.b.C",
		`{"type":"enum","name":"C"}`:                       "C",
		`{"type":"fixed","name":"C","namespace":""}`:       "C",
	} {
		got, err := schema.RecordName(avroOf(text))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, s := range []event.Schema{avroOf(`"string"`), avroOf(`{"type":"array","items":"int"}`), avroOf(`{`), {Format: "json"}} {
		_, err := schema.ByTopicRecord("t", s)
		require.Error(t, err)
	}
}

// compare finds a reader unable to read what is longer than its own text.
func compare(reader, writer event.Schema) ([]schema.Problem, error) {
	if len(writer.Text) > len(reader.Text) {
		return []schema.Problem{{Path: "p", Rule: schema.TypeMismatch, Reader: reader.Text, Writer: writer.Text}}, nil
	}
	return nil, nil
}

// server is a registry that says no and not why.
type server struct {
	versions []schema.Version
	verdict  schema.Verdict
	err      error
	subject  string
}

func (s *server) Versions(_ context.Context, subject string) ([]schema.Version, error) {
	s.subject = subject
	return s.versions, s.err
}

func (s *server) Verdict(_ context.Context, subject string, _ event.Schema) (schema.Verdict, error) {
	s.subject = subject
	return s.verdict, s.err
}

func (s *server) Register(context.Context, string, event.Schema) (schema.Version, error) {
	return schema.Version{}, errors.ErrUnsupported
}

func TestServersVerdictIsExplained(t *testing.T) {
	s := &server{versions: []schema.Version{{Number: 1, Schema: avroOf("longer")}}, verdict: schema.Verdict{Mode: schema.Backward, Registry: "no"}}
	v, err := schema.Check(t.Context(), s, "x", avroOf("long"), compare)
	require.NoError(t, err)
	require.EqualError(t, v.Error(), "incompatible schema: field `p`: type changed from longer to long breaks BACKWARD")
	v, err = schema.Check(t.Context(), s, "x", avroOf("longest"), compare)
	require.NoError(t, err)
	require.EqualError(t, v.Error(), "incompatible schema: the registry refuses it by its rule BACKWARD and says: no", "the server's verdict stands")

	s.verdict = schema.Verdict{Mode: schema.Backward, Compatible: true}
	v, err = schema.Check(t.Context(), s, "x", avroOf("long"), compare)
	require.NoError(t, err)
	require.NoError(t, v.Error())
	require.Len(t, v.Violations, 1, "what the server does not look at is told")
	unknown := func(event.Schema, event.Schema) ([]schema.Problem, error) { return nil, errors.New("not this format") }
	v, err = schema.Check(t.Context(), s, "x", avroOf("long"), unknown)
	require.NoError(t, err)
	require.True(t, v.Compatible, "of a format without local rules the server alone decides")
}

func TestGate(t *testing.T) {
	s := &server{versions: []schema.Version{{Number: 1, Schema: avroOf("longer")}}, verdict: schema.Verdict{Mode: schema.Backward, Registry: "no"}}
	gate := schema.Gate(s, schema.ByTopic, compare)
	err := gate(t.Context(), event.Info{Name: "order", Topic: "orders", Codec: codec{avroOf("long")}})
	require.ErrorIs(t, err, schema.ErrIncompatible)
	require.EqualError(t, err, "subject \"orders-value\", mode BACKWARD: incompatible schema: field `p`: type changed from longer to long breaks BACKWARD")
	require.Equal(t, "orders-value", s.subject)

	s.verdict.Compatible = true
	require.NoError(t, gate(t.Context(), event.Info{Topic: "orders", Codec: codec{avroOf("longer")}}))
	s.err = event.ErrSchemaUnavailable
	require.ErrorIs(t, gate(t.Context(), event.Info{Topic: "orders", Codec: codec{avroOf("longer")}}), event.ErrSchemaUnavailable)
	require.NoError(t, gate(t.Context(), event.Info{Topic: "orders", Codec: json.New[int]()}), "plain JSON has no schema to compare")
	require.Error(t, schema.Gate(s, schema.ByRecord, compare)(t.Context(), event.Info{Codec: codec{avroOf(`"int"`)}}))
}

type codec struct{ s event.Schema }

func (c codec) Schema() event.Schema                 { return c.s }
func (codec) Encode(any) ([]byte, error)             { return nil, nil }
func (codec) Decode([]byte, event.Schema, any) error { return nil }
