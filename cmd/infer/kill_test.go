package main

import (
	"bufio"
	"bytes"
	"encoding/json/v2"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// quick is a vLLM that answers at once and counts what it was asked.
type quick struct {
	*httptest.Server
	mu     sync.Mutex
	asked  map[string]int // by prompt
	left   int            // how many are answered
	client int            // the one that lives; its number is its key
	waits  chan struct{}  // one of its requests has to wait
}

func newQuick(t *testing.T) *quick {
	q := &quick{asked: map[string]int{}, left: 1 << 30, waits: make(chan struct{}, 1)}
	mux := http.NewServeMux()
	text := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, text) // infer may have been killed
		}
	}
	mux.HandleFunc("GET /health", text(""))
	mux.HandleFunc("GET /version", text(`{"version":"0.32.0"}`))
	mux.HandleFunc("GET /v1/models", text(`{"object":"list","data":[{"id":"m","object":"model","max_model_len":4096}]}`))
	mux.HandleFunc("GET /metrics", text("vllm:num_requests_running 0\n"))
	mux.HandleFunc("POST /v1/chat/completions", text(`{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`))
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Prompt string `json:"prompt"`
		}
		if err := json.UnmarshalRead(r.Body, &req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if !q.take(req.Prompt, r.Header.Get("Authorization")) {
			<-r.Context().Done()
			return
		}
		text(fmt.Sprintf(`{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"re: %s","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`, req.Prompt))(w, r)
	})
	q.Server = httptest.NewServer(mux)
	t.Cleanup(q.Close)
	return q
}

// take counts a request and says whether it is answered.
func (q *quick) take(prompt, authorization string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked[prompt]++
	if authorization != "Bearer "+q.key() { // of a client that was killed
		return false
	}
	if q.left--; q.left >= 0 {
		return true
	}
	select {
	case q.waits <- struct{}{}:
	default:
	}
	return false
}

// key is what the client that lives sends.
func (q *quick) key() string { return fmt.Sprintf("client-%d", q.client) }

// allow lets n more requests be answered; those that come after wait.
func (q *quick) allow(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left = n
}

// exhausted waits until a request has to wait.
func (q *quick) exhausted(t *testing.T) {
	t.Helper()
	select {
	case <-q.waits:
	case <-time.After(time.Minute):
		t.Fatal("no request within a minute")
	}
}

// settle forgets a killed client, whose requests may still be on their way.
func (q *quick) settle() {
	q.mu.Lock()
	q.client++
	select {
	case <-q.waits:
	default:
	}
	q.mu.Unlock()
	q.CloseClientConnections()
}

