package jobs

import (
	"context"
	"encoding/json/v2"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"infer/internal/store"
)

// holding is a task that this replica runs.
type holding struct {
	s      *Service
	key    string
	holder string // unique to this claim: an older one of this replica is as foreign as another's
	cancel context.CancelCauseFunc
	note   func(*task) // adds progress to a renewal; set before the renewals begin
	seen   func(*task) // looks at the task after a renewal
	counts counts      // of a batch
}

// Causes of the end of a task's context besides the end of the process.
var (
	errCancelled = errors.New("the task was cancelled")
	errExpired   = errors.New("the task ran out of time")
	errGivenUp   = errors.New("the process of the task has ended too often")
)

// page is how many reminders are read at once.
const page = 100

// look claims what can be claimed, until nothing is left or nothing is free. It
// returns how long to leave the store alone before the next look.
func (s *Service) look(ctx context.Context) (pause time.Duration) {
	s.passed = 0
	now := time.Now()
	maps.DeleteFunc(s.early, func(_ string, then time.Time) bool { return !now.Before(then) })
	s.lookAt(ctx, todoBatch, func() bool { return len(s.batches) < cap(s.batches) })
	s.lookAt(ctx, todoTask, func() bool { return len(s.tasks) < cap(s.tasks) })
	s.lookAt(ctx, todoHook, func() bool { return len(s.hooks) < cap(s.hooks) })
	idle := max(s.passed-cap(s.tasks), 0) // the others it may have claimed
	return min(time.Duration(idle)*lookPause, lookMost)
}

// lookAt follows the reminders of a folder for as long as there is room for one.
func (s *Service) lookAt(ctx context.Context, folder string, room func() bool) {
	for after := ""; ctx.Err() == nil && room(); {
		keys, err := s.store.List(ctx, folder, after, page)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("list of waiting tasks cannot be read, trying again", "err", err)
			}
			return
		}
		for _, key := range keys {
			if !room() {
				return
			}
			s.passed++
			if err := s.consider(ctx, key); err != nil && ctx.Err() == nil {
				s.log.Warn("task cannot be looked at, trying again", "todo", key, "err", err)
			}
		}
		if len(keys) < page {
			return
		}
		after = keys[len(keys)-1]
	}
}

// consider follows one reminder.
func (s *Service) consider(ctx context.Context, todo string) error {
	if _, early := s.early[todo]; early {
		return nil
	}
	it, err := s.store.Get(ctx, todo)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	var r reminder
	if err := json.Unmarshal(it.Value, &r); err != nil {
		return err
	}
	if s.holds(r.Task) {
		return nil
	}
	t, _, err := s.load(ctx, r.Task)
	hook := strings.HasPrefix(todo, todoHook)
	switch {
	case errors.Is(err, store.ErrNotFound):
		if hook || age(todo) > orphanAfter { // its task has expired, or was never written
			return s.store.Delete(ctx, todo, "")
		}
		return nil
	case err != nil:
		return err
	case hook && t.owes():
		if then := t.Job.Webhook.NotBefore; time.Now().Before(then) {
			s.early[todo] = then
			return nil
		}
		return s.startDelivery(ctx, r.Task)
	case !hook && t.Todo == todo && t.owes(): // its process ended before it could
		return s.owe(ctx, t)
	case hook, t.State == ended, t.Todo != todo:
		return s.store.Delete(ctx, todo, "")
	case t.State == queued && time.Now().Before(t.NotBefore): // nobody can claim it until then
		s.early[todo] = t.NotBefore
		return nil
	}
	return s.start(ctx, t)
}

// age is how long ago the reminder was made.
func age(todo string) time.Duration {
	text, _, _ := strings.Cut(todo[strings.LastIndexByte(todo, '/')+1:], "-")
	ms, err := strconv.ParseInt(text, 16, 64)
	if err != nil {
		return 0
	}
	return time.Since(time.UnixMilli(ms))
}

func (s *Service) holds(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[key] != nil
}

// start claims the task and runs it, if there is room for it.
func (s *Service) start(ctx context.Context, t *task) error {
	room := s.tasks
	if t.Kind == kindBatch {
		room = s.batches
	}
	select {
	case room <- struct{}{}:
	default:
		return nil
	}
	h := &holding{s: s, key: t.key(), holder: newID(s.replica + "."), note: func(*task) {}, seen: func(*task) {}}
	t, err := s.update(ctx, h.key, func(t *task) error { return t.claim(h.holder, time.Now(), s.sole) })
	if err != nil {
		<-room
		if final(err) {
			return nil // somebody else was first
		}
		return err
	}
	base := ctx
	ctx, h.cancel = context.WithCancelCause(base)
	s.mu.Lock()
	s.running[h.key] = h
	s.mu.Unlock()
	s.wg.Go(func() {
		defer s.nudge()
		defer func() {
			s.mu.Lock()
			delete(s.running, h.key)
			s.mu.Unlock()
			h.cancel(nil)
			<-room
		}()
		s.run(base, ctx, h, t)
	})
	return nil
}

