package apicurio_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/internal/services/apicurio"
)

func TestRegistryStoresASchemaAndStops(t *testing.T) {
	if err := apicurio.Available(); err != nil {
		if os.Getenv("OUTBOXKIT_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s, err := apicurio.Start(ctx)
	require.NoError(t, err)
	pid := s.Pid()

	resp, err := http.Post(s.URL()+"/subjects/orders-value/versions", "application/vnd.schemaregistry.v1+json",
		bytes.NewBufferString(`{"schema":"\"string\""}`))
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
	require.JSONEq(t, `{"id":1}`, string(body))

	require.NoError(t, s.Close(context.Background()))
	require.ErrorIs(t, syscall.Kill(-pid, 0), syscall.ESRCH)
}
