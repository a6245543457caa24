package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/avro"
	"github.com/outboxkit/outboxkit/schema/registry"
)

func newSchema() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Check schemas before they are deployed, register them, decode what they wrote",
		Long: `Check schemas before they are deployed, register them, decode what they wrote.

PATH is an .avsc file or a folder of them. Files of a folder may refer to each other's
types. A file name.v3.avsc is version 3, frozen. See docs/schemas.md.`,
	}
	cmd.AddCommand(newSchemaValidate(), newSchemaCheck(), newSchemaRegister(), newSchemaDecode())
	return cmd
}

// source is an .avsc file or a folder with its schemas.
type source struct {
	*avro.Files

	dir   string
	names []string // asked for: of the file, or all
}

func openSource(path string) (*source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s := &source{dir: path}
	if !info.IsDir() {
		s.dir = filepath.Dir(path)
	}
	if s.Files, err = avro.Open(s.dir); err != nil {
		return nil, fmt.Errorf("%s: %w", s.dir, err)
	}
	for _, name := range s.Names() {
		if info.IsDir() || filepath.Base(path) == s.Path(name) {
			s.names = append(s.names, name)
		}
	}
	if len(s.names) == 0 {
		return nil, fmt.Errorf("%s: no schema that may change: name an .avsc file other than a frozen .vN.avsc, or a folder with some", path)
	}
	return s, nil
}

// file is where a name is defined, as the user would write it.
func (s *source) file(name string) string {
	return filepath.Join(s.dir, filepath.FromSlash(s.Path(name)))
}

// one is the schema of --type, which may be left out if there is only one.
func (s *source) one(name string) (string, error) {
	switch {
	case name == "" && len(s.names) == 1:
		return s.names[0], nil
	case name == "":
		return "", wrongUse("--type is empty: which of %s?", strings.Join(s.names, ", "))
	case s.Path(name) == "":
		return "", wrongUse("--type %q is not one of %s", name, strings.Join(s.Names(), ", "))
	}
	return name, nil
}

// registryFlags say which registry, and which subject of it.
type registryFlags struct {
	url, token, topic, subject, strategy string
}

func (f *registryFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.url, "registry", "", "`URL` of a Confluent-compatible registry; ${NAME} is replaced by the environment's")
	flags.StringVar(&f.token, "token", "", "bearer token for it, for example ${REGISTRY_TOKEN}")
}

func (f *registryFlags) subjectFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.topic, "topic", "", "topic that the events go to: subject <topic>-value")
	flags.StringVar(&f.strategy, "strategy", "topic", "how a subject is named: topic, record or topic-record")
	flags.StringVar(&f.subject, "subject", "", "subject, instead of --topic and --strategy")
}

// commandTimeout bounds one request of a command: it may wait longer than a relay,
// which has others to publish meanwhile.
const commandTimeout = 20 * time.Second

// client returns nil without --registry.
func (f *registryFlags) client() (*registry.Client, error) {
	if f.url == "" {
		return nil, nil //nolint:nilnil // both mean none
	}
	url, err := expand(f.url)
	if err != nil {
		return nil, wrongUse("--registry: %w", err)
	}
	token, err := expand(f.token)
	if err != nil {
		return nil, wrongUse("--token: %w", err)
	}
	return registry.New(registry.Config{URL: url, BearerToken: token, Timeout: commandTimeout})
}

// alone refuses to take several schemas for versions of one subject.
func (f *registryFlags) alone(s *source) error {
	if f.url == "" || len(s.names) == 1 || f.subject == "" && f.strategy != "topic" {
		return nil
	}
	return wrongUse("%d schemas (%s) and one subject: name one file, or give --strategy record or topic-record", len(s.names), strings.Join(s.names, ", "))
}

func (f *registryFlags) subjectOf(s event.Schema) (string, error) {
	if f.subject != "" {
		return f.subject, nil
	}
	strategy, err := schema.ParseStrategy(f.strategy)
	if err != nil {
		return "", err
	}
	if f.topic == "" && f.strategy != "record" {
		return "", wrongUse("--topic is empty: whose subject? Or give --subject, or --strategy record")
	}
	return strategy(f.topic, s)
}
