package vllm

import (
	"context"
	"sync"
	"time"

	"infer/internal/engine"
)

// stopwatch measures the phases of a start.
type stopwatch struct {
	phase engine.Phase
	began time.Time
	took  map[engine.Phase]time.Duration
}

func newStopwatch() *stopwatch {
	return &stopwatch{phase: engine.Starting, began: time.Now(), took: map[engine.Phase]time.Duration{}}
}

func (s *stopwatch) enter(p engine.Phase) {
	if p != s.phase {
		s.took[s.phase] += time.Since(s.began)
		s.phase, s.began = p, time.Now()
	}
}

// bringUp follows a start until the first inference has answered, and opens the
// engine to requests. inside ends with the child.
func (e *Engine) bringUp(inside context.Context, ch *child, up *upstream, t *tracker) error {
	s := newStopwatch()
	e.starting(s, t.status())
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for healthy := false; !healthy; {
		select {
		case <-inside.Done():
			return e.endOf(inside, ch)
		case <-t.changed:
			e.starting(s, t.status())
		case <-tick.C:
			if t.silence() > e.cfg.startTimeout() {
				return errStartTimeout
			}
			healthy = up.healthy(inside)
		}
	}
	e.starting(s, engine.Status{Phase: engine.Warming, Progress: -1, Detail: "first inference"})
	models, err := e.firstInference(inside, up)
	if err != nil {
		if inside.Err() != nil {
			return e.endOf(inside, ch)
		}
		return warmFailure(err)
	}
	s.enter(engine.Ready)
	for phase, d := range s.took {
		e.metrics.phases.WithLabelValues(string(phase)).Observe(d.Seconds())
	}
	if err := e.learned.record(s.took); err != nil {
		e.log.Warn("keep start durations", "err", err)
	}
	e.up.Store(up)
	e.opened(up, e.ordered(models))
	return nil
}

// endOf says whether a child's end or the caller ended inside.
func (e *Engine) endOf(inside context.Context, ch *child) error {
	if exited(ch) {
		return errExited
	}
	return inside.Err()
}

// starting publishes a phase of the start with the learned moment of its end.
func (e *Engine) starting(s *stopwatch, st engine.Status) {
	s.enter(st.Phase)
	if left, ok := e.learned.remaining(st.Phase, time.Since(s.began)); ok {
		st.ReadyAt = time.Now().Add(left)
	}
	st.Failure = e.Status().Failure // of the life before, until this one is ready
	e.publish(st)
}

// firstInference asks what is served and runs the smallest request.
func (e *Engine) firstInference(ctx context.Context, up *upstream) ([]engine.Model, error) {
	began := time.Now()
	models, err := up.models(ctx)
	if err != nil {
		return nil, err
	}
	// The first kernels are compiled now, which takes longer than any stall.
	warmCtx, cancel := context.WithTimeout(ctx, max(5*e.cfg.StallTimeout, time.Minute))
	defer cancel()
	if err := e.warm(warmCtx, up, models[0].ID); err != nil {
		return nil, err
	}
	e.measure(ctx, up, models)
	e.log.Info("vllm is ready", "version", up.version(ctx), "model", models[0].ID, "slots", e.capacity.slots,
		"context_tokens", models[0].ContextTokens, "warm_seconds", time.Since(began).Seconds())
	return models, nil
}

// ordered puts the canonical name first.
func (e *Engine) ordered(models []engine.Model) []engine.Model {
	names := e.cfg.names()
	if len(names) == 0 {
		return models
	}
	for i, m := range models {
		if m.ID == names[0] {
			models[0], models[i] = models[i], models[0]
			break
		}
	}
	return models
}

// attend serves until vLLM ends, stalls or is lost, or ctx ends.
func (e *Engine) attend(ctx context.Context, up *upstream, exited <-chan struct{}, lost <-chan error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := make(chan error, 1)
	wg.Go(func() {
		if err := e.watch.run(ctx); err != nil {
			stalled <- err
		}
	})
	every := time.Hour
	if e.cfg.SleepAfter > 0 {
		every = max(min(e.cfg.SleepAfter/10, time.Second), time.Millisecond)
	}
	idle := time.NewTicker(every)
	defer idle.Stop()
	for {
		select {
		case <-exited:
			return errExited
		case <-ctx.Done():
			return ctx.Err()
		case <-up.sick:
			return errSick
		case err := <-stalled:
			return err
		case err := <-lost:
			return err
		case <-e.alarm:
			if err := e.wake(ctx, up); err != nil {
				return err
			}
		case <-idle.C:
			if e.idle() {
				if err := e.fallAsleep(ctx, up); err != nil {
					return err
				}
			}
		}
	}
}
