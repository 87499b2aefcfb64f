package vllm

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"infer/internal/engine"
)

// Answers and misbehaviour of vLLM, seen through the handler.
func TestHandler(t *testing.T) {
	r := run(t, fakeConfig(t, ""), nil)
	r.until(phase(engine.Ready))
	chatOf := func(content string) string {
		return `{"model":"m","max_tokens":10,"stream":true,"messages":[{"role":"user","content":"` + content + `"}]}`
	}
	for _, tt := range []struct {
		path, body string
		status     int
		says       string
		aborted    bool
	}{
		{"/v1/completions", `{"prompt":"x","max_tokens":3}`, 200, `"text":"xxx"`, false},
		{"/tokenize", `{"prompt":"x"}`, 200, "tokens", false},
		{"/v1/chat/completions", `{}`, 400, `"param":"messages","code":"missing_field"`, false},
		{"/v1/chat/completions", chatOf("too long"), 400, "context_length_exceeded", false},
		{"/v1/chat/completions", chatOf("string error"), 429, "queue_full", false},
		{"/v1/chat/completions", chatOf("unauthorized"), 500, "internal_error", false},
		{"/v1/chat/completions", chatOf("reset"), 502, "engine_broke_off", false},
		{"/v1/chat/completions", chatOf("cut"), 200, "3 ümlaut", true},
		{"/v1/embeddings", `{"input":"x"}`, 404, "route_not_found", false},
		{"/sleep", `{}`, 404, "route_not_found", false},
		{"/v1/load_lora_adapter", `{}`, 404, "route_not_found", false},
		{"/invocations", `{}`, 404, "route_not_found", false},
		{"/v1/chat/completions/", `{}`, 404, "route_not_found", false},
	} {
		var m counting
		w, aborted := r.post(t.Context(), &m, tt.path, tt.body)
		text := w.Body.String()
		if w.Code != tt.status || aborted != tt.aborted || !strings.Contains(text, tt.says) {
			t.Errorf("%s %s: HTTP %d, aborted %v, %q; want %d, %v, %q", tt.path, tt.body, w.Code, aborted, tail(text), tt.status, tt.aborted, tt.says)
		}
		if tt.says == "3 ümlaut" && (m.tokens.Load() != 4 || !strings.HasSuffix(text, "\n\n")) {
			t.Errorf("cut in the middle of an event: %d tokens, ends with %q", m.tokens.Load(), tail(text))
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "/v1/completions", nil)
	if err != nil {
		t.Fatal(err)
	}
	var w recorder
	r.ServeHTTP(&w, req)
	if w.status != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: HTTP %d, want 405", w.status)
	}
}

// A connection that vLLM closed while it was idle is no error of the request
// that would have been sent on it. One sent at the very moment of the closing
// is lost, so that the server is seen to have closed all.
func TestClosedConnectionsAreNotUsed(t *testing.T) {
	r := run(t, fakeConfig(t, "fastclose"), nil)
	r.until(phase(engine.Ready))
	api := r.part("api")
	for range 4 {
		for began := time.Now(); sockets(t, api) > 1; <-time.After(time.Millisecond) { // one listens
			if time.Since(began) > 30*time.Second {
				t.Fatal("the server keeps its idle connections")
			}
		}
		w, aborted := r.post(t.Context(), new(counting), "/v1/completions", `{"prompt":"x","max_tokens":3}`)
		if w.Code != http.StatusOK || aborted {
			t.Errorf("HTTP %d, aborted %v, %q", w.Code, aborted, tail(w.Body.String()))
		}
	}
}

// sockets counts those that a process has open.
func sockets(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/" + itoa(pid) + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "socket:") { // it may just have been closed
			n++
		}
	}
	return n
}

// uvicorn closes a connection that was idle for 5 s; a request that is sent at
// that moment is lost.
func TestConnectionsAreNotKeptTooLong(t *testing.T) {
	up, err := newUpstream("http://127.0.0.1:8000", "")
	if err != nil {
		t.Fatal(err)
	}
	if d := up.transport.IdleConnTimeout; d <= 0 || d >= 5*time.Second {
		t.Errorf("idle connections are kept for %v, want less than 5s", d)
	}
}

