package vllm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"infer/internal/engine"
)

var quiet = slog.New(slog.DiscardHandler)

// Progress bars come with CR alone, lines may be endless, bytes may be no text.
func TestReadLines(t *testing.T) {
	text := "one\n\rshards:  50% | 1/2\rshards: 100% | 2/2\r\n\n  two \xff\n" + strings.Repeat("x", 3*maxLineBytes) + "\nlast"
	want := []string{"one", "shards:  50% | 1/2", "shards: 100% | 2/2", "two �", strings.Repeat("x", maxLineBytes), "last"}
	for name, r := range map[string]io.Reader{"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
		var got []string
		readLines(r, func(line string) { got = append(got, line) })
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("(EngineCore pid=1) INFO 11-24 17:20:46 [a.py:1] KV cache size: 1\r\n"))
	f.Add([]byte("\rLoading safetensors checkpoint shards:  999% |"))
	f.Add([]byte("(x) WARNING 1 2 ]\n%"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tr := newTracker()
		var lines []string
		readLines(strings.NewReader(string(text)), func(line string) {
			if line == "" || len(line) > 3*maxLineBytes || strings.ContainsAny(line, "\r\n") {
				t.Fatalf("line %q", line)
			}
			before := rank(tr.status().Phase)
			tr.line(line)
			if st := tr.status(); rank(st.Phase) < before || st.Progress > 1 || len(st.Detail) > 210 {
				t.Fatalf("after %q: %+v", line, st)
			}
			lines = append(lines, line)
		})
		for _, s := range symptoms {
			for _, line := range lines {
				_ = s.pattern.MatchString(line)
			}
		}
	})
}

// The phases of a start, by the lines that a real one prints.
func TestPhasesFromLines(t *testing.T) {
	tr := newTracker()
	for _, step := range []struct {
		line     string
		phase    engine.Phase
		progress float64
		detail   string
	}{
		{"(APIServer pid=1) INFO 11-24 17:20:04 [api_utils.py:286] non-default args: {}", engine.Starting, -1, "reading the configuration"},
		{"(APIServer pid=1) WARNING 11-24 17:20:18 [vllm.py:1703] Enforce eager set, disabling torch.compile", engine.Starting, -1, "reading the configuration"},
		{"something that no release has said before 55%", engine.Starting, -1, "reading the configuration"},
		{"(Worker pid=3) INFO 11-24 17:20:43 [m.py:68] Starting to load model m...", engine.Loading, -1, "Starting to load model m..."},
		{"Fetching 5 files:  40%|████      | 2/5 [00:10<00:15]", engine.Pulling, 0.4, "Fetching 5 files:"},
		{"Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  1.35it/s]", engine.Loading, 0.5, "Loading safetensors"},
		{"(Worker pid=3) INFO 11-24 17:20:46 [k.py:2] GPU KV cache size: 23,296 tokens", engine.Compiling, -1, "GPU KV cache size: 23,296 tokens"},
		{"Capturing CUDA graphs (decode, FULL):  80%|", engine.Compiling, 0.8, "Capturing CUDA graphs"},
		{"(Worker pid=3) INFO 1 1 [m.py:68] Starting to load model draft...", engine.Compiling, 0.8, "Capturing CUDA graphs"},
		{"INFO:     Application startup complete.", engine.Warming, -1, "INFO: Application startup complete."},
	} {
		tr.line(step.line)
		if st := tr.status(); st.Phase != step.phase || st.Progress != step.progress || !strings.HasPrefix(st.Detail, step.detail) {
			t.Errorf("after %q: %s %v %q; want %s %v %q", step.line, st.Phase, st.Progress, st.Detail, step.phase, step.progress, step.detail)
		}
	}
}

