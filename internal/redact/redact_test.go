package redact

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFieldsAreHidden(t *testing.T) {
	t.Parallel()
	const doc = `{"id":12345678901234567890,"customer":{"email":"a@b","name":{"first":"Ann"}},"items":[{"card":"4111"},{"CARD":{"no":1}}],"email":"c@d","a.b":1}`
	for rules, want := range map[string]string{
		"":                        doc,
		"card":                    strings.NewReplacer(`"4111"`, `"***"`, `{"no":1}`, `"***"`).Replace(doc),
		"email":                   strings.NewReplacer(`"a@b"`, `"***"`, `"c@d"`, `"***"`).Replace(doc),
		"customer.email":          strings.Replace(doc, `"a@b"`, `"***"`, 1),
		"$.Customer.Email":        strings.Replace(doc, `"a@b"`, `"***"`, 1),
		"customer":                strings.Replace(doc, `{"email":"a@b","name":{"first":"Ann"}}`, `"***"`, 1),
		"customer.first":          strings.Replace(doc, `"Ann"`, `"***"`, 1),
		"items[*].card":           strings.NewReplacer(`"4111"`, `"***"`, `{"no":1}`, `"***"`).Replace(doc),
		"a.b":                     strings.Replace(doc, `"a.b":1`, `"a.b":"***"`, 1),
		"id":                      strings.Replace(doc, `12345678901234567890`, `"***"`, 1),
		"email.customer":          doc,
		"customer.email,id,first": strings.NewReplacer(`"a@b"`, `"***"`, `12345678901234567890`, `"***"`, `"Ann"`, `"***"`).Replace(doc),
		"all":                     `"***"`,
		"id,all":                  `"***"`,
	} {
		var list []string
		if rules != "" {
			list = strings.Split(rules, ",")
		}
		r, err := Parse(list)
		require.NoError(t, err)
		require.Equal(t, rules == "", r.Empty())
		got, err := r.JSON([]byte(doc))
		require.NoError(t, err)
		require.JSONEq(t, want, string(got), rules)
		if !r.All() && !strings.Contains(rules, "id") {
			require.Contains(t, string(got), "12345678901234567890", "digits are kept")
		}
	}
}

func TestBadRules(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{"", " ", ".", "a..b", "a.", "*", "a[0]", "a['b']"} {
		_, err := Parse([]string{"fine", rule})
		require.ErrorContains(t, err, "is not a field", rule)
	}
}

func TestWhatIsNoDocumentIsNotQuoted(t *testing.T) {
	t.Parallel()
	r, err := Parse([]string{"x"})
	require.NoError(t, err)
	for _, doc := range []string{"", "hunter2", `{"x":"hunter2"`, `{"x":1} hunter2`, `{} {"x":"hunter2"}`} {
		_, err := r.JSON([]byte(doc))
		require.Error(t, err, doc)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// FuzzJSON: whatever the document is, a hidden value is not in what is shown.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"secret":"x","a":[{"Secret":{"b":1}}]}`))
	f.Add([]byte(`{"a":{"secret":1},"secret":null,"\u0073ecret":2}`))
	f.Add([]byte(`[[[[{"secret":[]}]]]]`))
	f.Add([]byte(`1e400`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		r, err := Parse([]string{"secret", "outer.inner"})
		if err != nil {
			t.Fatal(err)
		}
		shown, err := r.JSON(doc)
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(shown))
		d.UseNumber() // as they may be too large for a float64
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%q became %q: %v", doc, shown, err)
		}
		onlyMarks(t, v, false)
	})
}

// onlyMarks fails if a secret has a value.
func onlyMarks(t *testing.T, v any, outer bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			lower := strings.ToLower(name)
			if (lower == "secret" || outer && lower == "inner") && inner != Mark {
				t.Fatalf("%q is shown: %v", name, inner)
			}
			onlyMarks(t, inner, outer || lower == "outer")
		}
	case []any:
		for _, inner := range v {
			onlyMarks(t, inner, outer)
		}
	}
}
