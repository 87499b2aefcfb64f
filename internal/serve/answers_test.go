package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"infer/internal/engine"
	"infer/internal/openai"
)

const (
	brokeOff = `{"error":{"message":"the engine broke off; send the request again, and see the server's log when it repeats","type":"server_error","param":null,"code":"engine_broke_off"}}`
	engPanic = `{"error":{"message":"the engine hit a fault of its own; report it with this answer's X-Request-Id","type":"server_error","param":null,"code":"internal_error"}}`
)

// Every refusal of a request that is at fault, to the byte.
func TestRequestFaults(t *testing.T) {
	object := func(message, kind, param, code string) string {
		p := "null"
		if param != "" {
			p = `"` + param + `"`
		}
		return fmt.Sprintf(`{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}`, message, kind, p, code)
	}
	const invalid = "invalid_request_error"
	f := newFixture(t, config(), ready(1), func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") })
	for _, tt := range []struct {
		name, method, path, body string
		extra                    []string
		status                   int
		want                     string
	}{
		{"no such path", "GET", "/v2", "", nil, 404, object("no such path; GET / lists the endpoints", "not_found_error", "", "route_not_found")},
		{"administrative path of an engine", "POST", "/pause", "", nil, 404, object("no such path; GET / lists the endpoints", "not_found_error", "", "route_not_found")},
		{"an escaped path", "POST", "/v1%2Fchat/completions", chat, nil, 404, object("no such path; GET / lists the endpoints", "not_found_error", "", "route_not_found")},
		{"GET on a POST path", "GET", "/v1/chat/completions", "", nil, 405, object("this path does not answer that method; use POST", invalid, "", "method_not_allowed")},
		{"HEAD on a POST path", "HEAD", "/tokenize", "", nil, 405, object("this path does not answer that method; use POST", invalid, "", "method_not_allowed")},
		{"POST on a GET path", "POST", "/v1/models", "{}", nil, 405, object("this path does not answer that method; use GET or HEAD", invalid, "", "method_not_allowed")},
		{"DELETE of a model", "DELETE", "/v1/models/a%2Fb", "", nil, 405, object("this path does not answer that method; use GET or HEAD", invalid, "", "method_not_allowed")},
		{"an unknown method", "BREW", "/v1/models", "", nil, 405, object("this path does not answer that method; use GET or HEAD", invalid, "", "method_not_allowed")},
		{"form body", "POST", "/v1/completions", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, object("the body must be JSON; send Content-Type: application/json", invalid, "", "unsupported_media_type")},
		{"garbled type", "POST", "/v1/completions", "{}", []string{"Content-Type", "application/json; ="}, 415, object("the body must be JSON; send Content-Type: application/json", invalid, "", "unsupported_media_type")},
		{"compressed", "POST", "/v1/completions", "\x1f", []string{"Content-Encoding", "gzip"}, 415, object("compressed bodies are not accepted; send the JSON without Content-Encoding", invalid, "", "unsupported_media_type")},
		{"too large", "POST", "/v1/completions", strings.Repeat(" ", 1<<20+1), nil, 413, object("the body is larger than 1048576 bytes; shorten it or raise --max-body-bytes", invalid, "", "request_too_large")},
		{"empty", "POST", "/v1/completions", "", nil, 400, object("the body is not valid JSON: empty; send one JSON object", invalid, "", "invalid_json")},
		{"cut", "POST", "/v1/completions", `{"model":`, nil, 400, object("the body is not valid JSON: ends too early at offset 9; send one JSON object", invalid, "", "invalid_json")},
		{"wrong type", "POST", "/detokenize", `{"stream":1}`, nil, 400, object("stream must be true or false, got a number", invalid, "stream", "invalid_value")},
		{"unknown model", "POST", "/v1/chat/completions", `{"model":"gpt\n5"}`, nil, 404, object(`the model \"gpt\\n5\" is not served here; served: \"Qwen/Qwen3-0.6B\", \"small\"`, "not_found_error", "model", "model_not_found")},
		{"model in another case", "POST", "/tokenize", `{"model":"Small"}`, nil, 404, object(`the model \"Small\" is not served here; served: \"Qwen/Qwen3-0.6B\", \"small\"`, "not_found_error", "model", "model_not_found")},
		{"unknown model by path", "GET", "/v1/models/no/such", "", nil, 404, object(`the model \"no/such\" is not served here; served: \"Qwen/Qwen3-0.6B\", \"small\"`, "not_found_error", "model", "model_not_found")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := f.do(tt.method, tt.path, tt.body, tt.extra...)
			if w.Code != tt.status || w.Body.String() != tt.want {
				t.Errorf("%d %s\nwant %d %s", w.Code, w.Body, tt.status, tt.want)
			}
			h := w.Header()
			if h.Get("Content-Type") != "application/json" || h.Get("X-Should-Retry") != "false" || h.Get("X-Request-Id") == "" || h.Get("Retry-After") != "" {
				t.Errorf("headers: %v", h)
			}
			if got, want := h.Get("Allow"), map[bool]string{true: strings.TrimSuffix(after(tt.want, "; use "), `"`)}[tt.status == 405]; strings.ReplaceAll(got, ", ", " or ") != want {
				t.Errorf("Allow = %q, want %q", got, want)
			}
		})
	}
}