func TestDiagnose(t *testing.T) {
	for _, tt := range []struct {
		line  string
		ready bool
		want  engine.Cause
		retry bool
	}{
		{"RuntimeError: CUDA driver version is insufficient for CUDA runtime version", false, engine.CauseDriverMismatch, false},
		{"RuntimeError: No CUDA GPUs are available", false, engine.CauseDeviceUnavailable, false},
		{"(EngineCore pid=2) ERROR 1 1 [c.py:1] RuntimeError: CUDA error: uncorrectable ECC error encountered", true, engine.CauseGPULost, false},
		{"ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.9, 71.3 GiB).", false, engine.CauseMemoryHeld, true},
		{"ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", false, engine.CauseOutOfMemoryAtStart, false},
		{"(EngineCore pid=2) ERROR 1 1 [c.py:1] torch.OutOfMemoryError: CUDA out of memory.", true, engine.CauseOutOfMemoryAtRun, true},
		{"OSError: org/none is not a local folder and is not a valid model identifier listed on the hub", false, engine.CauseModelNotFound, false},
		{"ValueError: Model architectures ['X'] are not supported for now.", false, engine.CauseModelUnsupported, false},
		{"OSError: We couldn't connect to 'https://hub' to load the files", false, engine.CauseHubUnreachable, true},
		{"ModuleNotFoundError: No module named 'vllm'", false, engine.CauseLibraryMissing, false},
		{"OSError: [Errno 98] Address already in use", false, engine.CauseSocket, true},
		{"ValueError: User-specified max_model_len (8192) is greater than the derived max_model_len", false, engine.CauseBadFlag, false},
		{"safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", false, engine.CauseModelInvalid, false},
		{"RuntimeError: Engine core initialization failed. See root cause above.", false, engine.CauseEngineFault, true},
		// What a request did wrong, or what vLLM only warns of, is no cause.
		{"ValueError: temperature must be non-negative", true, engine.CauseUnknown, true},
		{"(APIServer pid=1) WARNING 1 1 [i.py:1] ImportError: no flash attention", false, engine.CauseUnknown, true},
	} {
		f := diagnose(ending{state: &os.ProcessState{}, lines: []string{"before", tt.line, "after"}, ready: tt.ready})
		if f.Cause != tt.want || f.Retryable != tt.retry || f.Remedy == "" || strings.Contains(f.Error(), "\n") {
			t.Errorf("%q (ready %v): %s, retryable %v: %v; want %s, %v", tt.line, tt.ready, f.Cause, f.Retryable, f, tt.want, tt.retry)
		}
	}
	f := diagnose(ending{state: &os.ProcessState{}, oomKilled: true})
	if f.Cause != engine.CauseHostOutOfMemory || !f.Retryable {
		t.Errorf("killed for memory: %+v", f)
	}
}

func TestEveryCauseIsListed(t *testing.T) {
	for _, s := range symptoms {
		if !slices.Contains(engine.Causes(), s.cause) {
			t.Errorf("%s is not among engine.Causes", s.cause)
		}
	}
}

func TestLearned(t *testing.T) {
	dir := t.TempDir()
	l, err := newLearned(dir, "m")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := l.remaining(engine.Loading, 0); ok {
		t.Error("something is known before the first start")
	}
	took := map[engine.Phase]time.Duration{engine.Starting: 10 * time.Second, engine.Loading: 20 * time.Second, engine.Warming: time.Second}
	if err := l.record(took); err != nil {
		t.Fatal(err)
	}
	l, err = newLearned(dir, "m") // another process
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		phase engine.Phase
		age   time.Duration
		want  time.Duration
	}{
		{engine.Starting, 0, 31 * time.Second}, {engine.Starting, 4 * time.Second, 27 * time.Second},
		{engine.Loading, 5 * time.Second, 16 * time.Second}, {engine.Loading, time.Hour, time.Second}, {engine.Warming, 0, time.Second},
	} {
		if got, ok := l.remaining(tt.phase, tt.age); !ok || got != tt.want {
			t.Errorf("remaining(%s, %v) = %v, %v; want %v", tt.phase, tt.age, got, ok, tt.want)
		}
	}
	for i := range 2 * maxLearned {
		l.key = fmt.Sprint(i)
		if err := l.record(took); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.file); n > maxLearned {
		t.Errorf("%d models are remembered, want at most %d", n, maxLearned)
	}
	path := filepath.Join(dir, "vllm-starts.json")
	if err := os.WriteFile(path, []byte(`{"m": 7`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err = newLearned(dir, "m")
	if err == nil || l == nil {
		t.Errorf("a damaged file: %v, %v; want a usable value and an error for the log", l, err)
	}
	if err := l.record(took); err != nil {
		t.Errorf("the damaged file is not replaced: %v", err)
	}
}

// memory is a GPU whose free bytes a test writes.
type memory struct {
	free    func() int64
	holders []Holder
	err     error
}

func (m *memory) Devices(context.Context) ([]Device, error) {
	return []Device{{Name: "GPU 0", FreeBytes: m.free(), TotalBytes: 80 << 30, Holders: m.holders}}, m.err
}

func TestMemoryIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := &memory{free: func() int64 { return 79 << 30 }, holders: []Holder{{PID: 12, Name: "small", Bytes: 1 << 30}, {PID: 1234, Name: "VLLM::EngineCore", Bytes: 70 << 30}}}
		p := proof{memory: m, log: quiet}
		p.note(t.Context())
		m.free = func() int64 { // the driver takes ten seconds
			if time.Since(began) < 10*time.Second {
				return 3 << 30
			}
			return 79<<30 - 100<<20
		}
		if f := p.wait(t.Context()); f != nil || time.Since(began) < 10*time.Second {
			t.Errorf("wait() = %v after %v, want nil after 10s", f, time.Since(began))
		}
		m.free = func() int64 { return 3 << 30 }
		f := p.wait(t.Context())
		if f == nil || f.Cause != engine.CauseMemoryHeld || !f.Retryable ||
			!strings.Contains(f.Message, "GPU 0: 3.0 GiB of 80.0 GiB free, 79.0 GiB before, pid 1234 (VLLM::EngineCore) holds 70.0 GiB") {
			t.Errorf("wait() = %v, want who holds how much", f)
		}
		m.holders = nil
		if f := p.wait(t.Context()); f == nil || !strings.Contains(f.Message, "cannot see") {
			t.Errorf("wait() = %v", f)
		}
		m.err = errors.New("no driver")
		if f := p.wait(t.Context()); f != nil {
			t.Errorf("wait() = %v, want nil when nothing can be known", f)
		}
	})
}

