package jobs

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// Every move of a task is one that the table allows; each other is refused and
// changes nothing.
func TestMovesOfATask(t *testing.T) {
	now := time.Now()
	claim := func(holder string, sole bool) func(*task) error {
		return func(t *task) error { return t.claim(holder, now, sole) }
	}
	renew := func(holder string) func(*task) error {
		return func(t *task) error { return t.renew(holder, now) }
	}
	back := func(holder string) func(*task) error {
		return func(t *task) error { return t.handBack(holder, now) }
	}
	end := func(holder string) func(*task) error {
		return func(t *task) error { return t.end(holder, now) }
	}
	waiting := task{State: queued}
	early := task{State: queued, NotBefore: now.Add(time.Second)}
	held := task{State: running, Holder: "p.1", Until: now.Add(time.Second), Attempts: 1}
	over := task{State: running, Holder: "p.1", Until: now, Attempts: 1}
	done := task{State: ended, Holder: "p.1", Until: now.Add(-time.Hour), Ended: now.Add(-time.Minute)}
	cancelled := task{State: ended, Ended: now.Add(-time.Minute)}
	for _, c := range []struct {
		name string
		from task
		move func(*task) error
		err  error
		to   state
	}{
		{"claim of one that waits", waiting, claim("q.1", false), nil, running},
		{"claim before its time", early, claim("q.1", false), errEarly, queued},
		{"claim of another's", held, claim("q.1", false), errHeld, running},
		{"claim of a dead process's", held, claim("q.1", true), nil, running},
		{"claim of its own process's", held, claim("p.2", true), errHeld, running},
		{"claim after the lease", over, claim("q.1", false), nil, running},
		{"claim of one that has ended", done, claim("q.1", false), errEnded, ended},
		{"claim of one that has ended, alone", done, claim("q.1", true), errEnded, ended},
		{"claim by who ended it", done, claim("p.1", true), errEnded, ended},
		{"claim of one that was cancelled", cancelled, claim("q.1", true), errEnded, ended},
		{"renewal", held, renew("p.1"), nil, running},
		{"renewal of another's", held, renew("q.1"), errLost, running},
		{"renewal of one that has ended", done, renew("p.1"), errLost, ended},
		{"handing back", held, back("p.1"), nil, queued},
		{"handing back another's", held, back("q.1"), errLost, running},
		{"handing back what has ended", done, back("p.1"), errLost, ended},
		{"end", held, end("p.1"), nil, ended},
		{"end of another's", held, end("q.1"), errLost, running},
		{"end of one that waits", waiting, end("p.1"), errLost, queued},
		{"end, told again", done, end("p.1"), nil, ended},
		{"end by another after it", done, end("q.1"), errEnded, ended},
		{"end by the holder after a cancellation", cancelled, end("p.1"), errEnded, ended},
		{"cancellation of one that waits", waiting, end(""), nil, ended},
		{"cancellation of one that runs", held, end(""), nil, ended},
		{"cancellation after the end", done, end(""), errEnded, ended},
		{"cancellation, again", cancelled, end(""), errEnded, ended},
	} {
		got := c.from
		err := c.move(&got)
		if !errors.Is(err, c.err) || got.State != c.to {
			t.Errorf("%s: %v and %s, want %v and %s", c.name, err, got.State, c.err, c.to)
		}
		if err != nil && (got.Holder != c.from.Holder || got.Attempts != c.from.Attempts || !got.Ended.Equal(c.from.Ended)) {
			t.Errorf("%s was refused and changed the task to %+v", c.name, got)
		}
		if c.from.State == ended && !got.Ended.Equal(c.from.Ended) {
			t.Errorf("%s moved the end", c.name)
		}
	}
}

// A replica that read a task before another ended it does not run it again,
// and one that comes with a second result does not replace the first.
func TestAStoredResultStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		r := newReplica(t, store.NewMemory(1<<20), "", e.chain)
		defer r.end()
		id, _ := r.must("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"p"}}`)["id"].(string)
		key := taskKey(kindJob, "", id)
		old, _, err := r.s.load(t.Context(), key)
		if err != nil || old.State == ended {
			t.Fatalf("the task is %v, %v", old, err)
		}
		r.until("/v1/jobs/"+id, ended3)
		before, rev, err := r.s.load(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}

		if err := r.s.start(t.Context(), old); err != nil {
			t.Errorf("start() = %v", err)
		}
		late := &holding{s: r.s, key: key, holder: "other.1"}
		r.s.finish(t.Context(), late, func(t *task) { t.Job.fail("second", "a second result") })
		if _, err := r.s.cancel(t.Context(), key, func(t *task) { t.Job.Outcome = "cancelled" }); err != nil {
			t.Errorf("cancel() = %v", err)
		}
		<-time.After(2 * leaseFor)

		after, again, err := r.s.load(t.Context(), key)
		if err != nil || again != rev || after.Job.Outcome != before.Job.Outcome || after.Holder != before.Holder {
			t.Errorf("the task is %+v, %v, was %+v", after, err, before)
		}
		if n := e.runs("p"); n != 1 {
			t.Errorf("ran %d times", n)
		}
	})
}
