package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/outboxkit/outboxkit/internal/page"
)

// pageStore shows on the page what relay dlq prints of a store: what is hidden from
// the one is hidden from the other, because both ask a deadStore.
type pageStore struct {
	name string
	// open returns the store with a decoder for one request: it is not safe for
	// concurrent use, and remembers that a registry was away.
	open     func() deadStore
	command  func(args ...string) string
	again    string   // what a redrive does: published, handled
	finished []string // states that are only listed by name
}

// Name implements page.Store.
func (s *pageStore) Name() string { return s.name }

// List implements page.Store.
func (s *pageStore) List(ctx context.Context, f page.Filter, after int64, limit int) ([]page.Letter, error) {
	return s.list(ctx, dlqFilter{Owner: f.Owner, State: f.State, Type: f.Type, Key: f.Key, ID: f.ID, Reason: f.Reason}, after, limit)
}

func (s *pageStore) list(ctx context.Context, f dlqFilter, after int64, limit int) ([]page.Letter, error) {
	found, err := s.open().list(ctx, f, after, limit)
	list := make([]page.Letter, len(found))
	for i := range found {
		list[i] = pageLetter(&found[i])
	}
	return list, told(err)
}

// Find implements page.Store.
func (s *pageStore) Find(ctx context.Context, id string, limit int) ([]page.Letter, error) {
	var all []page.Letter
	for _, state := range append([]string{""}, s.finished...) {
		list, err := s.list(ctx, dlqFilter{ID: id, State: state}, 0, limit-len(all))
		if err != nil {
			return nil, err
		}
		if all = append(all, list...); len(all) == limit {
			break
		}
	}
	return all, nil
}

// Show implements page.Store.
func (s *pageStore) Show(ctx context.Context, n int64) (page.Letter, error) {
	l, err := s.open().show(ctx, n)
	if err != nil {
		return page.Letter{}, told(err)
	}
	shown := pageLetter(&l)
	for _, line := range letterLines(l) {
		shown.Lines = append(shown.Lines, page.Line{Name: line.name, Text: printableLines(line.text)})
	}
	shown.Payload, shown.Commands = printableLines(payloadText(l)), s.commands(&l)
	return shown, nil
}

// shownInRow bounds a text in a list: keys and errors may be long, and a page has
// many of them.
const shownInRow = 200

func pageLetter(l *letter) page.Letter {
	text := func(s string) string { return shorten(printable(s), shownInRow) }
	return page.Letter{
		N: l.N, Owner: text(l.Pipeline + l.Consumer), State: l.State, Topic: text(l.Topic), Key: text(l.Key), Type: text(l.Type),
		Class: text(l.Class), Reason: text(l.Reason), Attempts: l.Attempts, StoredAt: l.StoredAt,
	}
}

// printableLines keeps the lines of a text and nothing else that steers.
func printableLines(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\t", "  "), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// commands are what a person can do about a letter. WHY is theirs to replace.
func (s *pageStore) commands(l *letter) []page.Command {
	n := fmt.Sprint(l.N)
	act := func(verb string) string { return s.command("dlq", verb, "--n", n, "--reason", "WHY") }
	list := []page.Command{{What: "Print it", Command: s.command("dlq", "show", n)}}
	discard := page.Command{What: "Give it up for good; what waits behind it goes on", Command: act("discard")}
	switch l.State {
	case "dead", "moving", "moved":
		return append(list, page.Command{What: fmt.Sprintf("Have it %s again, and what waits behind it, once the cause is mended", s.again), Command: act("redrive")}, discard)
	case "retrying":
		return append(list, page.Command{What: "Have it tried at once", Command: act("redrive")}, discard)
	case "blocked":
		if printable(l.Key) == l.Key { // else a copied line would not be the same
			list = append(list, page.Command{What: "It waits behind an earlier event of its key: see that one", Command: s.command("dlq", "list", "--key", l.Key)})
		}
		return append(list, discard)
	}
	return list
}
