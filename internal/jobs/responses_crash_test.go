package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// drowsy is the store as a process sees it that stands still now and then, for
// longer than a lease, in the middle of a write to a log.
type drowsy struct {
	store.Store
	random func() float64

	mu    sync.Mutex
	until time.Time
}

func (d *drowsy) stand(mayBegin bool) (stood bool) {
	d.mu.Lock()
	now := time.Now()
	if mayBegin && d.until.Before(now) && d.random() < 0.03 {
		d.until = now.Add(time.Duration(d.random() * float64(3*leaseFor)))
	}
	left := d.until.Sub(now)
	d.mu.Unlock()
	if left > 0 {
		<-time.After(left)
	}
	return left > 0
}

func (d *drowsy) Create(ctx context.Context, key string, v []byte, ttl time.Duration) error {
	d.stand(strings.HasPrefix(key, "log/"))
	return d.Store.Create(ctx, key, v, ttl)
}

func (d *drowsy) Swap(ctx context.Context, key, rev string, v []byte, ttl time.Duration) error {
	if d.stand(false) {
		<-time.After(time.Duration(d.random() * float64(renewEvery))) // the log is written to before the lease is known to be lost
	}
	return d.Store.Swap(ctx, key, rev, v, ttl)
}

// Whatever dies or stands still at whatever step: a stream that is resumed
// elsewhere each time tells every number once and one end, and the response is
// what it told.
func TestStreamsSurviveCrashes(t *testing.T) {
	restarts, givenUp := 0, 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, e := newCluster(t, seed), &talker{words: 12}
				c.deadly = 0.002 // most runs live long enough to end
				c.start = func(st store.Store) *replica {
					m := st.(*mortal)
					m.Store = &drowsy{Store: m.Store, random: c.random}
					return talking(t, m, e)
				}
				c.begin()
				var all []event
				for i := 0; len(all) == 0; i++ {
					status, text := c.any().do("POST", "/v1/responses", `{"input":"one","background":true,"stream":true}`)
					if status != 200 {
						<-time.After(time.Second)
						continue
					}
					all = events(t, text)
				}
				path := "/v1/responses/" + all[0].Response.ID
				for tries := 0; !terminal(all[len(all)-1]); tries++ {
					if tries == 5000 {
						t.Fatalf("no end after %d tries: %+v", tries, all)
					}
					_, text := c.any().do("GET", fmt.Sprintf("%s?stream=true&starting_after=%d", path, all[len(all)-1].Number), "")
					if strings.HasPrefix(text, "{") && !strings.Contains(text, "store_unavailable") {
						t.Fatal(text)
					}
					all = append(all, events(t, text)...)
					<-time.After(time.Second)
				}
				inOrder(t, all, 0)
				var o map[string]any
				c.settle(func() {
					for o = object(t, c.send(200, "GET", path, "")); !ended3(o); o = object(t, c.send(200, "GET", path, "")) {
						<-time.After(time.Second)
					}
				})
				restarts += strings.Count(fmt.Sprint(all), "response.queued") - 1
				end := all[len(all)-1].Response
				if o["status"] != end.Status || (end.Status == "completed" && (text(all) != outputOf(o) || !strings.HasSuffix(outputOf(o), "w11 "))) {
					t.Errorf("%v after %q, which ended %s", o, text(all), end.Status)
				}
				if end.Status != "completed" {
					if end.Error == nil || !strings.Contains(end.Error.Message, "several times") {
						t.Errorf("ended %+v %+v", end, end.Error)
					}
					givenUp++
				}
			})
		})
	}
	if restarts < 20 || givenUp > 10 {
		t.Errorf("%d runs began anew, %d responses were given up: the test does not test", restarts, givenUp)
	}
}

