package serve

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
	"infer/internal/openai"
)

const ping = ": ping\n\n"

// protocol is one way to ask for a stream, and how it ends with an error.
type protocol struct {
	name, path, body string
	failed           func(told) string // the end of a stream that was committed and then refused
}

// told is an error in OpenAI's words; rest are the members after code.
type told struct{ message, kind, code, rest, param string }

func (e told) parameter() string {
	if e.param == "" {
		return "null"
	}
	return `"` + e.param + `"`
}

func protocols() []protocol {
	openAI := func(e told) string {
		return `data: {"error":{"message":"` + e.message + `","type":"` + e.kind + `","param":` + e.parameter() + `,"code":"` + e.code + `"` + e.rest + "}}\n\ndata: [DONE]\n\n"
	}
	anthropic := func(e told) string {
		kind := e.kind
		if renamed := map[string]string{"service_unavailable_error": "overloaded_error", "server_error": "api_error"}[kind]; renamed != "" {
			kind = renamed
		}
		return "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"" + kind + `","message":"` + e.message + "\"}}\n\n"
	}
	responses := func(e told) string {
		return responseEvent("response.created", 0, "in_progress", "null") + responseEvent("response.in_progress", 1, "in_progress", "null") +
			"event: error\ndata: {\"type\":\"error\",\"sequence_number\":2,\"code\":\"" + e.code + `","message":"` + e.message + `","param":` + e.parameter() + "}\n\n" +
			responseEvent("response.failed", 3, "failed", `{"code":"server_error","message":"`+e.message+`"}`)
	}
	return []protocol{
		{"chat", "/v1/chat/completions", chat, openAI},
		{"completions", "/v1/completions", chat, openAI},
		{"messages", "/v1/messages", helloLive, anthropic},
		{"responses", "/v1/responses", respond, responses},
	}
}

func responseEvent(name string, seq int, status, fault string) string {
	return "event: " + name + "\ndata: {\"type\":\"" + name + `","sequence_number":` + string(rune('0'+seq)) +
		`,"response":{"id":"resp_ID","object":"response","created_at":TIME,"completed_at":null,"status":"` + status + `","background":false,"error":` + fault +
		`,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"model":"small","output":[],"parallel_tool_calls":true,` +
		`"presence_penalty":0,"frequency_penalty":0,"previous_response_id":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,` +
		`"service_tier":"default","store":false,"temperature":1,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1,` +
		`"truncation":"disabled","usage":null,"user":null,"metadata":{}}}` + "\n\n"
}

// settled replaces what is different in every run.
func settled(s string) string {
	s = regexp.MustCompile(`"resp_[A-Z0-9]+"`).ReplaceAllString(s, `"resp_ID"`)
	return regexp.MustCompile(`"created_at":946\d{6}`).ReplaceAllString(s, `"created_at":TIME`)
}

// wantStream waits for the end of a stream that was committed.
func (r *reply) wantStream(t *testing.T, body string, after time.Duration) {
	t.Helper()
	<-r.ended
	if r.err != nil || r.status != 200 || r.after != after {
		t.Errorf("answered %d after %v (%v), want 200 after %v", r.status, r.after, r.err, after)
	}
	if got := settled(r.text()); got != body {
		t.Errorf("body\n got %s\nwant %s", got, body)
	}
	r.wantHeader(t, "Content-Type", "text/event-stream; charset=utf-8")
	r.wantHeader(t, "Cache-Control", "no-cache")
	r.wantHeader(t, "X-Accel-Buffering", "no")
}

const bad = "service_unavailable_error"

// committed is a way to refuse a stream whose 200 has left.
type committed struct {
	name   string
	before string // comments
	status engine.Status
	serve  http.HandlerFunc
	extra  []string
	does   func(*testing.T, *live) // 20 s after the request, when the first comment has left
	after  time.Duration
	told   told
	// labels of what is counted
	cut, rejected string
}

