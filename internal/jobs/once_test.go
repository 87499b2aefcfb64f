package jobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// sync2 are two replicas whose route /x answers at once, over one store.
func sync2(t *testing.T, test func(t *testing.T, a, b *replica, e *engine)) {
	synctest.Test(t, func(t *testing.T) {
		e, st := newEngine(), store.NewMemory(1<<30)
		a, b := newReplica(t, st, "", e.chain), newReplica(t, st, "", e.chain)
		defer a.end()
		defer b.end()
		for _, r := range []*replica{a, b} {
			r.mux.Handle("POST /x", r.s.Once(e))
		}
		test(t, a, b, e)
	})
}

func TestKeyRunsOnce(t *testing.T) {
	sync2(t, func(t *testing.T, a, b *replica, e *engine) {
		e.took = func() time.Duration { return time.Minute } // longer than a lease
		const body = `{"prompt":"a"}`
		first := make(chan string)
		go func() {
			status, text := a.do("POST", "/x", body, idempotencyHeader, "k")
			first <- fmt.Sprint(status, " ", text)
		}()
		<-time.After(50 * time.Second)
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/x", strings.NewReader(body))
		req.Header.Set(idempotencyHeader, "k")
		w := httptest.NewRecorder()
		b.mux.ServeHTTP(w, req)
		if w.Code != 409 || w.Header().Get("Retry-After") != "1" || w.Header().Get("X-Should-Retry") != "true" || !strings.Contains(w.Body.String(), "idempotency_key_busy") {
			t.Errorf("while the first runs: %d %v %s", w.Code, w.Header(), w.Body)
		}
		want := <-first
		synctest.Wait()
		if status, text := b.do("POST", "/x", body, idempotencyHeader, "k"); fmt.Sprint(status, " ", text) != want || e.runs("a") != 1 {
			t.Errorf("the other replica says %d %s after %d runs; the first said %s", status, text, e.runs("a"), want)
		}
		for _, other := range []string{`{"prompt":"b"}`, `{"prompt":"a" }`} {
			if status, text := b.do("POST", "/x", other, idempotencyHeader, "k"); status != 409 || !strings.Contains(text, "idempotency_key_reused") {
				t.Errorf("%s with the same key: %d %s", other, status, text)
			}
		}
		if b.do("POST", "/x", body, idempotencyHeader, "k", "From", "another"); e.runs("a") != 2 {
			t.Errorf("another caller with the same key: %d runs", e.runs("a"))
		}
		if a.do("POST", "/x", body); e.runs("a") != 3 {
			t.Errorf("without a key: %d runs", e.runs("a"))
		}
	})
}

// What is no whole success may be sent again.
func TestKeyIsFreedByFailure(t *testing.T) {
	for name, reply := range map[string]func(w http.ResponseWriter){
		"error": func(w http.ResponseWriter) {
			openai.WriteError(w, openai.Invalid("a", openai.CodeInvalidValue, "no"))
		},
		"broken": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"stream that breaks off": func(w http.ResponseWriter) {
			s := openai.NewStream(w)
			_ = s.Send(map[string]int{"n": 1}) // a recorder takes all
			_ = s.Fail(openai.Internal("half way"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			sync2(t, func(t *testing.T, a, b *replica, e *engine) {
				e.reply = func(w http.ResponseWriter, prompt string) bool {
					if e.runs(prompt) == 1 {
						reply(w)
						return true
					}
					return false
				}
				func() {
					defer func() { _ = recover() }() // as net/http does
					a.do("POST", "/x", `{"prompt":"a"}`, idempotencyHeader, "k")
				}()
				if status, text := b.do("POST", "/x", `{"prompt":"a"}`, idempotencyHeader, "k"); status != 200 || e.runs("a") != 2 {
					t.Errorf("%d %s after %d runs", status, text, e.runs("a"))
				}
			})
		})
	}
}

func TestStreamIsReplayed(t *testing.T) {
	sync2(t, func(t *testing.T, a, b *replica, e *engine) {
		e.reply = func(w http.ResponseWriter, prompt string) bool {
			s := openai.NewStream(w)
			for i := range 3 {
				_ = s.Send(map[string]int{"n": i}) // a recorder takes all
			}
			_ = s.Done()
			return true
		}
		_, first := a.do("POST", "/x", `{"prompt":"a"}`, idempotencyHeader, "k")
		req := httptest.NewRequestWithContext(t.Context(), "POST", "/x", strings.NewReader(`{"prompt":"a"}`))
		req.Header.Set(idempotencyHeader, "k")
		w := httptest.NewRecorder()
		b.mux.ServeHTTP(w, req)
		if w.Body.String() != first || !strings.HasSuffix(first, "data: [DONE]\n\n") || e.runs("a") != 1 ||
			!strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") || w.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("replayed %q %v after %d runs; was %q", w.Body, w.Header(), e.runs("a"), first)
		}
	})
}

// A replica that dies with the first request does not keep the key for ever,
// and a client that leaves gives it up.
func TestKeyOfTheDead(t *testing.T) {
	sync2(t, func(t *testing.T, a, b *replica, e *engine) {
		o := &onceRun{s: a.s, key: "idem/-/sync/" + hash([]byte("k")), holder: "dead.1"}
		if mine, _, err := o.take(t.Context(), hash([]byte("/x\n"+`{"prompt":"a"}`))); !mine || err != nil {
			t.Fatal(mine, err)
		}
		if status, _ := b.do("POST", "/x", `{"prompt":"a"}`, idempotencyHeader, "k"); status != 409 {
			t.Errorf("at once: %d", status)
		}
		<-time.After(leaseFor)
		if status, _ := b.do("POST", "/x", `{"prompt":"a"}`, idempotencyHeader, "k"); status != 200 || e.runs("a") != 1 {
			t.Errorf("after the lease: %d, %d runs", status, e.runs("a"))
		}
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, leave)
		req := httptest.NewRequestWithContext(ctx, "POST", "/x", strings.NewReader(`{"prompt":"b"}`))
		req.Header.Set(idempotencyHeader, "l")
		a.mux.ServeHTTP(httptest.NewRecorder(), req)
		if status, _ := b.do("POST", "/x", `{"prompt":"b"}`, idempotencyHeader, "l"); status != 200 || e.runs("b") != 2 {
			t.Errorf("after a client that left: %d, %d runs", status, e.runs("b"))
		}
	})
}

