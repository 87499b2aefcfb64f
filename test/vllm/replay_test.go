package vllm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/engine"
	engvllm "infer/internal/engine/vllm"
	"infer/internal/policy"
	front "infer/internal/serve"
)

// through is infer in front of a double: the whole way of a request, in this
// process.
func through(t *testing.T, d *double) http.Handler {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	eng, err := engvllm.New(engvllm.Config{URL: d.url(), StallTimeout: time.Minute, Grace: 10 * time.Second}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := front.New(front.Config{Grace: 10 * time.Second, Hold: time.Minute, CommitAfter: time.Minute, ClientStall: time.Minute, MaxQueue: 8,
		MaxQueueBytes: 8 << 20, MaxBodyBytes: 1 << 20, MaxMediaBodyBytes: 4 << 20, MaxConnections: 8,
		Policy: policy.Config{MaxN: 64, MaxPrompts: 2048, MaxTools: 128, MaxSchemaBytes: 64 << 10, MaxMediaBytes: 2 << 20, MediaTypes: []string{"image/png"}}},
		eng, prometheus.NewRegistry(), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := eng.Run(ctx); err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	ln := httptest.NewUnstartedServer(nil).Listener // Run follows the engine
	wg.Go(func() { _ = srv.Run(ctx, ln) })
	t.Cleanup(func() { stop(); wg.Wait() })
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		changed := eng.Changed()
		if eng.Status().Phase == engine.Ready {
			return srv.Handler()
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("the engine is %+v", eng.Status())
		}
	}
}

// varying is what differs between any two answers.
var varying = []struct {
	what *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`"((?:[a-z_]+_)?id)":"([a-z]+[-_])[^"]*"`), `"$1":"$2…"`},
	{regexp.MustCompile(`"(created|created_at|completed_at)":[0-9]+`), `"$1":0`},
}

// ask sends a request file, METHOD PATH and a body, and returns what a client gets.
func ask(t *testing.T, h http.Handler, request []byte) []byte {
	t.Helper()
	line, body, _ := bytes.Cut(request, []byte("\n"))
	method, path, _ := strings.Cut(string(line), " ")
	r := httptest.NewRequest(method, path, bytes.NewReader(bytes.TrimSpace(body)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Request-Id", "recorded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	text, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range varying {
		text = v.what.ReplaceAll(text, []byte(v.to))
	}
	return fmt.Appendf(nil, "%d %s\n%s\n", w.Code, w.Header().Get("Content-Type"), text)
}

// What a real vLLM wrote, in pieces of any size, becomes what a client gets.
// For each NAME.request, NAME.upstream is what vLLM answered to what infer made
// of it, and NAME.golden what the client saw. With RECORD_VLLM=SOCKET, a real
// vLLM's, the first is recorded anew, and with UPDATE_GOLDEN the second.
func TestReplay(t *testing.T) {
	requests, err := filepath.Glob("testdata/replay/*.request")
	if err != nil || len(requests) < 20 {
		t.Fatalf("requests: %v, %v", requests, err)
	}
	d := newDouble(t, os.Getenv("RECORD_VLLM"))
	h := through(t, d)
	for _, path := range requests {
		name := strings.TrimSuffix(path, ".request")
		t.Run(filepath.Base(name), func(t *testing.T) {
			request := file(t, path)
			if d.real != "" {
				d.next(nil, 1)
				ask(t, h, request)
				write(t, name+".upstream", d.recorded())
			}
			d.next(file(t, name+".upstream"), 0)
			got := ask(t, h, request)
			if os.Getenv("UPDATE_GOLDEN") != "" {
				write(t, name+".golden", got)
			}
			if want := file(t, name+".golden"); !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			for seed := range uint64(8) {
				d.next(file(t, name+".upstream"), seed+1)
				if again := ask(t, h, request); !bytes.Equal(again, got) {
					t.Errorf("cut by seed %d:\n%s\nwant\n%s", seed+1, again, got)
				}
			}
		})
	}
}

// A stream that breaks off anywhere ends in the protocol's own way, and
// whatever came before is passed on whole.
func TestReplayCutAnywhere(t *testing.T) {
	d := newDouble(t, "")
	h := through(t, d)
	for name, last := range map[string]string{"chat-stream": "data: [DONE]\n\n", "completions-stream": "data: [DONE]\n\n",
		"responses-stream": "event: response.failed\n", "messages-stream": "event: error\n"} {
		upstream := file(t, "testdata/replay/"+name+".upstream")
		head := bytes.Index(upstream, []byte("\r\n\r\n")) + 4
		first := head + bytes.Index(upstream[head:], []byte("\n\n")) + 4 // its first event, with the framing
		end := bytes.LastIndex(upstream, []byte("data: [DONE]"))
		for at := first; at < end; at += 97 {
			d.next(upstream[:at], uint64(at))
			text := string(ask(t, h, file(t, "testdata/replay/"+name+".request")))
			whole := strings.TrimSuffix(text, "\n")
			lastEvent := whole[strings.LastIndex(strings.TrimSuffix(whole, "\n\n"), "\n\n")+2:]
			if !strings.HasPrefix(text, "200 text/event-stream") || !strings.Contains(text, "the engine broke off") ||
				!strings.HasPrefix(lastEvent, last) || !strings.HasSuffix(lastEvent, "\n\n") {
				t.Fatalf("%s cut at %d of %d ends with\n%s", name, at, len(upstream), text[max(0, len(text)-600):])
			}
		}
	}
}

func file(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
