package protocols

import (
	"context"
	"encoding/json/v2"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"infer/internal/engine"
	"infer/internal/openai"
	"infer/internal/policy"
	"infer/internal/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is an engine that does what the last message says.
type scripted struct{ engine.State }

// Run implements engine.Engine.
func (*scripted) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// request is what the scripts look at.
type request struct {
	Stream   bool `json:"stream"`
	Messages []struct {
		Role    string `json:"role"`
		Content any    `json:"content"`
	} `json:"messages"`
	Format *struct{} `json:"response_format"`
}

// delta is a piece of a message.
type delta map[string]any

func call(index int, id, name, arguments string) delta {
	f := map[string]any{"arguments": arguments}
	c := map[string]any{"index": index, "function": f}
	if id != "" {
		c["id"], c["type"], f["name"] = id, "function", name
	}
	return delta{"tool_calls": []any{c}}
}

// script is one answer: its pieces, why it ended, and what goes wrong.
type script struct {
	pieces []delta
	finish string
	extra  map[string]any // of the last choice
	fault  *openai.Error  // after the pieces
	pause  time.Duration  // before each piece and before the fault
}

// A busy machine may hold a program up for as long as commitAfter, and again as
// long until pause, without that a script without pauses is late or one with
// pauses early.
const (
	pause       = 2 * time.Second
	commitAfter = time.Second
)

func scripts() map[string]script {
	broken := &openai.Error{Status: 502, Type: openai.TypeServer, Code: openai.CodeBrokeOff, Message: "the engine broke off"}
	limit := &openai.Error{Status: 429, Type: openai.TypeRateLimit, Code: openai.CodeQueueFull, Message: "too many"}
	tools := []delta{{"content": "Let me look."}, call(0, "call_1", "weather", ""), call(0, "", "", `{"city":`), call(0, "", "", `"Oslo"}`),
		call(1, "call_2", "clock", "{}")}
	return map[string]script{
		"say":    {pieces: []delta{{"content": "Hel"}, {"content": "lo"}}, finish: "stop"},
		"think":  {pieces: []delta{{"reasoning_content": "two and"}, {"reasoning_content": " two"}, {"content": "4"}}, finish: "stop"},
		"call":   {pieces: tools, finish: "tool_calls"},
		"length": {pieces: []delta{{"content": "Hel"}}, finish: "length"},
		"stop":   {pieces: []delta{{"content": "Hel"}}, finish: "stop", extra: map[string]any{"stop_reason": "END"}},
		"json":   {pieces: []delta{{"content": `{"city":`}, {"content": `"Oslo"}`}}, finish: "stop"},
		"break":  {pieces: []delta{{"content": "Hel"}}, fault: broken},
		"limit":  {fault: limit},
		// Longer than the server's patience: comments come before the first
		// event and between events, and the status has left before the fault.
		"slow": {pieces: []delta{{"content": "Hel"}, {"content": "lo"}}, finish: "stop", pause: pause},
		"late": {fault: broken, pause: pause},
	}
}

// ServeHTTP implements engine.Engine.
func (*scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.UnmarshalRead(r.Body, &req); err != nil {
		openai.WriteError(w, openai.Internal(err.Error()))
		return
	}
	last := req.Messages[len(req.Messages)-1]
	if r.URL.Path == "/tokenize" {
		_, _ = io.WriteString(w, `{"count":42,"tokens":[],"max_model_len":4096}`)
		return
	}
	name, _ := last.Content.(string)
	if last.Role == "tool" {
		name = "say"
	}
	s, ok := scripts()[name]
	if !ok {
		openai.WriteError(w, openai.Invalid("messages", openai.CodeInvalidValue, "no script %q", name))
		return
	}
	if req.Stream {
		s.stream(w)
	} else {
		s.whole(w)
	}
}

var usage = map[string]any{"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14,
	"prompt_tokens_details": map[string]any{"cached_tokens": 8}}

func body(choice map[string]any) map[string]any {
	b := map[string]any{"id": "chatcmpl-1", "created": 1700000000, "model": "m"}
	if choice != nil {
		b["choices"] = []any{choice}
	}
	return b
}

func (s script) stream(w http.ResponseWriter) {
	out := openai.NewStream(w)
	for i, d := range s.pieces {
		<-time.After(s.pause)
		if i > 0 && s.pause > 0 {
			_, _ = io.WriteString(w, ": ping\n\n") // as the server does after a longer silence
		}
		_ = out.Send(body(map[string]any{"index": 0, "delta": d})) // the client may have left
	}
	if s.fault != nil {
		<-time.After(s.pause)
		_ = out.Fail(s.fault)
		return
	}
	end := map[string]any{"index": 0, "delta": delta{}, "finish_reason": s.finish}
	for k, v := range s.extra {
		end[k] = v
	}
	_ = out.Send(body(end))
	last := body(nil)
	last["usage"] = usage
	_ = out.Send(last)
	_ = out.Done()
}

func (s script) whole(w http.ResponseWriter) {
	if s.fault != nil {
		openai.WriteError(w, s.fault)
		return
	}
	choice := map[string]any{"index": 0, "message": s.message(), "finish_reason": s.finish}
	for k, v := range s.extra {
		choice[k] = v
	}
	answer := body(choice)
	answer["usage"] = usage
	if err := json.MarshalWrite(w, answer); err != nil {
		panic(err)
	}
}

// message joins the pieces.
func (s script) message() map[string]any {
	m := map[string]any{"role": "assistant"}
	var calls []map[string]any
	for _, d := range s.pieces {
		for _, key := range []string{"content", "reasoning_content"} {
			if text, ok := d[key].(string); ok {
				before, _ := m[key].(string)
				m[key] = before + text
			}
		}
		list, _ := d["tool_calls"].([]any)
		for _, c := range list {
			c := c.(map[string]any)
			if _, begins := c["id"]; begins {
				calls = append(calls, c)
				continue
			}
			f := calls[len(calls)-1]["function"].(map[string]any)
			f["arguments"] = f["arguments"].(string) + c["function"].(map[string]any)["arguments"].(string)
		}
	}
	if calls != nil {
		m["tool_calls"] = calls
	}
	return m
}

// start serves the scripted engine to callers, or to everybody without, and
// returns its URL.
func start(t *testing.T, callers *serve.Callers) string {
	t.Helper()
	eng := &scripted{}
	eng.Set(engine.Status{Phase: engine.Ready, Slots: 4, Models: []engine.Model{{ID: "m"}}})
	cfg := serve.Config{Grace: 10 * time.Second, Hold: time.Minute, CommitAfter: commitAfter, ClientStall: time.Minute,
		MaxQueue: 8, MaxQueueBytes: 8 << 20, MaxBodyBytes: 1 << 20, MaxMediaBodyBytes: 1 << 20, MaxConnections: 64,
		Policy: policy.Config{MaxN: 8, MaxPrompts: 8, MaxTools: 8, MaxSchemaBytes: 1 << 16, MaxMediaBytes: 1 << 20}}
	cfg.Callers = callers
	srv, err := serve.New(cfg, eng, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	return "http://" + ln.Addr().String()
}

func TestOfficialClients(t *testing.T) {
	for _, name := range []string{"openai_responses.py", "anthropic_messages.py"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			runs(t, name, start(t, nil))
		})
	}
}

// runs a program of assertions: it prints what failed and exits 1.
func runs(t *testing.T, name string, args ...string) {
	t.Helper()
	python := os.Getenv("INFER_TEST_PYTHON")
	if python == "" {
		t.Fatal("INFER_TEST_PYTHON is empty; run make test, which fetches the real parts")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, append([]string{name}, args...)...)
	cmd.Env = append(cmd.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
