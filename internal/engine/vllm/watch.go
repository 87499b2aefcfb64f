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

// Pulse is what a Memory may know besides: whether the GPUs work.
type Pulse interface {
	// Busy says that one of them has just worked. It is false where nobody
	// knows, and never blocks.
	Busy() bool
}

// busyBudgets is for how many budgets a GPU that works stands in for all other
// signs. One step may take minutes; but a kernel that hangs looks the same, so
// that it cannot be for ever.
const busyBudgets = 5

// watch judges an engine by what moves: tokens that are relayed, when there
// are none, vLLM's own counters, and for a while a GPU that works. It never
// asks /health, which answers 200 over a frozen engine, and it does not count
// how long anything waits: a queue of a thousand, or a prompt that prefills
// for minutes, moves counters.
type watch struct {
	budget   time.Duration
	load     *load
	counters func(context.Context) (uint64, error) // changes whenever the engine does a step
	busy     func() bool                           // a GPU works; nil when nobody knows
	activity atomic.Pointer[engine.Activity]
	log      *slog.Logger
}

// look is what one tick remembers for the next.
type look struct {
	progress uint64
	counters uint64
	known    bool      // counters was read since the engine was last idle
	moved    time.Time // when something last moved, or nothing was asked
	worked   time.Time // when a GPU was last seen at work since; zero when it was not
}

// silence is how long nothing has moved, and whether that is too long. The
// last tick before the end of a budget decides.
func (l *look) silence(budget, interval time.Duration) (silent time.Duration, tooLong bool) {
	silent = time.Since(l.moved)
	allowed := budget
	if !l.worked.IsZero() {
		allowed = min(l.worked.Sub(l.moved)+budget, busyBudgets*budget)
	}
	return silent, silent > allowed-2*interval
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
		if silent, tooLong := l.silence(w.budget, interval); tooLong && ctx.Err() == nil {
			w.set(engine.ActivityStalled)
			w.log.Error("engine stalled: requests are in flight and nothing moves",
				"in_flight", w.load.inFlight.Load(), "silent_seconds", silent.Seconds(), "gpu_worked", !l.worked.IsZero())
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
		l.progress, l.known = progress, false
		l.stirred()
	default:
		// Not answering is no sign of a dead engine: a loaded server answers
		// late. It is no sign of life either.
		counters, err := w.counters(ctx)
		if errors.Is(err, errNoCounters) { // whoever cannot see must not judge
			l.stirred()
			break
		}
		if err != nil {
			w.log.Debug("read engine counters", "err", err)
			break
		}
		if l.known && counters != l.counters {
			l.stirred()
		}
		l.counters, l.known = counters, true
	}
	// What a GPU did before an engine froze is still told a while after.
	if w.busy != nil && time.Since(l.moved) >= w.budget/2 && w.busy() {
		l.worked = time.Now()
	}
	w.set(engine.ActivityBusy)
}

// stirred notes that something moved.
func (l *look) stirred() { l.moved, l.worked = time.Now(), time.Time{} }

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
