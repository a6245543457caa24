package main

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const deploy = "../../deploy/"

// shippedConfig loads a file that we ship or shipped, and makes of it what relay run would.
func shippedConfig(t *testing.T, path string) config {
	t.Helper()
	for _, secret := range []string{"RELAY_DB_PASSWORD", "RELAY_AMQP_PASSWORD", "KAFKA_PASSWORD", "INVENTORY_DB_PASSWORD"} {
		t.Setenv(secret, "x")
	}
	c, err := loadConfig(path)
	require.NoError(t, err)
	a := newAdapters(nil)
	for _, d := range c.each() {
		one := c
		one.Database, one.Pipelines = d.databaseConfig, d.Pipelines
		_, err = one.relay(a, nil)
		require.NoError(t, err)
	}
	require.NoError(t, a.Close())
	return c
}

// A configuration file is part of what an upgrade leaves as it is.
func TestConfigsOfThePreviousReleaseAreGood(t *testing.T) {
	require.Len(t, shippedConfig(t, "testdata/v0.1.0-alpha.1/relay.yaml").Pipelines, 2)
	require.Len(t, shippedConfig(t, "testdata/v0.1.0-alpha.1/relay-databases.yaml").each(), 3)
}

// A relay that is killed while it drains leaves leases behind, which must run out.
func TestPlatformsGrantTheTimeToDrain(t *testing.T) {
	var deployment struct {
		Spec struct {
			Template struct {
				Spec struct {
					Grace int `yaml:"terminationGracePeriodSeconds"`
				}
			}
		}
	}
	readYAML(t, deploy+"kubernetes/deployment.yaml", &deployment)
	var compose struct {
		Services map[string]struct {
			Grace string `yaml:"stop_grace_period"`
		}
	}
	readYAML(t, deploy+"compose/compose.yaml", &compose)
	unit, err := os.ReadFile(deploy + "systemd/outboxkit-relay.service")
	require.NoError(t, err)
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindSubmatch(unit)
	require.NotNil(t, stop)
	for platform, text := range map[string]string{
		"compose": compose.Services["relay"].Grace,
		"systemd": string(stop[1]) + "s",
	} {
		grace, err := time.ParseDuration(text)
		require.NoError(t, err, platform)
		require.Greater(t, grace, longestStop(shippedConfig(t, deploy+platform+"/relay.yaml")), platform)
	}
	grace := time.Duration(deployment.Spec.Template.Spec.Grace) * time.Second
	require.Greater(t, grace, longestStop(shippedConfig(t, deploy+"kubernetes/relay.yaml")), "kubernetes")
}

// longestStop is what docs/relay.yaml says: drain_timeout, 20 s unless configured, and
// 10 s for bookkeeping.
func longestStop(c config) time.Duration {
	drain := c.DrainTimeout.value()
	if drain == 0 {
		drain = 20 * time.Second
	}
	return drain + 10*time.Second
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into), path)
}
