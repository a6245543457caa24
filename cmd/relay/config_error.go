package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// origin is where a setting was made: a line of the file, a variable or a flag.
type origin struct {
	name string
	line int // 0 outside of the file, and where the key is missing altogether
}

func (o origin) String() string {
	if o.line > 0 {
		return fmt.Sprintf("%s:%d", o.name, o.line)
	}
	return o.name
}

// configError points at the place in the file, the variable or the flag. It never
// quotes the file: a line may hold a password.
type configError struct {
	place   origin
	field   string // "" where the problem names it
	problem string
	cause   error // may be nil
}

func (e *configError) Error() string {
	text := e.place.String() + ": "
	if e.field != "" {
		text += e.field + ": "
	}
	return text + e.reason()
}

func (e *configError) reason() string {
	if e.cause == nil {
		return e.problem
	}
	return e.problem + ": " + e.cause.Error()
}

func (e *configError) Unwrap() error { return e.cause }

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)
	yamlText = regexp.MustCompile("(anchor )'[^']*'|`[^`]*`")
	anchored = regexp.MustCompile(`^unknown anchor `)
)

// decodeErrors takes apart what the library says of a file that is not YAML: its
// messages quote values.
func (v *validator) decodeErrors(err error) []error {
	messages := []string{err.Error()}
	var types *yaml.TypeError
	if errors.As(err, &types) {
		messages = types.Errors
	}
	var list []error
	for _, m := range messages {
		parts := yamlLine.FindStringSubmatch(m)
		if parts == nil {
			parts = []string{"", "", "is not YAML"} // more than a line
		}
		line, _ := strconv.Atoi(parts[1])
		problem := yamlText.ReplaceAllString(parts[2], "${1}…")
		if anchored.MatchString(problem) {
			problem = "a text that begins with * has to be put in quotation marks"
		}
		list = append(list, &configError{place: origin{v.file, line}, problem: problem})
	}
	return list
}
