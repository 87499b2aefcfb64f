package jobs

import (
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"strings"
	"time"

	"infer/internal/store"
)

// kind says what a task does.
type kind string

const (
	kindJob      kind = "job"
	kindBatch    kind = "batch"
	kindResponse kind = "resp"
)

// state is where a task stands.
//
//	from              to        by
//	(nothing)         queued    whoever accepts it
//	queued            running   claim, not before NotBefore
//	running           running   renew by its holder; claim by anyone once the lease is over or its process known to be dead
//	running           queued    handBack by its holder
//	running           ended     end by its holder
//	queued, running   ended     end by nobody: a cancellation
//
// One that has ended and has a webhook goes on to deliver it; see hook.
type state string

const (
	queued  state = "queued"
	running state = "running"
	ended   state = "ended"
)

// task is one piece of durable work. Exactly one of the pointers is set.
type task struct {
	ID        string    `json:"id"`
	Kind      kind      `json:"kind"`
	Owner     string    `json:"owner"`
	Todo      string    `json:"todo"` // key of its reminder
	State     state     `json:"state"`
	Holder    string    `json:"holder,omitempty"` // of the lease; kept when it ended
	Until     time.Time `json:"until,omitzero"`   // end of the lease
	Attempts  int       `json:"attempts"`         // claims that were not handed back, of a batch since its last result
	Faults    int       `json:"faults"`           // answers of the engine that were its own fault
	Created   time.Time `json:"created"`
	Began     time.Time `json:"began,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Deadline  time.Time `json:"deadline"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Keep      int64     `json:"keep_seconds"` // after it ended

	Job      *job      `json:"job,omitzero"`
	Batch    *batch    `json:"batch,omitzero"`
	Response *response `json:"response,omitzero"`
}

// Why a task cannot be moved.
var (
	errHeld  = errors.New("somebody else holds the lease")
	errLost  = errors.New("the lease was lost")
	errEnded = errors.New("the task has ended")
	errEarly = errors.New("the task waits until it may run again")
	errShape = errors.New("the task cannot be written as JSON")
)

func (t *task) key() string { return taskKey(t.Kind, t.Owner, t.ID) }

func taskKey(k kind, owner, id string) string {
	return "task/" + string(k) + "/" + ownerKey(owner) + "/" + id
}

// claim takes the lease for a new holder. Where one process has the store for
// itself, sole, whoever else holds a lease is dead.
func (t *task) claim(holder string, now time.Time, sole bool) error {
	dead := sole && processOf(t.Holder) != processOf(holder)
	switch {
	case t.State == ended:
		return errEnded
	case t.State == running && now.Before(t.Until) && !dead:
		return errHeld
	case t.State == queued && now.Before(t.NotBefore):
		return errEarly
	}
	t.State, t.Holder, t.Until = running, holder, now.Add(leaseFor)
	t.Attempts++
	if t.Began.IsZero() {
		t.Began = now
	}
	return nil
}

// processOf is the process that a holder belongs to.
func processOf(holder string) string {
	process, _, _ := strings.Cut(holder, ".")
	return process
}

// renew makes the lease longer.
func (t *task) renew(holder string, now time.Time) error {
	if t.State != running || t.Holder != holder {
		return errLost
	}
	t.Until = now.Add(leaseFor)
	return nil
}

// handBack gives the task up, to be claimed again no earlier than then. It is
// not the task's fault and counts as no attempt.
func (t *task) handBack(holder string, then time.Time) error {
	if t.State != running || t.Holder != holder {
		return errLost
	}
	t.State, t.Holder, t.Until, t.NotBefore = queued, "", time.Time{}, then
	t.Attempts--
	return nil
}

// end finishes the task. A holder that is told an earlier end of its own has
// written it, whatever the store said then.
func (t *task) end(holder string, now time.Time) error {
	switch {
	case t.State == ended && holder != "" && t.Holder == holder:
		return nil
	case t.State == ended:
		return errEnded
	case holder != "" && (t.State != running || t.Holder != holder):
		return errLost
	}
	t.State, t.Ended = ended, now
	if holder == "" { // cancelled: whoever runs it holds nothing any more
		t.Holder = ""
	}
	return nil
}

