package vllm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"infer/internal/engine"
)

var (
	errNotOpen = errors.New("the engine is not ready")
	// errUnmoved: nobody knows whether vLLM sleeps.
	errUnmoved = errors.New("vllm did not do what it was told")
)

// wakeTimeout bounds what loads weights back from the host's memory, which
// takes seconds.
const wakeTimeout = 2 * time.Minute

// acquire returns whom to ask, and keeps it awake until release. It wakes a
// sleeping engine.
func (e *Engine) acquire(ctx context.Context) (*upstream, error) {
	for {
		changed := e.Changed()
		e.inUse.RLock()
		if up := e.open.Load(); up != nil {
			e.used.Store(time.Now().UnixNano())
			e.active.Add(1)
			return up, nil
		}
		e.inUse.RUnlock()
		switch e.Status().Phase {
		case engine.Ready: // it opened between the two looks
			continue
		case engine.Asleep:
		default:
			return nil, errNotOpen
		}
		select {
		case e.alarm <- struct{}{}:
		default:
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (e *Engine) release() {
	e.used.Store(time.Now().UnixNano())
	e.active.Add(-1)
	e.inUse.RUnlock()
}

// idle says whether it is time to sleep.
func (e *Engine) idle() bool {
	return e.cfg.SleepAfter > 0 && !e.sleepless && !e.restless && e.Status().Phase == engine.Ready && e.active.Load() == 0 &&
		time.Since(time.Unix(0, e.used.Load())) >= e.cfg.SleepAfter
}

// fallAsleep puts vLLM to sleep level 1, which moves the weights to the host's
// memory and drops the KV cache
// (https://docs.vllm.ai/en/latest/features/sleep_mode.html). A vLLM that answers
// that it cannot stays awake, which is said once. An error says that it may be
// neither awake nor asleep.
func (e *Engine) fallAsleep(ctx context.Context, up *upstream) error {
	if !e.inUse.TryLock() {
		return nil
	}
	st := e.Status()
	e.open.Store(nil)
	e.publish(engine.Status{Phase: engine.Asleep, Progress: -1, Slots: st.Slots, SlotsGuessed: st.SlotsGuessed, Models: st.Models})
	e.inUse.Unlock() // who comes from here on waits to be woken
	status, body, err := lull(ctx, up, "/sleep?level=1")
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		e.log.Info("asleep: the gpu is free until a request comes", "after_seconds", e.cfg.SleepAfter.Seconds())
		return nil
	case engineDead(body) || !up.healthy(ctx):
		return errSick
	}
	// It takes no work from the beginning of a sleep on, also of one that failed.
	if err := e.rouse(ctx, up); err != nil {
		return err
	}
	e.restless = true
	e.log.Warn("this vllm cannot sleep, it stays awake; start it with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1 on CUDA or ROCm",
		"status", status, "err", clip(string(body), 200))
	e.opened(up, st.Models)
	return nil
}

// wake brings a sleeping vLLM back. Requests wait meanwhile.
func (e *Engine) wake(ctx context.Context, up *upstream) error {
	if e.Status().Phase != engine.Asleep {
		return nil
	}
	began := time.Now()
	if err := getUp(ctx, up); err != nil {
		return err
	}
	e.log.Info("awake", "seconds", time.Since(began).Seconds())
	e.opened(up, e.Status().Models)
	return nil
}

// rouse wakes a vLLM that was put to sleep by somebody who is gone, such as the
// replica before this one: what is asked of it would wait for ever. One without
// the routes of its dev mode cannot have been.
func (e *Engine) rouse(ctx context.Context, up *upstream) error {
	status, body, err := up.get(ctx, "/is_sleeping", maxErrorBody)
	if err != nil || status != http.StatusOK || string(member(body, "is_sleeping").of(body)) != "true" {
		return err
	}
	e.log.Info("this vllm sleeps: waking it")
	return getUp(ctx, up)
}

func getUp(ctx context.Context, up *upstream) error {
	status, body, err := lull(ctx, up, "/wake_up")
	switch {
	case err != nil || status == http.StatusOK:
		return err
	case engineDead(body):
		return errSick
	}
	return fmt.Errorf("%w: POST /wake_up: HTTP %d: %s", errUnmoved, status, clip(string(body), 200))
}

// lull tells vLLM to sleep, or to wake up. It returns an error when there is no
// answer, which is that of ctx when ctx ended, and errUnmoved otherwise.
func lull(ctx context.Context, up *upstream, path string) (status int, body []byte, err error) {
	bounded, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	status, body, err = up.ask(bounded, http.MethodPost, path, []byte{}, maxErrorBody)
	switch {
	case ctx.Err() != nil:
		return 0, nil, ctx.Err()
	case err != nil:
		return 0, nil, fmt.Errorf("%w: %w", errUnmoved, err)
	}
	return status, body, nil
}
