// Package redact hides fields of payloads where people see them: on terminals, pages
// and in files that leave a machine.
package redact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Mark stands for what is hidden.
const Mark = "***"

// everything is the rule that hides payloads whole.
const everything = "all"

// Rules say what to hide. The zero value hides nothing. A Rules may be used from
// several goroutines.
type Rules struct {
	all   bool
	paths [][]string // lower case
}

// Parse reads rules: "all"; a name, which hides each field of that name wherever it
// is; or a path such as "customer.email", which hides each email somewhere below a
// customer, be there lists, maps or unions between them. Case does not matter, and
// what belongs to JSONPath ("$.", "[*]") is left out.
func Parse(rules []string) (Rules, error) {
	var r Rules
	for _, text := range rules {
		path := strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "$.")
		path = strings.NewReplacer("[*]", "", "[]", "").Replace(path)
		steps := strings.Split(path, ".")
		if slices.Contains(steps, "") || strings.ContainsAny(path, "[]*'\"") {
			return Rules{}, fmt.Errorf("%q is not a field: write its name, such as email, or a path, such as customer.email, or all", text)
		}
		if path == everything {
			r.all = true
			continue
		}
		r.paths = append(r.paths, steps)
		if len(steps) > 1 {
			r.paths = append(r.paths, []string{path}) // a name with dots
		}
	}
	return r, nil
}

// Empty reports whether nothing is hidden.
func (r Rules) Empty() bool { return !r.all && len(r.paths) == 0 }

// All reports whether payloads are hidden whole.
func (r Rules) All() bool { return r.all }

// JSON returns a document with [Mark] in place of what is hidden. The order of fields
// may change; numbers keep all their digits. What is no single JSON document is an
// error that does not quote it: hide it whole.
func (r Rules) JSON(doc []byte) (json.RawMessage, error) {
	if r.all {
		return json.Marshal(Mark)
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("redact: not a JSON document")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("redact: something follows the JSON document")
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(r.hide(v, make([]int, len(r.paths)))); err != nil {
		return nil, errors.New("redact: the document cannot be written")
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// hide returns v without what is hidden; met is how many names of each path stand
// above v. It changes v.
func (r Rules) hide(v any, met []int) any {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if below, hidden := r.enter(strings.ToLower(name), met); hidden {
				v[name] = Mark
			} else {
				v[name] = r.hide(inner, below)
			}
		}
	case []any:
		for i := range v {
			v[i] = r.hide(v[i], met)
		}
	}
	return v
}

// enter goes into a field. To have met a name as early as possible never misses a path.
func (r Rules) enter(name string, met []int) (below []int, hidden bool) {
	below = met
	for i, path := range r.paths {
		if path[met[i]] != name {
			continue
		}
		if met[i] == len(path)-1 {
			return nil, true
		}
		if &below[0] == &met[0] {
			below = slices.Clone(met)
		}
		below[i]++
	}
	return below, false
}
