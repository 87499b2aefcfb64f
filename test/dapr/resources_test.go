//go:build real

package dapr

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"infer/internal/dapr/daprtest"
)

// The shipped resources for Redis load into a real sidecar as they are, but for
// the address and its password; so does the policy.
func TestShippedResources(t *testing.T) {
	redis := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, redis)
	dir := t.TempDir()
	text, err := os.ReadFile("../../deploy/dapr/kubernetes/redis.yaml")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.ReplaceAll(string(text), "redis-master:6379", "127.0.0.1:"+redis)
	here = regexp.MustCompile(`(?m)^ *- name: redisPassword\n.*\n`).ReplaceAllString(here, "")
	if err := os.WriteFile(filepath.Join(dir, "redis.yaml"), []byte(here), 0o600); err != nil {
		t.Fatal(err)
	}
	d := daprtest.Start(t, daprtest.Options{Resources: dir, Names: filepath.Join(t.TempDir(), "names.db")})
	_, metadata := call(t, "GET", d.HTTP+"/v1.0/metadata", "")
	for _, want := range []string{`"name":"jobs","type":"state.redis"`, `"name":"events","type":"pubsub.redis"`} {
		if !strings.Contains(metadata, want) {
			t.Errorf("no %s in %s", want, metadata)
		}
	}
	if log := d.Out.String(); !strings.Contains(log, "Loading Resiliency configuration: infer") || strings.Contains(log, "level=error") {
		t.Errorf("%s", log)
	}
}
