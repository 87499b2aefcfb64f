//go:build real

package dapr

import (
	"context"
	"encoding/json/v2"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"infer/internal/dapr/daprtest"
)

func fromMake(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is empty; run make test-real, which fetches the real parts", name)
	}
	return v
}

// build makes the program once for all tests of a test.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "infer")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "infer/cmd/infer").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

var listening = regexp.MustCompile(`"msg":"listening".*"addr":"([^"]+)"`)

// infer is the program with the real small model.
type infer struct {
	*daprtest.Process
	url string
}

func serve(t *testing.T, program, addr string, args []string, env ...string) *infer {
	t.Helper()
	args = append([]string{"serve", "--listen", addr, "--model", fromMake(t, "INFER_TEST_MODEL_GGUF"), "--onnx-library", fromMake(t, "INFER_TEST_ONNXRUNTIME"),
		"--device", "cpu", "--threads", "1", "--grace", "10s", "--served-model-name", "small", "--dapr-limits", "rpm=100000"}, args...)
	s := &infer{Process: daprtest.Launch(t, program, args, env...)}
	daprtest.Until(t, "infer listens", func() bool {
		m := listening.FindStringSubmatch(s.Out.String())
		if m != nil {
			s.url = "http://" + m[1]
		}
		return m != nil
	})
	daprtest.Until(t, "infer is ready", func() bool { return status(s.url+"/readyz") == 200 })
	return s
}

func status(url string) int {
	r, err := http.Get(url)
	if err != nil {
		return 0
	}
	_ = r.Body.Close()
	return r.StatusCode
}

// call sends a request with headers, as name and value in turns.
func call(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer, string(text)
}

const chat = `{"model":"small","max_tokens":12,"messages":[{"role":"user","content":"Name three fruits."}]}`

// pair is two sidecars that find each other: that of infer, and a peer's.
func pair(t *testing.T, appPort string, components []daprtest.Component, env ...string) (own, peer *daprtest.Sidecar) {
	t.Helper()
	names := filepath.Join(t.TempDir(), "names.db")
	own = daprtest.Start(t, daprtest.Options{AppID: "infer", AppPort: appPort, Names: names, Components: components, Env: env})
	peer = daprtest.Start(t, daprtest.Options{AppID: "checkout", Names: names, Components: components})
	return own, peer
}

func port(url string) string { return url[strings.LastIndexByte(url, ':')+1:] }

