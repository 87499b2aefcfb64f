package gpu

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"infer/internal/gpu/gputest"
)

// A process has one NVML: its symbols are resolved once.
var fake gputest.Library

func TestMain(m *testing.M) {
	if lib := os.Getenv("GPU_TEST_LIBRARY"); lib != "" { // see TestOldDriver
		fake = gputest.Library{Path: lib}
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "fakenvml")
	if err == nil {
		fake, err = gputest.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// set changes what the GPUs say.
func set(tb testing.TB, lines ...string) {
	tb.Helper()
	if err := fake.Set(lines...); err != nil {
		tb.Fatal(err)
	}
}

// start runs a Monitor of the fake GPUs until the test ends.
func start(tb testing.TB, lines ...string) (*Monitor, *journal) {
	tb.Helper()
	set(tb, lines...)
	return run(tb, Config{Library: fake.Path, Period: 20 * time.Millisecond, App: "shop"})
}

func run(tb testing.TB, cfg Config) (*Monitor, *journal) {
	tb.Helper()
	j := &journal{}
	m := New(cfg, slog.New(slog.NewTextHandler(j, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run() = %v", err)
		}
		<-m.ended
	})
	return m, j
}

// await waits until what was published satisfies ok.
func await(tb testing.TB, m *Monitor, what string, ok func(*look) bool) *look {
	tb.Helper()
	limit := time.After(30 * time.Second)
	for {
		s := m.now.Load()
		if ok(s) {
			return s
		}
		select {
		case <-s.replaced:
		case <-limit:
			tb.Fatalf("%s was never seen; the last look: %+v", what, s.snapshot)
		}
	}
}

func up(s *look) bool { return !s.at.IsZero() && s.reason == "" }

// journal is a log that a test reads.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) count(what string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.buf.String(), what)
}
