package deploy_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// The tests that render are not parallel: the library has one OpenAPI schema for all.

// rendered is what kubectl apply -k would send of a folder, by kind.
func rendered(t *testing.T, files filesys.FileSystem, folder string) map[string][]byte {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, folder)
	require.NoError(t, err)
	all := map[string][]byte{}
	for _, r := range resources.Resources() {
		require.NotContains(t, all, r.GetKind())
		all[r.GetKind()], err = r.AsYAML()
		require.NoError(t, err)
	}
	require.Len(t, all, 3)
	return all
}

func shipped(t *testing.T) map[string][]byte {
	t.Helper()
	return rendered(t, filesys.MakeFsOnDisk(), "kubernetes")
}

// strict reads an object of Kubernetes, in which every field must be known.
func strict[T any](t *testing.T, text []byte) (object T) {
	t.Helper()
	require.NoError(t, yaml.UnmarshalStrict(text, &object))
	return object
}

func TestKubernetesDeployment(t *testing.T) {
	all := shipped(t)
	d := strict[appsv1.Deployment](t, all["Deployment"])
	config := strict[corev1.ConfigMap](t, all["ConfigMap"])
	pod := d.Spec.Template.Spec
	requireSelects(t, d.Spec.Selector, d.Spec.Template.Labels)
	require.Len(t, pod.Containers, 1)
	relay := pod.Containers[0]
	requireHardened(t, pod)

	// The configuration that is mounted is the one that was generated, where it is looked for.
	require.Len(t, pod.Volumes, 1)
	require.Equal(t, config.Name, pod.Volumes[0].ConfigMap.Name)
	require.NotEqual(t, "outboxkit-relay", config.Name, "without a hash a change of the configuration is no rollout")
	require.Contains(t, config.Data, "relay.yaml")
	require.Equal(t, []string{"run", "--config", path.Join(relay.VolumeMounts[0].MountPath, "relay.yaml")}, relay.Args)

	for name, probe := range map[string]*corev1.Probe{"live": relay.LivenessProbe, "ready": relay.ReadinessProbe} {
		require.Equal(t, []string{"/relay", "health", name}, probe.Exec.Command)
		require.GreaterOrEqual(t, probe.TimeoutSeconds, int32(5), "relay health gives up after 4 s, and says why")
	}
	require.NotNil(t, relay.StartupProbe)

	require.Negative(t, goMemory(t, relay).Cmp(*relay.Resources.Limits.Memory()), "Go collects below the limit")
	require.NotContains(t, relay.Resources.Limits, corev1.ResourceCPU)
}

func TestKubernetesNeverTakesAllRelays(t *testing.T) {
	all := shipped(t)
	d := strict[appsv1.Deployment](t, all["Deployment"])
	budget := strict[policyv1.PodDisruptionBudget](t, all["PodDisruptionBudget"])
	requireSelects(t, budget.Spec.Selector, d.Spec.Template.Labels)
	require.Less(t, budget.Spec.MaxUnavailable.IntVal, *d.Spec.Replicas)
	require.Nil(t, budget.Spec.MinAvailable)
	require.Zero(t, d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal)
	require.Positive(t, d.Spec.Strategy.RollingUpdate.MaxSurge.IntVal)
}

func TestKubernetesMigration(t *testing.T) {
	text, err := os.ReadFile("kubernetes/migrate.yaml")
	require.NoError(t, err)
	job := strict[batchv1.Job](t, text)
	require.Empty(t, job.Name)
	require.NotEmpty(t, job.GenerateName, "a job of a name can be run once")
	pod := job.Spec.Template.Spec
	requireHardened(t, pod)
	require.Equal(t, corev1.RestartPolicyNever, pod.RestartPolicy)
	require.Equal(t, []string{"migrate", "up", "outbox", "--grant"}, pod.Containers[0].Args)
	require.Equal(t, "DATABASE_URL", pod.Containers[0].Env[0].Name)

	deployed := strict[appsv1.Deployment](t, shipped(t)["Deployment"])
	require.Equal(t, deployed.Spec.Template.Spec.Containers[0].Image, pod.Containers[0].Image, "tables and relays of one release")
	configs, err := filepath.Glob("../cmd/relay/testdata/v*")
	require.NoError(t, err)
	require.Len(t, configs, 1, "of the previous release")
	_, tag, _ := strings.Cut(pod.Containers[0].Image, ":")
	require.NotEqual(t, filepath.Base(configs[0]), tag, "the previous release need not have what these manifests call")
}