func committedCases() []committed {
	failed := engine.Status{Phase: engine.Failed, Failure: &engine.Failure{Cause: engine.CauseHostOutOfMemory, Message: "killed", Remedy: "give it more"}}
	const (
		deadline = "the request's deadline passed; allow more time in X-Request-Timeout or retry when the server is less busy"
		dataHold = ": loading 40%\n\n"
	)
	nothing := func(*testing.T, *live) {}
	return []committed{
		{name: "hold", before: strings.Repeat(dataHold, 3), status: loading, serve: say, does: nothing, after: 50 * time.Second,
			told: told{"the engine is not ready; retry after the time in Retry-After; GET /readyz tells the progress, --hold how long requests wait (loading, 40 %)", bad, "engine_not_ready", `,"phase":"loading"`, ""}, cut: byEngine, rejected: "not_ready"},
		{name: "engine fails while held", before: dataHold, status: loading, serve: say, does: func(_ *testing.T, l *live) { l.fake.Set(failed) }, after: 20 * time.Second,
			told: told{"the engine failed; GET /readyz tells the cause; killed; give it more", bad, "engine_not_ready", `,"phase":"failed","cause":"host_out_of_memory"`, ""}, cut: byEngine, rejected: "engine_failed"},
		{name: "drain while held", before: dataHold, status: loading, serve: say, does: func(_ *testing.T, l *live) { l.signal() }, after: 20 * time.Second,
			told: told{"the server is draining; retry on a new connection, which reaches another replica (loading, 40 %)", bad, "draining", `,"phase":"loading"`, ""}, cut: byDrain, rejected: "draining"},
		{name: "deadline while held", before: strings.Repeat(dataHold, 2), status: loading, serve: say, does: nothing, extra: []string{timeoutHeader, "31"}, after: 31 * time.Second,
			told: told{deadline, "timeout_error", "deadline_exceeded", "", ""}, cut: byDeadline, rejected: "deadline"},
		{name: "model unknown once it is loaded", before: dataHold, status: loading, serve: say, after: 20 * time.Second,
			does: func(_ *testing.T, l *live) {
				l.fake.Set(engine.Status{Phase: engine.Ready, Slots: 1, Models: []engine.Model{{ID: "other"}}})
			},
			told: told{`the model \"small\" is not served here; served: \"other\"`, "not_found_error", "model_not_found", "", "model"}, cut: byEngine},
		{name: "deadline of a silent engine", before: strings.Repeat(ping, 2), status: ready(9), serve: silent, does: nothing, extra: []string{timeoutHeader, "31"}, after: 31 * time.Second,
			told: told{deadline, "timeout_error", "deadline_exceeded", "", ""}, cut: byDeadline},
		{name: "drain of a silent engine", before: strings.Repeat(ping, 2), status: ready(9), serve: silent, does: func(_ *testing.T, l *live) { l.signal() }, after: 43 * time.Second,
			told: told{"the server stops now; retry on a new connection, which reaches another replica; a longer --grace lets more streams finish", bad, "draining", `,"phase":"ready"`, ""}, cut: byDrain},
		{name: "engine breaks off", before: ping, status: ready(9), serve: after20(func(http.ResponseWriter) { panic(http.ErrAbortHandler) }), does: nothing, after: 20 * time.Second,
			told: told{"the engine broke off; send the request again, and see the server's log when it repeats", "server_error", "engine_broke_off", "", ""}, cut: byEngine},
		{name: "engine refuses", before: ping, status: ready(9), serve: after20(func(w http.ResponseWriter) {
			openai.WriteError(w, &openai.Error{Status: 503, Type: openai.TypeUnavailable, Code: openai.CodeNotReady, Message: "asleep"})
		}), does: nothing, after: 20 * time.Second, told: told{"asleep", bad, "engine_not_ready", "", ""}, cut: byEngine},
		{name: "engine refuses with a status", before: ping, status: ready(9), serve: after20(func(w http.ResponseWriter) {
			w.WriteHeader(503)
			write(w, `{"error":{"message":"asleep","type":"service_unavailable_error","param":null,"code":"engine_not_ready"}}`)
		}), does: nothing, after: 20 * time.Second, told: told{"asleep", bad, "engine_not_ready", "", ""}, cut: byEngine},
		{name: "engine answers without a stream", before: ping, status: ready(9), serve: after20(func(w http.ResponseWriter) { write(w, `{"message":"hi"}`) }), does: nothing,
			after: 20 * time.Second, told: told{"the engine broke off; send the request again, and see the server's log when it repeats", "server_error", "engine_broke_off", "", ""}, cut: byEngine},
	}
}

// after20 is an engine that hangs for 20 s and then does something.
func after20(do func(http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(20 * time.Second)
		do(w)
	}
}