// after is the text between mark and the next quote.
func after(s, mark string) string {
	_, s, _ = strings.Cut(s, mark)
	s, _, _ = strings.Cut(s, `"`)
	return s
}

func TestInvalidTimeoutHeader(t *testing.T) {
	f := newFixture(t, config(), ready(1), func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") })
	for _, v := range []string{"x", "0", "-1", "NaN", "Inf", "1e9", "5s"} {
		w := f.do("POST", "/v1/chat/completions", chat, "X-Request-Timeout", v)
		want := `{"error":{"message":"X-Request-Timeout must be seconds above 0 and up to 86400, such as 30 or 2.5","type":"invalid_request_error","param":"X-Request-Timeout","code":"invalid_value"}}`
		if w.Code != 400 || w.Body.String() != want {
			t.Errorf("%s: %d %s", v, w.Code, w.Body)
		}
	}
}

// Lenient where it does no harm.
func TestAccepted(t *testing.T) {
	var got string
	f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(len(b)) {
			t.Errorf("engine read %d of %d bytes: %v", len(b), r.ContentLength, err)
		}
		got = string(b)
		say(w, r)
	})
	for name, extra := range map[string][]string{
		"no type": nil, "charset": {"Content-Type", "application/json; charset=utf-8"}, "upper case": {"Content-Type", "Application/JSON"},
		"identity": {"Content-Encoding", "identity"},
	} {
		for _, body := range []string{chat, ` {"messages":[]} `} {
			w := f.do("POST", "/v1/chat/completions", body, extra...)
			if w.Code != 200 || got != body {
				t.Errorf("%s: %d %s, the engine read %s", name, w.Code, w.Body, got)
			}
			got = ""
			chunked := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
			chunked.ContentLength = -1
			w = httptest.NewRecorder()
			f.Handler().ServeHTTP(w, chunked)
			if w.Code != 200 || got != body {
				t.Errorf("%s: %d %s, the engine read %s", name, w.Code, w.Body, got)
			}
		}
	}
}

// However an engine's handler ends, the client gets a status of its own or a
// terminated stream, and never a half that looks whole.
func TestEngineMisbehaves(t *testing.T) {
	event := func(w http.ResponseWriter, s string) {
		w.Header().Set("Content-Type", "text/event-stream")
		write(w, s)
	}
	for _, tt := range []struct {
		name   string
		serve  http.HandlerFunc
		status int
		body   string
		cut    int // streams cut by the engine
	}{
		{"returns silently", func(http.ResponseWriter, *http.Request) {}, 502, brokeOff, 0},
		{"panics at once", func(http.ResponseWriter, *http.Request) { panic("boom") }, 500, engPanic, 0},
		{"panics after setting headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			panic("boom")
		}, 500, engPanic, 0},
		{"aborts at once", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, brokeOff, 0},
		{"ends a stream early", func(w http.ResponseWriter, _ *http.Request) { event(w, "data: 1\n\n") }, 200, "data: 1\n\ndata: " + brokeOff + "\n\n" + done, 1},
		{"opens a stream and returns", func(w http.ResponseWriter, _ *http.Request) { event(w, "") }, 502, brokeOff, 0},
		{"leaves the first event open", func(w http.ResponseWriter, _ *http.Request) { event(w, "data: 1\n") }, 502, brokeOff, 0},
		{"leaves a later event open", func(w http.ResponseWriter, _ *http.Request) { event(w, "data: 1\n\n"); event(w, "data: 2") }, 200, "data: 1\n\ndata: " + brokeOff + "\n\n" + done, 1},
		{"leaves the terminator open", func(w http.ResponseWriter, _ *http.Request) { event(w, "data: 1\n\ndata: [DONE]") }, 200, "data: 1\n\n" + done, 0},
		{"says 200, then fails", func(w http.ResponseWriter, _ *http.Request) {
			event(w, `data: {"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}`+"\n\n"+done)
		}, 500, `{"error":{"message":"EngineCore died","type":"server_error","param":null,"code":null}}`, 0},
		{"fails in words of its own", func(w http.ResponseWriter, _ *http.Request) {
			event(w, "data: 1\n\n")
			event(w, `data: {"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}`+"\n\n")
		}, 200, "data: 1\n\n" + `data: {"error":{"message":"EngineCore died","type":"server_error","param":null,"code":null}}` + "\n\n" + done, 1},
		{"goes on after the end", func(w http.ResponseWriter, _ *http.Request) {
			event(w, "data: 1\n\n"+done+"data: 2\n\n")
			event(w, "data: 3\n\n")
		}, 200, "data: 1\n\n" + done, 0},
		{"refuses in words of its own", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "24")
			w.WriteHeader(401)
			_, _ = io.WriteString(w, `{"error":`)
			_, _ = io.WriteString(w, `"Unauthorized"}`)
		}, 401, `{"error":{"message":"Unauthorized","type":"authentication_error","param":null,"code":null}}`, 0},
		{"has no such route", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); write(w, `{"detail":"Not Found"}`) },
			404, `{"error":{"message":"Not Found","type":"not_found_error","param":null,"code":null}}`, 0},
		{"panics in a stream", func(w http.ResponseWriter, _ *http.Request) { event(w, "data: 1\n\n"); panic("boom") }, 200, "data: 1\n\ndata: " + engPanic + "\n\n" + done, 1},
		{"aborts in a stream", func(w http.ResponseWriter, _ *http.Request) { event(w, "data: 1\n\n"); panic(http.ErrAbortHandler) }, 200, "data: 1\n\ndata: " + brokeOff + "\n\n" + done, 1},
		{"panics after the end", func(w http.ResponseWriter, _ *http.Request) { event(w, done); panic("boom") }, 200, done, 0},
		{"ends byte by byte", func(w http.ResponseWriter, _ *http.Request) {
			for _, c := range "data: 1\n\n" + done {
				event(w, string(c))
			}
		}, 200, "data: 1\n\n" + done, 0},
		{"says only DONE in its text", func(w http.ResponseWriter, _ *http.Request) { event(w, `data: "data: [DONE]"`+"\n\n") }, 200, `data: "data: [DONE]"` + "\n\ndata: " + brokeOff + "\n\n" + done, 1},
		{"fails a stream itself", func(w http.ResponseWriter, _ *http.Request) {
			s := openai.NewStream(w)
			_ = s.Send(1)
			_ = s.Fail(openai.Internal("x"))
		}, 200, `data: 1` + "\n\n" + `data: {"error":{"message":"x","type":"server_error","param":null,"code":"internal_error"}}` + "\n\n" + done, 1},
		{"refuses", func(w http.ResponseWriter, _ *http.Request) {
			openai.WriteError(w, openai.Invalid("n", openai.CodeUnsupported, "no"))
		}, 400, `{"error":{"message":"no","type":"invalid_request_error","param":"n","code":"unsupported_parameter"}}`, 0},
		{"says 200 and nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }, 200, "", 0},
		{"overwrites the request id", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Request-Id", "mine"); say(w, r) }, 200, `{"ok":1}`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, config(), ready(1), tt.serve)
			w := f.do("POST", "/v1/chat/completions", chat, "X-Request-Id", "theirs")
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%d %q\nwant %d %q", w.Code, w.Body, tt.status, tt.body)
			}
			if got := w.Header().Get("X-Request-Id"); got != "theirs" {
				t.Errorf("X-Request-Id = %q", got)
			}
			f.wantMetrics(t, fmt.Sprintf(`infer_streams_cut_total{by="engine"} %d`, tt.cut), "infer_requests_running 0")
			if strings.Contains(tt.name, "panics") != strings.Contains(f.logs.String(), `"panic":"boom"`) {
				t.Errorf("log: %s", f.logs)
			}
		})
	}
}

