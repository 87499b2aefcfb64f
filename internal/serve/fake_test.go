package serve

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/engine"
	"infer/internal/policy"
)

// fake is an engine whose phases and answers a test writes.
type fake struct {
	engine.State
	serve http.HandlerFunc
	media bool
}

func (f *fake) TakesMedia() bool { return f.media }

func (f *fake) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.serve(w, r) }

var models = []engine.Model{{ID: "Qwen/Qwen3-0.6B", Created: time.Unix(1745000000, 0), ContextTokens: 4096}, {ID: "small"}}

// ready is the status of an engine with n slots.
func ready(n int) engine.Status { return engine.Status{Phase: engine.Ready, Slots: n, Models: models} }

// logBuffer collects what is logged; any goroutine may write.
type logBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// config is what most tests want.
func config() Config {
	return Config{Grace: 30 * time.Second, Hold: 200 * time.Second, CommitAfter: 15 * time.Second, ClientStall: time.Minute,
		MaxQueue: 16, MaxQueueBytes: 8 << 20, MaxBodyBytes: 1 << 20, MaxMediaBodyBytes: 4 << 20, MaxConnections: 256,
		Policy: policy.Config{MaxN: 64, MaxPrompts: 2048, MaxTools: 128, MaxSchemaBytes: 64 << 10, MaxMediaBytes: 2 << 20,
			MediaTypes: []string{"image/png"}}}
}

type fixture struct {
	*Server
	fake *fake
	reg  *prometheus.Registry
	logs *logBuffer
}

// newFixture returns a server over an engine that answers with serve and is
// in the given status.
func newFixture(t testing.TB, cfg Config, st engine.Status, serve http.HandlerFunc) *fixture {
	t.Helper()
	f := &fixture{fake: &fake{serve: serve}, reg: prometheus.NewRegistry(), logs: &logBuffer{}}
	f.fake.Set(st)
	var err error
	if f.Server, err = New(cfg, f.fake, f.reg, slog.New(slog.NewJSONHandler(f.logs, nil))); err != nil {
		t.Fatalf("New() = %v", err)
	}
	return f
}
