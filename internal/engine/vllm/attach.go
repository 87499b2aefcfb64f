package vllm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"infer/internal/engine"
)

// attach follows a vLLM that somebody else runs. It is never ended, only
// reached and lost.
func (e *Engine) attach(ctx context.Context) error {
	phase, known := engine.Starting, false
	for {
		up, err := newUpstream(e.cfg.URL, e.cfg.Key)
		if err != nil {
			return err
		}
		models, err := e.reach(ctx, up, phase, known)
		if err != nil {
			up.close()
			return err
		}
		if ctx.Err() != nil {
			up.close()
			return nil
		}
		known, e.restless = true, false
		e.up.Store(up)
		e.opened(up, models)
		err = e.follow(ctx, up)
		if ctx.Err() != nil {
			e.publish(engine.Status{Phase: engine.Draining, Progress: -1, Detail: "leaving " + e.cfg.URL})
			e.closed(up, false)
			return nil
		}
		phase = engine.Starting
		f := &engine.Failure{Cause: engine.CauseEngineFault, Retryable: true, Err: err,
			Message: fmt.Sprintf("the vLLM at %s is lost: %v", e.cfg.URL, err), Remedy: "whoever runs it must start it again"}
		if errors.Is(err, errStalled) {
			phase, f.Cause = engine.Stalled, engine.CauseStalled
		}
		e.ended(f, 0)
		e.publish(engine.Status{Phase: phase, Progress: -1, Failure: f, Detail: "waiting for " + e.cfg.URL})
		e.closed(up, errors.Is(err, errSick))
	}
}

// reach waits until the server answers an inference. It fails only when what
// answers is no vLLM and never was.
func (e *Engine) reach(ctx context.Context, up *upstream, phase engine.Phase, known bool) ([]engine.Model, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		models, err := e.tryReach(ctx, up)
		if err == nil {
			return models, nil
		}
		if errors.Is(err, errNotVLLM) && !known {
			return nil, &engine.Failure{Cause: engine.CauseNotVLLM, Err: err,
				Message: fmt.Sprintf("what answers at %s is no vLLM that takes our requests: %v", e.cfg.URL, err),
				Remedy:  "check --vllm-url, and VLLM_API_KEY when that vLLM wants a key"}
		}
		st := engine.Status{Phase: phase, Progress: -1, Failure: e.Status().Failure,
			Detail: clip(fmt.Sprintf("waiting for %s: %v", e.cfg.URL, err), 200)}
		if old := e.Status(); old.Detail != st.Detail || old.Phase != st.Phase {
			e.publish(st)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil, nil
}

// tryReach returns errNotVLLM for an answer that a vLLM would not give.
func (e *Engine) tryReach(ctx context.Context, up *upstream) ([]engine.Model, error) {
	status, _, err := up.get(ctx, "/health", maxErrorBody)
	switch {
	case err != nil && notHTTP(err):
		return nil, fmt.Errorf("%w: %v", errNotVLLM, err)
	case err != nil:
		return nil, err
	case status == http.StatusServiceUnavailable:
		return nil, errors.New("it is not ready")
	case status != http.StatusOK:
		return nil, fmt.Errorf("%w: GET /health: HTTP %d", errNotVLLM, status)
	}
	if err := e.rouse(ctx, up); err != nil {
		return nil, err
	}
	return e.firstInference(ctx, up)
}

// follow serves until the server is lost: it refuses connections, or does not
// answer three times in a row, since one that is busy answers late.
func (e *Engine) follow(ctx context.Context, up *upstream) error {
	lost := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for missed := 0; missed < 3; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			status, _, err := up.get(ctx, "/health", maxErrorBody)
			switch {
			case err == nil && status == http.StatusOK:
				missed = 0
			case err != nil && refused(err), err == nil:
				missed = 3
			default:
				missed++
			}
		}
		lost <- errLost
	})
	return e.attend(ctx, up, nil, lost)
}

// refused says that nobody listens, or nobody is there.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// notHTTP says that what answers speaks another protocol. net/http has no type
// for that.
func notHTTP(err error) bool {
	return strings.Contains(err.Error(), "malformed HTTP")
}
