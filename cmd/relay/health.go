package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is below the timeout of any sensible probe, whose own end says nothing.
const healthTimeout = 4 * time.Second

func newHealth() *cobra.Command {
	var url string
	var out form
	cmd := &cobra.Command{
		Use:   "health [live|ready]",
		Short: "Ask the relay that runs here whether it lives or is ready",
		Long: `Ask the relay that runs on this machine, or in this container, whether it lives (the
process answers) or is ready (Postgres and its leases work; the default). It exits
with 0 if so, else with 1 and the reason.

It is for probes: an image without a shell has nothing else to ask with, and the
endpoints need not listen on more than loopback. Where admin.listen has TLS, let
admin.probes listen on loopback, and name that with --url.`,
		Example: `  relay health
  relay health live --url http://127.0.0.1:9464`,
		ValidArgs: []string{"live", "ready"},
		Args:      cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/readyz"
			switch {
			case len(args) == 0 || args[0] == "ready":
			case args[0] == "live":
				path = "/livez"
			default:
				return wrongUse("%q is not known: use live or ready", args[0])
			}
			said, err := askHealth(cmd.Context(), strings.TrimSuffix(url, "/")+path)
			if err != nil {
				return err
			}
			return out.print(cmd, map[string]string{"check": strings.TrimPrefix(path, "/"), "said": said}, said)
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://"+defaultAdmin, "`address` of the relay's own endpoints")
	out.flag(cmd)
	return cmd
}

// askHealth returns what a healthy relay says.
func askHealth(ctx context.Context, url string) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", wrongUse("--url: %w", err)
	}
	// A transport of its own: a probe goes through no proxy of the environment.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("no relay answers: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	err = errors.Join(err, resp.Body.Close())
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", url, err)
	}
	said = strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, said)
	}
	return said, nil
}
