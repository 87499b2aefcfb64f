package vllm

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"sync/atomic"
	"time"

	"infer/internal/engine"
)

var (
	// errStalled: work was in flight and nothing moved.
	errStalled = errors.New("nothing moves")
	// errNoCounters: vLLM has been told to keep no statistics.
	errNoCounters = errors.New("vllm keeps no counters")
)

// watch judges an engine by what moves: tokens that are relayed, and when
// there are none, vLLM's own counters. It never asks /health, which answers
// 200 over a frozen engine, and it does not count how long anything waits: a
// queue of a thousand, or a prompt that prefills for minutes, moves counters.
type watch struct {
	budget   time.Duration
	load     *load
	counters func(context.Context) (uint64, error) // changes whenever the engine does a step
	activity atomic.Pointer[engine.Activity]
	log      *slog.Logger
}

// look is what one tick remembers for the next.
type look struct {
	progress uint64
	counters uint64
	known    bool      // counters was read since the engine was last idle
	moved    time.Time // when something last moved, or nothing was asked
}

// run returns errStalled, or nil when ctx ends. What is stalled is found
// within the budget: the last tick before its end decides.
func (w *watch) run(ctx context.Context) error {
	interval := min(w.budget/12, 5*time.Second)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	l := look{progress: w.load.progress.Load(), moved: time.Now()}
	w.set(engine.ActivityIdle)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		w.step(ctx, &l)
		if silent := time.Since(l.moved); silent > w.budget-2*interval && ctx.Err() == nil {
			w.set(engine.ActivityStalled)
			w.log.Error("engine stalled: requests are in flight and nothing moves",
				"in_flight", w.load.inFlight.Load(), "silent_seconds", silent.Seconds())
			return errStalled
		}
	}
}

// step looks once.
func (w *watch) step(ctx context.Context, l *look) {
	progress := w.load.progress.Load()
	switch {
	case w.load.inFlight.Load() == 0:
		*l = look{progress: progress, moved: time.Now()}
		w.set(engine.ActivityIdle)
		return
	case progress != l.progress:
		l.progress, l.known, l.moved = progress, false, time.Now()
	default:
		// Not answering is no sign of a dead engine: a loaded server answers
		// late. It is no sign of life either.
		counters, err := w.counters(ctx)
		if errors.Is(err, errNoCounters) { // whoever cannot see must not judge
			l.moved = time.Now()
			break
		}
		if err != nil {
			w.log.Debug("read engine counters", "err", err)
			break
		}
		if l.known && counters != l.counters {
			l.moved = time.Now()
		}
		l.counters, l.known = counters, true
	}
	w.set(engine.ActivityBusy)
}

func (w *watch) set(a engine.Activity) { w.activity.Store(&a) }

// now is dead until something was watched.
func (w *watch) now() engine.Activity {
	if a := w.activity.Load(); a != nil {
		return *a
	}
	return engine.ActivityDead
}

// moving are the series that vLLM writes only when its engine process has done
// a step (vllm/v1/metrics/loggers.py). The step counter alone is not enough:
// a step that only prefills a part of a prompt yields no tokens and is not
// counted, but it takes blocks of the KV cache.
var moving = [][]byte{
	[]byte("vllm:iteration_tokens_total_"), []byte("vllm:generation_tokens_total"), []byte("vllm:prompt_tokens_total"),
	[]byte("vllm:kv_cache_usage_perc"), []byte("vllm:num_requests_running"), []byte("vllm:num_requests_waiting{"),
	[]byte("vllm:num_preemptions_total"), []byte("vllm:prefix_cache_queries_total"), []byte("vllm:request_success_total"),
}

// fingerprint changes whenever one of the moving series does. ok is false when
// there is none of them.
func fingerprint(exposition []byte) (sum uint64, ok bool) {
	h := fnv.New64a()
	for line := range bytes.Lines(exposition) {
		for _, name := range moving {
			if bytes.HasPrefix(line, name) {
				_, _ = h.Write(line) // it never fails
				ok = true
				break
			}
		}
	}
	return h.Sum64(), ok
}
