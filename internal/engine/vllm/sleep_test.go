package vllm

import (
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