// TestKubernetesHTTPProbes renders the overlay that docs/deploying.md shows.
func TestKubernetesHTTPProbes(t *testing.T) {
	doc, err := os.ReadFile("../docs/deploying.md")
	require.NoError(t, err)
	overlay := regexp.MustCompile("(?s)```yaml\n(# kustomization.yaml\n.*?)```").FindSubmatch(doc)
	require.NotNil(t, overlay)
	files := filesys.MakeFsInMemory()
	require.NoError(t, files.WriteFile("/mine/kustomization.yaml", overlay[1]))
	names, err := filepath.Glob("kubernetes/*.yaml")
	require.NoError(t, err)
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, files.WriteFile("/deploy/"+filepath.ToSlash(name), text))
	}

	d := strict[appsv1.Deployment](t, rendered(t, files, "/mine")["Deployment"])
	relay := d.Spec.Template.Spec.Containers[0]
	require.Contains(t, relay.Env, corev1.EnvVar{Name: "OUTBOXKIT_ADMIN_PROBES", Value: ":8080"})
	base := strict[appsv1.Deployment](t, shipped(t)["Deployment"]).Spec.Template.Spec.Containers[0]
	require.Len(t, relay.Env, len(base.Env)+1, "the others stay")
	for _, p := range []struct {
		path        string
		before, now *corev1.Probe
	}{
		{"/livez", base.LivenessProbe, relay.LivenessProbe},
		{"/livez", base.StartupProbe, relay.StartupProbe},
		{"/readyz", base.ReadinessProbe, relay.ReadinessProbe},
	} {
		require.Nil(t, p.now.Exec, "a probe asks in one way")
		require.Equal(t, p.path, p.now.HTTPGet.Path)
		require.Equal(t, 8080, p.now.HTTPGet.Port.IntValue())
		require.Equal(t, p.before.FailureThreshold, p.now.FailureThreshold)
	}
}

// requireHardened demands what the "restricted" Pod Security Standard does, and more.
func requireHardened(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	require.False(t, *pod.AutomountServiceAccountToken)
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Positive(t, *pod.SecurityContext.RunAsUser)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	for _, c := range pod.Containers {
		require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
		require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
		require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
		require.NotZero(t, c.Resources.Requests.Cpu().MilliValue())
		require.NotZero(t, c.Resources.Limits.Memory().Value())
		_, tag, ok := strings.Cut(c.Image, ":")
		require.True(t, ok, c.Image)
		require.NotContains(t, []string{"", "latest"}, tag)
		for _, e := range c.Env {
			require.False(t, e.Value != "" && strings.Contains(e.Name, "PASSWORD"), "%s is a secret", e.Name)
		}
	}
}

func requireSelects(t *testing.T, selector *metav1.LabelSelector, of map[string]string) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	require.NoError(t, err)
	require.False(t, s.Empty())
	require.True(t, s.Matches(labels.Set(of)))
}

// goMemory is GOMEMLIMIT, whose MiB Kubernetes writes as Mi.
func goMemory(t *testing.T, c corev1.Container) *resource.Quantity {
	t.Helper()
	for _, e := range c.Env {
		if e.Name == "GOMEMLIMIT" {
			q, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B"))
			require.NoError(t, err)
			return &q
		}
	}
	t.Fatal("no GOMEMLIMIT")
	return nil
}