// outage is a store that does what it is asked and, while away, cannot say so.
type outage struct {
	store.Store
	away   atomic.Bool
	late   time.Duration // after which a Create takes place while away
	denies atomic.Int32  // of so many Deletes it says that they met another's write
}

var errAway = errors.New("the store does not answer")

func (o *outage) say(err error) error {
	if o.away.Load() {
		return errAway
	}
	return err
}

func (o *outage) Create(ctx context.Context, key string, v []byte, ttl time.Duration) error {
	if o.away.Load() && o.late > 0 {
		time.AfterFunc(o.late, func() { _ = o.Store.Create(context.Background(), key, v, ttl) }) // nobody hears of it
		return errAway
	}
	return o.say(o.Store.Create(ctx, key, v, ttl))
}

func (o *outage) Swap(ctx context.Context, key, rev string, v []byte, ttl time.Duration) error {
	return o.say(o.Store.Swap(ctx, key, rev, v, ttl))
}

func (o *outage) Delete(ctx context.Context, key, rev string) error {
	switch {
	case o.away.Load():
		return errAway // and it is not done
	case o.denies.Add(-1) >= 0:
		return store.ErrConflict
	}
	return o.Store.Delete(ctx, key, rev)
}

func (o *outage) Get(ctx context.Context, key string) (store.Item, error) {
	it, err := o.Store.Get(ctx, key)
	return it, o.say(err)
}

// brief is an answer whose header is not to be touched after its handler.
type brief struct {
	*httptest.ResponseRecorder
	over bool
}

func (b *brief) Header() http.Header {
	if b.over {
		panic("Header called after Handler finished") // as HTTP/2 has it
	}
	return b.ResponseRecorder.Header()
}

// A store that was away for a moment holds nobody up for a whole lease: a claim
// that it took without an answer is given up, and an answer that it did not
// take is kept, as soon as it is back.
func TestKeyOverAnOutage(t *testing.T) {
	const body = `{"prompt":"a"}`
	for name, test := range map[string]struct {
		begins time.Duration // of the outage, from the begin of the request
		late   time.Duration
		denies int32
		fails  bool // the engine
		first  int  // status
		runs   int  // in all
	}{
		"at the claim":            {first: 503, runs: 1},
		"at a claim that is slow": {late: 5500 * time.Millisecond, first: 503, runs: 1},
		"at the answer":           {begins: 500 * time.Millisecond, first: 200, runs: 1},
		"at a failure":            {begins: 500 * time.Millisecond, fails: true, first: 500, runs: 2},
		"beside a late renewal":   {begins: time.Hour, denies: 1, fails: true, first: 500, runs: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, st := newEngine(), &outage{Store: store.NewMemory(1 << 30), late: test.late}
				e.reply = func(w http.ResponseWriter, prompt string) bool {
					if test.fails && e.runs(prompt) == 1 {
						openai.WriteError(w, openai.Internal("broke"))
						return true
					}
					return false
				}
				a, b := newReplica(t, st, "", e.chain), newReplica(t, st, "", e.chain)
				defer a.end()
				defer b.end()
				for _, r := range []*replica{a, b} {
					r.mux.Handle("POST /x", r.s.Once(e))
				}
				synctest.Wait()
				st.denies.Store(test.denies)
				st.away.Store(test.begins == 0)
				time.AfterFunc(test.begins, func() { st.away.Store(true) })
				time.AfterFunc(test.begins+4500*time.Millisecond, func() { st.away.Store(false) })
				w := &brief{ResponseRecorder: httptest.NewRecorder()}
				r := httptest.NewRequestWithContext(t.Context(), "POST", "/x", strings.NewReader(body))
				r.Header.Set(idempotencyHeader, "k")
				a.mux.ServeHTTP(w, r)
				w.over = true
				if w.Code != test.first {
					t.Fatalf("at first: %d %s", w.Code, w.Body)
				}
				<-time.After(6*time.Second + 2*settleEvery)
				if status, text := b.do("POST", "/x", body, idempotencyHeader, "k"); status != 200 || e.runs("a") != test.runs {
					t.Errorf("after it, on the other replica: %d %s, %d runs", status, text, e.runs("a"))
				}
			})
		})
	}
}

// What waits to be written when the process ends is written then.
func TestOutcomesAtTheEnd(t *testing.T) {
	st := store.NewMemory(1 << 20)
	s, err := New(config(), st, "", func(*http.Request) string { return "" }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxOutcomes {
		o := &onceRun{s: s, key: fmt.Sprint("idem/-/sync/", i), holder: "h"}
		if mine, _, err := o.take(t.Context(), "d"); !mine || err != nil {
			t.Fatal(mine, err)
		}
		(&outcome{onceRun: o}).later(errAway)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s.writeOutcomes(ctx)
	if keys, err := st.List(t.Context(), "idem/", "", page); err != nil || len(keys) > 0 {
		t.Errorf("%d keys wait for the end of their lease, %v", len(keys), err)
	}
}
