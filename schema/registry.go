package schema

import (
	"context"
	"errors"
	"strings"

	"github.com/outboxkit/outboxkit/event"
)

// ErrIncompatible says that a schema may not follow the earlier ones. The message
// has a line for each place and the rule that is broken there.
var ErrIncompatible = errors.New("incompatible schema")

// Registry is where the versions of schemas live. Implementations are safe for
// concurrent use. Errors that wrap [event.ErrSchemaUnavailable] are worth a retry.
type Registry interface {
	// Versions returns a subject's schemas, oldest first; none, without an error, if
	// nobody knows the subject.
	Versions(ctx context.Context, subject string) ([]Version, error)
	// Verdict says whether next may be the next version, by the registry's own mode
	// and rules. It registers nothing. Without earlier versions anything may.
	Verdict(ctx context.Context, subject string, next event.Schema) (Verdict, error)
	// Register adds a version, or finds the one that has the same schema already.
	// It refuses what Verdict refuses.
	Register(ctx context.Context, subject string, next event.Schema) (Version, error)
}

// Version is one schema of a subject.
type Version struct {
	Number int    // 1, 2, …
	ID     uint32 // the registry's id in messages; 0 where there is none
	Schema event.Schema
}

// Check gives a registry's verdict on the next version of a subject and explains
// it: where a server says no more than that, the violations are found by compare
// (nil: none are). A server's verdict stands whatever compare finds, also if that
// does not know the format: violations beside Compatible are what the server does
// not look at, such as a changed unit of time.
func Check(ctx context.Context, r Registry, subject string, next event.Schema, compare Compare) (Verdict, error) {
	v, err := r.Verdict(ctx, subject, next)
	if err != nil || len(v.Violations) > 0 || compare == nil || v.Mode == None {
		return v, err
	}
	if versions, err := r.Versions(ctx, subject); err == nil {
		if local, err := Local(v.Mode, next, versions, compare); err == nil {
			v.Violations = local.Violations
		}
	}
	return v, nil
}

// Strategy names the subject of a topic's schema. The three of Confluent's are
// supplied.
type Strategy func(topic string, s event.Schema) (string, error)

// ByTopic is Confluent's TopicNameStrategy: "<topic>-value". It allows one record
// per topic.
func ByTopic(topic string, _ event.Schema) (string, error) { return topic + "-value", nil }

// ByRecord is Confluent's RecordNameStrategy: the full name of the Avro record, the
// same in every topic.
func ByRecord(_ string, s event.Schema) (string, error) { return RecordName(s) }

// ByTopicRecord is Confluent's TopicRecordNameStrategy: "<topic>-<full name>".
func ByTopicRecord(topic string, s event.Schema) (string, error) {
	name, err := RecordName(s)
	return topic + "-" + name, err
}

// ParseStrategy reads "topic", "record" or "topic-record"; "" is topic.
func ParseStrategy(name string) (Strategy, error) {
	switch strings.ReplaceAll(name, "_", "-") {
	case "", "topic":
		return ByTopic, nil
	case "record":
		return ByRecord, nil
	case "topic-record":
		return ByTopicRecord, nil
	}
	return nil, &event.FieldError{Field: "subject strategy", Value: name, Problem: "is not known", Hint: "use topic, record or topic-record"}
}
