//go:build real

package dapr

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
	"infer/internal/store"
	"infer/internal/store/storetest"
)

func configOf(d *daprtest.Sidecar) Config {
	return Config{Mode: "on", Topic: "infer.requests", ReplyTopics: []string{"infer.results"}, GRPC: d.GRPC, HTTP: d.HTTP, Drain: 10 * time.Second}
}

// Real components pass the suite that every store passes.
func TestRealStores(t *testing.T) {
	port := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, port)
	d := daprtest.Start(t, daprtest.Options{Components: []daprtest.Component{
		{Name: "memory", Type: "state.in-memory", Metadata: ""},
		{Name: "lite", Type: "state.sqlite", Metadata: "connectionString=" + filepath.Join(t.TempDir(), "state.db") + " cleanupInterval=1s"},
		{Name: "redis", Type: "state.redis", Metadata: "redisHost=127.0.0.1:" + port},
	}})
	s := run(t, configOf(d), program(echo))
	for _, name := range []string{"memory", "lite", "redis"} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(*testing.T) store.Store { return s.Store(name) })
		})
	}
	if _, err := s.Store("absent").Get(context.Background(), "a"); err == nil || !strings.Contains(err.Error(), `no state component "absent"`) {
		t.Errorf("a component that is not there: %v", err)
	}
}