// watching runs a watch over counters for d.
func watching(t *testing.T, d time.Duration, l *load, counters func() (uint64, error)) (stalled bool, after time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w := watch{budget: time.Minute, load: l, log: quiet, counters: func(context.Context) (uint64, error) { return counters() }}
	began := time.Now()
	err := w.run(ctx)
	if err != nil && w.now() != engine.ActivityStalled {
		t.Errorf("activity %s", w.now())
	}
	return errors.Is(err, errStalled), time.Since(began)
}

func TestWatch(t *testing.T) {
	still := func() (uint64, error) { return 7, nil }
	for _, tt := range []struct {
		name     string
		inFlight int64
		counters func() func() (uint64, error)
		stalled  bool
	}{
		{"nothing is asked", 0, func() func() (uint64, error) { return still }, false},
		{"frozen", 1, func() func() (uint64, error) { return still }, true},
		{"no counters are kept", 1, func() func() (uint64, error) { return func() (uint64, error) { return 0, errNoCounters } }, false},
		{"frozen, and metrics do not answer", 1, func() func() (uint64, error) { return func() (uint64, error) { return 0, errors.New("timeout") } }, true},
		{"a thousand wait while one prefills", 1000, func() func() (uint64, error) {
			n := uint64(0)
			return func() (uint64, error) { n++; return n / 5, nil } // a step of 25 s
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l load
				l.inFlight.Store(tt.inFlight)
				stalled, after := watching(t, time.Hour, &l, tt.counters())
				if stalled != tt.stalled || (stalled && after > time.Minute) {
					t.Errorf("stalled %v after %v, want %v within a minute", stalled, after, tt.stalled)
				}
			})
		})
	}
}

// A GPU that works is a sign of life where there is no other, and for five
// budgets only: a kernel that hangs reads 100 %.
func TestWatchTakesABusyGPUForAWhile(t *testing.T) {
	for _, tt := range []struct {
		name string
		busy func(since time.Duration) bool
		want time.Duration // after which the stall is found, at most
	}{
		{"always busy", func(time.Duration) bool { return true }, 5 * time.Minute},
		{"idle", func(time.Duration) bool { return false }, time.Minute},
		{"busy until the engine froze, as the last sample still says", func(d time.Duration) bool { return d < 20*time.Second }, time.Minute},
		{"busy for two minutes", func(d time.Duration) bool { return d < 2*time.Minute }, 3 * time.Minute},
		{"busy in every other look", func(d time.Duration) bool { return d/(5*time.Second)%2 == 0 }, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l load
				l.inFlight.Store(1)
				began := time.Now()
				w := watch{budget: time.Minute, load: &l, log: quiet, counters: func(context.Context) (uint64, error) { return 7, nil },
					busy: func() bool { return tt.busy(time.Since(began)) }}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := w.run(ctx)
				if took := time.Since(began); !errors.Is(err, errStalled) || took > tt.want || took < tt.want-30*time.Second {
					t.Errorf("run() = %v after %v, want a stall within %v and not much sooner", err, took, tt.want)
				}
			})
		})
	}
}

