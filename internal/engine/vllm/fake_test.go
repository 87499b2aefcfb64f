package vllm

import (
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The fake vLLM has the habits of the real one that matter to us: it binds its
// socket late, leaves it behind, exits with code 0 when its engine dies, has an
// engine process and a worker that outlive it and do not heed SIGTERM, answers
// /health while its engine is frozen, and waits for open connections when it
// is told to stop. Options, separated by spaces, make it misbehave.

// fakePart is an engine process or a worker: a step every few milliseconds.
func fakePart(part string) {
	signal.Ignore(syscall.SIGTERM)
	if part == "engine" {
		worker := self("worker")
		if err := worker.Start(); err != nil {
			os.Exit(1)
		}
	}
	for range time.Tick(2 * time.Millisecond) {
		if part == "engine" {
			if _, err := os.Stdout.Write([]byte{'.'}); err != nil { // nobody takes its steps
				for range time.Tick(time.Hour) { // it does not notice, like the real one
				}
			}
		}
	}
}

func self(part string) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		os.Exit(1)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "FAKE_PART="+part)
	cmd.Stderr = os.Stderr
	return cmd
}

type fakeAPI struct {
	options  []string
	names    []string
	server   *http.Server
	steps    atomic.Int64
	running  atomic.Int64
	dead     atomic.Bool
	asleep   atomic.Bool
	step     chan struct{} // one for each step of the engine
	shutdown chan struct{}
}

func (f *fakeAPI) has(option string) bool { return slices.Contains(f.options, option) }

// value returns what follows NAME= among the options.
func (f *fakeAPI) value(name string) string {
	for _, o := range f.options {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return v
		}
	}
	return ""
}

func flagValues(args []string, name string) []string {
	at := slices.Index(args, name)
	if at < 0 {
		return nil
	}
	var values []string
	for _, v := range args[at+1:] {
		if strings.HasPrefix(v, "--") {
			break
		}
		values = append(values, v)
	}
	return values
}

// once says whether an option is to be heeded now: with the option once it is
// only in the first start, as a file in TMPDIR remembers.
func (f *fakeAPI) once() bool {
	if !f.has("once") {
		return true
	}
	mark, err := os.OpenFile(f.value("mark"), os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_ = mark.Close()
	}
	return err == nil
}

func fakeServer(options string, args []string) {
	f := &fakeAPI{options: strings.Fields(options), step: make(chan struct{}), shutdown: make(chan struct{}),
		server: &http.Server{IdleTimeout: 5 * time.Second}}
	f.names = append(flagValues(args, "--served-model-name"), nil...)
	for _, l := range flagValues(args, "--lora-modules") {
		name, _, _ := strings.Cut(l, "=")
		f.names = append(f.names, name)
	}
	if args[0] != "serve" || slices.Contains(args, "--no-such-flag") {
		fmt.Fprintln(os.Stderr, "usage: vllm serve [model_tag] [options]\nvllm serve: error: unrecognized arguments: --no-such-flag")
		os.Exit(2)
	}
	fmt.Println("(APIServer pid=1) INFO 11-24 17:20:04 [api_utils.py:286] non-default args: {'model_tag': 'm'}")
	if slices.Contains(args, "--enable-sleep-mode") && f.has("nosleep") {
		fmt.Fprintln(os.Stderr, "ValueError: Sleep mode is not supported on current platform.")
		os.Exit(1)
	}
	f.fail()
	engine := self("engine")
	steps, err := engine.StdoutPipe()
	if err == nil {
		err = engine.Start()
	}
	if err != nil {
		os.Exit(1)
	}
	f.load()
	go f.follow(steps)
	f.serve(flagValues(args, "--uds")[0])
}

// fail ends a start as the option fail says.
func (f *fakeAPI) fail() {
	lines := map[string]string{
		"oom":     "(EngineCore pid=2) ERROR 11-24 17:20:46 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
		"kv":      "ValueError: To serve at least one request with max seq len (8192), 4.00 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB). Based on the available memory, the estimated maximum model length is 2048.",
		"gated":   "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url https://hub/x.",
		"limited": "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: https://hub/x",
		"disk":    "OSError: [Errno 28] No space left on device",
		"zero":    "",
	}
	which := f.value("fail")
	if which == "" || !f.once() {
		return
	}
	fmt.Fprintln(os.Stderr, lines[which])
	if which == "zero" {
		os.Exit(0)
	}
	os.Exit(1)
}

