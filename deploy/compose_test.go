package deploy_test

import (
	"os"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

func loadCompose(t *testing.T, env ...string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose/compose.yaml"}, cli.WithEnv(env))
	require.NoError(t, err)
	return options.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	t.Parallel()
	project, err := loadCompose(t, "POSTGRES_PASSWORD=a", "SHOP_DB_PASSWORD=b", "RELAY_DB_PASSWORD=c")
	require.NoError(t, err)
	for _, name := range []string{"relay", "migrate"} {
		s, err := project.GetService(name)
		require.NoError(t, err)
		require.True(t, s.ReadOnly, name)
		require.Equal(t, []string{"ALL"}, s.CapDrop, name)
		require.Contains(t, s.SecurityOpt, "no-new-privileges:true", name)
		require.Equal(t, project.Services["relay"].Image, s.Image)
	}
	relay := project.Services["relay"]
	require.Equal(t, types.ServiceConditionCompletedSuccessfully, relay.DependsOn["migrate"].Condition)
	require.Equal(t, types.HealthCheckTest{"CMD", "/relay", "health"}, relay.HealthCheck.Test)
	for _, s := range project.Services {
		for _, port := range s.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, "%s: the passwords are weak", s.Name)
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind {
				_, err := os.Stat(v.Source)
				require.NoError(t, err)
			}
		}
	}
}

func TestComposeAsksForPasswords(t *testing.T) {
	t.Parallel()
	_, err := loadCompose(t, "POSTGRES_PASSWORD=a", "SHOP_DB_PASSWORD=b")
	require.ErrorContains(t, err, "RELAY_DB_PASSWORD") // of whichever service comes first
}