// A step that ends makes all of it begin anew.
func TestWatchOfStepsOfFourMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l load
		l.inFlight.Store(1)
		began := time.Now()
		w := watch{budget: time.Minute, load: &l, log: quiet, busy: func() bool { return true },
			counters: func(context.Context) (uint64, error) { return uint64(time.Since(began) / (4 * time.Minute)), nil }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.run(ctx); err != nil {
			t.Errorf("run() = %v after %v", err, time.Since(began))
		}
	})
}

// Tokens that are relayed are life enough, and a client that leaves is none.
func TestWatchCountsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l load
		l.inFlight.Store(1)
		go func() {
			for range 20 {
				synctest.Sleep(30 * time.Second)
				l.progress.Add(1)
			}
		}()
		began := time.Now()
		stalled, _ := watching(t, time.Hour, &l, func() (uint64, error) { return 7, nil })
		if took := time.Since(began); !stalled || took < 10*time.Minute || took > 11*time.Minute {
			t.Errorf("stalled %v after %v, want within a minute after ten", stalled, took)
		}
	})
}

func TestFingerprint(t *testing.T) {
	const before = "vllm:num_requests_running{engine=\"0\"} 1\nvllm:iteration_tokens_total_count{} 5\nhttp_requests_total 4\n"
	of := func(text string) uint64 {
		sum, ok := fingerprint([]byte(text))
		if !ok {
			t.Errorf("no counters in %q", text)
		}
		return sum
	}
	if of(before) != of(strings.Replace(before, "total 4", "total 9", 1)) {
		t.Error("an http request counts as a step of the engine")
	}
	if of(before) == of(strings.Replace(before, "} 5", "} 6", 1)) {
		t.Error("a step of the engine does not count")
	}
	if _, ok := fingerprint([]byte("http_requests_total 4\n")); ok {
		t.Error("counters where there are none")
	}
}

// slowClient reads nothing until it is let.
type slowClient struct {
	recorder
	let chan struct{}
}

func (s *slowClient) Write(p []byte) (int, error) {
	<-s.let
	return s.recorder.Write(p)
}

// A request that waits for its client does not wait for the engine.
func TestSlowClientIsNoStall(t *testing.T) {
	p := proxy{load: &load{}}
	p.load.inFlight.Store(1)
	w := &slowClient{let: make(chan struct{})}
	done := make(chan error)
	go func() { done <- p.write(w, http.NewResponseController(w), []byte("data: x\n\n"), true) }()
	for p.load.inFlight.Load() != 0 {
		runtime.Gosched()
	}
	close(w.let)
	if err := <-done; err != nil || p.load.inFlight.Load() != 1 {
		t.Errorf("write() = %v, then %d in flight; want 1", err, p.load.inFlight.Load())
	}
}

func TestConfigFaultsComeTogether(t *testing.T) {
	err := Config{Args: []string{"--port=80", "--api_key", "x"}, LoRA: []string{"a", "b=/no/such"}, MemoryUtilization: 2, MaxModelLen: -1, SleepAfter: -1}.Validate()
	for _, want := range []string{"model: empty", "--port", "--api_key", `lora: "a"`, "adapter_config.json", "GPU_MEMORY_UTILIZATION", "MAX_MODEL_LEN", "stall-timeout", "sleep-after"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want %q in it", err, want)
		}
	}
	for _, url := range []string{"ftp://x", "http://", "unix://host/x", "http://x/path", "::"} {
		if err := (Config{URL: url, StallTimeout: time.Minute}).Validate(); err == nil || !strings.Contains(err.Error(), "vllm-url") {
			t.Errorf("Validate() of %s = %v", url, err)
		}
	}
	for _, c := range []Config{{Model: "m", StallTimeout: time.Minute}, {URL: "unix:///run/v.sock", StallTimeout: time.Minute}, {URL: "http://127.0.0.1:8000", StallTimeout: time.Minute}} {
		if err := c.Validate(); err != nil {
			t.Errorf("Validate() = %v", err)
		}
	}
}

