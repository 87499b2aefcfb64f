package main

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/engine"
	"infer/internal/openai"
	"infer/internal/serve"
	"infer/internal/store"
)

// slow is an engine that says a word, pauses, and goes on.
type slow struct {
	engine.State
	words int
	pause time.Duration
}

func (*slow) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (e *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, m := openai.NewStream(w), engine.MeterFrom(r.Context())
	m.Prompt(10, 0)
	var req struct {
		Stream bool `json:"stream"`
	}
	_ = json.UnmarshalRead(r.Body, &req) // the server has read it before
	for range e.words {
		select {
		case <-time.After(e.pause):
		case <-r.Context().Done():
			return
		}
		m.Tokens(1)
		if req.Stream {
			_ = out.Send(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": "a "}}}})
		}
	}
	if req.Stream {
		_ = out.Send(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": "stop"}}})
		_ = out.Done()
		return
	}
	_, _ = io.WriteString(w, `{"choices":[{"index":0,"finish_reason":"stop","text":"a","message":{"role":"assistant","content":"a"}}]}`)
}

// shared is a log that many write.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *shared) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// lines are those that what the program asked itself has left.
func (l *shared) lines(t *testing.T) (requests []map[string]any, faults []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for text := range strings.Lines(l.b.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		if line["msg"] == "request" && line["user_agent"] == "infer-jobs" {
			requests = append(requests, line)
		}
		if line["level"] == "ERROR" {
			faults = append(faults, text)
		}
	}
	return requests, faults
}

// works is durable work behind a server, as serve wires it.
type works struct {
	t       *testing.T
	h       http.Handler
	eng     *slow
	logs    shared
	callers *serve.Callers
}

// working runs test on the fake clock. keys are those of INFER_API_KEYS.
func working(t *testing.T, keys string, test func(*testing.T, *works)) {
	synctest.Test(t, func(t *testing.T) {
		c, _, err := parse(in(map[string]string{"INFER_API_KEYS": keys}, "serve", "--model", "m", "--cache", t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		w := &works{t: t, eng: &slow{words: 3, pause: time.Second}}
		w.eng.Set(engine.Status{Phase: engine.Ready, Slots: 4, Models: []engine.Model{{ID: "m"}}})
		log := slog.New(slog.NewJSONHandler(&w.logs, nil))
		cmd := &c.Serve
		if cmd.Server.Callers, err = cmd.Callers.callers(log); err != nil {
			t.Fatal(err)
		}
		reg := prometheus.NewRegistry()
		w.callers = cmd.Server.Callers
		work, extra, err := cmd.durable(state{store: store.NewMemory(memoryBytes)}, reg, log)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Server.Extra = extra
		srv, err := serve.New(serve.Config(cmd.Server), w.eng, reg, log)
		if err != nil {
			t.Fatal(err)
		}
		w.h = srv.Handler()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- runDurable(ctx, work, srv) }()
		test(t, w)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// ask sends a request. Headers are pairs.
func (w *works) ask(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.WithoutCancel(w.t.Context()), method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.h.ServeHTTP(rec, r)
	return rec
}

// must sends a request that has to succeed and returns the id in its answer.
func (w *works) must(method, path, body string, headers ...string) string {
	w.t.Helper()
	rec := w.ask(method, path, body, headers...)
	var o struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &o); err != nil || rec.Code >= 300 {
		w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
	}
	return o.ID
}

// batch begins one of n lines.
func (w *works) batch(n int, headers ...string) string {
	var form bytes.Buffer
	f := multipart.NewWriter(&form)
	_ = f.WriteField("purpose", "batch") // a buffer takes all
	part, err := f.CreateFormFile("file", "in.jsonl")
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range n {
		_, _ = fmt.Fprintf(part, `{"custom_id":"c%d","method":"POST","url":"/v1/completions","body":{"prompt":"x","max_tokens":10}}`+"\n", i)
	}
	_ = f.Close()
	file := w.must("POST", "/v1/files", form.String(), append([]string{"Content-Type", f.FormDataContentType()}, headers...)...)
	return w.must("POST", "/v1/batches", `{"input_file_id":"`+file+`","endpoint":"/v1/completions","completion_window":"24h"}`, headers...)
}

// Work that its owner cancels is to the log a client that left, and no fault.
func TestCancelledWorkIsNoFault(t *testing.T) {
	for name, begin := range map[string]func(*works) string{
		"a job": func(w *works) string { return "/v1/jobs/" + w.must("POST", "/v1/jobs", `{"prompt":"x"}`) },
		"a response": func(w *works) string {
			return "/v1/responses/" + w.must("POST", "/v1/responses", `{"input":"x","background":true}`)
		},
		"a batch": func(w *works) string { return "/v1/batches/" + w.batch(2) },
	} {
		t.Run(name, func(t *testing.T) {
			working(t, "", func(t *testing.T, w *works) {
				w.eng.words = 3600
				path := begin(w)
				synctest.Sleep(time.Minute)
				w.must("POST", path+"/cancel", "")
				synctest.Sleep(time.Minute)
				requests, faults := w.logs.lines(t)
				for _, line := range requests {
					if line["status"] != 499.0 {
						t.Errorf("logged with status %v: %v", line["status"], line)
					}
				}
				if len(requests) == 0 || len(faults) != 0 {
					t.Errorf("%d requests, logged as faults %q", len(requests), faults)
				}
			})
		})
	}
}

const annKey = "ann-0123456789abcdef"

// What durable work takes of its key's minute. The engine takes no time, so that
// nothing comes back meanwhile.
func TestDurableWorkIsChargedOnce(t *testing.T) {
	const each = 13 // tokens of a request
	for _, tt := range []struct {
		name             string
		begin            func(w *works, auth ...string)
		requests, tokens int
	}{
		{"a request", func(w *works, auth ...string) {
			w.must("POST", "/v1/completions", `{"prompt":"x","max_tokens":40}`, auth...)
		}, 1, each},
		{"a background response", func(w *works, auth ...string) {
			w.must("POST", "/v1/responses", `{"input":"x","background":true,"max_output_tokens":40}`, auth...)
		}, 1, each},
		{"a job", func(w *works, auth ...string) {
			w.must("POST", "/v1/jobs", `{"prompt":"x","max_tokens":40}`, auth...)
		}, 1, each},
		{"a batch", func(w *works, auth ...string) { w.batch(3, auth...) }, 3, 3 * each},
	} {
		t.Run(tt.name, func(t *testing.T) {
			working(t, "ann:"+annKey+"::rpm=10,tpm=1000", func(t *testing.T, w *works) {
				w.eng.pause = 0
				tt.begin(w, "Api-Key", annKey)
				synctest.Wait()
				ann, _ := w.callers.Keys.Named("ann")
				requests, tokens := ann.Rates()
				if took := requests.Limit - requests.Remaining; took != tt.requests {
					t.Errorf("took %d requests of the minute, want %d", took, tt.requests)
				}
				if took := tokens.Limit - tokens.Remaining; took != tt.tokens {
					t.Errorf("took %d tokens of the minute, want %d", took, tt.tokens)
				}
			})
		})
	}
}

// Who reads a background response as it comes is not in the way of its run, also
// with a key of one request at once. The minute's requests bound what is asked for.
func TestBackgroundStreamWithOneRequestAtOnce(t *testing.T) {
	working(t, "ann:"+annKey+"::rpm=2,concurrency=1", func(t *testing.T, w *works) {
		const ask = `{"input":"x","background":true,"stream":true}`
		began := time.Now()
		for range 2 {
			if rec := w.ask("POST", "/v1/responses", ask, "Api-Key", annKey); rec.Code != 200 || !strings.Contains(rec.Body.String(), "event: response.completed") {
				t.Errorf("answered %d %s", rec.Code, rec.Body)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("two runs of 3s took %v", took)
		}
		if rec := w.ask("POST", "/v1/responses", ask, "Api-Key", annKey); rec.Code != 429 || rec.Header().Get("Retry-After") == "" {
			t.Errorf("a third within the minute: %d %s", rec.Code, rec.Body)
		}
	})
}