// write is one write and one flush.
func write(w http.ResponseWriter, s string) {
	_, _ = io.WriteString(w, s)
	w.(http.Flusher).Flush()
}

func TestHalfAnAnswerIsAborted(t *testing.T) {
	for name, p := range map[string]any{"panic": "boom", "abort": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, _ *http.Request) { write(w, `{"half":`); panic(p) })
			srv := httptest.NewServer(f.Handler())
			defer srv.Close()
			resp, err := srv.Client().Post(srv.URL+"/v1/chat/completions", "", strings.NewReader(oneShot))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil {
				t.Errorf("read %q as if it were whole", b)
			}
		})
	}
}

// A fault in our own handlers is answered, too.
func TestOwnPanic(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	f.router.Get("/boom", func(http.ResponseWriter, *http.Request) { panic("boom") })
	w := f.do("GET", "/boom", "", "X-Request-Id", "r1")
	want := `{"error":{"message":"the server hit a fault of its own; report it with this answer's X-Request-Id","type":"server_error","param":null,"code":"internal_error"}}`
	if w.Code != 500 || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := f.logs.String(); !strings.Contains(got, `"request_id":"r1","panic":"boom","stack":"`) {
		t.Errorf("log: %s", got)
	}
	f.router.Get("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("panic %v, want it to pass", p)
		}
	}()
	f.do("GET", "/abort", "")
}

// The engine is asked whether it serves a name once it knows.
func TestModelsLearnedWhileHeld(t *testing.T) {
	inBubble(t, config(), loading, say, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/chat/completions", `{"model":"nope"}`)
		l.fake.Set(ready(1))
		<-r.ended
		if r.status != 404 || !strings.Contains(r.text(), `"code":"model_not_found"`) {
			t.Errorf("%d %s", r.status, r.text())
		}
		l.wantMetrics(t, "infer_requests_running 0")
	})
}

func TestMeterReachesTheEngine(t *testing.T) {
	f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
		if _, ok := engine.MeterFrom(r.Context()).(*meter); !ok {
			t.Error("no meter in the context")
		}
		if context.Cause(r.Context()) != nil {
			t.Error("the context is over")
		}
		say(w, r)
	})
	if w := f.do("POST", "/v1/completions", oneShot); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
