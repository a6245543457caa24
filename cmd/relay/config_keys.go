package main

import (
	"reflect"
	"slices"
	"strings"
)

// key is one key of a group of the configuration, as its struct describes it.
type key struct {
	name  string
	typ   reflect.Type // not a pointer
	tag   reflect.StructTag
	index []int // of the field
}

// keysOf lists the keys of a group in the order of the struct, those of inlined
// groups among them.
func keysOf(group reflect.Type) []key {
	var keys []key
	for i := range group.NumField() {
		f := group.Field(i)
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		typ := f.Type
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		switch {
		case option == "inline":
			for _, k := range keysOf(typ) {
				k.index = append([]int{i}, k.index...)
				keys = append(keys, k)
			}
		case name != "":
			keys = append(keys, key{name, typ, f.Tag, []int{i}})
		}
	}
	return keys
}

// otherwise is what counts where the key is left out, "" for nothing.
func (k key) otherwise(path string) string {
	if k.name == "schema" && strings.HasPrefix(path, "inboxes[") {
		return "inbox" // the struct is shared
	}
	return k.tag.Get("default")
}

func isGroup(t reflect.Type) bool { return t.Kind() == reflect.Struct }

func isGroupList(t reflect.Type) bool { return t.Kind() == reflect.Slice && isGroup(t.Elem()) }

// setting is a key with its place in the file; N stands for the number of an entry.
type setting struct {
	path string // for example pipelines[N].kafka.brokers
	key
}

// variable is the environment variable that sets it.
func (s setting) variable() string {
	return envPrefix + strings.ToUpper(strings.NewReplacer("[", "_", "]", "", ".", "_").Replace(s.path))
}

// allSettings lists every key that has a value of its own.
func allSettings() []setting { return settingsBelow(reflect.TypeFor[config](), "") }

func settingsBelow(group reflect.Type, path string) []setting {
	var list []setting
	for _, k := range keysOf(group) {
		at := below(path, k.name)
		switch {
		case isGroup(k.typ):
			list = append(list, settingsBelow(k.typ, at)...)
		case isGroupList(k.typ):
			list = append(list, settingsBelow(k.typ.Elem(), at+"[N]")...)
		default:
			list = append(list, setting{at, k})
		}
	}
	return list
}

func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// suggestion is what somebody meant who wrote an unknown name, "" if nobody can
// tell: a name that looks like it, or one of the same name in a group beside it.
func suggestion(name string, keys []key) string {
	var best string
	least := 1 + max(1, len(name)/3)
	for _, k := range keys {
		if d := distance(strings.ToLower(name), k.name); d < least {
			best, least = k.name, d
		}
	}
	if best != "" {
		return best
	}
	for _, k := range keys {
		if isGroup(k.typ) && slices.ContainsFunc(keysOf(k.typ), func(inner key) bool { return inner.name == name }) {
			return k.name + "." + name
		}
	}
	return ""
}

// distance is the number of letters to change, add, leave out or swap with their
// neighbour (Damerau and Levenshtein).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before, last, row []int
	for j := range len(y) + 1 {
		row = append(row, j)
	}
	for i := range x {
		before, last, row = last, row, []int{i + 1}
		for j := range y {
			differs := 1
			if x[i] == y[j] {
				differs = 0
			}
			d := min(last[j]+differs, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				d = min(d, before[j-1]+1)
			}
			row = append(row, d)
		}
	}
	return row[len(y)]
}
