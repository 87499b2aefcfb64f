package vllm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"infer/internal/engine"
)

// Why the life of a vLLM ends.
var (
	errExited       = errors.New("vllm exited")
	errSick         = errors.New("vllm's engine process is dead")
	errStartTimeout = errors.New("the start makes no progress")
	errLost         = errors.New("vllm does not answer any more")
)

const (
	maxFailures   = 5               // starts in a row that did not lead to a steady life
	steady        = time.Minute     // what is ready for so long has started well
	firstPause    = time.Second     // before the second start; doubles
	longestPause  = time.Minute     //
	corpseTimeout = 4 * time.Second // a dead engine's server ends its answers and exits within 2 s, or never
	healthEvery   = 200 * time.Millisecond
	maxSocketPath = 107 // sun_path of unix(7), less its NUL
)

// supervise starts vLLM, and again when it ends, until ctx ends or no restart
// can help.
func (e *Engine) supervise(ctx context.Context) error {
	if f := e.preflight(); f != nil {
		return f
	}
	dir, socket, f := e.socket()
	if f != nil {
		return f
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is an empty folder
	p := proof{memory: e.memory, log: e.log}
	p.note(ctx)
	failures := 0
	for {
		f, ready, gone := e.live(ctx, socket)
		if ctx.Err() != nil {
			return nil
		}
		if f == nil { // it cannot sleep, and starts without at once
			continue
		}
		if ready >= steady {
			failures = 0
		}
		failures++
		e.ended(f, ready)
		for {
			if !f.Retryable || failures >= maxFailures || !gone {
				return f
			}
			if !e.pause(ctx, f, failures) {
				return nil
			}
			held := p.wait(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if held == nil {
				break
			}
			f = held
			failures++
			e.ended(f, 0)
		}
		e.metrics.restarts.Inc()
	}
}

// preflight finds what would only be found minutes later.
func (e *Engine) preflight() *engine.Failure {
	if _, err := exec.LookPath(e.cfg.program()); err != nil {
		return &engine.Failure{Cause: engine.CauseProgramMissing, Err: err,
			Message: fmt.Sprintf("the program %q cannot be run: %v", e.cfg.program(), reason(err)),
			Remedy:  "install vLLM, name its command with --vllm-program, or attach to a running one with --vllm-url"}
	}
	if isPath(e.cfg.Model) {
		if _, err := os.Stat(e.cfg.Model); err != nil {
			return &engine.Failure{Cause: engine.CauseModelNotFound, Err: err,
				Message: fmt.Sprintf("the model %s cannot be read: %v", e.cfg.Model, reason(err)),
				Remedy:  "check the path and the mounted volume"}
		}
	}
	return nil
}

// reason is an error without the path that is said already.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		return lookup.Err
	}
	return err
}

// socket makes a folder that only we may enter, and names the socket in it.
func (e *Engine) socket() (dir, socket string, f *engine.Failure) {
	dir, err := os.MkdirTemp(e.cfg.RunDir, "infer-vllm-")
	if err != nil {
		return "", "", &engine.Failure{Cause: engine.CauseSocket, Err: err,
			Message: fmt.Sprintf("no folder for vllm's socket can be made: %v", err),
			Remedy:  "set TMPDIR to a writable folder"}
	}
	socket = filepath.Join(dir, "api.sock")
	if len(socket) > maxSocketPath {
		_ = os.RemoveAll(dir)
		return "", "", &engine.Failure{Cause: engine.CauseSocket,
			Message: fmt.Sprintf("the path of vllm's socket, %s, is longer than %d bytes", socket, maxSocketPath),
			Remedy:  "set TMPDIR to a shorter path"}
	}
	return dir, socket, nil
}

func (e *Engine) ended(f *engine.Failure, ready time.Duration) {
	e.metrics.exits.WithLabelValues(string(f.Cause)).Inc()
	e.log.Error("engine ended", "cause", string(f.Cause), "err", f.Message, "remedy", f.Remedy,
		"retryable", f.Retryable, "ready_seconds", ready.Seconds())
}