// Nothing of a client reaches vLLM but what its request means.
func TestHeadersAreStripped(t *testing.T) {
	r := run(t, fakeConfig(t, ""), nil)
	r.until(phase(engine.Ready))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/completions", strings.NewReader(`{"prompt":"headers"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"Authorization", "Cookie", "X-Data-Parallel-Rank", "X-Vllm-Priority", "X-Session-Id", "X-Forwarded-For", "Connection"} {
		req.Header.Set(h, "mine")
	}
	req.Header.Set("Traceparent", "00-1-2-01")
	req.Header.Set("X-Request-Id", "r7-unique")
	var w recorder
	r.ServeHTTP(&w, req)
	got := w.body.String()
	for _, want := range []string{"00-1-2-01", "r7-unique"} {
		if strings.Contains(got, "mine") || !strings.Contains(got, want) {
			t.Errorf("vLLM saw %s, want %s and nothing of mine", got, want)
		}
	}
}

// Batch work has a priority of its own, which nothing else has.
func TestBatchHasPriority(t *testing.T) {
	r := run(t, fakeConfig(t, ""), nil)
	r.until(phase(engine.Ready))
	for batch, want := range map[bool]int{false: 0, true: 1} {
		ctx := t.Context()
		if batch {
			ctx = engine.WithBatch(ctx)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "/v1/completions", strings.NewReader(`{"prompt":"headers"}`))
		if err != nil {
			t.Fatal(err)
		}
		var w recorder
		r.ServeHTTP(&w, req)
		if got := w.body.String(); strings.Count(got, `"X-Vllm-Priority":["1"]`) != want {
			t.Errorf("batch %v: vLLM saw %s", batch, got)
		}
	}
}

// A client that leaves ends its request inside vLLM, streaming or not.
func TestLeavingFreesTheEngine(t *testing.T) {
	r := run(t, fakeConfig(t, ""), nil)
	r.until(phase(engine.Ready))
	for _, stream := range []string{"true", "false"} {
		ctx, leave := context.WithCancel(t.Context())
		var m counting
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = r.post(ctx, &m, "/v1/chat/completions", strings.NewReplacer("20", "100000", "true", stream).Replace(chatBody))
		}()
		gauge := func(want string) time.Duration {
			began := time.Now()
			for {
				text, err := r.up.Load().exposition(t.Context())
				if err == nil && strings.Contains(string(text), `vllm:num_requests_running{engine="0",model_name="m"} `+want+"\n") {
					return time.Since(began)
				}
				if time.Since(began) > 30*time.Second {
					t.Fatalf("the gauge does not become %s:\n%s", want, text)
				}
			}
		}
		gauge("1")
		leave()
		t.Logf("stream %s: freed after %v", stream, gauge("0"))
		<-done
		if n := r.load.inFlight.Load(); n != 0 {
			t.Errorf("%d requests in flight after all have left", n)
		}
		// The watch may just be reading the counters.
		up := r.up.Load()
		left := func() int { up.mu.Lock(); defer up.mu.Unlock(); return len(up.cancels) }
		for began := time.Now(); left() > 0; <-time.After(time.Millisecond) {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%d requests to cancel after all have left", left())
			}
		}
	}
}

// A stop that comes while the server ignores SIGTERM, or while it loads, ends
// the whole group, in time.
func TestStopIsInTime(t *testing.T) {
	for _, tt := range []struct {
		options string
		when    engine.Phase
	}{{"ignoreterm", engine.Ready}, {"hangload", engine.Loading}} {
		t.Run(tt.options, func(t *testing.T) {
			cfg := fakeConfig(t, tt.options)
			cfg.Grace = 6 * time.Second // half a second for vLLM
			r := run(t, cfg, nil)
			r.until(phase(tt.when))
			began := time.Now()
			r.stop()
			if err := r.result(); err != nil {
				t.Errorf("Run() = %v", err)
			}
			took := time.Since(began)
			t.Logf("stopped after %v", took)
			if took > 15*time.Second { // whoever does not kill waits for ever
				t.Errorf("stopped after %v", took)
			}
			if left := marked(t, cfg); len(left) > 0 {
				t.Errorf("left: %s", describe(left))
			}
		})
	}
}

