package serve

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"infer/internal/caller"
	"infer/internal/engine"
	"infer/internal/openai"
)

// drop is a client that costs nothing.
type drop struct{ h http.Header }

func (d drop) Header() http.Header       { return d.h }
func (drop) WriteHeader(int)             {}
func (drop) Write(p []byte) (int, error) { return len(p), nil }
func (drop) FlushError() error           { return nil }

var chunk = []byte("data: " + `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1745000000,"model":"small","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}` + "\n\n")

// BenchmarkTokenRelay is what one token costs in this package: relay, exchange
// and meter, without the socket.
func BenchmarkTokenRelay(b *testing.B) {
	f := newFixture(b, config(), ready(1), say)
	r := httptest.NewRequest("POST", "/v1/completions", nil)
	x := newExchange(f.Server, drop{http.Header{}}, r)
	x.meter = f.metrics.meter(x.start, "small")
	rl := newRelay(x, x)
	rl.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(rl)
	b.ReportAllocs()
	for b.Loop() {
		x.meter.Tokens(1)
		_, _ = rl.Write(chunk)
		_ = rc.Flush()
	}
}

// BenchmarkStream streams b.N tokens over a real socket, with this package
// between engine and net/http and without.
func BenchmarkStream(b *testing.B) {
	for _, arm := range []string{"bare", "served"} {
		b.Run(arm, func(b *testing.B) {
			serve := func(w http.ResponseWriter, r *http.Request) {
				m, rc := engine.MeterFrom(r.Context()), http.NewResponseController(w)
				w.Header().Set("Content-Type", "text/event-stream")
				for b.Loop() {
					m.Tokens(1)
					_, _ = w.Write(chunk)
					_ = rc.Flush()
				}
				_, _ = io.WriteString(w, done)
			}
			f := newFixture(b, config(), ready(1), serve)
			h := http.Handler(f.fake)
			if arm == "served" {
				h = f.Handler()
			}
			srv := httptest.NewServer(h)
			defer srv.Close()
			b.ReportAllocs()
			resp, err := srv.Client().Post(srv.URL+"/v1/completions", "", strings.NewReader(chat))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		})
	}
}

// BenchmarkRequest is one request without an engine's work and without a
// socket: everybody may call, one of a thousand keys is needed, and that key
// has limits.
func BenchmarkRequest(b *testing.B) {
	var thousand strings.Builder
	for i := range 999 {
		fmt.Fprintf(&thousand, "other-%d:other-%d-0123456789abcdef\n", i, i)
	}
	for _, arm := range []struct{ name, keys string }{
		{"open", ""},
		{"keys", thousand.String() + "ann:" + annKey},
		{"limits", thousand.String() + "ann:" + annKey + "::rpm=1000000000,tpm=1000000000,concurrency=8,models=small|Qwen/Qwen3-0.6B"},
	} {
		b.Run(arm.name, func(b *testing.B) {
			cfg := config()
			if arm.keys != "" {
				d, err := caller.Open(caller.Config{Keys: arm.keys}, slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				cfg.Callers = &Callers{Keys: d}
			}
			f := newFixture(b, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) {
				s := openai.NewStream(w)
				_ = s.Done()
			})
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(context.Background(), "POST", "/v1/chat/completions", strings.NewReader(chat))
				r.Header.Set("Authorization", "Bearer "+annKey)
				w := drop{http.Header{}}
				if f.Handler().ServeHTTP(w, r); w.h.Get("Www-Authenticate") != "" {
					b.Fatal("not let in")
				}
			}
		})
	}
}
