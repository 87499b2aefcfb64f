package jobs

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

var quiet = slog.New(slog.DiscardHandler)

func config() Config {
	return Config{Parallel: 4, ResultTTL: time.Hour, FileTTL: 48 * time.Hour, Deadline: 24 * time.Hour, Keep: true}
}

// errDead is what a store says to a process that has been killed.
var errDead = errors.New("the process was killed")

// mortal is the store as one process sees it. Any operation may be its last:
// it is killed just before or just after it took place.
type mortal struct {
	store.Store
	die  func() bool // says whether now is the moment
	kill func()

	mu   sync.Mutex
	dead bool
}

func (m *mortal) moment() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dead && m.die() {
		m.dead = true
		m.kill()
	}
	return m.dead
}

func (m *mortal) do(op func() error) error {
	if m.moment() {
		return errDead
	}
	err := op()
	if m.moment() {
		return errDead
	}
	return err
}

func (m *mortal) Create(ctx context.Context, key string, v []byte, ttl time.Duration) error {
	return m.do(func() error { return m.Store.Create(ctx, key, v, ttl) })
}

func (m *mortal) Swap(ctx context.Context, key, rev string, v []byte, ttl time.Duration) error {
	return m.do(func() error { return m.Store.Swap(ctx, key, rev, v, ttl) })
}

func (m *mortal) Delete(ctx context.Context, key, rev string) error {
	return m.do(func() error { return m.Store.Delete(ctx, key, rev) })
}

func (m *mortal) Get(ctx context.Context, key string) (it store.Item, err error) {
	err = m.do(func() error { it, err = m.Store.Get(ctx, key); return err })
	return it, err
}

func (m *mortal) List(ctx context.Context, prefix, after string, limit int) (keys []string, err error) {
	err = m.do(func() error { keys, err = m.Store.List(ctx, prefix, after, limit); return err })
	return keys, err
}

// engine answers with what it was asked, after a while.
type engine struct {
	mu     sync.Mutex
	begun  map[string]int // by prompt
	took   func() time.Duration
	before func(prompt string) // called as a run begins
	reply  func(w http.ResponseWriter, prompt string) bool
}

func newEngine() *engine {
	return &engine{begun: map[string]int{}, took: func() time.Duration { return time.Second },
		before: func(string) {}, reply: func(http.ResponseWriter, string) bool { return false }}
}

func (e *engine) chain(string, bool) http.Handler { return e }

func (e *engine) runs(prompt string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.begun[prompt]
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Prompt string `json:"prompt"`
	}
	if err := json.UnmarshalRead(r.Body, &req); err != nil {
		openai.WriteError(w, openai.Invalid("", openai.CodeInvalidJSON, "no JSON"))
		return
	}
	e.mu.Lock()
	e.begun[req.Prompt]++
	took := e.took()
	e.mu.Unlock()
	e.before(req.Prompt)
	select {
	case <-time.After(took):
	case <-r.Context().Done():
		return
	}
	if e.reply(w, req.Prompt) {
		return
	}
	w.Header().Set("X-Request-Id", "req-"+req.Prompt)
	writeJSON(w, http.StatusOK, map[string]string{"text": "re: " + req.Prompt})
}

// replica is one process.
type replica struct {
	t    *testing.T
	s    *Service
	mux  *http.ServeMux
	stop func()
	done chan struct{}
}

// newReplica starts a service over st. The caller is the header From.
func newReplica(t *testing.T, st store.Store, dir string, chain Chain) *replica {
	t.Helper()
	return newReplicaOf(t, config(), st, dir, chain)
}

func newReplicaOf(t *testing.T, cfg Config, st store.Store, dir string, chain Chain) *replica {
	t.Helper()
	s, err := New(cfg, st, dir, func(r *http.Request) string { return r.Header.Get("From") }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r := &replica{t: t, s: s, mux: http.NewServeMux(), stop: stop, done: make(chan struct{})}
	for pattern, h := range s.Routes() {
		r.mux.HandleFunc(pattern, h)
	}
	go func() {
		defer close(r.done)
		if err := s.Run(ctx, chain); err != nil {
			t.Errorf("Run() = %v", err)
		}
	}()
	return r
}

func (r *replica) end() {
	r.stop()
	<-r.done
}

// do sends one request and returns status and body. Headers are pairs.
func (r *replica) do(method, path, body string, headers ...string) (int, string) {
	req := httptest.NewRequestWithContext(r.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// must sends a request that has to succeed, and reads its answer into a map.
func (r *replica) must(method, path, body string, headers ...string) map[string]any {
	r.t.Helper()
	status, text := r.do(method, path, body, headers...)
	if status >= 300 {
		r.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return object(r.t, text)
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

// uploads sends a file of a purpose.
func (r *replica) upload(purpose, text string, headers ...string) (int, string) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("purpose", purpose) // a buffer takes all
	part, err := w.CreateFormFile("file", "in.jsonl")
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.WriteString(part, text)
	_ = w.Close()
	return r.do("POST", "/v1/files", form.String(), append([]string{"Content-Type", w.FormDataContentType()}, headers...)...)
}

// until polls on the fake clock.
func (r *replica) until(path string, ok func(map[string]any) bool) map[string]any {
	r.t.Helper()
	for range 20_000 {
		o := r.must("GET", path, "")
		if ok(o) {
			return o
		}
		<-time.After(time.Second)
	}
	r.t.Fatalf("waited too long for %s", path)
	return nil
}

func ended3(o map[string]any) bool {
	switch o["status"] {
	case "succeeded", "failed", "cancelled", "completed", "expired", "incomplete":
		return true
	}
	return false
}

// requests writes a batch file of n lines.
func requests(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"custom_id":"c%d","method":"POST","url":"/v1/completions","body":{"prompt":"p%d"}}`+"\n", i, i)
	}
	return b.String()
}

func seeded(seed uint64) func() float64 {
	rng := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Float64()
	}
}
