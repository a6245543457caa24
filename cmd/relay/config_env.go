package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"
)

// envPrefix begins the variables that set a key: OUTBOXKIT_PIPELINES_0_KAFKA_BROKERS.
const envPrefix = "OUTBOXKIT_"

func (v *validator) environment() koanf.Provider {
	return env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: func(name, text string) (string, any) {
		if text == "" || name == envConfig {
			return "", nil // an empty variable counts as none: compose files make them so
		}
		path, t, ok := settingOf(strings.TrimPrefix(name, envPrefix))
		if !ok {
			v.unknownVariable(name)
			return "", nil
		}
		return v.text(name, text, path, t)
	}})
}

// settingOf finds what a variable sets. Names have underscores themselves, so it
// asks the types where one ends.
func settingOf(variable string) (path string, t reflect.Type, ok bool) {
	return settingIn(reflect.TypeFor[config](), "", variable)
}

func settingIn(group reflect.Type, path, variable string) (string, reflect.Type, bool) {
	for _, k := range keysOf(group) {
		rest, ok := strings.CutPrefix(variable, strings.ToUpper(k.name))
		if !ok {
			continue
		}
		at, inner := below(path, k.name), k.typ
		if isGroupList(inner) {
			number, more, found := strings.Cut(strings.TrimPrefix(rest, "_"), "_")
			n, err := strconv.Atoi(number)
			if !found || err != nil || !strings.HasPrefix(rest, "_") || strconv.Itoa(n) != number || n < 0 {
				continue
			}
			at, inner, rest = fmt.Sprintf("%s[%d]", at, n), inner.Elem(), "_"+more
		}
		switch {
		case isGroup(inner) && strings.HasPrefix(rest, "_"):
			if path, t, ok := settingIn(inner, at, rest[1:]); ok {
				return path, t, true
			}
		case !isGroup(inner) && rest == "":
			return at, inner, true
		}
	}
	return "", nil, false
}

var (
	numbered = regexp.MustCompile(`_\d+_`)
	// Kubernetes puts variables into every pod for each service of its namespace.
	serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
)

// unknownVariable warns: others may have variables of this prefix for reasons of
// their own, but a misspelt one should be found.
func (v *validator) unknownVariable(name string) {
	if serviceLink.MatchString(name) {
		return
	}
	var known []key
	for _, s := range allSettings() {
		known = append(known, key{name: strings.ToLower(s.variable()), typ: s.typ})
	}
	warning := fmt.Sprintf("the environment variable %s sets nothing", name)
	if meant := suggestion(numbered.ReplaceAllString(name, "_N_"), known); meant != "" {
		warning += fmt.Sprintf(": did you mean %s?", strings.ToUpper(meant))
	} else {
		warning += ": docs/configuration.md has all that do"
	}
	v.warnings = append(v.warnings, warning)
}