// ttl is how long the store keeps the task as it is now.
func (t *task) ttl() time.Duration {
	switch {
	case t.owes():
		return t.keep() + contentSpare // as its answer is kept, so that what becomes of the webhook is written
	case t.State == ended:
		return max(time.Until(t.Ended.Add(t.keep())), time.Second)
	}
	return 0
}

// load returns a task and its revision.
func (s *Service) load(ctx context.Context, key string) (*task, string, error) {
	it, err := s.store.Get(ctx, key)
	if err != nil {
		return nil, "", err
	}
	var t task
	if err := json.Unmarshal(it.Value, &t); err != nil {
		return nil, "", fmt.Errorf("read task %s: %w", key, err)
	}
	return &t, it.Rev, nil
}

// update changes a task by compare-and-swap. change is called again when
// somebody else was first; its error ends the update and writes nothing.
func (s *Service) update(ctx context.Context, key string, change func(*task) error) (*task, error) {
	for {
		t, rev, err := s.load(ctx, key)
		if err != nil {
			return nil, err
		}
		if err := change(t); err != nil {
			return t, err
		}
		b, err := json.Marshal(t)
		if err != nil {
			return nil, fmt.Errorf("write task %s: %w: %w", key, errShape, err)
		}
		switch err := s.store.Swap(ctx, key, rev, b, t.ttl()); {
		case errors.Is(err, store.ErrConflict):
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		default:
			return t, err
		}
	}
}

// persist is update until the store takes it: what was computed is not lost
// because a store is away for a while.
func (s *Service) persist(ctx context.Context, key string, change func(*task) error) (*task, error) {
	for pause := persistPause; ; pause = min(2*pause, 5*time.Second) {
		t, err := s.update(ctx, key, change)
		if err == nil || final(err) {
			return t, err
		}
		s.log.Warn("task cannot be written, trying again", "key", key, "err", err)
		if err := wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// final says that trying again cannot help.
func final(err error) bool {
	for _, e := range []error{errHeld, errLost, errEnded, errEarly, errShape, store.ErrNotFound, store.ErrTooLarge, store.ErrBadKey} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reminder is the value of a key under todo/.
type reminder struct {
	Task string `json:"task"` // its key
}

// Reminders of batches, of other work and of ends that are to be told are apart,
// so that none is read for the sake of another.
const (
	todoPrefix = "todo/"
	todoBatch  = todoPrefix + "batch/"
	todoTask   = todoPrefix + "task/"
	todoHook   = todoPrefix + "hook/"
)

// todoKey is the key of a new reminder of t. It sorts by age, and says whose it
// is.
func (t *task) todoKey(now time.Time) string {
	prefix := todoTask
	if t.Kind == kindBatch {
		prefix = todoBatch
	}
	return fmt.Sprintf("%s%012x-%s.%s", prefix, now.UnixMilli(), ownerKey(t.Owner), t.ID)
}

// accept writes a new task, of which t.ID and t.Owner are set. created is false
// when the task was there already.
func (s *Service) accept(ctx context.Context, t *task) (created bool, err error) {
	now := time.Now()
	t.State, t.Created = queued, now
	t.Todo = t.todoKey(now)
	remind, err := json.Marshal(reminder{t.key()})
	if err != nil {
		return false, err
	}
	value, err := json.Marshal(t)
	if err != nil {
		return false, fmt.Errorf("write task %s: %w", t.ID, err)
	}
	// A reminder of the same task in the same millisecond is as good as ours.
	if err := s.store.Create(ctx, t.Todo, remind, 0); err != nil && !errors.Is(err, store.ErrConflict) {
		return false, err
	}
	err = s.store.Create(ctx, t.key(), value, 0)
	if errors.Is(err, store.ErrConflict) {
		return false, nil // look removes the reminder, which is not the task's
	}
	if err == nil && time.Since(now) > orphanAfter/2 { // a store that slow may have lost us the reminder
		if again := s.store.Create(ctx, t.Todo, remind, 0); again != nil && !errors.Is(again, store.ErrConflict) {
			return false, again
		}
	}
	s.nudge()
	return err == nil, err
}

func (t *task) keep() time.Duration { return time.Duration(t.Keep) * time.Second }
