package main

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
	"github.com/outboxkit/outboxkit/event"
)

func TestPayloadValidator(t *testing.T) {
	require.Nil(t, pipelineConfig{}.validator())
	validate := pipelineConfig{Validate: true}.validator()
	order := event.Schema{Format: "avro", Text: `{"type":"record","name":"O","fields":[{"name":"items","type":{"type":"array","items":"string"}}]}`}
	for _, tt := range []struct {
		schema      event.Schema
		contentType string
		payload     string
		want        string // "" = fits
	}{
		{order, "application/avro", "\x02\x02a\x00", ""},
		{order, "application/avro", "\x02\x02\xff\x00", "items[0] at byte"},
		{order, "application/avro", "\x02\x02a\x00\x00", "bytes follow the end"},
		{order, "application/json", `{"items": []}`, "avro: "},
		{event.Schema{Format: "avro", Text: "{"}, "application/avro", "x", "invalid Avro schema"},
		{event.Schema{Format: "json"}, "application/json", `{}`, ""},
		{event.Schema{Format: "json"}, "application/json", `{`, "not JSON"},
		{event.Schema{}, "application/json", `{"a": 1}`, ""},
		{event.Schema{}, "application/vnd.x+json; charset=utf-8", `{"a": 1`, "not JSON"},
		{event.Schema{}, "text/plain", "hello", ""},
		{event.Schema{Format: "protobuf", Text: "x"}, "application/protobuf", "\x08", ""},
	} {
		err := validate(&brokers.Message{ContentType: tt.contentType, Payload: []byte(tt.payload)}, tt.schema)
		if tt.want == "" {
			require.NoError(t, err, tt)
		} else {
			require.ErrorContains(t, err, tt.want, tt)
		}
	}
}

func TestConfigOfRegistryAndValidation(t *testing.T) {
	t.Setenv("REGISTRY_TOKEN", "s3cret")
	write := func(more string) string {
		return writeConfig(t, "database: {url: 'postgres://u@127.0.0.1:1/d'}\npipelines:\n  - name: x\n    kafka: {brokers: ['127.0.0.1:1']}\n    validate: true\n    wire:\n      format: confluent\n      registry:\n        url: http://127.0.0.1:1\n"+more)
	}
	c, err := loadConfig(write("        token: ${REGISTRY_TOKEN}\n        subject: topic-record\n"))
	require.NoError(t, err)
	require.True(t, c.Pipelines[0].Validate)
	cfg := c.Pipelines[0].Wire.Registry.config()
	require.Equal(t, "s3cret", cfg.BearerToken)
	subject, err := cfg.Subject("orders", event.Schema{Format: "avro", Text: `{"type":"record","name":"n.O","fields":[]}`})
	require.NoError(t, err)
	require.Equal(t, "orders-n.O", subject)
	a := newAdapters(slog.Default())
	rc, err := c.relay(a, slog.Default())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, a.Close()) })
	require.NotNil(t, rc.Pipelines[0].Validate)
	require.Nil(t, rc.Pipelines[0].Validate(&brokers.Message{ContentType: "application/json", Payload: []byte(`{}`)}, event.Schema{}))
	_, err = loadConfig(write("        subject: key\n"))
	require.ErrorContains(t, err, `pipelines[0].wire.registry.subject: "key" is not known: use topic, record, topic-record`)
	_, err = loadConfig(write("        token: x\n        username: u\n"))
	require.Error(t, err)
}
