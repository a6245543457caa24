package avro

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
)

// Files are the schemas of a folder, or of files embedded in the program. A file
// name.avsc is the schema as it is now; files of one folder may refer to each
// other's types. A file name.v3.avsc is version 3, which does not change any more
// and refers to no other file: what was once in use, kept to decide what may
// follow and to read what it wrote.
//
// As a [schema.Registry] its subjects are the full names of top-level types
// (schema.ByRecord). It is safe for concurrent use.
type Files struct {
	// Mode is the rule by which schemas may change. Default: BACKWARD_TRANSITIVE,
	// because what is in a log or a topic may be of any version.
	Mode schema.Mode

	dir     string // "" where nothing can be written
	current map[string]event.Schema
	paths   map[string]string // of current
	frozen  map[string][]schema.Version
}

var _ schema.Registry = (*Files)(nil)

// ErrNoSchema says that no file defines a name at its top level.
var ErrNoSchema = errors.New("no such schema")

// frozenFile is the name of an earlier version.
var frozenFile = regexp.MustCompile(`\.v([1-9][0-9]{0,8})\.avsc$`)

// Open reads the .avsc files below a folder, and lets Register add some.
func Open(dir string) (*Files, error) {
	f, err := Load(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	f.dir = dir
	return f, nil
}

// Load reads every .avsc file of a file system, such as an embed.FS. The error names
// the file and wraps [ErrSchema] if its content is at fault.
func Load(fsys fs.FS) (*Files, error) {
	f := &Files{
		Mode: schema.BackwardTransitive, current: map[string]event.Schema{}, paths: map[string]string{},
		frozen: map[string][]schema.Version{},
	}
	docs := map[string]any{}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".avsc" {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if number := frozenFile.FindStringSubmatch(name); number != nil {
			err = f.addFrozen(string(text), number[1])
		} else {
			docs[name], err = readDocument(string(text))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("avro: %w", err)
	}
	if err := f.addCurrent(docs); err != nil {
		return nil, fmt.Errorf("avro: %w", err)
	}
	for name, list := range f.frozen {
		slices.SortFunc(list, func(a, b schema.Version) int { return a.Number - b.Number })
		for i := 1; i < len(list); i++ {
			if list[i].Number == list[i-1].Number {
				return nil, schemaErrorf("%s has version %d twice", name, list[i].Number)
			}
		}
	}
	return f, nil
}

func (f *Files) addFrozen(text, number string) error {
	s, name, err := f.parse(text)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(number)
	f.frozen[name] = append(f.frozen[name], schema.Version{Number: n, Schema: s})
	return err
}

func (f *Files) parse(text string) (event.Schema, string, error) {
	c, err := Parse(text)
	if err != nil {
		return event.Schema{}, "", err
	}
	if c.root.name == "" {
		return event.Schema{}, "", schemaErrorf("a file's top-level type must have a name: a record, an enum or a fixed")
	}
	return c.Schema(), c.root.name, nil
}

func (f *Files) addCurrent(docs map[string]any) error {
	known := map[string]definition{}
	files := slices.Sorted(maps.Keys(docs))
	for _, file := range files {
		if err := definitions(docs[file], "", func(d definition) error {
			if other, ok := known[d.name]; ok {
				return schemaErrorf("%s and %s both define %s", other.file, file, d.name)
			}
			d.file = file
			known[d.name] = d
			return nil
		}); err != nil {
			return err
		}
	}
	for _, file := range files {
		text, err := whole(docs[file], known, file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		s, name, err := f.parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		f.current[name], f.paths[name] = s, file
	}
	return nil
}

// whole returns a file's schema as one document.
func whole(doc any, known map[string]definition, file string) (string, error) {
	in := inliner{known: known, written: map[string]bool{}}
	out, err := in.rewrite(doc, "", file)
	if err != nil {
		return "", err
	}
	if !in.foreign {
		out = doc // as it was written
	}
	text, err := marshalText(out)
	return string(text), err
}

// Names returns the full names of the files' top-level types, sorted.
func (f *Files) Names() []string { return slices.Sorted(maps.Keys(f.current)) }

// Path returns the file that defines a name at its top level, "" if none does.
func (f *Files) Path(name string) string { return f.paths[name] }

// Schema returns the current schema of a name, with what it refers to inside.
func (f *Files) Schema(name string) (event.Schema, error) {
	if s, ok := f.current[name]; ok {
		return s, nil
	}
	if list := f.frozen[name]; len(list) > 0 {
		return list[len(list)-1].Schema, nil
	}
	return event.Schema{}, fmt.Errorf("avro: %w: %s", ErrNoSchema, name)
}

// Codec returns the codec of a name's current schema.
func (f *Files) Codec(name string) (*Codec, error) {
	s, err := f.Schema(name)
	if err != nil {
		return nil, err
	}
	return Parse(s.Text)
}

// MustCodec is Codec for schemas that are part of the program.
func (f *Files) MustCodec(name string) *Codec {
	c, err := f.Codec(name)
	if err != nil {
		panic(err)
	}
	return c
}

// SingleObject returns the wire format for messages of all schemas and versions.
func (f *Files) SingleObject() event.WireFormat {
	var known []event.Schema
	for _, name := range f.Names() {
		known = append(known, f.current[name])
	}
	for _, name := range slices.Sorted(maps.Keys(f.frozen)) {
		for _, v := range f.frozen[name] {
			known = append(known, v.Schema)
		}
	}
	return SingleObject(known...)
}

// Versions implements [schema.Registry]: the files name.v1.avsc, name.v2.avsc, ….
func (f *Files) Versions(_ context.Context, subject string) ([]schema.Version, error) {
	return slices.Clone(f.frozen[subject]), nil
}

// Verdict implements [schema.Registry] by the rules of [Compare].
func (f *Files) Verdict(_ context.Context, subject string, next event.Schema) (schema.Verdict, error) {
	return schema.Local(f.Mode, next, f.frozen[subject], Compare)
}

// Register implements [schema.Registry]: it writes the next name.vN.avsc beside the
// current file. Files that were not opened from a folder refuse it. The version is
// there for who opens the folder anew.
func (f *Files) Register(ctx context.Context, subject string, next event.Schema) (schema.Version, error) {
	list := f.frozen[subject]
	for _, v := range list {
		if v.Schema == next {
			return v, nil
		}
	}
	verdict, err := f.Verdict(ctx, subject, next)
	if err == nil {
		err = verdict.Error()
	}
	if err != nil {
		return schema.Version{}, err
	}
	v := schema.Version{Number: 1, Schema: next}
	if len(list) > 0 {
		v.Number = list[len(list)-1].Number + 1
	}
	at, ok := f.paths[subject]
	if !ok {
		at = subject + ".avsc"
	}
	name := fmt.Sprintf("%s.v%d.avsc", at[:len(at)-len(".avsc")], v.Number)
	if !fs.ValidPath(name) {
		return v, &event.FieldError{Field: "subject", Value: subject, Problem: "cannot be a file's name"}
	}
	if f.dir == "" {
		return v, fmt.Errorf("avro: %w: these files are only read; add %s to their source", errors.ErrUnsupported, name)
	}
	file, err := os.OpenFile(filepath.Join(f.dir, filepath.FromSlash(name)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the caller's folder
	if err != nil {
		return v, fmt.Errorf("avro: %w", err)
	}
	_, err = file.WriteString(next.Text + "\n")
	return v, errors.Join(err, file.Close())
}
