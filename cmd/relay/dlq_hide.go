package main

import (
	"fmt"
	"slices"

	"github.com/outboxkit/outboxkit/internal/redact"
)

// checkHide names the first rule that is wrong.
func (v *validator) checkHide(c *config) {
	for i, rule := range c.Hide {
		if _, err := redact.Parse([]string{rule}); err != nil {
			v.fail(fmt.Sprintf("hide[%d]", i), "%v", err)
		}
	}
}

// hideRules are what no command and no page shows of payloads: what the file says, which
// loadConfig has checked, and what a flag adds.
func hideRules(file, flag []string) (redact.Rules, error) {
	rules, err := redact.Parse(slices.Concat(file, flag))
	if err != nil {
		return rules, wrongUse("--hide: %w", err)
	}
	return rules, nil
}

// conceal takes out of a letter what is hidden of its payload. What is not a document
// with fields is hidden whole, and so is why it could not be read: that may quote it.
func (d *decoder) conceal(l *letter) {
	if d.hide.Empty() || l.Payload == nil {
		return
	}
	l.Payload, l.Hidden = nil, true
	if l.DecodeError != "" {
		l.DecodeError = "it cannot be read (why is hidden)"
	}
	if (l.DecodedAs == asJSON || l.DecodedAs == asAvro) && !d.hide.All() {
		if doc, err := d.hide.JSON(l.Decoded); err == nil {
			l.Decoded = doc
			return
		}
	}
	l.Decoded = nil
}
