package avro

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/event"
	"github.com/outboxkit/outboxkit/internal/svctest"
	"github.com/outboxkit/outboxkit/schema"
	"github.com/outboxkit/outboxkit/schema/registry"
)

func setMode(t *testing.T, base, subject string, mode schema.Mode) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"compatibility": string(mode)})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, base+"/config/"+subject, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// Every change, in both directions, by our rules and by a real registry's: they
// agree but where changes lists why they do not.
func TestVerdictsOfARealRegistry(t *testing.T) {
	base := svctest.Registry(t)
	client, err := registry.New(registry.Config{URL: base, Timeout: 30 * time.Second})
	require.NoError(t, err)
	prefix := svctest.Unique("changes")
	asked, differ := 0, 0
	for i, c := range changes {
		subject := fmt.Sprintf("%s-%d", prefix, i)
		_, err := client.Register(t.Context(), subject, avroSchema(c.old))
		require.NoError(t, err, c.name)
		theirs := c.theirs
		if c.differs == "" {
			theirs = [2]bool{c.backward, c.forward}
		} else {
			differ++
		}
		for mode, want := range map[schema.Mode]bool{schema.Backward: theirs[0], schema.Forward: theirs[1], schema.Full: theirs[0] && theirs[1], schema.None: true} {
			setMode(t, base, subject, mode)
			v, err := schema.Check(t.Context(), client, subject, avroSchema(c.new), Compare)
			require.NoError(t, err, c.name)
			require.Equal(t, mode, v.Mode)
			require.Equal(t, want, v.Compatible, "%s, %s: the registry says %q, we %v", c.name, mode, v.Registry, v.Violations)
			if !want {
				require.NotEmpty(t, v.Violations, "%s, %s: nobody explains it", c.name, mode)
				require.ErrorContains(t, v.Error(), " breaks ")
			}
			asked++
		}
	}
	t.Logf("%d changes, %d verdicts compared, %d changes where the verdicts differ", len(changes), asked, differ)
}

// All seven modes over three versions: 1 and 3 are such that what the last version
// allows an earlier one may not.
func TestModesOfARealRegistry(t *testing.T) {
	base := svctest.Registry(t)
	client, err := registry.New(registry.Config{URL: base, Timeout: 30 * time.Second})
	require.NoError(t, err)
	a, b := fld("a", tInt), fld("b", tStr)
	histories := map[string][]string{
		"field comes back without default": {rec(a, b), rec(a), rec(a, b)}, // the third again is known
		"int, long, double":                {rec(fld("a", tInt)), rec(fld("a", tLong)), rec(fld("a", tDouble))},
		"double, long, int":                {rec(fld("a", tDouble)), rec(fld("a", tLong)), rec(fld("a", tInt))},
		"default for one version":          {rec(a), rec(a, fld("b", tStr, `,"default":"-"`)), rec(a, b)},
		"goes after one version":           {rec(a, b), rec(a, fld("b", tStr, `,"default":"-"`)), rec(a)},
		"nothing changes":                  {rec(a), rec(a, fld("b", tStr, `,"default":"-"`)), rec(a, fld("c", tStr, `,"default":"-"`))},
		"only the latest differs":          {rec(fld("a", tInt)), rec(fld("a", tStr)), rec(fld("a", tLong))},
	}
	// What must read what: by hand, in the order of the modes below.
	want := map[string][7]bool{
		"field comes back without default": {true, true, true, true, true, true, true},
		"int, long, double":                {true, true, true, false, false, false, false},
		"double, long, int":                {true, false, false, true, true, false, false},
		"default for one version":          {true, true, false, true, true, true, false},
		"goes after one version":           {true, true, true, true, false, true, false},
		"nothing changes":                  {true, true, true, true, true, true, true},
		"only the latest differs":          {true, false, false, false, false, false, false},
	}
	modes := []schema.Mode{schema.None, schema.Backward, schema.BackwardTransitive, schema.Forward, schema.ForwardTransitive, schema.Full, schema.FullTransitive}
	for name, h := range histories {
		subject := svctest.Unique("modes")
		for i, text := range h[:2] {
			v, err := client.Register(t.Context(), subject, avroSchema(text))
			require.NoError(t, err)
			require.Equal(t, i+1, v.Number)
			require.NotZero(t, v.ID)
			setMode(t, base, subject, schema.None)
		}
		versions, err := client.Versions(t.Context(), subject)
		require.NoError(t, err)
		require.Len(t, versions, 2)
		for i, mode := range modes {
			setMode(t, base, subject, mode)
			v, err := client.Verdict(t.Context(), subject, avroSchema(h[2]))
			require.NoError(t, err)
			require.Equal(t, mode, v.Mode)
			local, err := schema.Local(mode, avroSchema(h[2]), versions, Compare)
			require.NoError(t, err)
			require.Equal(t, want[name][i], local.Compatible, "%s, %s: locally %v", name, mode, local.Violations)
			require.Equal(t, want[name][i], v.Compatible, "%s, %s: the registry", name, mode)
		}
	}
}

func TestRegisteringWhatIsIncompatible(t *testing.T) {
	base := svctest.Registry(t)
	client, err := registry.New(registry.Config{URL: base, Timeout: 30 * time.Second})
	require.NoError(t, err)
	subject := svctest.Unique("orders/ä")
	versions, err := client.Versions(t.Context(), subject)
	require.NoError(t, err)
	require.Empty(t, versions, "an unknown subject has no versions")
	v, err := schema.Check(t.Context(), client, subject, avroSchema(tInt), Compare)
	require.NoError(t, err)
	require.True(t, v.Compatible)

	_, err = client.Register(t.Context(), subject, avroSchema(rec(fld("a", tInt))))
	require.NoError(t, err)
	setMode(t, base, strings.ReplaceAll(strings.ReplaceAll(subject, "/", "%2F"), "ä", "%C3%A4"), schema.Backward)
	bad := avroSchema(rec(fld("a", tInt), fld("b", tInt)))
	_, err = client.Register(t.Context(), subject, bad)
	require.ErrorIs(t, err, registry.ErrRefused)
	v, err = schema.Check(t.Context(), client, subject, bad, Compare)
	require.NoError(t, err)
	require.EqualError(t, v.Error(), "incompatible schema: field `b`: added without default breaks BACKWARD")
	require.Contains(t, v.Registry, "version 1: ")
	_, err = client.Verdict(t.Context(), subject, event.Schema{Format: "avro", Text: "{"})
	require.ErrorIs(t, err, registry.ErrRefused)
}