func TestAdaptersAreModels(t *testing.T) {
	cfg, goOn := heldConfig(t)
	cfg.LoRA = []string{"french=org/french", "german=org/german"}
	r := run(t, cfg, nil)
	for _, p := range []engine.Phase{engine.Loading, engine.Ready} {
		var ids []string
		for _, m := range r.until(phase(p)).Models {
			ids = append(ids, m.ID)
		}
		if got := strings.Join(ids, " "); got != "m org/m french german" {
			t.Errorf("models while %s: %s", p, got)
		}
		goOn()
	}
}

// A model that embeds is warmed up and served as one.
func TestEmbeddingModel(t *testing.T) {
	r := run(t, fakeConfig(t, "embed"), nil)
	r.until(phase(engine.Ready))
	var m counting
	if w, _ := r.post(t.Context(), &m, "/v1/embeddings", `{"input":"x"}`); w.Code != 200 || m.prompt.Load() != 3 {
		t.Errorf("HTTP %d, %d prompt tokens: %s", w.Code, m.prompt.Load(), w.Body)
	}
	if w, _ := r.post(t.Context(), &m, "/v1/chat/completions", chatBody); w.Code != 404 || !strings.Contains(w.Body.String(), "route_not_found") {
		t.Errorf("HTTP %d: %s", w.Code, w.Body)
	}
}

// Twenty streams run on while the server waits for them, and a stop that cuts
// them ends the child all the same.
func TestTwentyStreams(t *testing.T) {
	r := run(t, fakeConfig(t, ""), nil)
	r.until(phase(engine.Ready))
	var wg sync.WaitGroup
	var whole counting
	for range 20 {
		wg.Go(func() {
			if w, aborted := r.post(t.Context(), &whole, "/v1/chat/completions", chatBody); aborted || !strings.HasSuffix(w.Body.String(), "data: [DONE]\n\n") {
				t.Errorf("aborted %v: %s", aborted, tail(w.Body.String()))
			}
		})
	}
	wg.Wait()
	if n := whole.tokens.Load(); n != 400 {
		t.Errorf("%d tokens of twenty streams, want 400", n)
	}
	cut := r.endless(20)
	r.stop()
	for range 20 {
		if got := <-cut; !got.aborted || !strings.HasSuffix(got.text, "\n\n") {
			t.Errorf("aborted %v: %s", got.aborted, tail(got.text))
		}
	}
	if err := r.result(); err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestMetrics(t *testing.T) {
	r := run(t, fakeConfig(t, "once fail=limited"), nil)
	reg := prometheus.NewRegistry()
	reg.MustRegister(r.Engine)
	if f, err := r.Gather(); err != nil || len(f) > 0 {
		t.Errorf("Gather() before the start = %v, %v", f, err)
	}
	r.until(phase(engine.Ready))
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`# HELP infer_engine_restarts_total Starts of the engine after the first.
# TYPE infer_engine_restarts_total counter
infer_engine_restarts_total 1
`), "infer_engine_restarts_total"); err != nil {
		t.Error(err)
	}
	if v := testutil.ToFloat64(r.metrics.exits.WithLabelValues("hub_rate_limited")); v != 1 {
		t.Errorf("exits by hub_rate_limited: %v, want 1", v)
	}
	families, err := prometheus.Gatherers{reg, r.Engine}.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	if got, want := strings.Join(names, " "), "infer_engine_activity infer_engine_exits_total infer_engine_restarts_total infer_start_phase_seconds vllm:cache_config_info vllm:iteration_tokens_total vllm:num_requests_running"; got != want {
		t.Errorf("families: %s\nwant:     %s", got, want)
	}
}