// A peer calls the same routes through its sidecar: streams come as they are
// made, errors keep their body, and the caller is known by its token.
func TestInvocation(t *testing.T) {
	program := build(t)
	p := daprtest.Ports(t, 1)[0]
	own, peer := pair(t, p, nil, "APP_API_TOKEN=app-token-of-the-test")
	s := serve(t, program, "127.0.0.1:"+p, []string{"--direct-url", "http://infer.internal"},
		"DAPR_GRPC_PORT="+port(own.GRPC), "DAPR_HTTP_PORT="+port(own.HTTP), "APP_API_TOKEN=app-token-of-the-test", "INFER_API_KEYS=ann:ann-0123456789abcdef")
	daprtest.Until(t, "the sidecar has found the app", func() bool {
		r, _ := call(t, "GET", peer.HTTP+"/v1/models", "", "dapr-app-id", "infer")
		return r.StatusCode == 200
	})
	for url, app := range map[string]string{"/v1/chat/completions": "infer", "/v1.0/invoke/infer/method/v1/chat/completions": ""} {
		headers := []string{"X-Request-Id", "of-the-peer"}
		if app != "" {
			headers = append(headers, "dapr-app-id", app)
		}
		r, text := call(t, "POST", peer.HTTP+url, chat, headers...)
		if r.StatusCode != 200 || !strings.Contains(text, `"finish_reason"`) || r.Header.Get("X-Request-Id") != "of-the-peer" {
			t.Errorf("%s: %d %v %s", url, r.StatusCode, r.Header, text)
		}
	}
	daprtest.Until(t, "the log names the caller", func() bool { return strings.Contains(s.Out.String(), `"key":"dapr-checkout"`) })
	r, text := call(t, "POST", peer.HTTP+"/v1/chat/completions", strings.Replace(chat, `"max_tokens":12`, `"max_tokens":12,"stream":true`, 1), "dapr-app-id", "infer", "Accept", "text/event-stream")
	if r.StatusCode != 200 || !strings.HasSuffix(text, "data: [DONE]\n\n") || strings.Count(text, "data: ") < 5 {
		t.Errorf("a stream: %d %s", r.StatusCode, text)
	}
	if r, text = call(t, "POST", peer.HTTP+"/v1/chat/completions", `{"messages":7}`, "dapr-app-id", "infer"); r.StatusCode != 400 || !strings.Contains(text, `"param":"messages"`) {
		t.Errorf("a bad request: %d %s", r.StatusCode, text)
	}
	// Whoever reaches the port itself needs a key, whatever he says of a sidecar.
	if r, _ = call(t, "POST", s.url+"/v1/chat/completions", chat, "dapr-caller-app-id", "checkout"); r.StatusCode != 401 {
		t.Errorf("a forged caller: %d", r.StatusCode)
	}
	if r, _ = call(t, "POST", s.url+"/v1/chat/completions", chat, "dapr-api-token", "wrong"); r.StatusCode != 401 {
		t.Errorf("a wrong token: %d", r.StatusCode)
	}
	daprtest.Until(t, "the sidecar's metadata tells what is served", func() bool {
		_, text := call(t, "GET", own.HTTP+"/v1.0/metadata", "")
		var meta struct {
			Extended map[string]string `json:"extended"`
		}
		err := json.Unmarshal([]byte(text), &meta)
		return err == nil && meta.Extended["infer.models"] == "small" && meta.Extended["infer.url"] == "http://infer.internal" && meta.Extended["infer.context_tokens"] != ""
	})
	python(t, peer)
	activity(t, s, peer)
	// The trace of a call goes through both sidecars, and is in the log.
	const trace = "0af7651916cd43dd8448eb211c80319c"
	call(t, "POST", peer.HTTP+"/v1/chat/completions", chat, "dapr-app-id", "infer", "Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	daprtest.Until(t, "the log has the trace", func() bool { return strings.Contains(s.Out.String(), `"trace_id":"`+trace+`"`) })
}

// activity runs the sample of a workflow's activity twice, as a workflow does
// whose sidecar was away: it is answered twice, and runs once.
func activity(t *testing.T, s *infer, peer *daprtest.Sidecar) {
	t.Helper()
	var answers [2]string
	for i := range answers {
		cmd := exec.CommandContext(t.Context(), "go", "run", "../../deploy/dapr/samples/workflow.go", "order-7", "Name a colour.")
		cmd.Env = append(os.Environ(), "DAPR_HTTP_PORT="+port(peer.HTTP))
		out, err := cmd.CombinedOutput()
		if answers[i] = string(out); err != nil || len(out) < 2 {
			t.Fatalf("workflow.go: %v\n%s", err, out)
		}
	}
	if answers[0] != answers[1] {
		t.Errorf("answers %q", answers)
	}
	_, text := call(t, "GET", peer.HTTP+"/v1/jobs", "", "dapr-app-id", "infer")
	if n := strings.Count(text, `"object":"job"`); n != 1 {
		t.Errorf("%d jobs, want 1: %s", n, text)
	}
}

// Each app that calls through the sidecar has the limits for itself, and hears
// when to come back. Accept: text/event-stream makes sidecars hide it.
func TestLimits(t *testing.T) {
	program := build(t)
	p := daprtest.Ports(t, 1)[0]
	const token = "APP_API_TOKEN=app-token-of-the-test"
	own, peer := pair(t, p, nil, token)
	other := daprtest.Start(t, daprtest.Options{AppID: "other", Names: own.Names})
	serve(t, program, "127.0.0.1:"+p, []string{"--dapr-limits", "rpm=2"}, "DAPR_GRPC_PORT="+port(own.GRPC), "DAPR_HTTP_PORT="+port(own.HTTP), token)
	ask := func(d *daprtest.Sidecar, headers ...string) (*http.Response, string) {
		return call(t, "POST", d.HTTP+"/v1/chat/completions", chat, append(headers, "dapr-app-id", "infer")...)
	}
	for range 2 {
		if r, text := ask(peer); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, text)
		}
	}
	r, text := ask(peer)
	seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if r.StatusCode != 429 || err != nil || seconds < 1 || seconds > 60 || !strings.Contains(text, `"type":"rate_limit_error"`) {
		t.Errorf("over the limit: %d %v %s", r.StatusCode, r.Header, text)
	}
	if r, text = ask(peer, "Accept", "text/event-stream"); r.StatusCode != 500 || !strings.Contains(text, "ERR_DIRECT_INVOKE") {
		t.Errorf("over the limit, for a stream: %d %s; correct the README if sidecars show it now", r.StatusCode, text)
	}
	if r, text = ask(other); r.StatusCode != 200 {
		t.Errorf("another app: %d %s", r.StatusCode, text)
	}
}

