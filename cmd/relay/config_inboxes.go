package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema/avro"
)

// inboxEntry is a consumer's database, for relay dlq --inbox.
type inboxEntry struct {
	databaseConfig `yaml:",inline"`

	// Name is for --inbox. Default: the database's name in the URL.
	Name string          `yaml:"name" default:"the database in the URL" doc:"name for --inbox"`
	Wire inboxWireConfig `yaml:"wire"`

	hide []string // of the whole file
}

// inboxWireConfig says how to read payloads, as the consumer's inbox.Config.Wire.
type inboxWireConfig struct {
	wireConfig `yaml:",inline"`

	// Schemas are files with the schemas of single-object encoding, beside the
	// configuration.
	Schemas []string `yaml:"schemas" doc:"for single-object: .avsc files, beside the configuration"`
}

// checkInboxes is for relay dlq --inbox alone: a daemon need not have the variables.
func (v *validator) checkInboxes(c *config) {
	names := map[string]bool{}
	for i := range c.Inboxes {
		d, at := &c.Inboxes[i], fmt.Sprintf("inboxes[%d]", i)
		database := v.checkDatabase(at, &d.databaseConfig)
		if d.Name == "" {
			d.Name = database
		}
		if names[d.Name] && d.Name != "" {
			v.fail(at+".name", "%q is used twice: give each a name of its own, the URL's database is only the default", d.Name)
		}
		names[d.Name] = true
		v.checkWire(at, &d.Wire.wireConfig)
		if len(d.Wire.Schemas) > 0 && d.Wire.Format != wireSingleObject {
			v.fail(at+".wire.schemas", "is only used with wire.format: %s", wireSingleObject)
		}
	}
}

// inbox finds what --inbox names: a URL, or an entry of the configuration, of which
// nothing else needs to be there.
func (p *place) inbox(name string) (inboxEntry, error) {
	if strings.ContainsAny(name, ":=") { // both forms of Postgres; no name has these
		return p.inboxAt(name)
	}
	c, v, err := readConfig(p.path)
	if err != nil {
		return inboxEntry{}, err
	}
	v.checkInboxes(&c)
	v.checkHide(&c)
	if err := v.err(); err != nil {
		return inboxEntry{}, err
	}
	var names []string
	for _, d := range c.Inboxes {
		if d.Name == name {
			d.hide = c.Hide
			return d, nil
		}
		names = append(names, d.Name)
	}
	if len(names) == 0 {
		return inboxEntry{}, wrongUse("--inbox %q: %s has no list of inboxes; describe them there, or give a Postgres URL", name, p.path)
	}
	return inboxEntry{}, wrongUse("--inbox %q is not one of %s", name, strings.Join(names, ", "))
}

// inboxAt is an inbox that only its URL is known of. What a configuration hides, if there
// is one, stays hidden.
func (p *place) inboxAt(address string) (inboxEntry, error) {
	url, err := expand(address)
	if err != nil {
		return inboxEntry{}, wrongUse("--inbox: %w", err)
	}
	c, _, err := readConfig(p.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return inboxEntry{}, err
	}
	return inboxEntry{databaseConfig: databaseConfig{URL: url}, Name: address, hide: c.Hide}, nil
}

// open returns nil for bare bytes. Schemas are found beside the file config.
func (w inboxWireConfig) open(config string) (event.WireFormat, error) {
	if w.Format != wireSingleObject {
		return w.format()
	}
	var known []event.Schema
	for _, name := range w.Schemas {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(config), name)
		}
		text, err := os.ReadFile(name) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, wrongUse("wire.schemas: %w", err)
		}
		codec, err := avro.Parse(string(text))
		if err != nil {
			return nil, wrongUse("wire.schemas: %s: %w", name, err)
		}
		known = append(known, codec.Schema())
	}
	return avro.SingleObject(known...), nil
}
