//go:build real

package clients

import (
	"bytes"
	"encoding/json/v2"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// generated are the tests that OpenAI generates with its client for Go, of the
// resources that infer serves. Each sends every field that its request has. An
// empty outcome is a pass; any other is infer's refusal: its status, the field
// at fault and the code.
var generated = []struct{ in, name, vllm, onnx string }{
	// The logit bias is of a token "foo". vLLM is asked, ONNX knows its tokens.
	{v3, "TestChatCompletionNewWithOptionalParams", "", "400 logit_bias invalid_value"},
	{v3, "TestCompletionNewWithOptionalParams", "", "400 logit_bias invalid_value"},
	{v3, "TestEmbeddingNewWithOptionalParams", "", ""},
	{v3, "TestModelGet", "", ""},
	{v3, "TestModelList", "", ""},
	{v3, "TestModelDelete", noMethod, noMethod}, // models are the operator's

	// No completion is stored.
	{v3, "TestChatCompletionGet", noRoute, noRoute},
	{v3, "TestChatCompletionUpdate", noRoute, noRoute},
	{v3, "TestChatCompletionListWithOptionalParams", noMethod, noMethod},
	{v3, "TestChatCompletionDelete", noRoute, noRoute},
	{v3, "TestChatCompletionMessageListWithOptionalParams", noRoute, noRoute},

	// It asks for state of five kinds at once; this is the first by name that
	// infer does not know.
	{v3 + "/responses", "TestResponseNewWithOptionalParams", "400 context_management unsupported_parameter", "400 context_management unsupported_parameter"},
	// No response of this name is kept.
	{v3 + "/responses", "TestResponseGetWithOptionalParams", noObject, noObject},
	{v3 + "/responses", "TestResponseDelete", noObject, noObject},
	{v3 + "/responses", "TestResponseCancel", noObject, noObject},
	{v3 + "/responses", "TestResponseCompactWithOptionalParams", noMethod, noMethod},
	{v3 + "/responses", "TestInputTokenCountWithOptionalParams", noMethod, noMethod},
	{v3 + "/responses", "TestInputItemListWithOptionalParams", "400 limit invalid_value", "400 limit invalid_value"}, // 0,
}

const (
	v3       = "github.com/openai/openai-go/v3"
	noRoute  = "404 route_not_found"
	noObject = "404 response_id not_found"
	noMethod = "405 method_not_allowed"
)

// names are the models that the tests ask for.
var names = []string{"gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small"}

// The tests pass against a server that answers by OpenAI's specification; they
// must pass as well with infer between, that takes it for a vLLM.
func TestGeneratedThroughVLLM(t *testing.T) {
	mock := steady(t)
	checkGenerated(t, "the mock itself", mock, func(int) string { return "" })
	upstream := httptest.NewServer(likeVLLM(t, mock))
	t.Cleanup(upstream.Close)
	s := launch(t, "--engine=vllm", "--vllm-url", upstream.URL)
	s.untilReady()
	checkGenerated(t, "vLLM", s.url+"/v1", func(i int) string { return generated[i].vllm })
}

func TestGeneratedOnONNX(t *testing.T) {
	s := besides(t, "--served-model-name", names[0], "--served-model-name", names[1], "--embedding-model-name", names[2])
	checkGenerated(t, "ONNX", s.url+"/v1", func(i int) string { return generated[i].onnx })
}

// steady runs the server that OpenAI tests its clients with. It takes no port
// of the system's choice, so that one is chosen that was free a moment ago.
func steady(t *testing.T) string {
	t.Helper()
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if url := "http://127.0.0.1:" + port; mocks(t, url, port) {
			return url
		}
	}
	t.Fatal("steady did not start")
	return ""
}

// mocks says whether steady serves at url; it has ended otherwise.
func mocks(t *testing.T, url, port string) bool {
	t.Helper()
	cmd := exec.Command(fromMake(t, "INFER_TEST_STEADY"), "--host=127.0.0.1", "--port="+port, "--quiet", "--no-color",
		"--validator-query-array-format=brackets", "--validator-form-array-format=brackets",
		"--validator-query-object-format=brackets", "--validator-form-object-format=brackets", fromMake(t, "INFER_TEST_OPENAPI"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // what it said tells more
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		select {
		case <-tick.C:
			if resp, err := http.Get(url + "/_x-steady/health"); err == nil {
				resp.Body.Close()
				return resp.StatusCode == http.StatusOK
			}
		case <-done:
			t.Logf("steady ended: %s", &out)
			return false
		case <-deadline:
			t.Fatalf("steady did not answer within a minute: %s", &out)
		}
	}
}

// likeVLLM answers as a vLLM does and leaves the resources to the mock.
func likeVLLM(t *testing.T, mock string) http.Handler {
	t.Helper()
	to, err := url.Parse(mock)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		var list struct {
			Object string           `json:"object"`
			Data   []map[string]any `json:"data"`
		}
		list.Object = "list"
		for _, name := range names {
			list.Data = append(list.Data, map[string]any{"id": name, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 4096})
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.MarshalWrite(w, list); err != nil {
			t.Error(err)
		}
	})
	mux.Handle("/v1/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/v1")
		r.SetURL(to)
	}})
	return mux
}

// checkGenerated runs the tests one by one against base and compares how each
// ends.
func checkGenerated(t *testing.T, what, base string, want func(int) string) {
	t.Helper()
	last := &recorder{}
	to, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	between := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, ModifyResponse: last.take})
	defer between.Close()
	for i, g := range generated {
		cmd := exec.CommandContext(timeout(t), compiled(t, g.in), "-test.run", "^"+g.name+"$", "-test.v")
		cmd.Env = append(cmd.Environ(), "TEST_API_BASE_URL="+between.URL)
		out, err := cmd.CombinedOutput()
		end := last.answer()
		switch {
		case !bytes.Contains(out, []byte("=== RUN   "+g.name)) || bytes.Contains(out, []byte("--- SKIP")):
			t.Errorf("%s: %s did not run\n%s", what, g.name, out)
		case (err == nil) != (end == ""):
			t.Errorf("%s: %s: %v, although the answer was %q\n%s", what, g.name, err, end, out)
		case end != want(i):
			t.Errorf("%s: %s ended with %q, want %q", what, g.name, end, want(i))
		}
	}
}

// compiled is the program of a package's tests.
func compiled(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(filepath.Dir(binary), filepath.Base(pkg)+".test")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	if out, err := exec.CommandContext(timeout(t), "go", "test", "-c", "-o", program, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go test -c %s: %v\n%s", pkg, err, out)
	}
	return program
}

// recorder keeps what the last request was answered with.
type recorder struct {
	mu  sync.Mutex
	end string
}

func (r *recorder) take(resp *http.Response) error {
	end := ""
	if resp.StatusCode >= 400 {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		var e struct {
			Error struct{ Param, Code string }
		}
		_ = json.Unmarshal(body, &e, json.MatchCaseInsensitiveNames(true)) // the mock's errors are of another kind
		end = strings.Join(strings.Fields(fmt.Sprint(resp.StatusCode, " ", e.Error.Param, " ", e.Error.Code)), " ")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = end
	return nil
}

func (r *recorder) answer() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}
