package serve

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
	"infer/internal/openai"
)

const (
	hello     = `{"model":"small","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
	helloLive = `{"model":"small","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`
	respond   = `{"model":"small","input":"hi","stream":true}`
)

// chatTick streams a chat whose n words come a second apart.
func chatTick(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := openai.NewStream(w)
		chunk := func(content, finish string) map[string]any {
			choice := map[string]any{"index": 0, "delta": map[string]any{"content": content}}
			if finish != "" {
				choice["finish_reason"] = finish
			}
			return map[string]any{"model": "small", "created": 1, "choices": []any{choice}}
		}
		for i := range n {
			if err := s.Send(chunk(fmt.Sprint(i), "")); err != nil {
				return
			}
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			}
		}
		_ = s.Send(chunk("", "stop")) // the client may have left
		_ = s.Done()
	}
}

// names lists the events of a stream.
func names(stream string) string {
	var list []string
	for line := range strings.Lines(stream) {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			list = append(list, strings.TrimSpace(name))
		}
	}
	return strings.Join(list, " ")
}

// Whoever refuses a request for a message does it in Anthropic's shape.
func TestMessagesErrors(t *testing.T) {
	f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, _ *http.Request) {
		openai.WriteError(w, openai.Invalid("tools", openai.CodeUnsupported, "no tools here"))
	})
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		kind, message            string
	}{
		{"no such path", "GET", "/v1/messages/batches", "", 404, "not_found_error", "no such path; GET / lists the endpoints"},
		{"method", "GET", "/v1/messages", "", 405, "invalid_request_error", "this path does not answer that method; use POST"},
		{"not JSON", "POST", "/v1/messages", "{", 400, "invalid_request_error", "the body is not valid JSON: ends too early at offset 1; send one JSON object"},
		{"model", "POST", "/v1/messages", `{"model":"gpt"}`, 404, "not_found_error", `the model \"gpt\" is not served here; served: \"Qwen/Qwen3-0.6B\", \"small\"`},
		{"too large", "POST", "/v1/messages", strings.Repeat(" ", 1<<20+1), 413, "request_too_large", "the body is larger than 1048576 bytes; shorten it or raise --max-body-bytes"},
		{"translator", "POST", "/v1/messages", `{"messages":[]}`, 400, "invalid_request_error", "max_tokens is required: the most tokens to generate"},
		{"engine", "POST", "/v1/messages", hello, 400, "invalid_request_error", "no tools here"},
		{"count", "POST", "/v1/messages/count_tokens", `{"messages":[]}`, 400, "invalid_request_error", "messages is empty; give at least one message"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := f.do(tt.method, tt.path, tt.body, "X-Request-Id", "abc")
			want := fmt.Sprintf(`{"type":"error","error":{"type":"%s","message":"%s"},"request_id":"abc"}`, tt.kind, tt.message)
			if w.Code != tt.status || w.Body.String() != want {
				t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, tt.status, want)
			}
			if got := w.Header().Get("Request-Id"); got != "abc" {
				t.Errorf("Request-Id = %q", got)
			}
		})
	}
	f.fake.Set(engine.Status{Phase: engine.Failed, Models: models})
	f.apply(f.fake.Status())
	w := f.do("POST", "/v1/messages", hello)
	if !strings.Contains(w.Body.String(), `"type":"overloaded_error"`) || w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// The other surfaces keep OpenAI's.
func TestResponsesErrors(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	const want = `{"error":{"message":"input is required: a string or a list of items","type":"invalid_request_error","param":"input","code":"missing_field"}}`
	if w := f.do("POST", "/v1/responses", `{"model":"small"}`); w.Code != 400 || w.Body.String() != want {
		t.Errorf("got %d %s\nwant %s", w.Code, w.Body, want)
	}
	if w := f.do("GET", "/v1/messagesx", ""); !strings.HasPrefix(w.Body.String(), `{"error":`) {
		t.Errorf("got %s", w.Body)
	}
}

