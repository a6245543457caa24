package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reading turns YAML into what the layers of a configuration are laid over each
// other as: groups become maps, and lists of groups maps by the number of the entry,
// so that a variable can set one key of one entry. It notes where each key stands,
// and refuses keys and types that config does not have.
type reading struct {
	*validator

	name string // of the file, the variable or the flag
}

// value returns false if there is none: null, or refused.
func (r reading) value(n *yaml.Node, t reflect.Type, path string) (any, bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return nil, false
	case isGroup(t) || t.Kind() == reflect.Map:
		if n.Kind != yaml.MappingNode {
			return r.wrongType(n, path, "group of keys")
		}
		if isGroup(t) {
			return r.group(n, t, path), true
		}
		return r.names(n, path), true
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return r.wrongType(n, path, "list")
		}
		if isGroupList(t) {
			return r.groups(n, t.Elem(), path), true
		}
		return r.texts(n, path), true
	default:
		return r.scalar(n, t, path)
	}
}

func (r reading) group(n *yaml.Node, t reflect.Type, path string) map[string]any {
	values, keys := map[string]any{}, keysOf(t)
	for _, p := range pairsOf(n) {
		name := p.key.Value
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		if i < 0 {
			r.unknownKey(p.key.Line, path, name, keys)
			continue
		}
		at := below(path, name)
		if on, ok := oldTLS(p.value, at); ok {
			if on {
				r.note(at, p.key.Line)
				values[name] = map[string]any{}
			}
			continue
		}
		r.note(at, p.key.Line)
		if v, ok := r.value(p.value, keys[i].typ, at); ok {
			values[name] = v
		}
	}
	return values
}

// oldTLS reads kafka.tls as v0.1.0-alpha.1 had it: true, which is {} now, or false, which
// is as if it were left out.
func oldTLS(n *yaml.Node, path string) (on, ok bool) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	ok = strings.HasSuffix(path, ".kafka.tls") && n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" && n.Decode(&on) == nil
	return on, ok
}

func (r reading) groups(n *yaml.Node, t reflect.Type, path string) map[string]any {
	values := map[string]any{}
	for i, entry := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		r.note(at, entry.Line)
		v, ok := r.value(entry, t, at)
		if !ok {
			v = map[string]any{} // keeps the place of those behind it
		}
		values[strconv.Itoa(i)] = v
	}
	return values
}

func (r reading) texts(n *yaml.Node, path string) []string {
	values := []string{}
	for i, entry := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		r.note(at, entry.Line)
		v, _ := r.value(entry, reflect.TypeFor[string](), at)
		text, _ := v.(string)
		values = append(values, text)
	}
	return values
}

// names reads a group whose keys are not ours, such as topics.
func (r reading) names(n *yaml.Node, path string) map[string]string {
	values := map[string]string{}
	for _, p := range pairsOf(n) {
		at := path + "." + p.key.Value
		r.note(at, p.key.Line)
		v, _ := r.value(p.value, reflect.TypeFor[string](), at)
		values[p.key.Value], _ = v.(string)
	}
	return values
}

func (r reading) scalar(n *yaml.Node, t reflect.Type, path string) (any, bool) {
	if n.Kind != yaml.ScalarNode {
		return r.wrongType(n, path, kindOf(t))
	}
	switch t.Kind() {
	case reflect.Bool:
		var v bool
		if n.Decode(&v) == nil {
			return v, true
		}
	case reflect.Int:
		var v int
		if n.ShortTag() == "!!int" && n.Decode(&v) == nil { // 1.5 would become 1
			return v, true
		}
	default: // as it stands there: 0123 is a good password
		return n.Value, true
	}
	return r.wrongType(n, path, kindOf(t))
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "whole number"
	default:
		return "text"
	}
}

// wrongType never quotes the value: it may be a password.
func (r reading) wrongType(n *yaml.Node, path, want string) (any, bool) {
	is := map[string]string{"!!str": "text", "!!seq": "list", "!!map": "group of keys", "!!int": "number", "!!float": "number", "!!bool": "true or false"}[n.ShortTag()]
	if is == "" {
		is = "thing of another kind"
	}
	r.refuse(origin{r.name, r.lineOf(n.Line)}, path, fmt.Sprintf("is a %s, must be a %s", is, want))
	return nil, false
}

func (r reading) unknownKey(line int, path, name string, keys []key) {
	problem := fmt.Sprintf("unknown field %q", name)
	if path != "" {
		problem += " in " + path
	}
	if meant := suggestion(name, keys); meant != "" {
		problem += fmt.Sprintf(": did you mean %s?", meant)
	} else {
		var known []string
		for _, k := range keys {
			known = append(known, k.name)
		}
		problem += ": known are " + strings.Join(known, ", ")
	}
	r.problems = append(r.problems, &configError{place: origin{r.name, r.lineOf(line)}, problem: problem})
}

// note remembers where a key stands.
func (r reading) note(path string, line int) { r.origins[path] = origin{r.name, r.lineOf(line)} }

// lineOf is 0 outside of the file: a variable has no lines to speak of.
func (r reading) lineOf(line int) int {
	if r.name != r.file {
		return 0
	}
	return line
}

type pair struct{ key, value *yaml.Node }

// pairsOf lists a mapping's keys, and those it merges (<<) behind its own, which go
// first. The caller has made sure that nothing contains itself.
func pairsOf(n *yaml.Node) []pair {
	var own, merged []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.ShortTag() == "!!merge" {
			merged = append(merged, mergedPairs(v)...)
			continue
		}
		own, seen[k.Value] = append(own, pair{k, v}), true
	}
	for _, p := range merged {
		if !seen[p.key.Value] {
			own, seen[p.key.Value] = append(own, p), true
		}
	}
	return own
}

func mergedPairs(n *yaml.Node) []pair {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		return pairsOf(n)
	case yaml.SequenceNode: // the first goes before the second
		var list []pair
		for _, entry := range n.Content {
			list = append(list, mergedPairs(entry)...)
		}
		return list
	default:
		return nil // the library has refused it
	}
}