// pause waits before another start, and says so. It returns false when ctx ended.
func (e *Engine) pause(ctx context.Context, f *engine.Failure, failures int) bool {
	wait := min(firstPause<<(failures-1), longestPause)
	st := engine.Status{Phase: engine.Starting, Progress: -1, Failure: f,
		Detail: fmt.Sprintf("starting again after %s, attempt %d", f.Cause, failures+1)}
	if left, ok := e.learned.remaining(engine.Starting, 0); ok {
		st.ReadyAt = time.Now().Add(wait + left)
	}
	e.publish(st)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// live is one vLLM from its start to its seen end. It returns why it ended, nil
// when it is to be started without sleep mode; how long it was ready; and
// whether all of its processes are gone.
func (e *Engine) live(ctx context.Context, socket string) (f *engine.Failure, ready time.Duration, gone bool) {
	e.restless = false
	_ = os.Remove(socket) // vLLM leaves it behind and does not start over one
	t := newTracker()
	j := &journal{log: e.log, secrets: e.secrets()}
	sleep := e.cfg.SleepAfter > 0 && !e.sleepless
	ch, err := start(e.cfg.command(socket, sleep), func(line string) { j.line(line); t.line(line) }, e.log)
	if err != nil {
		return &engine.Failure{Cause: engine.CauseProgramMissing, Err: err, Message: fmt.Sprintf("start vllm: %v", err),
			Remedy: "name vLLM's command with --vllm-program"}, 0, true
	}
	e.log.Info("vllm started", "pid", ch.family.leader, "model", e.cfg.Model)
	var wg sync.WaitGroup
	defer wg.Wait()
	inside, leave := context.WithCancel(ctx)
	defer leave()
	wg.Go(func() { ch.reapOrphans(inside) })
	wg.Go(func() { // the child's end ends what is done with it
		select {
		case <-ch.exited:
			leave()
		case <-inside.Done():
		}
	})
	up, err := newUpstream("unix://"+socket, e.cfg.Key)
	if err == nil {
		err = e.bringUp(inside, ch, up, t)
	}
	began := time.Now()
	wasReady := err == nil
	if wasReady {
		err = e.attend(inside, up, ch.exited, nil)
		ready = time.Since(began)
	}
	e.farewell(ctx, err)
	if up != nil {
		e.closed(up, ctx.Err() == nil && (errors.Is(err, errSick) || exited(ch)))
	}
	if errors.Is(err, errSick) || errors.Is(err, errUnmoved) {
		wait(ch.exited, corpseTimeout)
	}
	if errors.Is(err, errUnmoved) && exited(ch) {
		err = errExited
	}
	endErr := ch.end(e.cfg.patience())
	if endErr != nil {
		return &engine.Failure{Cause: engine.CauseMemoryHeld, Retryable: true, Err: endErr, Message: "stop vllm: " + endErr.Error(),
			Remedy: "move this container to another node"}, ready, false
	}
	e.log.Info("vllm has ended", "pid", ch.family.leader, "state", ch.state.String())
	if sleep && !wasReady && e.cannotSleep(j.lines()) {
		return nil, 0, true
	}
	return e.why(err, ch, j, wasReady), ready, true
}

// farewell publishes that requests are not welcome any more, before they fail.
func (e *Engine) farewell(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		e.publish(engine.Status{Phase: engine.Draining, Progress: -1, Detail: "stopping vllm"})
	case errors.Is(err, errStalled):
		e.publish(engine.Status{Phase: engine.Stalled, Progress: -1, Detail: "requests are in flight and nothing moves"})
	default:
		e.publish(engine.Status{Phase: engine.Starting, Progress: -1, Detail: "ending what is left of the former vllm"})
	}
}

// why turns the end of a life into its failure.
func (e *Engine) why(err error, ch *child, j *journal, ready bool) *engine.Failure {
	if f, ok := errors.AsType[*engine.Failure](err); ok {
		return f
	}
	switch {
	case errors.Is(err, errStalled):
		return &engine.Failure{Cause: engine.CauseStalled, Retryable: true,
			Message: fmt.Sprintf("vllm stalled: requests were in flight and nothing moved for %v", e.cfg.StallTimeout),
			Remedy:  "it is started again; if it repeats, see its lines in the log, or raise --stall-timeout"}
	case errors.Is(err, errStartTimeout):
		return &engine.Failure{Cause: engine.CauseStartTimeout, Retryable: true,
			Message: fmt.Sprintf("vllm said nothing for %v while it started", e.cfg.startTimeout()),
			Remedy:  "see its last lines in the log; it is started again"}
	}
	now := oomKills()
	end := ending{state: ch.state, lines: j.lines(), ready: ready, oomKilled: ch.oom >= 0 && now > ch.oom}
	if !errors.Is(err, errUnmoved) {
		return diagnose(end)
	}
	if f := recognise(end); f != nil { // it did not end by itself: its status tells nothing
		return f
	}
	return &engine.Failure{Cause: engine.CauseEngineFault, Retryable: true, Err: err, Message: err.Error(),
		Remedy: "it is started again; without --sleep-after it stays awake"}
}

var noSleep = regexp.MustCompile(`(?i)sleep mode is not supported|unrecognized arguments: --enable-sleep-mode`)

// cannotSleep notices a platform without sleep mode, where vLLM does not even
// start with its flag.
func (e *Engine) cannotSleep(lines []string) bool {
	if !slices.ContainsFunc(lines, noSleep.MatchString) {
		return false
	}
	e.sleepless = true
	e.log.Warn("this vllm cannot sleep; it starts again and stays awake")
	return true
}

// secrets are what must not be logged even if vLLM prints it.
func (e *Engine) secrets() []string {
	var secrets []string
	for _, v := range append((&exec.Cmd{}).Environ(), e.cfg.Env...) {
		for _, name := range []string{"HF_TOKEN=", "HUGGING_FACE_HUB_TOKEN=", "VLLM_API_KEY="} {
			if len(v) > len(name)+8 && v[:len(name)] == name {
				secrets = append(secrets, v[len(name):])
			}
		}
	}
	return secrets
}

func wait(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
