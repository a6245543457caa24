package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// settings says where a configuration comes from: the file, over it the environment,
// over that the flags.
type settings struct {
	path  string
	flags *pflag.FlagSet // of the command; nil where none sets a key
}

// Names of the file.
const (
	defaultPath = "relay.yaml"
	envConfig   = envPrefix + "CONFIG"
)

// configFlag adds --config.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", cmp.Or(os.Getenv(envConfig), defaultPath), "configuration `file`, explained in docs/configuration.md (environment: "+envConfig+")")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // it is there
}

// keyFlags adds the flags that set a key.
func keyFlags(cmd *cobra.Command) {
	for _, s := range flagged() {
		name := s.tag.Get("flag")
		cmd.Flags().String(name, "", s.tag.Get("doc"))
		if values := s.tag.Get("values"); values != "" {
			completeFlag(cmd, name, choices(strings.Split(values, ", ")...))
		}
	}
}

// flagged lists the settings that have a flag.
func flagged() []setting {
	return slices.DeleteFunc(allSettings(), func(s setting) bool { return s.tag.Get("flag") == "" || strings.Contains(s.path, "[") })
}

// read puts the layers together. Problems of form are in the validator; the error is
// for what leaves nothing to look at.
func (s settings) read() (config, *validator, error) {
	var c config
	v := &validator{file: s.path, origins: map[string]origin{}}
	k := koanf.New(".")
	missing := k.Load(fileLayer{v}, nil)
	if missing != nil && (s.path != defaultPath || !errors.Is(missing, fs.ErrNotExist)) {
		return c, v, missing
	}
	if err := k.Load(v.environment(), nil); err != nil {
		return c, v, err
	}
	if s.flags != nil {
		if err := k.Load(v.flagLayer(s.flags), nil); err != nil {
			return c, v, err
		}
	}
	if missing != nil {
		if len(v.origins) == 0 {
			return c, v, missing
		}
		v.file += " (no such file)" // the environment and the flags may have everything
	}
	v.checkGaps()
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{Tag: "yaml", DecoderConfig: &mapstructure.DecoderConfig{
		DecodeHook: mapstructure.DecodeHookFuncType(entries), SquashTagOption: "inline", ErrorUnused: true,
	}})
	if err != nil {
		return c, v, &configError{place: origin{name: v.file}, problem: "cannot be put together", cause: err}
	}
	return c, v, nil
}

// entries makes lists of groups of what the reader made maps by number.
func entries(_, to reflect.Type, data any) (any, error) {
	byNumber, ok := data.(map[string]any)
	if !ok || to.Kind() != reflect.Slice {
		return data, nil
	}
	numbers := slices.SortedFunc(maps.Keys(byNumber), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	list := make([]any, 0, len(numbers))
	for _, n := range numbers {
		list = append(list, byNumber[n])
	}
	return list, nil
}

// fileLayer is a koanf.Provider.
type fileLayer struct{ *validator }

// ReadBytes is not used: lines are gone from what koanf's parsers return.
func (fileLayer) ReadBytes() ([]byte, error) { return nil, errors.ErrUnsupported }

func (l fileLayer) Read() (map[string]any, error) {
	data, err := os.ReadFile(l.file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, &configError{place: origin{name: l.file}, problem: "cannot be read; name another with --config or " + envConfig, cause: err}
	}
	return l.document(data)
}

func (v *validator) document(data []byte) (map[string]any, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, second yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return nil, nil //nolint:nilnil // an empty file lacks everything
	} else if err != nil {
		return nil, errors.Join(v.decodeErrors(err)...)
	}
	if err := decoder.Decode(&second); err == nil {
		v.refuse(origin{v.file, second.Line}, "", "has a second document, behind ---: write one file for each relay")
	} else if !errors.Is(err, io.EOF) {
		return nil, errors.Join(v.decodeErrors(err)...)
	}
	// The library finds keys that are there twice, and what contains itself, which
	// the reading could not walk.
	var all any
	if err := root.Decode(&all); err != nil {
		problems := v.decodeErrors(err)
		if types := (*yaml.TypeError)(nil); !errors.As(err, &types) {
			return nil, errors.Join(problems...)
		}
		v.problems = append(v.problems, problems...)
	}
	if len(root.Content) == 0 {
		return nil, nil //nolint:nilnil // as above
	}
	got, _ := reading{v, v.file}.value(root.Content[0], reflect.TypeFor[config](), "")
	values, _ := got.(map[string]any)
	return values, nil
}

func (v *validator) flagLayer(flags *pflag.FlagSet) koanf.Provider {
	byFlag := map[string]setting{}
	for _, s := range flagged() {
		byFlag[s.tag.Get("flag")] = s
	}
	return posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
		s, ok := byFlag[f.Name]
		if !ok || !f.Changed {
			return "", nil
		}
		return v.text("--"+f.Name, f.Value.String(), s.path, s.typ)
	})
}

// text reads the value of a variable or flag, and returns it with koanf's key.
func (v *validator) text(name, text, path string, t reflect.Type) (key string, value any) {
	v.origins[path] = origin{name: name}
	for i := range path {
		if _, ok := v.origins[path[:i+1]]; path[i] == ']' && !ok {
			v.origins[path[:i+1]] = origin{name: name} // an entry that the file does not have
		}
	}
	n, ok := nodeOf(text, t)
	if !ok {
		v.fail(path, "cannot be read: write JSON, such as %s", map[bool]string{true: `{"orders": "shop.orders.v1"}`, false: `["one", "two"]`}[t.Kind() == reflect.Map])
		return "", nil
	}
	if value, ok = (reading{v, name}).value(n, t, path); !ok {
		return "", nil
	}
	return strings.NewReplacer("[", ".", "]", "").Replace(path), value
}

// nodeOf is a text as YAML: text stays as it is, a list may be JSON or separated by
// commas, everything else is JSON.
func nodeOf(text string, t reflect.Type) (*yaml.Node, bool) {
	text = strings.TrimSpace(text)
	switch {
	case t.Kind() == reflect.String:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}, true
	case t.Kind() == reflect.Slice && !strings.HasPrefix(text, "["):
		list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for part := range strings.SplitSeq(text, ",") {
			list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.TrimSpace(part)})
		}
		return list, true
	}
	var root yaml.Node
	var all any // as in document: what contains itself
	if yaml.Unmarshal([]byte(text), &root) != nil || len(root.Content) == 0 || root.Decode(&all) != nil {
		return nil, false
	}
	return root.Content[0], true
}

var entry = regexp.MustCompile(`^(.*)\[(\d+)\]$`)

// checkGaps refuses entries whose numbers leave some out.
func (v *validator) checkGaps() {
	for _, at := range slices.Sorted(maps.Keys(v.origins)) {
		parts := entry.FindStringSubmatch(at)
		if parts == nil {
			continue
		}
		n, _ := strconv.Atoi(parts[2])
		before := fmt.Sprintf("%s[%d]", parts[1], n-1)
		if _, ok := v.origins[before]; n > 0 && !ok {
			v.fail(at, "is there, but %s is not: number the entries from 0, without a gap", before)
		}
	}
}
