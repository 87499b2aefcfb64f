package vllm

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"infer/internal/engine"
)

func TestSleepsAndWakes(t *testing.T) {
	cfg := fakeConfig(t, "")
	cfg.SleepAfter = 300 * time.Millisecond
	r := run(t, cfg, nil)
	for range 2 {
		st := r.until(phase(engine.Asleep))
		if st.Slots == 0 || len(st.Models) == 0 || r.Activity() != engine.ActivityIdle {
			t.Errorf("asleep with %+v, %s", st, r.Activity())
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				var m counting
				if w, aborted := r.post(t.Context(), &m, "/v1/chat/completions", chatBody); aborted || w.Code != 200 || m.tokens.Load() != 20 {
					t.Errorf("the waking request: HTTP %d, aborted %v, %d tokens: %s", w.Code, aborted, m.tokens.Load(), tail(w.Body.String()))
				}
			})
		}
		wg.Wait()
	}
}

func TestCannotSleepIsSaidOnce(t *testing.T) {
	cfg := fakeConfig(t, "nosleep")
	cfg.SleepAfter = 100 * time.Millisecond
	r := run(t, cfg, nil)
	st := r.until(phase(engine.Ready))
	if st.Failure != nil || strings.Count(r.logs.String(), "cannot sleep") != 1 {
		t.Errorf("ready with %v; log:\n%s", st.Failure, r.logs.String())
	}
}

// A replica finds the vLLM asleep that the one before it has put to sleep.
func TestAttachWakesASidecarThatSleeps(t *testing.T) {
	cfg, socket := attached(t)
	sidecar(t, socket, devMode)
	cfg.SleepAfter = 100 * time.Millisecond
	before := run(t, cfg, nil)
	before.untilLog("asleep: the gpu is free")
	before.stop()
	_ = before.result()
	cfg.SleepAfter = 0
	r := run(t, cfg, nil)
	r.until(phase(engine.Ready))
	var m counting
	if w, aborted := r.post(t.Context(), &m, "/v1/chat/completions", chatBody); aborted || w.Code != 200 {
		t.Errorf("HTTP %d, aborted %v: %s", w.Code, aborted, tail(w.Body.String()))
	}
}

// A vLLM that answers that it cannot sleep is not asked again; the next one is.
func TestAttachedCannotSleepAndTheNextCan(t *testing.T) {
	cfg, socket := attached(t)
	cfg.SleepAfter = 50 * time.Millisecond
	first := sidecar(t, socket)
	r := run(t, cfg, nil)
	r.untilLog("cannot sleep")
	r.until(phase(engine.Ready))
	end(first)
	r.until(phase(engine.Starting))
	sidecar(t, socket, devMode)
	r.untilLog("asleep: the gpu is free")
	if n := strings.Count(r.logs.String(), "cannot sleep"); n != 1 {
		t.Errorf("that it cannot sleep is said %d times, want once", n)
	}
}

// One that fails to fall asleep takes no work any more until it is woken.
func TestFailsToFallAsleep(t *testing.T) {
	cfg := fakeConfig(t, "sleepfails")
	cfg.SleepAfter = 50 * time.Millisecond
	r := run(t, cfg, nil)
	r.untilLog("cannot sleep")
	var m counting
	if w, aborted := r.post(t.Context(), &m, "/v1/chat/completions", chatBody); aborted || w.Code != 200 || r.Status().Failure != nil {
		t.Errorf("HTTP %d, aborted %v: %s", w.Code, aborted, tail(w.Body.String()))
	}
}

// Whoever dies of being put to sleep is started again, and may sleep again.
func TestDiesFallingAsleep(t *testing.T) {
	cfg := fakeConfig(t, "once sleepexit")
	cfg.SleepAfter = 50 * time.Millisecond
	r := run(t, cfg, nil)
	r.untilLog("asleep: the gpu is free")
	if log := r.logs.String(); strings.Contains(log, "cannot sleep") || strings.Count(log, "exited with code 3") != 1 {
		t.Error("it is not what it is: one that exited with code 3, once")
	}
}

// Why vLLM did not wake is read from what it says, whether it ends of it or not.
func TestDoesNotWake(t *testing.T) {
	for which, want := range map[string]engine.Cause{
		"oomexit": engine.CauseOutOfMemoryAtRun, "oom": engine.CauseOutOfMemoryAtRun,
		"exit": engine.CauseUnknown, "fails": engine.CauseEngineFault,
	} {
		t.Run(which, func(t *testing.T) {
			cfg := fakeConfig(t, "once wake="+which)
			cfg.SleepAfter = 50 * time.Millisecond
			r := run(t, cfg, nil)
			r.untilLog("asleep: the gpu is free")
			var asked sync.WaitGroup
			asked.Go(func() { _, _ = r.post(t.Context(), new(counting), "/v1/chat/completions", chatBody) })
			r.untilLog(`msg="engine ended" cause=` + string(want) + " ")
			asked.Wait()
		})
	}
}

// Nobody is let in while it is not known whether vLLM sleeps.
func TestNoAnswerToSleep(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer srv.Close()
	e, err := New(Config{URL: srv.URL, StallTimeout: time.Minute}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	up, err := newUpstream(srv.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer up.close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for ctx, want := range map[context.Context]error{t.Context(): errUnmoved, over: context.Canceled} {
		e.opened(up, nil)
		if err := e.fallAsleep(ctx, up); !errors.Is(err, want) || e.open.Load() != nil || e.sleepless || e.restless {
			t.Errorf("fallAsleep() = %v, want %v; open to %v, able to sleep %v", err, want, e.open.Load(), !e.sleepless && !e.restless)
		}
	}
}