// load prints the lines of a start.
func (f *fakeAPI) load() {
	say := func(line string) { fmt.Println("(EngineCore pid=2) INFO 11-24 17:20:31 [core.py:133] " + line) }
	say("Initializing a V1 LLM engine (v0.32.0) with config: model='m'")
	say("Starting to load model m...")
	for _, p := range []int{0, 50, 100} {
		fmt.Fprintf(os.Stderr, "\rLoading safetensors checkpoint shards: %3d%% Completed | %d/2 [00:00<00:00]", p, p/50)
	}
	fmt.Fprintln(os.Stderr)
	switch {
	case f.has("hangload"):
		select {}
	case f.value("hold") != "":
		for _, err := os.Stat(f.value("hold")); err != nil; _, err = os.Stat(f.value("hold")) {
			<-time.After(5 * time.Millisecond)
		}
	}
	say("Loading weights took 0.75 seconds")
	say("GPU KV cache size: 23,296 tokens, Maximum concurrency for 1,024 tokens per request: 22.75x")
	say("init engine (profile, create kv cache, warmup model) took 1.58 s")
	say("an HF token: " + os.Getenv("HF_TOKEN"))
}

// follow takes the steps of the engine process; without it the server dies.
func (f *fakeAPI) follow(steps io.Reader) {
	b := make([]byte, 1)
	for {
		if _, err := steps.Read(b); err != nil {
			break
		}
		if f.running.Load() > 0 {
			f.steps.Add(1)
		}
		select {
		case f.step <- struct{}{}:
		default:
		}
	}
	fmt.Println("(APIServer pid=1) ERROR 11-24 17:50:49 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.")
	f.dead.Store(true)
	close(f.shutdown)
	if !f.has("corpse") {
		_ = f.server.Shutdown(context.Background()) // every answer has its end
		os.Exit(0)
	}
}

func (f *fakeAPI) serve(socket string) {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "OSError: [Errno 98] Address already in use")
		os.Exit(1)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	mux := http.NewServeMux()
	f.server.Handler = mux
	if f.has("fastclose") {
		f.server.IdleTimeout = time.Millisecond
	}
	f.routes(mux)
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	go func() {
		<-terms
		if f.has("ignoreterm") {
			select {}
		}
		_ = f.server.Shutdown(context.Background()) // waits for the clients
		os.Exit(0)
	}()
	fmt.Println("INFO:     Application startup complete.")
	_ = f.server.Serve(ln)
	select {}
}