// python runs the sample of a peer with OpenAI's own client.
func python(t *testing.T, peer *daprtest.Sidecar) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), fromMake(t, "INFER_TEST_PYTHON"), "../../deploy/dapr/samples/peer.py")
	cmd.Env = append(os.Environ(), "DAPR_HTTP_PORT="+port(peer.HTTP), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "finished: ") {
		t.Errorf("peer.py: %v\n%s", err, out)
	}
}

// The sidecar may come late, go and come again: the endpoint does not notice,
// and /readyz says it.
func TestSidecarIsLate(t *testing.T) {
	program := build(t)
	ports := daprtest.Ports(t, 2)
	s := serve(t, program, "127.0.0.1:0", []string{"--dapr-pubsub", "events"}, "DAPR_GRPC_PORT="+ports[0], "DAPR_HTTP_PORT="+ports[1])
	r, text := call(t, "GET", s.url+"/readyz", "")
	if r.StatusCode != 200 || !strings.Contains(text, "the sidecar") || strings.Contains(text, "the sidecar is ready") {
		t.Errorf("readyz without a sidecar: %d %s", r.StatusCode, text)
	}
	if r, text = call(t, "POST", s.url+"/v1/chat/completions", chat); r.StatusCode != 200 {
		t.Errorf("chat without a sidecar: %d %s", r.StatusCode, text)
	}
	daprtest.Start(t, daprtest.Options{GRPCPort: ports[0], HTTPPort: ports[1], Components: []daprtest.Component{{Name: "events", Type: "pubsub.in-memory"}}})
	daprtest.Until(t, "infer has found the sidecar", func() bool {
		_, text := call(t, "GET", s.url+"/readyz", "")
		return strings.Contains(text, "the sidecar is ready; subscribed to infer.requests")
	})
}

// The sample that publishes a request is answered on the topic of results.
func TestTopic(t *testing.T) {
	program := build(t)
	redis := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, redis)
	components := []daprtest.Component{{Name: "events", Type: "pubsub.redis", Metadata: "redisHost=127.0.0.1:" + redis}}
	own, peer := pair(t, "", components)
	s := serve(t, program, "127.0.0.1:0", []string{"--dapr-pubsub", "events"}, "DAPR_GRPC_PORT="+port(own.GRPC), "DAPR_HTTP_PORT="+port(own.HTTP))
	cmd := exec.CommandContext(t.Context(), "go", "run", "../../deploy/dapr/samples/peer.go")
	cmd.Env = append(os.Environ(), "DAPR_HTTP_PORT="+port(peer.HTTP))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "sample-1.result") {
		t.Fatalf("peer.go: %v\n%s", err, out)
	}
	cmd = exec.CommandContext(t.Context(), "go", "run", "../../deploy/dapr/samples/stream.go")
	cmd.Env = append(os.Environ(), "DAPR_GRPC_PORT="+port(peer.GRPC))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "data: [DONE]\n\nall parts are there") {
		t.Fatalf("stream.go: %v\n%s", err, out)
	}
	daprtest.Until(t, "the event is answered", func() bool {
		_, text := call(t, "GET", s.url+"/metrics", "")
		return strings.Contains(text, `infer_dapr_events_total{outcome="done"} 2`)
	})
	if !strings.Contains(s.Out.String(), `"event":"peer/sample-1"`) {
		t.Errorf("no line of the event in the log:\n%s", s.Out)
	}
}
