package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"infer/internal/admission"
	"infer/internal/caller"
)

// The routes of others have what all routes have, and their Before stands in
// front of clients only.
func TestExtra(t *testing.T) {
	cfg := config()
	stood := 0
	cfg.Extra = &Extra{
		Routes: map[string]http.HandlerFunc{"GET /v1/things/{id}": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(r.PathValue("id") + "/" + Caller(r))) // a recorder takes all
		}},
		Index: "GET  /v1/things   things\n",
		Before: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stood++; next.ServeHTTP(w, r) })
		},
	}
	var class admission.Class
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) {
		class = exchangeOf(r).class
		_, _ = w.Write([]byte(`{"from":"` + exchangeOf(r).caller + `"}`))
	})
	ask := func(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), method, path, strings.NewReader(body)))
		return w
	}
	if w := ask(f.Handler(), "GET", "/v1/things/a", ""); w.Code != 200 || w.Body.String() != "a/" || w.Header().Get("X-Request-Id") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(f.Handler(), "POST", "/v1/things/a", ""); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("%d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
	if w := ask(f.Handler(), "GET", "/", ""); !strings.Contains(w.Body.String(), "/v1/things") {
		t.Errorf("GET / says %s", w.Body)
	}
	if ask(f.Handler(), "POST", "/v1/completions", `{"prompt":"a"}`); stood != 1 || class != admission.Interactive {
		t.Errorf("a client's request: Before stood %d times, class %v", stood, class)
	}
	if w := ask(f.Own(Work{Caller: "alice", Batch: true}), "POST", "/v1/completions", `{"prompt":"a"}`); stood != 1 || class != admission.Batch || w.Body.String() != `{"from":"alice"}` {
		t.Errorf("our own request: Before stood %d times, class %v, %d %s", stood, class, w.Code, w.Body)
	}
}

// A job counts once against the requests of its key's minute: when it runs,
// not when it is accepted.
func TestOwnWorkCountsOnce(t *testing.T) {
	d, err := caller.Open(caller.Config{Keys: "ann:" + annKey + "::rpm=2"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	cfg.Extra = &Extra{Routes: map[string]http.HandlerFunc{"POST /v1/jobs": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }}}
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{}`)) }) // a recorder takes all
	for range 5 {
		if w := f.do("POST", "/v1/jobs", `{}`, "Api-Key", annKey); w.Code != 202 {
			t.Fatalf("accepting: %d %s", w.Code, w.Body)
		}
	}
	run := func(who string) int {
		w := httptest.NewRecorder()
		f.Own(Work{Caller: who, Batch: true}).ServeHTTP(w, httptest.NewRequestWithContext(context.WithoutCancel(t.Context()), "POST", "/v1/completions", strings.NewReader(`{"prompt":"x"}`)))
		return w.Code
	}
	if got, want := fmt.Sprint(run("ann"), run("ann"), run("ann")), "200 200 429"; got != want {
		t.Errorf("runs of three jobs: %s, want %s", got, want)
	}
	if code := run("removed since"); code != 200 {
		t.Errorf("a run for a key that is gone: %d, want 200", code)
	}
}

// The program's own work that is called off is a client that left, wherever its
// request is then, and no fault; work that is out of time is past its deadline.
func TestOwnWorkIsCalledOff(t *testing.T) {
	calledOff := errors.New("the task was called off")
	stop := func(t *testing.T) context.Context {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
		time.AfterFunc(time.Minute, func() { cancel(calledOff) })
		return ctx
	}
	expire := func(t *testing.T) context.Context {
		ctx, cancel := context.WithDeadlineCause(context.WithoutCancel(t.Context()), time.Now().Add(time.Minute), calledOff)
		t.Cleanup(cancel)
		return ctx
	}
	for _, tt := range []struct {
		name, path, body string
		queued           bool
		end              func(*testing.T) context.Context
		status           float64
		cut              any
	}{
		{"in the engine", "/v1/chat/completions", oneShot, false, stop, 499, nil},
		{"in the middle of a stream", "/v1/chat/completions", chat, false, stop, 499, byClient},
		{"translated", "/v1/responses", `{"model":"small","input":"a"}`, false, stop, 499, nil},
		{"in the middle of a translated stream", "/v1/responses", `{"model":"small","input":"a","stream":true}`, false, stop, 499, byClient},
		{"in the queue", "/v1/completions", oneShot, true, stop, 499, nil},
		{"out of time in the engine", "/v1/chat/completions", oneShot, false, expire, 504, nil},
		{"out of time in the middle of a stream", "/v1/chat/completions", chat, false, expire, 200, byDeadline},
		{"out of time in the queue", "/v1/completions", oneShot, true, expire, 504, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
				if exchangeOf(r).stream {
					chatTick(1000)(w, r)
					return
				}
				silent(w, r)
			}, func(t *testing.T, l *live) {
				if tt.queued {
					defer l.post(t, "/v1/completions", oneShot).cancel()
				}
				l.Own(Work{Caller: "ann", Batch: true}).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(tt.end(t), "POST", tt.path, strings.NewReader(tt.body)))
				lines := l.logs.lines(t)
				line := lines[len(lines)-1]
				if line["msg"] != "request" || line["status"] != tt.status || line["cut"] != tt.cut {
					t.Errorf("logged %v, want status %v, cut %v", line, tt.status, tt.cut)
				}
				for _, line := range lines {
					if line["level"] == "ERROR" {
						t.Errorf("logged as a fault: %v", line)
					}
				}
			})
		})
	}
}