// Of two runs that go on from the same place of a log, the second adds nothing.
func TestLogTakesOneWriter(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, _ *talker) {
		tk := &task{ID: "resp_x", Kind: kindResponse, Response: &response{Stream: true}}
		first, err := r.s.openLog(t.Context(), tk, "first")
		if err != nil {
			t.Fatal(err)
		}
		again := *first // as after a write that took place though the store said that it did not
		second, err := r.s.openLog(t.Context(), tk, "second")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []struct {
			l    *responseLog
			want error
		}{{second, nil}, {first, errLost}} {
			if err := w.l.append(t.Context(), []byte("event: x\ndata: {}\n\n"), 3, entry{}); !errors.Is(err, w.want) {
				t.Errorf("%s wrote: %v, want %v", w.l.holder, err, w.want)
			}
		}
		again.holder = "second"
		if err := again.append(t.Context(), []byte("event: x\ndata: {}\n\n"), 3, entry{}); err != nil {
			t.Errorf("its own entry: %v", err)
		}
		if l, err := r.s.openLog(t.Context(), tk, ""); err != nil || l.index != 1 || l.next != 3 {
			t.Errorf("the log ends at %+v, %v", l, err)
		}
	})
}

// Long events are put once, however often the store is tried.
func TestLogPutsEventsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &failing{Store: store.NewMemory(1 << 26), prefix: "log/"}
		r := talking(t, st, &talker{})
		defer r.end()
		l, err := r.s.openLog(t.Context(), &task{ID: "resp_x", Kind: kindResponse}, "h")
		if err != nil {
			t.Fatal(err)
		}
		st.left.Store(5)
		if err := l.append(t.Context(), bytes.Repeat([]byte("x"), chunkBytes), 3, entry{}); err != nil {
			t.Fatal(err)
		}
		if keys, err := st.List(t.Context(), "blob/", "", page); err != nil || len(keys) != 1 || st.left.Load() >= 0 {
			t.Errorf("put are %q, %v", keys, err)
		}
	})
}

// A process that dies between the end in the log and the task has answered: the
// next one asks nothing again.
func TestLoggedEndIsNotRunAgain(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		tk := &task{ID: "resp_x", Kind: kindResponse, Deadline: time.Now().Add(time.Hour), Keep: 3600, Response: &response{Background: true, Stream: true}}
		l, err := r.s.openLog(t.Context(), tk, "dead")
		if err == nil {
			err = l.finish(t.Context(), []byte("event: x\ndata: {}\n\n"), 3, []byte(`{"status":"completed"}`))
		}
		if err == nil {
			err = r.s.acceptResponse(t.Context(), tk, responseAsk{body: []byte(`{"input":"x","stream":true}`), items: []byte(`[]`)}, []byte(`{"status":"queued"}`))
		}
		if err != nil {
			t.Fatal(err)
		}
		if o := r.until("/v1/responses/resp_x", ended3); o["status"] != "completed" || e.runs() != 0 {
			t.Errorf("ended as %v after %d runs", o, e.runs())
		}
	})
}

// A cancellation races with the run at every step of it: one end, which poll,
// stream and cancellation agree on.
func TestCancelRacesWithTheEnd(t *testing.T) {
	ends := map[string]int{}
	for step := range 40 {
		synctest.Test(t, func(t *testing.T) {
			st, e := store.NewMemory(1<<30), &talker{words: 3}
			r, other := talking(t, st, e), talking(t, st, e)
			defer r.end()
			defer other.end()
			var all []event
			started := make(chan string, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				o := r.must("POST", "/v1/responses", `{"input":"x","background":true,"stream":false}`)
				started <- o["id"].(string)
				_, body := r.do("POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`)
				all = events(t, body)
			}()
			plain := <-started
			<-time.After(time.Duration(step) * 100 * time.Millisecond)
			prefix := taskKey(kindResponse, "", "")
			keys, err := st.List(t.Context(), prefix, "", 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				path := "/v1/responses/" + strings.TrimPrefix(key, prefix)
				o := other.must("POST", path+"/cancel", "")
				ends[o["status"].(string)]++
				if got := r.must("GET", path, ""); got["status"] != o["status"] {
					t.Errorf("cancelled as %v, then %v", o["status"], got["status"])
				}
			}
			<-done
			inOrder(t, all, 0)
			path := "/v1/responses/" + all[0].Response.ID
			if got := r.must("GET", path, ""); got["status"] != all[len(all)-1].Response.Status {
				t.Errorf("the stream ended %+v, the response is %v", all[len(all)-1], got["status"])
			}
			<-time.After(time.Minute) // also for what still ran
			if got := r.must("GET", "/v1/responses/"+plain, ""); !ended3(got) {
				t.Errorf("ended as %v", got)
			}
		})
	}
	if ends["cancelled"] < 10 || ends["completed"] < 10 {
		t.Errorf("the race had one winner: %v", ends)
	}
}