func TestCommand(t *testing.T) {
	c := Config{Model: "Qwen/Qwen3-0.6B", LoRA: []string{"a=x/y"}, MemoryUtilization: 0.85, MaxModelLen: 4096, Args: []string{"--max-model-len", "512", "--max-num-seqs=8"}}
	got := c.command("/s", true)
	want := "serve Qwen/Qwen3-0.6B --uds /s --served-model-name Qwen3-0.6B Qwen/Qwen3-0.6B --enable-prompt-tokens-details --scheduling-policy priority --gpu-memory-utilization 0.85" +
		" --enable-lora --max-loras 1 --lora-modules a=x/y --enable-sleep-mode --max-model-len 512 --max-num-seqs=8"
	if s := strings.Join(got.args, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if !slices.Contains(got.env, "VLLM_SERVER_DEV_MODE=1") || slices.Contains(c.command("/s", false).env, "VLLM_SERVER_DEV_MODE=1") {
		t.Errorf("dev mode must be on exactly when sleep is: %v", got.env)
	}
}

// What vLLM was told is known; what it was not is guessed from its KV cache.
func TestCapacity(t *testing.T) {
	info := func(sizes ...string) string {
		text := "# TYPE vllm:cache_config_info gauge\n"
		for i, size := range sizes {
			text += fmt.Sprintf("vllm:cache_config_info{block_size=\"128\",engine=\"%d\",kv_cache_max_concurrency=\"22.75\",kv_cache_size_tokens=\"%s\",num_gpu_blocks=\"182\"} 1.0\n", i, size)
		}
		return text
	}
	for name, tt := range map[string]struct {
		args    []string
		text    string
		context int
		want    capacity
	}{
		"told":                  {[]string{"--max-num-seqs=8"}, info("23296"), 1024, capacity{8, false}},
		"told, two engines":     {[]string{"--max-num-seqs", "8"}, info("23296", "23296"), 1024, capacity{16, false}},
		"told, no metrics":      {[]string{"--max_num_seqs", "8"}, "", 1024, capacity{8, false}},
		"small cache":           {nil, info("23296"), 131072, capacity{22, true}},
		"short context":         {nil, info("23296"), 512, capacity{45, true}},
		"large cache":           {nil, info("4000000"), 32768, capacity{256, true}},
		"less than one request": {nil, info("100"), 0, capacity{1, true}},
		"two engines":           {nil, info("23296", "10240"), 1024, capacity{32, true}},
		"no size":               {nil, info("None"), 1024, capacity{256, true}},
		"no metrics":            {nil, "", 0, capacity{256, true}},
		"nonsense":              {[]string{"--max-num-seqs", "many"}, "<html>", 0, capacity{256, true}},
	} {
		if got := (Config{Args: tt.args}).capacityOf([]byte(tt.text), tt.context); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestReadProc(t *testing.T) {
	p, ok := readProc([]byte("42 (a) b (c)) Z 1 42 7 0 -1 4228096"))
	if !ok || p != (proc{pid: 42, parent: 1, group: 42, session: 7, state: 'Z', name: "a) b (c)"}) {
		t.Errorf("readProc() = %+v, %v", p, ok)
	}
	for _, bad := range []string{"", "42", "42 (x", "x (y) Z 1 2 3", "1 (y) Z 1"} {
		if _, ok := readProc([]byte(bad)); ok {
			t.Errorf("readProc(%q) is ok", bad)
		}
	}
}

func TestExposition(t *testing.T) {
	families, err := parseExposition([]byte("# HELP process_open_fds x\n# TYPE process_open_fds gauge\nprocess_open_fds 3\n" +
		"# HELP vllm:a_total x\n# TYPE vllm:a_total counter\nvllm:a_total{engine=\"0\"} 3\n# TYPE vllm:a_created gauge\nvllm:a_created 1\n"))
	if err != nil || len(families) != 1 || families[0].GetName() != "vllm:a_total" || families[0].GetMetric()[0].GetCounter().GetValue() != 3 {
		t.Errorf("parseExposition() = %v, %v", families, err)
	}
	if _, err := parseExposition([]byte("vllm:a{ 3\n")); err == nil {
		t.Error("a broken exposition has no error")
	}
}
