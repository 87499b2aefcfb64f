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
		if e.live.Load() != nil {
			return e.inUse.RUnlock, nil
		}
		e.inUse.RUnlock()
		if e.Status().Phase != engine.Asleep {
			return nil, errStopped
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

// retire takes the model away from requests, unless one is in use of it.
func (e *Engine) retire() bool {
	if !e.inUse.TryLock() {
		return false
	}
	defer e.inUse.Unlock()
	e.live.Store(nil)
	return true
}

// sleep waits, with the model's memory freed, until a request comes or ctx
// ends. The slots stay published: a sleeping engine may be sent requests.
func (e *Engine) sleep(ctx context.Context, slots int, model engine.Model) {
	began := time.Now()
	debug.FreeOSMemory()
	e.publish(engine.Status{Phase: engine.Asleep, Progress: -1, Slots: slots, Models: e.models(model)})
	e.log.Info("asleep: weights and KV cache are freed until a request comes", "after_seconds", e.cfg.SleepAfter.Seconds())
	select {
	case <-e.alarm:
		e.log.Info("waking", "slept_seconds", time.Since(began).Seconds())
	case <-ctx.Done():
	}
}
