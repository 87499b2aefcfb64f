package gpu

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"infer/internal/engine"
	"infer/internal/gpu/gputest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// model is an engine that does nothing.
type model struct{ engine.State }

func (*model) ServeHTTP(http.ResponseWriter, *http.Request) {}
func (*model) Run(context.Context) error                    { return nil }

func TestMemory(t *testing.T) {
	m, _ := start(t, gputest.A100(0)...)
	all, err := m.Memory(t.Context())
	if err != nil || len(all) != 1 || all[0] != (Memory{"GPU 0", 85899345920 - 536870912 - 42949672960, 85899345920}) {
		t.Errorf("Memory() = %+v, %v", all, err)
	}
	set(t, append(gputest.A100(0), "gpu0.lost 1")...)
	if _, err := m.Memory(t.Context()); err == nil || !strings.Contains(err.Error(), "GPU is lost") {
		t.Errorf("Memory() of a lost GPU = %v", err)
	}
}

func TestBusy(t *testing.T) {
	m, _ := start(t, gputest.A100(0)...)
	await(t, m, "work", func(*look) bool { return m.Busy() })
	set(t, gputest.With(gputest.A100(0), "gpu0.util 3")...)
	await(t, m, "rest", func(*look) bool { return !m.Busy() })
	set(t, gputest.A100(0)...)
	await(t, m, "work", func(*look) bool { return m.Busy() })
	set(t, append(gputest.A100(0), "gpu0.lost 1")...)
	await(t, m, "the loss", func(s *look) bool { return s.reason != "" })
	if m.Busy() {
		t.Error("a lost GPU works")
	}
}

// A GPU that stays empty under an engine that is ready is a failure.
func TestSilentFallback(t *testing.T) {
	empty := gputest.With(gputest.A100(0), "gpu0.used 3145728")
	m, _ := start(t, empty...)
	await(t, m, "a GPU", up)
	eng := &model{}
	done := make(chan error, 1)
	go func() { done <- m.Guard(t.Context(), eng, Rules{Used: true}) }()
	s := m.now.Load()
	for range 5 { // while it loads, an empty GPU means nothing
		s = await(t, m, "another look", func(now *look) bool { return now != s })
	}
	select {
	case err := <-done:
		t.Fatalf("Guard() = %v before the engine was ready", err)
	default:
	}
	eng.Set(engine.Status{Phase: engine.Ready})
	select {
	case err := <-done:
		f, ok := err.(*engine.Failure)
		if !ok || f.Cause != engine.CauseDeviceUnavailable || !strings.Contains(f.Message, "runs on the CPU") || !strings.Contains(f.Remedy, "--device cpu") {
			t.Errorf("Guard() = %+v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody noticed")
	}
}

func TestUsedGPUIsNoFallback(t *testing.T) {
	m, _ := start(t, gputest.A100(0)...)
	eng := &model{}
	eng.Set(engine.Status{Phase: engine.Ready})
	s := await(t, m, "a look after it was ready", func(s *look) bool { return up(s) && s.at.After(eng.Status().Since.Add(time.Second)) })
	if f := m.refuse(s, eng.Status(), Rules{Required: true, Used: true}); f != nil {
		t.Errorf("refuse() = %v", f)
	}
	s.devices[0].memory.used = 0
	if f := m.refuse(s, eng.Status(), Rules{Used: true}); f == nil {
		t.Error("the same GPU, empty, is accepted")
	}
	s.devices[0].memory.exact = false // with what the driver keeps: nobody can tell
	if f := m.refuse(s, eng.Status(), Rules{Used: true}); f != nil {
		t.Errorf("refuse() = %v of what cannot be judged", f)
	}
}

func TestRequiredAndAbsent(t *testing.T) {
	m, _ := run(t, Config{Library: "/absent/libnvidia-ml.so.1"})
	err := m.Guard(t.Context(), &model{}, Rules{Required: true})
	if f, ok := err.(*engine.Failure); !ok || f.Cause != engine.CauseDeviceUnavailable || f.Retryable || !strings.Contains(f.Remedy, "--device cpu") {
		t.Errorf("Guard() = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Guard(ctx, &model{}, Rules{Used: true}); err != nil {
		t.Errorf("Guard() = %v where no GPU is required", err)
	}
}