// run does the work of a claimed task. ctx ends when the task is cancelled or
// its lease is lost, base with the process.
func (s *Service) run(base, ctx context.Context, h *holding, t *task) {
	if t.Attempts > maxAttempts && t.Kind != kindBatch { // which ends with what it has
		s.giveUp(ctx, h, t)
		return
	}
	switch t.Kind {
	case kindJob:
		s.runJob(ctx, h, t)
	case kindBatch:
		s.runBatch(base, ctx, h, t)
	case kindResponse:
		s.runResponse(ctx, h, t)
	}
}

// keepLease renews the lease until stop is called, and ends ctx when it is lost.
func (h *holding) keepLease(ctx context.Context, until time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with stop, which the caller always calls
		defer close(done)
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			t, err := h.s.update(ctx, h.key, func(t *task) error {
				h.note(t)
				return t.renew(h.holder, time.Now())
			})
			switch {
			case err == nil:
				until = t.Until
				h.seen(t)
			case ctx.Err() != nil:
				return
			case final(err), time.Now().After(until):
				h.cancel(errLost)
				return
			default:
				h.s.log.Warn("lease cannot be renewed, trying again", "key", h.key, "err", err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// finish ends a task with what change adds to it. written says that it has: a
// task that has not ended is run again, and needs what it was made of.
func (s *Service) finish(ctx context.Context, h *holding, change func(*task)) (written bool) {
	// What was computed is worth a moment of a shutdown.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseFor)
	defer cancel()
	t, err := s.persist(ctx, h.key, func(t *task) error {
		if err := t.end(h.holder, time.Now()); err != nil {
			return err
		}
		change(t)
		return nil
	})
	if err != nil {
		s.log.Warn("result was not stored", "key", h.key, "err", err)
		return false
	}
	s.tidy(ctx, t)
	return true
}

// tidy removes the reminders of a task that has ended, unless somebody is yet to
// be told. One that stays is removed when it is looked at.
func (s *Service) tidy(ctx context.Context, t *task) {
	if t.owes() {
		if err := s.owe(ctx, t); err != nil {
			s.log.Warn("reminder of a webhook cannot be written, trying again", "key", t.key(), "err", err)
		}
		return
	}
	todos := []string{t.Todo}
	if t.told() {
		todos = append(todos, t.hookKey())
	}
	for _, todo := range todos {
		if err := s.store.Delete(ctx, todo, ""); err != nil {
			s.log.Warn("reminder cannot be removed", "key", todo, "err", err)
		}
	}
}

// release gives a task back, to be run again after a pause.
func (s *Service) release(ctx context.Context, h *holding, pause time.Duration, change func(*task)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_, err := s.update(ctx, h.key, func(t *task) error {
		if err := t.handBack(h.holder, time.Now().Add(pause)); err != nil {
			return err
		}
		change(t)
		return nil
	})
	if err != nil && !final(err) {
		s.log.Warn("task cannot be handed back; its lease will end", "key", h.key, "err", err)
	}
	if pause > 0 { // somebody must look then
		time.AfterFunc(pause, s.nudge)
	}
}

// stopped ends a run whose context is over: what is lost or cancelled is no
// longer ours, the rest another replica goes on with.
func (s *Service) stopped(ctx context.Context, h *holding) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLost), errors.Is(cause, errCancelled):
		s.log.Info("task is no longer ours", "key", h.key, "cause", cause.Error())
	default:
		s.release(ctx, h, 0, func(*task) {})
	}
}

// interrupt ends a run on this replica at once; on another, the next renewal
// of its lease does.
func (s *Service) interrupt(key string, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.running[key]; h != nil {
		h.cancel(cause)
	}
}

// giveUp ends a task that has ended its process too often.
func (s *Service) giveUp(ctx context.Context, h *holding, t *task) {
	const message = "the server ended while this ran, several times; it is not tried again"
	s.log.Error("task given up", "key", h.key, "attempts", t.Attempts)
	if t.Kind == kindResponse {
		s.giveUpResponse(ctx, h, t, message)
		return
	}
	s.finish(ctx, h, func(t *task) { t.Job.fail("attempts_exhausted", message) })
}
