package schema

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/outboxkit/outboxkit/event"
)

// RecordName returns the full name of a schema's top-level type; only Avro's
// records, enums and fixed have one.
func RecordName(s event.Schema) (string, error) {
	var top struct {
		Name      string  `json:"name"`
		Namespace *string `json:"namespace"`
		Type      any     `json:"type"`
	}
	if s.Format != "avro" {
		return "", fmt.Errorf("schema: format %q has no record name: name the subject by topic", s.Format)
	}
	if err := json.Unmarshal([]byte(s.Text), &top); err != nil || top.Name == "" {
		return "", fmt.Errorf("schema: the top-level type has no name: only records, enums and fixed have one")
	}
	if strings.Contains(top.Name, ".") || top.Namespace == nil || *top.Namespace == "" {
		return strings.TrimPrefix(top.Name, "."), nil
	}
	return *top.Namespace + "." + top.Name, nil
}
