package vllm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"infer/internal/engine"
)

// rig is an engine over the fake, running.
type rig struct {
	*Engine
	t     *testing.T
	stop  context.CancelFunc
	ended chan error
	logs  *logs
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fakeConfig runs the fake with options.
func fakeConfig(t *testing.T, options string) Config {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := t.TempDir()
	if len(run) > 70 { // a socket's path must be short
		if run, err = os.MkdirTemp("", "v"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(run) })
	}
	return Config{Model: "org/m", Program: program, StallTimeout: time.Minute, Grace: 12 * time.Second, RunDir: run,
		StateDir: t.TempDir(), Guard: []string{program, "guard"}, Env: []string{"FAKE_VLLM=fake mark=" + filepath.Join(t.TempDir(), "mark") + " " + options}}
}

// heldConfig runs the fake with a load that lasts until it is let go on, so
// that a test sees it however slow the machine is.
func heldConfig(t *testing.T) (cfg Config, goOn func()) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "go")
	return fakeConfig(t, "hold="+file), func() {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
}

// run starts an engine and stops it with the test, when nobody of its
// processes may be left.
func run(t *testing.T, cfg Config, memory Memory) *rig {
	t.Helper()
	r := &rig{t: t, logs: &logs{}, ended: make(chan error, 1)}
	e, err := New(cfg, memory, slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	r.Engine = e
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = r.result() // the test has looked at it, if it matters
		if left := marked(t, cfg); len(left) > 0 {
			t.Errorf("left behind: %s", describe(left))
		}
		if t.Failed() {
			t.Log(r.logs.String())
		}
	})
	return r
}

// marked lists every process that was started with the environment of cfg.
func marked(t *testing.T, cfg Config) []proc {
	t.Helper()
	if len(cfg.Env) == 0 {
		return nil
	}
	members, err := family{leader: -1, mark: cfg.Env[0]}.members()
	if err != nil {
		t.Fatal(err)
	}
	return members
}

// until waits for a status.
func (r *rig) until(want func(engine.Status) bool) engine.Status {
	r.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		changed := r.Changed()
		if st := r.Status(); want(st) {
			return st
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("status is %+v, and stays so", r.Status())
		}
	}
}

// untilLog waits for a line of the log.
func (r *rig) untilLog(want string) {
	r.t.Helper()
	for began := time.Now(); !strings.Contains(r.logs.String(), want); <-time.After(time.Millisecond) {
		if time.Since(began) > time.Minute {
			r.t.Fatalf("the log never says %q", want)
		}
	}
}

func phase(p engine.Phase) func(engine.Status) bool {
	return func(st engine.Status) bool { return st.Phase == p }
}

// result waits for the end of Run.
func (r *rig) result() error {
	err := <-r.ended
	r.ended <- err
	return err
}

// counting is a meter.
type counting struct{ prompt, cached, tokens atomic.Int64 }

func (c *counting) Prompt(tokens, cached int) {
	c.prompt.Add(int64(tokens))
	c.cached.Add(int64(cached))
}
func (c *counting) Tokens(n int) { c.tokens.Add(int64(n)) }

// post sends a request through the engine's handler and reports whether it was
// aborted.
func (r *rig) post(ctx context.Context, m engine.Meter, path, body string) (w *httptest.ResponseRecorder, aborted bool) {
	w = httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)).WithContext(engine.WithMeter(ctx, m))
	defer func() {
		if p := recover(); p != nil {
			aborted = true
		}
	}()
	r.ServeHTTP(w, req)
	return w, false
}

const chatBody = `{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":20,"stream":true}`

func TestStartsServesAndLeavesNothing(t *testing.T) {
	cfg, goOn := heldConfig(t)
	cfg.Env = append(cfg.Env, "HF_TOKEN=hf_secretsecret")
	r := run(t, cfg, nil)
	loading := r.until(phase(engine.Loading))
	if len(loading.Models) != 2 || loading.Models[0].ID != "m" || loading.Models[1].ID != "org/m" {
		t.Errorf("models while loading: %+v", loading.Models)
	}
	goOn()
	st := r.until(phase(engine.Ready))
	if st.Models[0].ID != "m" || st.Models[0].ContextTokens != 1024 || st.Slots != 22 || !st.SlotsGuessed {
		t.Errorf("ready with %+v", st)
	}
	var m counting
	w, aborted := r.post(t.Context(), &m, "/v1/chat/completions", chatBody)
	got := w.Body.String()
	if aborted || w.Code != 200 || strings.Count(got, "ümlaut") != 20 || !strings.HasSuffix(got, "data: [DONE]\n\n") {
		t.Errorf("HTTP %d, aborted %v:\n%s", w.Code, aborted, got)
	}
	if strings.Contains(got, "usage") {
		t.Errorf("the client got usage that it did not ask for:\n%s", got)
	}
	if m.tokens.Load() != 20 || m.prompt.Load() != 7 || m.cached.Load() != 4 {
		t.Errorf("metered %d tokens, prompt %d, cached %d; want 20, 7, 4", m.tokens.Load(), m.prompt.Load(), m.cached.Load())
	}
	info, err := os.Stat(filepath.Dir(r.socketPath()))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder of the socket: %v, %v; want 0700", info.Mode(), err)
	}
	r.stop()
	if err := r.result(); err != nil || r.Status().Phase != engine.Stopped {
		t.Errorf("Run() = %v in phase %s, want nil and stopped", err, r.Status().Phase)
	}
	if entries, err := os.ReadDir(cfg.RunDir); err != nil || len(entries) > 0 {
		t.Errorf("left in the folder for sockets: %v, %v", entries, err)
	}
	if strings.Contains(r.logs.String(), "hf_secretsecret") {
		t.Error("the token is in the log")
	}
}

