package onnx

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"infer/internal/engine"
)

// errIdle ends a scheduler's loop because nothing was asked for long enough.
var errIdle = errors.New("idle")

// acquire keeps the loaded model from falling asleep until release, and wakes
// it when it sleeps. It returns an error when the engine ends or ctx does.
func (e *Engine) acquire(ctx context.Context) (release func(), err error) {
	for {
		changed := e.Changed()
		e.inUse.RLock()
		if e.loaded() {
			return e.inUse.RUnlock, nil
		}
		phase := e.Status().Phase
		asleep := phase == engine.Asleep || e.retired && phase == engine.Ready // about to
		if asleep {
			select {
			case e.alarm <- struct{}{}:
			default:
			}
		}
		e.inUse.RUnlock()
		if !asleep {
			return nil, errStopped
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// loaded says whether what --model names is in memory.
func (e *Engine) loaded() bool {
	m := e.embed.Load()
	return e.live.Load() != nil || m != nil && m.alone && m.Encoder != nil
}

// untilIdle waits until ctx ends, or until an encoder that is alone was not
// asked for long enough. Then it takes it away and returns errIdle.
func (e *Engine) untilIdle(ctx context.Context) error {
	var timer <-chan time.Time
	for wait := e.cfg.SleepAfter; ; {
		if e.cfg.SleepAfter > 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer:
		}
		wait = e.cfg.SleepAfter - (time.Since(e.born) - time.Duration(e.used.Load()))
		if wait > 0 {
			continue
		}
		if e.retire() {
			return errIdle
		}
		wait = e.cfg.SleepAfter
	}
}

// present gives a loaded model to requests. Who waited for it needs no alarm
// any more: a mark that stayed would end the next sleep at once.
func (e *Engine) present(give func()) {
	e.inUse.Lock()
	defer e.inUse.Unlock()
	give()
	e.retired = false
	select {
	case <-e.alarm:
	default:
	}
}

// retire takes the model away from requests, unless one is in use of it.
func (e *Engine) retire() bool {
	if !e.inUse.TryLock() {
		return false
	}
	defer e.inUse.Unlock()
	e.live.Store(nil)
	e.retired = true
	if m := e.embed.Load(); m != nil && m.alone {
		e.embed.Store(&embedder{names: m.names, alone: true})
	}
	return true
}

// sleep waits, with the model's memory freed, until a request comes or ctx
// ends. What it has awake stays published: a sleeping engine may be sent
// requests.
func (e *Engine) sleep(ctx context.Context, awake engine.Status) {
	began := time.Now()
	debug.FreeOSMemory()
	awake.Phase, awake.Progress = engine.Asleep, -1
	e.publish(awake)
	e.log.Info("asleep: weights and KV cache are freed until a request comes", "after_seconds", e.cfg.SleepAfter.Seconds())
	select {
	case <-e.alarm:
		e.log.Info("waking", "slept_seconds", time.Since(began).Seconds())
	case <-ctx.Done():
	}
}