// The second start of a model knows how long it takes.
func TestReadinessIsPredicted(t *testing.T) {
	state := t.TempDir()
	for i := range 2 {
		cfg, goOn := heldConfig(t)
		cfg.StateDir = state
		r := run(t, cfg, nil)
		st := r.until(phase(engine.Loading))
		if known := !st.ReadyAt.IsZero(); known != (i == 1) {
			t.Errorf("start %d: ReadyAt %v", i, st.ReadyAt)
		}
		goOn()
		r.until(phase(engine.Ready))
		r.stop()
		_ = r.result()
	}
}

// devMode gives a vLLM the routes of sleep.
const devMode = "VLLM_SERVER_DEV_MODE=1"

// sidecar is a vLLM that somebody else runs.
func sidecar(t *testing.T, socket string, env ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(socket)
	cmd := exec.Command(program, "serve", "m", "--uds", socket, "--served-model-name", "m")
	cmd.Env = append(append(os.Environ(), "FAKE_VLLM=fake"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
}

func TestAttachFollowsASidecar(t *testing.T) {
	cfg, socket := attached(t)
	r := run(t, cfg, nil)
	r.until(func(st engine.Status) bool { return strings.Contains(st.Detail, "waiting for") })
	first := sidecar(t, socket)
	r.until(phase(engine.Ready))
	var m counting
	if w, _ := r.post(t.Context(), &m, "/v1/chat/completions", chatBody); w.Code != 200 {
		t.Errorf("HTTP %d", w.Code)
	}
	end(first)
	st := r.until(phase(engine.Starting))
	if st.Failure == nil || !strings.Contains(st.Failure.Message, "is lost") {
		t.Errorf("lost with %+v", st)
	}
	second := sidecar(t, socket)
	r.until(phase(engine.Ready))
	r.stop()
	if err := r.result(); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if err := syscall.Kill(second.Process.Pid, 0); err != nil {
		t.Errorf("the sidecar was ended: %v", err)
	}
}

// attached is the configuration of an engine that follows a sidecar.
func attached(t *testing.T) (cfg Config, socket string) {
	t.Helper()
	cfg = fakeConfig(t, "")
	cfg.Model, cfg.Env = "", nil
	socket = filepath.Join(cfg.RunDir, "s")
	cfg.URL = "unix://" + socket
	return cfg, socket
}

func TestAttachToSomethingElse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	cfg := Config{URL: "http://" + ln.Addr().String(), StallTimeout: time.Minute}
	e, err := New(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f, ok := e.Run(t.Context()).(*engine.Failure)
	if !ok || f.Cause != engine.CauseNotVLLM || f.Retryable || !strings.Contains(f.Remedy, "--vllm-url") {
		t.Errorf("Run() = %v", f)
	}
}

// A restart waits for memory, and an engine whose memory stays held gives up
// with the name of the holder.
func TestRestartNeedsMemory(t *testing.T) {
	r := run(t, fakeConfig(t, "once fail=zero"), &memory{free: func() int64 { return 79 << 30 }})
	r.until(phase(engine.Ready))
	if !strings.Contains(r.logs.String(), "gpu memory is free") {
		t.Error("memory was not looked at before the restart")
	}
}

// A stop that comes while memory is waited for starts nothing.
func TestStopWhileMemoryIsHeld(t *testing.T) {
	looked := make(chan struct{}, 1)
	free := atomic.Int64{}
	free.Store(79 << 30)
	r := run(t, fakeConfig(t, "once fail=zero"), &memory{free: func() int64 {
		defer free.Store(3 << 30) // from the second look on
		select {
		case looked <- struct{}{}:
		default:
		}
		return free.Load()
	}})
	<-looked // before the first start
	<-looked // before the second
	r.stop()
	if err := r.result(); err != nil {
		t.Errorf("Run() = %v", err)
	}
	if n := strings.Count(r.logs.String(), "vllm started"); n != 1 {
		t.Errorf("started %d times, want once", n)
	}
	if n := testutil.ToFloat64(r.metrics.restarts); n != 0 {
		t.Errorf("%v restarts, want none", n)
	}
}