// socketPath finds the socket of the running vLLM.
func (r *rig) socketPath() string {
	paths, err := filepath.Glob(filepath.Join(r.cfg.RunDir, "*", "api.sock"))
	if err != nil || len(paths) != 1 {
		r.t.Fatalf("sockets: %v, %v", paths, err)
	}
	return paths[0]
}

// part finds a process of the running vLLM: api, engine or worker.
func (r *rig) part(name string) int {
	r.t.Helper()
	for _, p := range marked(r.t, r.cfg) {
		env, err := os.ReadFile("/proc/" + itoa(p.pid) + "/environ")
		if err != nil {
			continue
		}
		is := "api"
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if rest, ok := bytes.CutPrefix(v, []byte("FAKE_PART=")); ok {
				is = string(rest)
			}
		}
		if is == name {
			return p.pid
		}
	}
	r.t.Fatalf("no process is the %s", name)
	return 0
}

// Whatever dies, the whole family is gone before the next one starts, and the
// cause is known.
func TestDeathsAreFollowedByAFreshStart(t *testing.T) {
	for _, tt := range []struct {
		name, part, options string
		want                engine.Cause
	}{
		{"api server killed", "api", "", engine.CauseKilled},
		{"engine killed, exit code 0", "engine", "", engine.CauseEngineFault},
		{"engine killed, server stays as a corpse", "engine", "corpse", engine.CauseEngineFault},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, fakeConfig(t, tt.options), nil)
			r.until(phase(engine.Ready))
			before := marked(t, r.cfg)
			if len(before) != 3 {
				t.Fatalf("a vLLM of %s, want three processes", describe(before))
			}
			streams := r.endless(8)
			if err := syscall.Kill(r.part(tt.part), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				got := <-streams
				if tt.part == "engine" && (got.aborted || !strings.Contains(got.text, `"code":"engine_broke_off"`) || !strings.HasSuffix(got.text, "data: [DONE]\n\n")) {
					t.Errorf("aborted %v; the stream ends with %q", got.aborted, tail(got.text))
				}
				if tt.part == "api" && !got.aborted {
					t.Errorf("not aborted; the stream ends with %q", tail(got.text))
				}
				if !strings.HasSuffix(got.text, "\n\n") {
					t.Errorf("half an event: %q", tail(got.text))
				}
			}
			st := r.until(func(st engine.Status) bool { return st.Failure != nil && st.Phase == engine.Starting })
			if st.Failure.Cause != tt.want || !st.Failure.Retryable {
				t.Errorf("cause %s (%v), want %s and retryable", st.Failure.Cause, st.Failure, tt.want)
			}
			for _, p := range before {
				if syscall.Kill(p.pid, 0) == nil {
					t.Errorf("pid %d is there when the next start is prepared", p.pid)
				}
			}
			if st = r.until(phase(engine.Ready)); st.Failure != nil {
				t.Errorf("ready with failure %v", st.Failure)
			}
			if n := len(marked(t, r.cfg)); n != 3 {
				t.Errorf("%d processes after the restart, want 3", n)
			}
		})
	}
}

// outcome is how a stream ended.
type outcome struct {
	text    string
	aborted bool
}

// endless begins n streams that no budget of tokens ends, and returns when each
// has tokens.
func (r *rig) endless(n int) <-chan outcome {
	r.t.Helper()
	ended := make(chan outcome, n)
	meters := make([]counting, n)
	for i := range meters {
		go func() {
			w, aborted := r.post(context.Background(), &meters[i], "/v1/chat/completions", strings.Replace(chatBody, "20", "100000", 1))
			ended <- outcome{w.Body.String(), aborted}
		}()
	}
	for i := range meters {
		for meters[i].tokens.Load() < 2 {
			<-time.After(time.Millisecond)
		}
	}
	return ended
}

func tail(s string) string { return s[max(0, len(s)-200):] }

// pulse is the memory of a GPU that works.
type pulse struct{ memory }

func (*pulse) Busy() bool { return true }

