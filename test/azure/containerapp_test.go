package azure

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appcontainers/armappcontainers/v3"
	"go.yaml.in/yaml/v3"
)

// roundTrip reads text as Azure's model does, and returns the paths of the
// values that were there, and of those that are left.
func roundTrip(t *testing.T, text []byte) (given, kept []string, app armappcontainers.ContainerApp) {
	t.Helper()
	var plain map[string]any
	if err := yaml.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(asJSON, &app); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if err := json.Unmarshal(back, &again); err != nil {
		t.Fatal(err)
	}
	return paths("", plain), paths("", again), app
}

// paths lists every leaf with its value.
func paths(at string, v any) []string {
	var all []string
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			all = append(all, paths(at+"."+k, inner)...)
		}
	case []any:
		for i, inner := range v {
			all = append(all, paths(fmt.Sprintf("%s[%d]", at, i), inner)...)
		}
	default:
		all = append(all, fmt.Sprintf("%s=%v", at, v))
	}
	slices.Sort(all)
	return all
}

func read(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../deploy/containerapp.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The model's decoder ignores what it does not know: only a key that comes
// back was one.
func TestKeys(t *testing.T) {
	given, kept, _ := roundTrip(t, read(t))
	if !slices.Equal(given, kept) || len(given) < 50 {
		t.Errorf("given %d values:\n%s\nkept %d:\n%s", len(given), strings.Join(given, "\n"), len(kept), strings.Join(kept, "\n"))
	}
	wrong := strings.Replace(string(read(t)), "            type: prometheus\n", "            type: prometheus\n            metricType: Value\n", 1)
	if given, kept, _ := roundTrip(t, []byte(wrong)); slices.Equal(given, kept) {
		t.Error("an unknown key was not found")
	}
}

// What the model does not say and the service demands.
func TestService(t *testing.T) {
	_, _, app := roundTrip(t, read(t))
	template := app.Properties.Template
	first := template.Containers[0]
	if *first.Name != "infer" {
		t.Errorf("the first container, the only one with the GPU, is %s", *first.Name)
	}
	if cpu, memory := *first.Resources.CPU, *first.Resources.Memory; cpu != 24 || memory != "220Gi" {
		t.Errorf("%v CPUs and %s; an A100 has 24 and 220Gi", cpu, memory)
	}
	probes := map[armappcontainers.Type]*armappcontainers.ContainerAppProbe{}
	for _, p := range first.Probes {
		probes[*p.Type] = p
		if *p.FailureThreshold < 1 || *p.FailureThreshold > 10 || *p.PeriodSeconds < 1 || *p.PeriodSeconds > 240 || *p.TimeoutSeconds > 240 {
			t.Errorf("%s: outside of what the schema allows", *p.Type)
		}
	}
	if len(probes) != 3 {
		t.Errorf("%d kinds of probes; GPU profiles add none", len(probes))
	}
	if start := probes[armappcontainers.TypeStartup]; start == nil || *start.PeriodSeconds**start.FailureThreshold < 30*60 {
		t.Error("the startup probe ends a load that takes half an hour")
	}
	secrets := map[string]bool{}
	for _, s := range app.Properties.Configuration.Secrets {
		secrets[*s.Name] = true
	}
	for _, e := range first.Env {
		if e.SecretRef != nil && !secrets[*e.SecretRef] {
			t.Errorf("%s names the secret %s, which is not there", *e.Name, *e.SecretRef)
		}
	}
	for _, r := range template.Scale.Rules {
		if r.Custom == nil || r.Custom.Identity != nil {
			t.Errorf("%s: no custom rule, or one with an identity", *r.Name)
			continue
		}
		for _, a := range r.Custom.Auth {
			if !secrets[*a.SecretRef] {
				t.Errorf("%s names the secret %s, which is not there", *r.Name, *a.SecretRef)
			}
		}
	}
	if grace := *template.TerminationGracePeriodSeconds; !strings.Contains(string(read(t)), fmt.Sprintf("--grace, %ds", grace)) {
		t.Errorf("infer is not told of the %d s that it has to drain", grace)
	}
}
