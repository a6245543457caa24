package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
)

func letterTable(owner string, list []letter, limit int) string {
	if len(list) == 0 {
		return "no events"
	}
	t := newTable("n", owner, "state", "topic", "key", "type", "attempts", "stored", "class", "reason")
	for _, l := range list {
		t.AppendRow(table.Row{
			l.N, printable(l.Pipeline + l.Consumer), l.State, printable(l.Topic), shorten(printable(l.Key), 40), printable(l.Type), l.Attempts,
			l.StoredAt.UTC().Format(time.RFC3339), l.Class, shorten(printable(l.Reason), 60),
		})
	}
	text := t.Render()
	if len(list) == limit {
		text += fmt.Sprintf("\nperhaps more: --after %d", list[len(list)-1].N)
	}
	return text
}

func shorten(s string, runes int) string {
	if r := []rune(s); len(r) > runes {
		return string(r[:runes-1]) + "…"
	}
	return s
}

// printable keeps what others wrote from steering the terminal, by control
// characters or by changing the direction of the text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '·'
		}
		return r
	}, s)
}

// letterText is a whole event for people.
func letterText(l letter) string {
	var b strings.Builder
	for _, line := range append(letterLines(l), letterLine{"payload", payloadText(l)}) {
		first, rest, more := strings.Cut(line.text, "\n")
		fmt.Fprintf(&b, "%-13s %s\n", line.name, printable(first))
		if more {
			b.WriteString(indented(rest))
		}
	}
	return b.String()
}

type letterLine struct{ name, text string }

// letterLines are what there is to know of an event but its payload, as it was
// written: not yet printable.
func letterLines(l letter) (lines []letterLine) {
	line := func(name, value string) {
		if value != "" {
			lines = append(lines, letterLine{name, value})
		}
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			line(name, t.UTC().Format(time.RFC3339))
		}
	}
	line("n", fmt.Sprint(l.N))
	line("pipeline", l.Pipeline)
	line("consumer", l.Consumer)
	line("state", l.State)
	line("event id", l.ID)
	line("source", l.Source)
	line("type", l.Type)
	line("topic", l.Topic)
	line("destination", l.Destination)
	line("origin", l.Origin)
	line("key", l.Key)
	at("time", l.Time)
	line("class", l.Class)
	line("reason", l.Reason)
	line("attempts", fmt.Sprint(l.Attempts))
	if l.MayBeOut {
		line("may be out", "an attempt is under way, or ended without an answer: the broker may have the event")
	}
	at("stored at", l.StoredAt)
	at("next attempt", l.NextAttemptAt)
	if l.Action != "" {
		line(l.Action, fmt.Sprintf("%s by %s: %s", l.ActionAt.UTC().Format(time.RFC3339), l.ActionBy, l.ActionReason))
	}
	line("content type", l.ContentType)
	line("correlation", l.CorrelationID)
	line("causation", l.CausationID)
	line("headers", string(l.Headers))
	return lines
}

func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		fmt.Fprintf(&b, "%-13s %s\n", "", printable(strings.TrimSuffix(strings.ReplaceAll(line, "\t", "  "), "\n")))
	}
	return b.String()
}

// hexShown is how much of a payload that nobody can read is printed.
const hexShown = 1024

func payloadText(l letter) string {
	if l.Tombstone {
		return "none (a tombstone)"
	}
	size := int64(len(l.Payload))
	if l.Hidden {
		size = l.Bytes
	}
	text := fmt.Sprintf("%d bytes", size)
	if l.DecodedAs != "" {
		text += " of " + l.DecodedAs
	}
	if l.DecodeError != "" {
		text += "; " + l.DecodeError
	}
	var pretty bytes.Buffer
	var plain string
	switch {
	case l.DecodedAs == asText && json.Unmarshal(l.Decoded, &plain) == nil:
		text += "\n" + plain
	case l.Decoded != nil && json.Indent(&pretty, l.Decoded, "", "  ") == nil:
		text += "\n" + pretty.String()
	case l.Hidden:
		text += "\nhidden, as the configuration or --hide says"
	default:
		text += fmt.Sprintf("\n%x", l.Payload[:min(len(l.Payload), hexShown)])
		if len(l.Payload) > hexShown {
			text += fmt.Sprintf("… (the first %d; all of them: --json)", hexShown)
		}
	}
	return text
}