// However a stream ends after its 200, it ends as its protocol does.
func TestCommittedThenRefused(t *testing.T) {
	for _, p := range protocols() {
		for _, tt := range committedCases() {
			t.Run(p.name+"/"+tt.name, func(t *testing.T) {
				cfg := config()
				cfg.Hold, cfg.Grace = 50*time.Second, 28*time.Second
				inBubble(t, cfg, tt.status, tt.serve, func(t *testing.T, l *live) {
					r := l.post(t, p.path, p.body, tt.extra...)
					synctest.Sleep(20 * time.Second)
					tt.does(t, l)
					r.wantStream(t, tt.before+p.failed(tt.told), tt.after)
					synctest.Wait()
					l.wantMetrics(t, `infer_streams_cut_total{by="`+tt.cut+`"} 1`)
					if tt.rejected != "" {
						l.wantMetrics(t, `infer_rejected_total{reason="`+tt.rejected+`"} 1`)
					}
				})
			})
		}
	}
}

// A stream in the queue of a busy engine is kept open, and refused as an event.
func TestCommittedInTheQueue(t *testing.T) {
	for _, p := range protocols() {
		t.Run(p.name, func(t *testing.T) {
			inBubble(t, config(), ready(1), chatTick(40), func(t *testing.T, l *live) {
				first := l.post(t, "/v1/chat/completions", chat)
				r := l.post(t, p.path, p.body, timeoutHeader, "35.5")
				synctest.Sleep(15*time.Second - 1)
				if got := r.text(); got != "" {
					t.Errorf("committed early: %q", got)
				}
				r.wantStream(t, ping+ping+p.failed(told{message: "the request's deadline passed; allow more time in X-Request-Timeout or retry when the server is less busy",
					kind: "timeout_error", code: "deadline_exceeded"}), 35500*time.Millisecond)
				<-first.ended
				l.wantMetrics(t, `infer_rejected_total{reason="deadline"} 1`, `infer_streams_cut_total{by="deadline"} 1`)
			})
		})
	}
}

// Comments come before the first event and in a silence after it, every 15 s,
// and change nothing about the answer.
func TestCommentsInSilence(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		<-time.After(31 * time.Second)
		s := openai.NewStream(w)
		_ = s.Send(1)
		<-time.After(10 * time.Second)
		_ = s.Send(2)
		_, _ = w.Write([]byte("data: 3")) // of half an event nothing is seen, and no comment cuts it
		<-time.After(30500 * time.Millisecond)
		_, _ = w.Write([]byte("\n\n"))
		_ = s.Done()
	}
	inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
		began, want := time.Now(), ""
		r := l.post(t, "/v1/chat/completions", chat)
		for _, step := range []struct {
			at   time.Duration
			more string
		}{
			{15 * time.Second, ping}, {30 * time.Second, ping}, {31 * time.Second, "data: 1\n\n"}, {41 * time.Second, "data: 2\n\n"},
			{56 * time.Second, ping}, {71 * time.Second, ping}, {71500 * time.Millisecond, "data: 3\n\n" + done},
		} {
			synctest.Sleep(step.at - time.Since(began) - 1)
			if got := r.text(); got != want {
				t.Errorf("before %v: %q, want %q", step.at, got, want)
			}
			synctest.Sleep(1)
			want += step.more
			if got := r.text(); got != want {
				t.Errorf("at %v: %q, want %q", step.at, got, want)
			}
		}
		<-r.ended
	})
}

// The comment says how far the engine's start is, for as long as it starts.
func TestCommentsTellTheProgress(t *testing.T) {
	inBubble(t, config(), loading, tick(1), func(t *testing.T, l *live) {
		r := l.post(t, "/v1/messages", helloLive)
		synctest.Sleep(20 * time.Second)
		l.fake.Set(engine.Status{Phase: engine.Compiling, Progress: 0.666})
		synctest.Sleep(15 * time.Second)
		l.fake.Set(engine.Status{Phase: engine.Warming, Progress: -1})
		synctest.Sleep(15 * time.Second)
		if got, want := r.text(), ": loading 40%\n\n: compiling 67%\n\n: ping\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		r.cancel()
		<-r.ended
		synctest.Wait()
		l.wantMetrics(t, "infer_requests_held 0", `infer_streams_cut_total{by="client"} 1`, `infer_requests_total{code="499",model="unknown",route="/v1/messages"} 1`)
	})
}

// Whoever asked for no stream gets a status, however late.
func TestNoCommentsWithoutAStream(t *testing.T) {
	for _, path := range []string{"/v1/chat/completions", "/tokenize"} {
		inBubble(t, config(), loading, say, func(t *testing.T, l *live) {
			body := map[string]string{"/tokenize": chat}[path] + map[string]string{"/v1/chat/completions": oneShot}[path] // tokens are never streamed
			r := l.post(t, path, body)
			synctest.Sleep(40 * time.Second)
			l.fake.Set(ready(1))
			r.want(t, 200, `{"ok":1}`, 40*time.Second)
		})
	}
}