func TestProtocolStreams(t *testing.T) {
	inBubble(t, config(), ready(4), chatTick(2), func(t *testing.T, l *live) {
		m, r := l.post(t, "/v1/messages", helloLive), l.post(t, "/v1/responses", respond)
		// The first word is there while the engine is still at it.
		if got := names(m.text()); got != "message_start content_block_start ping content_block_delta" {
			t.Errorf("at once: %s", got)
		}
		if got := names(r.text()); !strings.HasSuffix(got, "response.output_text.delta") {
			t.Errorf("at once: %s", got)
		}
		<-m.ended
		<-r.ended
		if got := names(m.text()); !strings.HasSuffix(got, "content_block_stop message_delta message_stop") {
			t.Errorf("in the end: %s", got)
		}
		if got := names(r.text()); !strings.HasSuffix(got, "response.output_item.done response.completed") {
			t.Errorf("in the end: %s", got)
		}
		l.wantMetrics(t, `infer_requests_total{code="200",model="small",route="/v1/messages"} 1`,
			`infer_requests_total{code="200",model="small",route="/v1/responses"} 1`)
	})
}

// A stream that the server ends itself ends in the client's protocol.
func TestProtocolStreamsAreCut(t *testing.T) {
	inBubble(t, config(), ready(4), chatTick(9), func(t *testing.T, l *live) {
		m := l.post(t, "/v1/messages", helloLive, timeoutHeader, "1.5")
		r := l.post(t, "/v1/responses", respond, timeoutHeader, "1.5")
		early := l.post(t, "/v1/messages", helloLive, timeoutHeader, "1.5")
		<-m.ended
		<-r.ended
		<-early.ended
		if got := m.text(); !strings.HasSuffix(names(got), "content_block_delta error") || !strings.Contains(got, "timeout_error") {
			t.Errorf("messages:\n%s", got)
		}
		if got := r.text(); !strings.HasSuffix(names(got), "response.output_text.delta error response.failed") {
			t.Errorf("responses:\n%s", got)
		}
		l.wantMetrics(t, `infer_streams_cut_total{by="deadline"} 3`)
	})
}

// An engine that is silent until the deadline still gives a real status.
func TestProtocolDeadlineBeforeTheFirstEvent(t *testing.T) {
	inBubble(t, config(), ready(4), silent, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/messages", helloLive, timeoutHeader, "2", "X-Request-Id", "abc")
		r.want(t, 504, `{"type":"error","error":{"type":"timeout_error","message":"the request's deadline passed; allow more time in X-Request-Timeout or retry when the server is less busy"},"request_id":"abc"}`, 2*time.Second)
	})
}

func TestClientLeavesATranslatedStream(t *testing.T) {
	inBubble(t, config(), ready(4), chatTick(9), func(t *testing.T, l *live) {
		r := l.post(t, "/v1/messages", helloLive)
		r.cancel()
		<-r.ended
		synctest.Sleep(time.Second)
		l.wantMetrics(t, `infer_streams_cut_total{by="client"} 1`, `infer_requests_total{code="499",model="small",route="/v1/messages"} 1`)
	})
}

// An engine whose words make no sense is at fault, not the client.
func TestTranslatedNonsense(t *testing.T) {
	for _, tt := range []struct {
		name, first string
		code, cut   int
	}{
		{"at once", "", 502, 0},
		{"later", `data: {"model":"small","choices":[{"index":0,"delta":{"content":"a"}}]}` + "\n\n", 200, 1},
	} {
		f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			write(w, tt.first)
			write(w, "data: {\n\n")
			write(w, "data: {\n\n")
		})
		w := f.do("POST", "/v1/messages", helloLive)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), `"type":"api_error"`) {
			t.Errorf("%s: %d %s", tt.name, w.Code, w.Body)
		}
		f.wantMetrics(t, fmt.Sprintf(`infer_requests_total{code="%d",model="small",route="/v1/messages"} 1`, tt.code),
			fmt.Sprintf(`infer_streams_cut_total{by="engine"} %d`, tt.cut), `infer_streams_cut_total{by="client"} 0`)
	}
}
