package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"text/tabwriter"
)

// shownSetting is a setting that counts.
type shownSetting struct {
	Key   string `json:"key"`
	Value any    `json:"value"` // text, number, true or false, list or group of texts
	From  string `json:"from"`  // file and line, variable, flag, or default
}

const fromDefault = "default"

func (v *validator) show(c *config) []shownSetting {
	return v.shown(reflect.ValueOf(c).Elem(), "")
}

func (v *validator) shown(group reflect.Value, path string) []shownSetting {
	list := []shownSetting{}
	for _, k := range keysOf(group.Type()) {
		at, value := below(path, k.name), group.FieldByIndex(k.index)
		if value.Kind() == reflect.Pointer {
			if value.IsNil() && isGroup(k.typ) {
				continue // the other broker
			}
			value = reflect.Indirect(value) // invalid if nil
		}
		switch {
		case at == "database" && v.set("databases"):
		case isGroup(k.typ):
			list = append(list, v.shown(value, at)...)
		case isGroupList(k.typ):
			if !v.set(at) {
				continue // of a database that has those at the top
			}
			for i := range value.Len() {
				list = append(list, v.shown(value.Index(i), fmt.Sprintf("%s[%d]", at, i))...)
			}
		default:
			if s, ok := v.shownSetting(k, value, at); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// set reports whether a key, or an entry of a list, is in any of the layers.
func (v *validator) set(path string) bool {
	_, whole := v.origins[path]
	_, entry := v.origins[path+"[0]"]
	return whole || entry
}

// shownSetting returns false for what is neither set nor has a default.
func (v *validator) shownSetting(k key, value reflect.Value, at string) (shownSetting, bool) {
	s := shownSetting{Key: at, From: fromDefault, Value: k.otherwise(at)}
	empty := !value.IsValid() || value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0
	_, set := v.origins[at]
	switch {
	case empty && !(set && (k.typ.Kind() == reflect.Bool || k.typ.Kind() == reflect.Int)):
		return s, s.Value != "" // an empty text or list counts as none, false and 0 do not
	case set:
		s.From = v.place(at).String()
	}
	switch {
	case k.tag.Get("secret") == "value" && !empty:
		s.Value = hidden
	case k.tag.Get("secret") == "url":
		s.Value = shownURL(value.String())
	case value.Kind() == reflect.String:
		s.Value = withoutPasswords(value.String())
	default:
		s.Value = value.Interface()
	}
	return s, true
}

func showText(list []shownSetting) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range list {
		text, ok := s.Value.(string)
		if !ok {
			data, _ := json.Marshal(s.Value) // lists, maps, numbers: always possible
			text = string(data)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", printable(s.Key), printable(text), printable(s.From))
	}
	_ = w.Flush() // into memory
	return strings.TrimSuffix(b.String(), "\n")
}
