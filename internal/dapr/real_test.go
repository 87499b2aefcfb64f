//go:build real

package dapr

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
	"infer/internal/store"
	"infer/internal/store/storetest"
)

func configOf(d *daprtest.Sidecar) Config {
	return Config{Mode: "on", Topic: "infer.requests", ReplyTopics: []string{"infer.results"}, GRPC: d.GRPC, HTTP: d.HTTP, Drain: 10 * time.Second}
}

// Two processes that fill a new folder at once both find all keys in it, though
// each keeps a list of its own in mind.
func TestRealIndexOfTwo(t *testing.T) {
	port := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, port)
	components := []daprtest.Component{{Name: "redis", Type: "state.redis", Metadata: "redisHost=127.0.0.1:" + port + " keyPrefix=name"}}
	var stores [2]*Store
	for i := range stores {
		stores[i] = run(t, configOf(daprtest.Start(t, daprtest.Options{Components: components})), program(echo)).Store("redis")
	}
	var want []string
	for folder := range 5 {
		var together sync.WaitGroup
		for i := range 40 {
			key := fmt.Sprintf("new%d/in/%02d", folder, i)
			want = append(want, key)
			together.Go(func() {
				if err := stores[i%2].Create(t.Context(), key, []byte("x"), 0); err != nil {
					t.Errorf("create %s: %v", key, err)
				}
			})
		}
		together.Wait()
	}
	for i, st := range stores {
		if got, err := st.List(t.Context(), "", "", 1000); err != nil || !slices.Equal(got, want) {
			t.Errorf("process %d lists %d keys of %d, %v", i, len(got), len(want), err)
		}
	}
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