func (f *fakeAPI) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {}) // 200, whatever the engine does
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"version":"0.32.0"}`)) })
	mux.HandleFunc("GET /v1/models", f.models)
	mux.HandleFunc("GET /metrics", f.metrics)
	if f.has("embed") {
		mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, _ *http.Request) {
			fakeJSON(w, 200, `{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":3,"total_tokens":3}}`)
		})
	} else {
		mux.HandleFunc("POST /v1/chat/completions", f.complete)
		mux.HandleFunc("POST /v1/completions", f.complete)
	}
	mux.HandleFunc("POST /tokenize", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"tokens":[1,2]}`)) })
	if os.Getenv("VLLM_SERVER_DEV_MODE") == "1" {
		mux.HandleFunc("GET /is_sleeping", func(w http.ResponseWriter, _ *http.Request) {
			fakeJSON(w, 200, fmt.Sprintf(`{"is_sleeping":%v}`, f.asleep.Load()))
		})
		mux.HandleFunc("POST /sleep", f.sleep)
		mux.HandleFunc("POST /wake_up", f.wake)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fakeJSON(w, 404, `{"detail":"Not Found"}`) })
}

const cudaOOM = "(APIServer pid=1) ERROR 11-24 17:20:46 [a.py:1] RuntimeError: Call to wake_up method failed: CUDA Error: out of memory at cumem_allocator.cpp:62"

func (f *fakeAPI) sleep(w http.ResponseWriter, _ *http.Request) {
	switch {
	case f.has("sleepexit") && f.once():
		os.Exit(3)
	case f.has("sleepfails"): // after it has ceased to take work
		f.asleep.Store(true)
		fakeJSON(w, 500, `{"error":{"message":"no memory to pin","type":"InternalServerError","code":500}}`)
	default:
		f.asleep.Store(true)
	}
}

func (f *fakeAPI) wake(w http.ResponseWriter, _ *http.Request) {
	switch which := f.value("wake"); {
	case which == "" || !f.once():
		f.asleep.Store(false)
	case which == "oomexit":
		fmt.Fprintln(os.Stderr, cudaOOM)
		os.Exit(0)
	case which == "exit":
		os.Exit(3)
	case which == "oom":
		fmt.Fprintln(os.Stderr, cudaOOM)
		fallthrough
	default:
		fakeJSON(w, 500, `{"error":{"message":"Call to wake_up method failed","type":"InternalServerError","code":500}}`)
	}
}

func fakeJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (f *fakeAPI) models(w http.ResponseWriter, _ *http.Request) {
	var data []string
	for _, n := range f.names {
		data = append(data, fmt.Sprintf(`{"id":%q,"object":"model","created":1795541063,"owned_by":"vllm","max_model_len":1024}`, n))
	}
	fakeJSON(w, 200, `{"object":"list","data":[`+strings.Join(data, ",")+`]}`)
}

func (f *fakeAPI) metrics(w http.ResponseWriter, _ *http.Request) {
	if f.has("nometrics") {
		w.WriteHeader(500)
		return
	}
	labels := `{engine="0",model_name="m"}`
	steps := f.steps.Load()
	text := fmt.Sprintf("# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc%s 0.%06d\n", labels, steps)
	if !f.has("prefill") { // there, counters of tokens stand still, but blocks are taken
		text = "# TYPE python_info gauge\npython_info 1\n# TYPE process_open_fds gauge\nprocess_open_fds 7\n" +
			fmt.Sprintf("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running%s %d\n", labels, f.running.Load()) +
			fmt.Sprintf("# TYPE vllm:iteration_tokens_total histogram\nvllm:iteration_tokens_total_bucket{engine=\"0\",model_name=\"m\",le=\"+Inf\"} %d\n", steps) +
			fmt.Sprintf("vllm:iteration_tokens_total_sum%s %d\nvllm:iteration_tokens_total_count%s %d\n", labels, steps, labels, steps) +
			fmt.Sprintf("# TYPE vllm:iteration_tokens_total_created gauge\nvllm:iteration_tokens_total_created%s 1.7e9\n", labels)
	}
	text += "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{engine=\"0\",kv_cache_size_tokens=\"23296\"} 1.0\n"
	_, _ = io.WriteString(w, text)
}

type fakeRequest struct {
	Model    string `json:"model"`
	Prompt   string `json:"prompt"`
	Messages []struct {
		Content string `json:"content"`
	} `json:"messages"`
	Max     int  `json:"max_tokens"`
	Stream  bool `json:"stream"`
	Options *struct {
		Usage      bool `json:"include_usage"`
		Continuous bool `json:"continuous_usage_stats"`
	} `json:"stream_options"`
}

func (f *fakeAPI) complete(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var q fakeRequest
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil || (len(q.Messages) == 0 && q.Prompt == "") {
		fakeJSON(w, 400, `{"error":{"message":"1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': '<dict of 1 items>'}","type":"Bad Request","param":"body.messages","code":400}}`)
		return
	}
	if f.asleep.Load() {
		<-r.Context().Done() // hangs in the queue, as it does
		return
	}
	if len(q.Messages) > 0 {
		q.Prompt = q.Messages[0].Content
	}
	switch q.Prompt {
	case "string error":
		fakeJSON(w, 503, `{"error":"scaling is in progress"}`)
	case "too long":
		fakeJSON(w, 400, `{"error":{"message":"This model's maximum context length is 1024 tokens.","type":"BadRequestError","param":"input_tokens","code":400}}`)
	case "unauthorized":
		fakeJSON(w, 401, `{"error":"Unauthorized"}`)
	case "reset":
		panic(http.ErrAbortHandler)
	case "body":
		fakeJSON(w, 200, string(body))
	case "headers":
		text, _ := json.Marshal(r.Header, json.Deterministic(true))
		fakeJSON(w, 200, string(text))
	default:
		f.generate(w, r, q)
	}
}

func (f *fakeAPI) generate(w http.ResponseWriter, r *http.Request, q fakeRequest) {
	f.running.Add(1)
	defer f.running.Add(-1)
	send := func(s string) {
		_, _ = io.WriteString(w, s)
		_ = http.NewResponseController(w).Flush()
	}
	if q.Stream {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		send("") // the headers leave at once
	}
	n := 0
	for ; n < max(q.Max, 1); n++ {
		select {
		case <-f.step:
		case <-r.Context().Done():
			return
		case <-f.shutdown:
			const e = `{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}`
			if q.Stream {
				send("data: " + e + "\n\ndata: [DONE]\n\n")
			} else {
				fakeJSON(w, 500, e)
			}
			return
		}
		if q.Prompt == "prefill" {
			n = -1 // for ever, and no token comes
			continue
		}
		if q.Stream {
			send(fakeChunk(q, n))
		}
		if n == 3 && q.Prompt == "cut" {
			send("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xf0\x9f\x98")
			panic(http.ErrAbortHandler)
		}
	}
	usage := fmt.Sprintf(`{"prompt_tokens":7,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":4}}`, 7+n, n)
	switch {
	case !q.Stream:
		fakeJSON(w, 200, `{"id":"cmpl-1","choices":[{"index":0,"text":"`+strings.Repeat("x", n)+`"}],"usage":`+usage+`}`)
	default:
		if q.Options != nil && q.Options.Usage {
			send(`data: {"id":"chatcmpl-1","choices":[],"usage":` + usage + "}\n\n")
		}
		send("data: [DONE]\n\n")
	}
}

func fakeChunk(q fakeRequest, n int) string {
	usage := ""
	if q.Options != nil && q.Options.Continuous {
		usage = fmt.Sprintf(`,"usage":{"prompt_tokens":7,"total_tokens":%d,"completion_tokens":%d}`, 8+n, n+1)
	}
	return `data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"` + strconv.Itoa(n) + ` ümlaut"},"finish_reason":null}]` + usage + "}\n\n"
}