// An engine whose GPU works gets more time for one step, and not for ever.
func TestFrozenOnABusyGPUIsFoundLate(t *testing.T) {
	cfg := fakeConfig(t, "")
	cfg.StallTimeout = 2 * time.Second
	r := run(t, cfg, &pulse{memory{free: func() int64 { return 79 << 30 }}})
	r.until(phase(engine.Ready))
	r.endless(1)
	began := time.Now()
	if err := syscall.Kill(r.part("engine"), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.until(phase(engine.Stalled))
	// TestWatchTakesABusyGPUForAWhile holds it to the moment.
	if took := time.Since(began); took < 2*cfg.StallTimeout {
		t.Errorf("found after %v although the GPU works, want about %v", took, busyBudgets*cfg.StallTimeout)
	}
	r.until(phase(engine.Ready))
}

// A frozen engine is found while /health is 200, and one that prefills or that
// has a long queue is not.
func TestFrozenIsFoundAndBusyIsNot(t *testing.T) {
	cfg := fakeConfig(t, "")
	cfg.StallTimeout = 4 * time.Second // a busy machine may well keep the fake from a step for a second
	r := run(t, cfg, nil)
	r.until(phase(engine.Ready))
	stream := r.endless(1)
	began := time.Now()
	if err := syscall.Kill(r.part("engine"), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.until(phase(engine.Stalled))
	took := time.Since(began)
	t.Logf("found after %v", took)
	if took > cfg.StallTimeout+10*time.Second { // TestWatch holds it to the budget itself, on a clock of its own
		t.Errorf("found after %v, want within %v", took, cfg.StallTimeout)
	}
	if got := <-stream; !got.aborted {
		t.Error("the stream was not broken off")
	}
	st := r.until(phase(engine.Starting))
	if st.Failure == nil || st.Failure.Cause != engine.CauseStalled {
		t.Errorf("failure %v, want engine_stalled", st.Failure)
	}
	r.until(phase(engine.Ready))
}

func TestPrefillIsNoStall(t *testing.T) {
	cfg := fakeConfig(t, "prefill")
	cfg.StallTimeout = 3 * time.Second
	r := run(t, cfg, nil)
	r.until(phase(engine.Ready))
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	var m counting
	_, _ = r.post(ctx, &m, "/v1/chat/completions", `{"messages":[{"role":"user","content":"prefill"}],"stream":true}`)
	if st := r.Status(); st.Phase != engine.Ready || r.Activity() == engine.ActivityStalled {
		t.Errorf("%s, %s after a prompt that prefilled for two stall timeouts", st.Phase, r.Activity())
	}
}

func TestCannotWorkEndsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want engine.Cause
		says string
	}{
		{"no program", func(c *Config) { c.Program = "/no/such/vllm" }, engine.CauseProgramMissing, "--vllm-program"},
		{"no folder", func(c *Config) { c.Model = "/no/such/model" }, engine.CauseModelNotFound, "check the path"},
		{"no place for the socket", func(c *Config) { c.RunDir = "/no/such/folder" }, engine.CauseSocket, "TMPDIR"},
		{"unknown flag", func(c *Config) { c.Args = []string{"--no-such-flag"} }, engine.CauseBadFlag, "--no-such-flag"},
		{"weights do not fit", func(c *Config) { c.Env[0] += " fail=oom" }, engine.CauseOutOfMemoryAtStart, "CUDA out of memory"},
		{"kv cache does not fit", func(c *Config) { c.Env[0] += " fail=kv" }, engine.CauseOutOfMemoryAtStart, "MAX_MODEL_LEN to at most 2048"},
		{"gated", func(c *Config) { c.Env[0] += " fail=gated" }, engine.CauseModelGated, "HF_TOKEN"},
		{"disk full", func(c *Config) { c.Env[0] += " fail=disk" }, engine.CauseDiskFull, "No space left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := fakeConfig(t, "")
			tt.edit(&cfg)
			r := run(t, cfg, nil)
			err := r.result()
			f, ok := errors.AsType[*engine.Failure](err)
			if !ok || f.Cause != tt.want || f.Retryable || r.Status().Phase != engine.Failed {
				t.Fatalf("Run() = %v in phase %s, want cause %s", err, r.Status().Phase, tt.want)
			}
			if s := f.Error(); !strings.Contains(s, tt.says) || strings.Contains(s, "\n") || f.Remedy == "" {
				t.Errorf("%q: want one line with %q and a remedy", s, tt.says)
			}
		})
	}
}

func TestCanWorkIsTriedAgain(t *testing.T) {
	for fail, want := range map[string]engine.Cause{"limited": engine.CauseHubLimited, "zero": engine.CauseUnknown} {
		t.Run(fail, func(t *testing.T) {
			r := run(t, fakeConfig(t, "once fail="+fail), nil)
			st := r.until(func(st engine.Status) bool { return st.Failure != nil })
			if st.Failure.Cause != want || !st.Failure.Retryable || st.Phase != engine.Starting {
				t.Errorf("%+v, want cause %s", st, want)
			}
			r.until(phase(engine.Ready))
		})
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
