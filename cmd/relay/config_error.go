package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// configError points at the place in the file. It never quotes the file: a line
// may hold a password.
type configError struct {
	file    string
	line    int // 0 = the key is missing altogether
	field   string
	problem string
}

func (e *configError) Error() string {
	at := e.file
	if e.line > 0 {
		at = fmt.Sprintf("%s:%d", e.file, e.line)
	}
	if e.field == "" {
		return fmt.Sprintf("%s: %s", at, e.problem)
	}
	return fmt.Sprintf("%s: %s: %s", at, e.field, e.problem)
}

var (
	yamlLine     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type \S+$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `.*`)? into (\\S+)$")
)

// decodeErrors names line and field; the library's messages have the line only,
// and quote values.
func (v *validator) decodeErrors(err error) []error {
	messages := []string{err.Error()}
	var types *yaml.TypeError
	if errors.As(err, &types) {
		messages = types.Errors
	}
	var list []error
	for _, m := range messages {
		e := &configError{file: v.file, problem: m}
		if parts := yamlLine.FindStringSubmatch(m); parts != nil {
			e.line, _ = strconv.Atoi(parts[1])
			e.problem = parts[2]
		}
		if parts := unknownField.FindStringSubmatch(e.problem); parts != nil {
			e.problem = fmt.Sprintf("unknown field %q: docs/relay.yaml has all that are known", parts[1])
		} else if parts := wrongType.FindStringSubmatch(e.problem); parts != nil {
			e.field = fieldAt(v.document(), e.line, "")
			e.problem = fmt.Sprintf("is a %s, must be a %s", yamlKind(parts[1]), goKind(parts[2]))
		}
		list = append(list, e)
	}
	return list
}

func yamlKind(tag string) string {
	return map[string]string{"str": "text", "seq": "list", "map": "group of keys", "int": "number", "float": "number", "bool": "true or false"}[tag]
}

func goKind(typ string) string {
	switch {
	case strings.HasPrefix(typ, "[]"):
		return "list"
	case strings.HasPrefix(typ, "main."), strings.HasPrefix(typ, "map["):
		return "group of keys"
	case typ == "int":
		return "whole number"
	case typ == "bool":
		return "true or false"
	default:
		return "text"
	}
}

// fieldAt returns the innermost field whose value begins on a line, for example
// "pipelines[1].rabbitmq.queues".
func fieldAt(n *yaml.Node, line int, path string) string {
	if n == nil {
		return ""
	}
	found := ""
	for i, child := range n.Content {
		at := path
		switch n.Kind {
		case yaml.MappingNode:
			if i%2 == 0 {
				continue
			}
			at = strings.TrimPrefix(path+"."+n.Content[i-1].Value, ".")
		case yaml.SequenceNode:
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		if child.Line == line {
			found = at
		}
		if inner := fieldAt(child, line, at); inner != "" {
			found = inner
		}
	}
	return found
}
