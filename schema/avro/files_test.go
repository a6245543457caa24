package avro

import (
	"embed"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/schema"
)

//go:embed testdata/files
var embedded embed.FS

func files(t *testing.T, content map[string]string) *Files {
	t.Helper()
	f, err := Load(mapFS(content))
	require.NoError(t, err)
	return f
}

func mapFS(content map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range content {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestReferencesAcrossFiles(t *testing.T) {
	f, err := Load(embedded)
	require.NoError(t, err)
	require.Equal(t, []string{"shop.Currency", "shop.OrderPlaced", "shop.money.Money"}, f.Names())
	require.Equal(t, "testdata/files/order.avsc", f.Path("shop.OrderPlaced"))

	c := f.MustCodec("shop.OrderPlaced")
	data, err := c.EncodeJSON([]byte(`{"id": "o-1", "total": {"amount": 5, "currency": "EUR"}, "shipping": {"amount": 1, "currency": "USD"}, "parent": null}`))
	require.NoError(t, err)
	var v any
	require.NoError(t, c.Decode(data, event.Schema{}, &v))
	require.Equal(t, map[string]any{
		"id": "o-1", "parent": nil,
		"total":    map[string]any{"amount": int64(5), "currency": "EUR"},
		"shipping": map[string]any{"amount": int64(1), "currency": "USD"},
	}, v)

	// By hand: the first reference has the definition, the others its name; what
	// nobody here knows stays where it was.
	require.Equal(t, `{"type":"record","name":"OrderPlaced","namespace":"shop","x-owner":"orders <&>","fields":[`+
		`{"name":"id","type":"string"},`+
		`{"name":"total","type":{"type":"record","name":"Money","namespace":"shop.money","fields":[`+
		`{"name":"amount","type":"long"},{"name":"currency","type":{"type":"enum","name":"Currency","symbols":["EUR","USD"],"default":"EUR","namespace":"shop"}}]}},`+
		`{"name":"shipping","type":"shop.money.Money"},`+
		`{"name":"parent","type":["null","shop.OrderPlaced"],"default":null}]}`, c.Schema().Text)
}

// A file without references keeps its text, so that its fingerprint stays.
func TestFileWithoutReferencesStaysAsItIs(t *testing.T) {
	text := `{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":{"type":"fixed","name":"F","size":2}},{"name":"b","type":"F"}]}`
	s, err := files(t, map[string]string{"r.avsc": text, "readme.md": "x", "sub/o.avsc": `{"type":"enum","name":"O","symbols":["A"]}`}).Schema("n.R")
	require.NoError(t, err)
	require.Equal(t, MustParse(text).Schema(), s)
}

// A type without namespace keeps having none where it is put into another's.
func TestInlinedTypesKeepTheirNames(t *testing.T) {
	f := files(t, map[string]string{
		"a.avsc": `{"type":"record","name":"n.A","fields":[{"name":"m","type":{"type":"map","values":"m.B"}}]}`,
		"b.avsc": `{"type":"record","name":"B","namespace":"m","fields":[{"name":"c","type":["null","C"]},{"name":"a","type":["null","n.A"]}]}`,
		"c.avsc": `{"type":"record","name":"m.C","fields":[{"name":"f","type":{"type":"fixed","name":"F","size":1}}]}`,
		"d.avsc": `{"type":"record","name":"n.D","fields":[{"name":"f","type":"m.F"}]}`,
	})
	c := f.MustCodec("n.A")
	require.Equal(t, "n.A", c.root.name)
	b := c.root.fields[0].typ.item
	require.Equal(t, "m.B", b.name)
	require.Equal(t, "m.C", b.fields[0].typ.branches[1].name)
	require.Same(t, c.root, b.fields[1].typ.branches[1], "a cycle over two files")
	require.Equal(t, "m.F", f.MustCodec("n.D").root.fields[0].typ.name, "a type inside another file's")

	// Another file refers to a type before its own file comes to define it.
	f = files(t, map[string]string{
		"a.avsc": `{"type":"record","name":"n.A","fields":[{"name":"b","type":"m.B"},{"name":"own","type":{"type":"fixed","name":"Own","size":3}}]}`,
		"b.avsc": `{"type":"record","name":"m.B","fields":[{"name":"o","type":"n.Own"}]}`,
	})
	c = f.MustCodec("n.A")
	require.Equal(t, "n.Own", c.root.fields[1].typ.name)
	require.Same(t, c.root.fields[0].typ.fields[0].typ, c.root.fields[1].typ)
}

func TestFilesThatAreWrong(t *testing.T) {
	for want, content := range map[string]map[string]string{
		`a.avsc: avro: invalid Avro schema: unknown type "n.B": neither this file nor another`: {"a.avsc": `{"type":"record","name":"n.A","fields":[{"name":"b","type":"B"}]}`},
		"a.avsc and b.avsc both define E":                        {"a.avsc": enumOf(`"A"`, ``), "b.avsc": enumOf(`"B"`, ``)},
		"a.avsc: avro: invalid Avro schema: not JSON":            {"a.avsc": `{`},
		"top-level type must have a name":                        {"a.avsc": `"string"`},
		"E has version 1 twice":                                  {"a.v1.avsc": enumOf(`"A"`, ``), "b.v1.avsc": enumOf(`"B"`, ``)},
		`a.v1.avsc: avro: invalid Avro schema: unknown type "F"`: {"a.v1.avsc": rec(fld("a", `"F"`)), "f.avsc": fixedOf("F", "1")},
	} {
		_, err := Load(mapFS(content))
		require.ErrorIs(t, err, ErrSchema)
		require.ErrorContains(t, err, want)
	}
}

func TestFilesAsARegistry(t *testing.T) {
	f := files(t, map[string]string{
		"r.v1.avsc":  rec(fld("a", tInt)),
		"r.v10.avsc": rec(fld("a", tInt), fld("c", tStr, `,"default":""`)),
		"r.v2.avsc":  rec(fld("a", tInt), fld("b", tStr, `,"default":""`)),
		"r.avsc":     rec(fld("a", tLong), fld("c", tStr)),
	})
	versions, err := f.Versions(t.Context(), "n.R")
	require.NoError(t, err)
	require.Equal(t, []int{1, 2, 10}, []int{versions[0].Number, versions[1].Number, versions[2].Number})
	next, err := f.Schema("n.R")
	require.NoError(t, err)
	v, err := schema.Check(t.Context(), f, "n.R", next, Compare)
	require.NoError(t, err)
	require.EqualError(t, v.Error(), "incompatible schema: field `c`: added without default breaks BACKWARD (against version 2)\n"+
		"field `c`: added without default breaks BACKWARD (against version 1)")
	f.Mode = schema.Backward
	v, err = f.Verdict(t.Context(), "n.R", next)
	require.NoError(t, err)
	require.True(t, v.Compatible)

	wire := f.SingleObject()
	for _, s := range append(versions, schema.Version{Schema: next}) {
		sealed, err := wire.Seal(t.Context(), "t", s.Schema, []byte{2})
		require.NoError(t, err)
		got, _, err := wire.Open(t.Context(), "t", sealed)
		require.NoError(t, err)
		require.Equal(t, s.Schema, got)
	}
	_, err = f.Register(t.Context(), "n.R", next)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "r.v11.avsc")
	_, err = f.Codec("n.S")
	require.ErrorIs(t, err, ErrNoSchema)
}

func TestRegisterWritesTheNextVersion(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	register := func() (schema.Version, error) {
		f, err := Open(dir)
		require.NoError(t, err)
		s, err := f.Schema("n.R")
		require.NoError(t, err)
		return f.Register(t.Context(), "n.R", s)
	}
	write("f.avsc", `{"type":"fixed","name":"n.F","size":1}`)
	write("r.avsc", rec(fld("a", `"F"`)))
	v, err := register()
	require.NoError(t, err)
	require.Equal(t, 1, v.Number)
	v, err = register()
	require.NoError(t, err)
	require.Equal(t, 1, v.Number, "the same again is the same version")
	frozen, err := os.ReadFile(filepath.Join(dir, "r.v1.avsc"))
	require.NoError(t, err)
	require.Contains(t, string(frozen), `"size":1`, "it refers to no other file")

	write("r.avsc", rec(fld("a", `"F"`), fld("b", tInt)))
	_, err = register()
	require.ErrorIs(t, err, schema.ErrIncompatible)
	write("r.avsc", rec(fld("a", `"F"`), fld("b", tInt, `,"default":0`)))
	v, err = register()
	require.NoError(t, err)
	require.Equal(t, 2, v.Number)
	f, err := Open(dir)
	require.NoError(t, err)
	versions, err := f.Versions(t.Context(), "n.R")
	require.NoError(t, err)
	require.Len(t, versions, 2)
	_, err = f.Register(t.Context(), "../x", MustParse(tInt).Schema())
	require.ErrorContains(t, err, "cannot be a file's name")
}
