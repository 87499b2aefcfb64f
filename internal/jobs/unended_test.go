package jobs

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// unending is a store that from the first end of a task on swaps nothing for a
// while.
type unending struct {
	store.Store
	away  time.Duration
	sleep bool // its process stands still meanwhile, instead of being told
	mu    sync.Mutex
	until time.Time
}

func (e *unending) Swap(ctx context.Context, key, rev string, value []byte, ttl time.Duration) error {
	e.mu.Lock()
	if e.until.IsZero() && strings.HasPrefix(key, "task/") && strings.Contains(string(value), `"state":"ended"`) {
		e.until = time.Now().Add(e.away)
	}
	left := time.Until(e.until)
	e.mu.Unlock()
	switch {
	case left > 0 && !e.sleep:
		return errAway
	case left > 0:
		<-time.After(left)
	}
	return e.Store.Swap(ctx, key, rev, value, ttl)
}

// slow is a store that takes a second to find a result.
type slow struct{ store.Store }

func (s slow) Get(ctx context.Context, key string) (store.Item, error) {
	if strings.HasPrefix(key, "line/") {
		<-time.After(time.Second)
	}
	return s.Store.Get(ctx, key)
}

// A task whose end is not written within its lease keeps what it needs to be
// brought to its end once more.
func TestEndThatIsNotWritten(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, r *replica, e *engine){
		"job": func(t *testing.T, r *replica, e *engine) {
			o := r.must("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"p","x":"`+strings.Repeat("x", inlineBytes)+`"}}`)
			if o = r.until("/v1/jobs/"+o["id"].(string), ended3); o["status"] != "succeeded" || e.runs("p") != 2 {
				t.Errorf("%v after %d runs", o, e.runs("p"))
			}
		},
		"batch": func(t *testing.T, r *replica, e *engine) {
			o := r.until("/v1/batches/"+r.batchOf(requests(3), "24h"), ended3)
			if lines := r.content(o, "output_file_id"); o["status"] != "completed" || len(lines) != 3 || e.runs("p0") != 1 {
				t.Errorf("%v with lines %q after %d runs", o, lines, e.runs("p0"))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine()
				st := &unending{Store: store.NewMemory(1 << 26), away: leaseFor + 10*time.Second}
				r := newReplica(t, st, "", e.chain)
				defer r.end()
				test(t, r, e)
			})
		})
	}
}

// A process that stood still when it was about to end a batch takes nothing
// from the one that goes on with it.
func TestEndAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, shared := newEngine(), store.NewMemory(1<<26)
		a := newReplica(t, &unending{Store: shared, away: leaseFor + 25*time.Second, sleep: true}, "", e.chain)
		defer a.end()
		id := a.batchOf(requests(20), "24h")
		<-time.After(20 * time.Second)
		b := newReplica(t, slow{shared}, "", e.chain)
		defer b.end()
		o, runs := b.until("/v1/batches/"+id, ended3), 0
		for i := range 20 {
			runs += e.runs(fmt.Sprint("p", i))
		}
		if lines := b.content(o, "output_file_id"); o["error_file_id"] != nil || count(o, "completed") != 20 || len(lines) != 20 || runs != 20 {
			t.Errorf("%v with %d lines after %d runs", o, len(lines), runs)
		}
	})
}
