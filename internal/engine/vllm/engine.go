// Package vllm runs vLLM behind the contract of an engine: it starts and
// supervises `vllm serve` on a private Unix socket, or attaches to a server
// that somebody else runs, and relays requests to it.
//
// vLLM's own word is not taken for its state. It is ready after an inference,
// alive while something moves, ended only when nobody of its process tree is
// left, and why it ended is read from what it said before.
//
//	              lines of the log            /health 200, first inference
//	starting ──────────────────────▶ … warming ──────────────────────▶ ready ⇄ asleep
//	    ▲                                                                │
//	    │    process tree seen gone, memory free, after a pause          │ exit, dead engine: starting
//	    └────────────────────────────────────────────────────────────────┤ nothing moves: stalled
//	                                                                     ▼ asked to stop: draining → stopped
//	a cause that no restart can help, or too many restarts: failed
package vllm

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"infer/internal/engine"
	"infer/internal/openai"
)

// Engine is an engine.Engine on a vLLM server.
type Engine struct {
	engine.State
	cfg     Config
	log     *slog.Logger
	salt    *salt
	metrics *metrics
	memory  Memory
	learned *learned

	load   load
	watch  watch
	up     atomic.Pointer[upstream] // whom Gather asks; nil while nobody answers
	open   atomic.Pointer[upstream] // whom requests go to; nil while not ready or asleep
	active atomic.Int64             // requests inside ServeHTTP
	used   atomic.Int64             // when a request last began or ended, in nanoseconds

	inUse     sync.RWMutex  // read-locked by every request, locked to fall asleep
	alarm     chan struct{} // holds a mark when a request waits for a sleeping engine
	capacity  capacity      // of this life; Run's goroutine only
	sleepless bool          // it does not start with sleep mode; Run's goroutine only
	restless  bool          // this life of it cannot sleep; Run's goroutine only
}

// New checks cfg and returns an engine that has not started. memory proves
// that GPU memory is free before a restart; nil when nobody knows. If it is a
// Pulse, a GPU that works is a sign of life of a vLLM that runs here.
func New(cfg Config, memory Memory, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, memory: memory, log: log, salt: newSalt(), metrics: newMetrics(), alarm: make(chan struct{}, 1)}
	e.watch = watch{budget: cfg.StallTimeout, load: &e.load, log: log, counters: e.counters}
	if p, ok := memory.(Pulse); ok && cfg.URL == "" {
		e.watch.busy = p.Busy
	}
	var err error
	if e.learned, err = newLearned(cfg.StateDir, cfg.Model+" "+strings.Join(cfg.Args, " ")); err != nil {
		log.Warn("start durations are learned anew", "err", err)
	}
	e.publish(engine.Status{Phase: engine.Starting, Progress: -1})
	return e, nil
}

// TakesMedia says that requests may hold pictures and sounds: whether a model
// has eyes only vLLM knows, and refuses them if it has none.
func (e *Engine) TakesMedia() bool { return true }

// Activity says what the engine does with what it was asked.
func (e *Engine) Activity() engine.Activity {
	switch st := e.Status(); {
	case st.Phase == engine.Ready:
		return e.watch.now()
	case st.Phase == engine.Stalled:
		return engine.ActivityStalled
	case st.Failure != nil, st.Phase == engine.Stopped:
		return engine.ActivityDead
	}
	return engine.ActivityIdle
}

// Run implements engine.Engine.
func (e *Engine) Run(ctx context.Context) error {
	var err error
	if e.cfg.URL != "" {
		err = e.attach(ctx)
	} else {
		err = e.supervise(ctx)
	}
	if err == nil || ctx.Err() != nil {
		e.publish(engine.Status{Phase: engine.Stopped, Progress: -1})
		return nil
	}
	f, ok := errors.AsType[*engine.Failure](err)
	if !ok {
		f = &engine.Failure{Cause: engine.CauseUnknown, Message: err.Error(), Err: err}
	}
	e.publish(engine.Status{Phase: engine.Failed, Progress: -1, Failure: f})
	return f
}

// ServeHTTP implements engine.Engine. A request wakes an engine that sleeps.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	up, err := e.acquire(r.Context())
	if err != nil {
		if r.Context().Err() == nil { // otherwise the server answers
			openai.WriteError(w, &openai.Error{Status: http.StatusServiceUnavailable, Type: openai.TypeUnavailable,
				Code: openai.CodeNotReady, Message: "the engine is not ready; retry after the time in Retry-After"})
		}
		return
	}
	defer e.release()
	(&proxy{up: up, load: &e.load, salt: e.salt, log: e.log}).ServeHTTP(w, r)
}

// counters reads what moves when the engine does.
func (e *Engine) counters(ctx context.Context) (uint64, error) {
	up := e.up.Load()
	if up == nil {
		return 0, errGone
	}
	text, err := up.exposition(ctx)
	if err != nil {
		return 0, err
	}
	sum, ok := fingerprint(text)
	if !ok {
		return 0, errNoCounters
	}
	return sum, nil
}

// publish sets the status; models are known by name from the beginning. Only
// Run's goroutine calls it, and New.
func (e *Engine) publish(st engine.Status) {
	if st.Models == nil {
		st.Models = e.Status().Models
	}
	if st.Models == nil {
		for _, name := range e.cfg.names() {
			st.Models = append(st.Models, engine.Model{ID: name})
		}
		for _, a := range e.cfg.LoRA {
			name, _, _ := strings.Cut(a, "=")
			st.Models = append(st.Models, engine.Model{ID: name})
		}
	}
	e.Set(st)
}

// opened lets requests in.
func (e *Engine) opened(up *upstream, models []engine.Model) {
	e.used.Store(time.Now().UnixNano())
	e.open.Store(up)
	e.publish(engine.Status{Phase: engine.Ready, Progress: 1, Slots: e.capacity.slots, SlotsGuessed: e.capacity.guessed, Models: models})
}

// closed keeps requests out and ends those that are in. What a dead vLLM says
// last ends them itself, and is read first.
func (e *Engine) closed(up *upstream, dead bool) {
	e.open.Store(nil)
	e.up.Store(nil)
	if dead {
		up.drain(corpseTimeout)
	}
	up.close()
}