// requestsFile writes n requests whose prompts are p0, p1 and so on.
func requestsFile(t *testing.T, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"custom_id":"c%d","method":"POST","url":"/v1/completions","body":{"model":"m","prompt":"p%d"}}`+"\n", i, i)
	}
	return writeFile(t, "in.jsonl", b.String())
}

// answers reads an output file: how often each custom_id is answered, well.
func answers(t *testing.T, text string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for line := range strings.Lines(text) {
		var res struct {
			CustomID string `json:"custom_id"`
			Response struct {
				Status int `json:"status_code"`
				Body   struct {
					Choices []struct{ Text string } `json:"choices"`
				} `json:"body"`
			} `json:"response"`
		}
		if err := json.Unmarshal([]byte(line), &res, json.MatchCaseInsensitiveNames(true)); err != nil {
			continue // the half line of a kill
		}
		if c := res.Response.Body.Choices; res.Response.Status != 200 || len(c) != 1 || c[0].Text != "re: p"+res.CustomID[1:] {
			t.Errorf("answered %s", line)
		}
		n[res.CustomID]++
	}
	return n
}

// count checks that each of n was answered once, and says how many were asked
// again because a kill had come between question and answer.
func (q *quick) count(t *testing.T, n, kills, parallel int, answered map[string]int) {
	t.Helper()
	again, lost, twice := 0, 0, 0
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range n {
		switch answered[fmt.Sprintf("c%d", i)] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
		again += q.asked[fmt.Sprintf("p%d", i)] - 1
	}
	t.Logf("%d requests, %d kills: %d answered once, %d twice, %d lost; %d asked again", n, kills, n-lost-twice, twice, lost, again)
	if lost > 0 || twice > 0 || again > kills*parallel {
		t.Errorf("%d lost, %d twice, %d asked again; at most %d were in flight", lost, twice, again, kills*parallel)
	}
}

const killParallel = 4

// A batch command that is killed goes on where it was, and asks for nothing
// that its output has.
func TestBatchCommandSurvivesKills(t *testing.T) {
	q, in := newQuick(t), requestsFile(t, killLines)
	out := filepath.Join(t.TempDir(), "out.jsonl")
	args := []string{"batch", in, "-o", out, "--url", q.URL, "--parallel", fmt.Sprint(killParallel)}
	env := func() []string { return []string{"OPENAI_API_KEY=" + q.key()} }
	for k := range kills {
		q.allow(1 + k%9)
		cmd := program(t, env(), args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		q.exhausted(t)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by a signal
		q.settle()
		known := answers(t, read(t, out))
		q.mu.Lock()
		for i := range killLines { // what is answered is asked no more: a kill must not make it so
			if known[fmt.Sprintf("c%d", i)] > 1 {
				t.Errorf("c%d was answered twice", i)
			}
		}
		q.mu.Unlock()
	}
	q.allow(1 << 30)
	code, _, stderr := exits(t, env(), args...)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	contains(t, stderr, fmt.Sprintf("%d of %d requests have an answer", killLines, killLines))
	q.count(t, killLines, kills, killParallel, answers(t, read(t, out)))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// served is a server that can be killed and started again.
type served struct {
	t    *testing.T
	args []string
	cmd  *exec.Cmd
	url  string
}

// start starts the server with env and waits for its address.
func (s *served) start(env ...string) {
	s.t.Helper()
	s.cmd = program(s.t, env, s.args...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	address, text := make(chan string, 1), &strings.Builder{}
	go func() {
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			var line struct{ Msg, Addr string }
			if json.Unmarshal(sc.Bytes(), &line, json.MatchCaseInsensitiveNames(true)) == nil && line.Msg == "listening" {
				address <- line.Addr
			}
			text.WriteString(sc.Text() + "\n")
		}
		close(address)
	}()
	addr, ok := <-address
	if !ok {
		s.t.Fatalf("the server ended: %v\n%s", s.cmd.Wait(), text)
	}
	s.url = "http://" + addr
}

func (s *served) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // by a signal
}

// do sends a request until it is answered with 200.
func (s *served) do(method, path, contentType string, body []byte) map[string]any {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var o map[string]any
	if err != nil || resp.StatusCode >= 300 || json.Unmarshal(text, &o) != nil {
		s.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, text, err)
	}
	return o
}

// progress waits until a batch has more results than stored, and returns how
// many.
func (s *served) progress(id string, stored int) int {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		counts, _ := s.do("GET", "/v1/batches/"+id, "", nil)["request_counts"].(map[string]any)
		if n, _ := counts["completed"].(float64); int(n) > stored {
			return int(n)
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatal("no result within a minute")
		}
	}
}

// A batch of a server that is killed again and again has every answer once,
// and nothing that is stored is computed again.
func TestServerSurvivesKills(t *testing.T) {
	q, in := newQuick(t), read(t, requestsFile(t, killLines))
	s := &served{t: t, args: []string{"serve", "--listen=127.0.0.1:0", "--vllm-url", q.URL, "--state", filepath.Join(t.TempDir(), "state"),
		"--jobs-parallel", fmt.Sprint(killParallel), "--max-concurrency", fmt.Sprint(killParallel)}}
	q.allow(3)
	s.start("VLLM_API_KEY=" + q.key())
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("purpose", "batch") // a buffer takes all
	part, err := w.CreateFormFile("file", "in.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(part, in)
	_ = w.Close()
	file := s.do("POST", "/v1/files", w.FormDataContentType(), form.Bytes())
	id := s.do("POST", "/v1/batches", "application/json", fmt.Appendf(nil,
		`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, file["id"]))["id"].(string)
	defer func() { s.kill() }() // the last one
	stored := 0
	for k := range kills {
		q.exhausted(t)
		if k%2 == 0 { // otherwise also before a first result is stored
			stored = s.progress(id, stored)
		}
		s.kill()
		q.settle()
		if q.allow(1 + k%9); k == kills-1 {
			q.allow(1 << 30)
		}
		s.start("VLLM_API_KEY=" + q.key())
	}
	var o map[string]any
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		if o = s.do("GET", "/v1/batches/"+id, "", nil); o["status"] == "completed" || o["status"] == "failed" {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after a minute %v", o)
		}
	}
	resp, err := http.Get(s.url + "/v1/files/" + o["output_file_id"].(string) + "/content")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	q.count(t, killLines, kills, killParallel, answers(t, string(text)))
}

// What is wrong with a batch is said with the exit code of its kind.
func TestBatchCommandRefuses(t *testing.T) {
	q, in := newQuick(t), requestsFile(t, 2)
	out := filepath.Join(t.TempDir(), "out.jsonl")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no input", []string{"absent.jsonl", "-o", out, "--url", q.URL}, exitUsage, "absent.jsonl"},
		{"no output", []string{in, "--url", q.URL}, exitUsage, "--output"},
		{"a broken line", []string{writeFile(t, "x.jsonl", "{\n"), "-o", out, "--url", q.URL}, exitUsage, "line 1: the line is not one JSON object"},
		{"an output that is none", []string{in, "-o", writeFile(t, "y.jsonl", "{}\n"), "--url", q.URL}, exitUsage, "is no result of a batch"},
		{"nobody there", []string{in, "-o", out, "--url", "http://127.0.0.1:1"}, exitUnavailable, "nothing listens"},
		{"no sidecar", []string{in, "-o", out, "--url", q.URL, "--shutdown-sidecar"}, exitUsage, "DAPR_HTTP_PORT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := exits(t, nil, append([]string{"batch"}, tt.args...)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			contains(t, stderr, tt.want)
		})
	}
}

// The command starts an engine itself, and stops the sidecar when it is done.
func TestBatchCommandWithEngineAndSidecar(t *testing.T) {
	q, in := newQuick(t), requestsFile(t, 5)
	stopped := make(chan string, 1)
	sidecar := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		stopped <- r.Method + " " + r.URL.Path + " " + r.Header.Get("dapr-api-token")
	}))
	defer sidecar.Close()
	out := filepath.Join(t.TempDir(), "out.jsonl")
	code, _, stderr := exits(t, []string{"DAPR_HTTP_PORT=" + sidecar.URL[strings.LastIndex(sidecar.URL, ":")+1:], "DAPR_API_TOKEN=secret", "VLLM_API_KEY=" + q.key()},
		"batch", in, "-o", out, "--vllm-url", q.URL, "--shutdown-sidecar")
	if n := len(answers(t, read(t, out))); code != 0 || n != 5 {
		t.Errorf("exit code %d, %d answers: %s", code, n, stderr)
	}
	select {
	case got := <-stopped:
		if got != "POST /v1.0/shutdown secret" {
			t.Errorf("the sidecar was told %q", got)
		}
	default:
		t.Error("the sidecar was not stopped")
	}
}
