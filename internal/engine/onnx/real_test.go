package onnx

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json/v2"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"infer/internal/engine"
)

// testEnv is a path that make test provides.
func testEnv(tb testing.TB, name string) string {
	tb.Helper()
	v := os.Getenv(name)
	if v == "" {
		tb.Fatalf("%s is not set; run the tests with make test, which fetches what they need", name)
	}
	return v
}

// quiet discards the log.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// write puts a file into a folder of the test and returns its path.
func write(tb testing.TB, name, content string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// importCache is one cache for all tests of a run, so that the model is
// imported once a level.
var importCache = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "infer-onnx-test-") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := importCache(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// realConfig runs the small real model on the CPU.
func realConfig(tb testing.TB) Config {
	cache, err := importCache()
	if err != nil {
		tb.Fatal(err)
	}
	return Config{
		Model: testEnv(tb, "INFER_TEST_MODEL_GGUF"), Library: testEnv(tb, "INFER_TEST_ONNXRUNTIME"),
		Device: "cpu", CacheDir: cache, Names: []string{"smol"}, AccuracyLevel: 4, Threads: 2,
	}
}

// run runs e until the test ends.
func run(tb testing.TB, e *Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("Run() = %v", err)
		}
	})
}

// until waits for a phase.
func until(tb testing.TB, e *Engine, phase engine.Phase) {
	tb.Helper()
	for changed := e.Changed(); ; changed = e.Changed() {
		switch st := e.Status(); st.Phase {
		case phase:
			return
		case engine.Failed:
			tb.Fatalf("engine: %v", st.Failure)
		}
		<-changed
	}
}

// startReal runs an engine on the real model until the test ends.
func startReal(tb testing.TB, cfg Config) *httptest.Server {
	tb.Helper()
	e, err := New(cfg, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err != nil {
		tb.Fatal(err)
	}
	run(tb, e)
	until(tb, e, engine.Ready)
	srv := httptest.NewServer(e)
	tb.Cleanup(srv.Close)
	return srv
}

// answer is any response body of the two routes, or an error.
type answer struct {
	Object      string `json:"object"`
	Model       string `json:"model"`
	Fingerprint string `json:"system_fingerprint"`
	Choices     []struct {
		Index   int     `json:"index"`
		Text    *string `json:"text"`
		Message *struct {
			Role      string     `json:"role"`
			Content   string     `json:"content"`
			ToolCalls []toolCall `json:"tool_calls"`
		} `json:"message"`
		Delta *struct {
			Role      string     `json:"role"`
			Content   string     `json:"content"`
			ToolCalls []toolCall `json:"tool_calls"`
		} `json:"delta"`
		FinishReason *string   `json:"finish_reason"`
		StopReason   any       `json:"stop_reason"`
		Logprobs     *logprobs `json:"logprobs"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Error *struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
	Count  int     `json:"count"`
	Tokens []int32 `json:"tokens"`
	Prompt string  `json:"prompt"`
}

// logprobs is both forms of log-probabilities.
type logprobs struct {
	Content []struct {
		Token   string  `json:"token"`
		Logprob float64 `json:"logprob"`
		Bytes   []int   `json:"bytes"`
		Top     []struct {
			Logprob float64 `json:"logprob"`
		} `json:"top_logprobs"`
	} `json:"content"`
	TextOffset    []int                `json:"text_offset"`
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
}

// post sends a JSON body to a route that writes and decodes the answer.
func post(tb testing.TB, srv *httptest.Server, path, body string) (int, answer) {
	tb.Helper()
	return posted[answer](tb, srv, path, body)
}

// posted sends a JSON body and decodes the answer.
func posted[T any](tb testing.TB, srv *httptest.Server, path, body string) (status int, a T) {
	tb.Helper()
	resp, err := srv.Client().Post(srv.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		tb.Fatalf("%s: %v in %.200s", path, err, b)
	}
	return resp.StatusCode, a
}

// events posts a streaming request and returns its events without the
// terminator, which must be there.
func events(tb testing.TB, srv *httptest.Server, path, body string) []answer {
	tb.Helper()
	resp, err := srv.Client().Post(srv.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(ct, "text/event-stream") {
		b, _ := io.ReadAll(resp.Body)
		tb.Fatalf("%s: %d %s: %s", path, resp.StatusCode, ct, b)
	}
	var list []answer
	done := false
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		line, isData := bytes.CutPrefix(sc.Bytes(), []byte("data: "))
		switch {
		case len(sc.Bytes()) == 0:
		case !isData || done:
			tb.Fatalf("unexpected line %q", sc.Text())
		case string(line) == "[DONE]":
			done = true
		default:
			var a answer
			if err := json.Unmarshal(line, &a); err != nil {
				tb.Fatalf("%v in %s", err, line)
			}
			list = append(list, a)
		}
	}
	if !done {
		tb.Fatal("stream without terminator")
	}
	return list
}

func TestRealModelAnswers(t *testing.T) {
	srv := startReal(t, realConfig(t))
	status, a := post(t, srv, "/v1/chat/completions",
		`{"messages":[{"role":"user","content":"Say hello in one short sentence."}],"max_tokens":24,"temperature":0}`)
	if status != http.StatusOK || len(a.Choices) != 1 || a.Choices[0].Message == nil {
		t.Fatalf("status %d, %+v", status, a)
	}
	t.Logf("%q %+v", a.Choices[0].Message.Content, *a.Usage)
	if a.Choices[0].Message.Content == "" || a.Usage.Completion == 0 || a.Usage.Total != a.Usage.Prompt+a.Usage.Completion {
		t.Errorf("answer %+v, usage %+v", a.Choices[0], a.Usage)
	}
}
