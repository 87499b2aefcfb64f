package serve

import (
	"encoding/json/v2"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"infer/internal/engine"
	"infer/internal/openai"
)

// lines parses the log.
func (l *logBuffer) lines(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for s := range strings.Lines(l.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(s), &m); err != nil {
			t.Fatalf("log line %q: %v", s, err)
		}
		out = append(out, m)
	}
	return out
}

func TestRequestID(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	sane := strings.Repeat("a", 125) + ".-_"
	for in, keep := range map[string]bool{
		"abc-123_x.Y": true, sane: true, sane + "x": false, "": false, "a b": false, "a\nb": false, "ä": false, `a"b`: false, "a/b": false,
	} {
		got := f.do("GET", "/v1/models", "", "X-Request-Id", in).Header().Get("X-Request-Id")
		if keep && got != in || !keep && (got == in || len(got) < 20) {
			t.Errorf("%q came back as %q", in, got)
		}
	}
	a, b := f.do("GET", "/", ""), f.do("GET", "/nope", "")
	if x, y := a.Header().Get("X-Request-Id"), b.Header().Get("X-Request-Id"); x == y || x == "" || y == "" {
		t.Errorf("minted %q and %q", x, y)
	}
}

func TestLogLine(t *testing.T) {
	inBubble(t, config(), ready(1), tick(2), func(t *testing.T, l *live) {
		<-l.post(t, "/v1/chat/completions", chat).ended
		<-l.post(t, "/v1/chat/completions?key=secret", chat, "X-Request-Id", "r2", "User-Agent", "evil\u202e\u2028"+strings.Repeat("x", 500), "X-Request-Timeout", "1.5", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").ended
		synctest.Wait()
		got := l.logs.lines(t)
		if len(got) != 2 {
			t.Fatalf("%d lines, want 2: %s", len(got), l.logs)
		}
		delete(got[0], "time")
		id := got[0]["request_id"]
		want := map[string]any{
			"level": "INFO", "msg": "request", "method": "POST", "route": "/v1/chat/completions", "status": 200.0, "bytes": 32.0,
			"duration_seconds": 2.0, "request_id": id, "remote_addr": "pipe", "user_agent": "Go-http-client/1.1", "model": "small", "stream": true,
			"queue_seconds": 0.0, "prompt_tokens": 7.0, "completion_tokens": 2.0, "ttft_seconds": 0.0,
		}
		// The fake clock stands still for the first token; any time above 0 is right.
		if ttft, _ := got[0]["ttft_seconds"].(float64); ttft > 0 && ttft < 1e-6 {
			got[0]["ttft_seconds"] = 0.0
		}
		if !reflect.DeepEqual(got[0], want) {
			t.Errorf("\n got %v\nwant %v", got[0], want)
		}
		if got[1]["trace_id"] != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("trace_id %v", got[1]["trace_id"])
		}
		for _, bad := range []string{"", "00-" + strings.Repeat("x", 32) + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\n", "of the caller"} {
			if id := traceID(bad); id != "" {
				t.Errorf("traceID(%q) = %q", bad, id)
			}
		}
		if got[1]["request_id"] != "r2" || got[1]["cut"] != "deadline" {
			t.Errorf("second line: %v", got[1])
		}
		if id, _ := got[1]["engine_request_id"].(string); !strings.HasPrefix(id, "r2-") {
			t.Errorf("engine_request_id %q, want r2 made unique", id)
		}
		if ua := got[1]["user_agent"].(string); len(ua) > 140 {
			t.Errorf("user agent of %d bytes in the log", len(ua))
		}
		if raw := l.logs.String(); strings.Contains(raw, "secret") || strings.Contains(raw, "\u2028") {
			t.Errorf("log: %s", raw)
		}
	})
}

// What comes from outside makes no second line and no other route.
func TestLogInjection(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	f.do("GET", "/x%0a%7B%22msg%22:%22request%22%7D"+strings.Repeat("y", 500), "", "User-Agent", "a\nb\x1b[31m")
	raw := f.logs.String()
	got := f.logs.lines(t)
	if len(got) != 1 || got[0]["route"] != other || strings.Contains(raw, "\x1b") {
		t.Fatalf("log: %s", raw)
	}
	if path := got[0]["path"].(string); len(path) > 140 || !strings.HasPrefix(path, "/x\n{") {
		t.Errorf("path %q", path)
	}
	f.wantMetrics(t, `infer_requests_total{code="404",model="unknown",route="other"} 1`)
}

func TestProbesAreQuiet(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	for _, path := range []string{"/livez", "/readyz", "/health", "/startupz", "/metrics"} {
		f.do("GET", path, "")
	}
	if got := f.logs.String(); got != "" {
		t.Errorf("log at level info: %s", got)
	}
	f.wantMetrics(t, `infer_requests_total{code="200",model="unknown",route="/livez"} 1`)
}

// Every series whose labels are known is there before the first request.
func TestFirstScrape(t *testing.T) {
	f := newFixture(t, config(), ready(3), say)
	w := f.do("GET", "/metrics", "")
	var got []string
	for s := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(s, "#") && !strings.Contains(s, "_bucket{") {
			got = append(got, strings.TrimSpace(s))
		}
	}
	want := []string{
		"infer_capacity_slots 3", "infer_engine_restarts_total 0", "infer_itl_seconds_count 0", "infer_itl_seconds_sum 0", `infer_queue_seconds_count{class="batch"} 0`, `infer_queue_seconds_count{class="interactive"} 0`,
		`infer_queue_seconds_sum{class="batch"} 0`, `infer_queue_seconds_sum{class="interactive"} 0`,
		"infer_request_seconds_count 0", "infer_request_seconds_sum 0", "infer_requests_held 0", "infer_requests_running 0", "infer_requests_waiting 0",
		"infer_saturation 0", "infer_ttft_seconds_count 0", "infer_ttft_seconds_sum 0",
	}
	for _, p := range engine.Phases() {
		want = append(want, fmt.Sprintf(`infer_engine_phase{phase="%s"} %d`, p, map[bool]int{p == engine.Ready: 1}[true]))
	}
	for _, a := range engine.Activities() {
		want = append(want, fmt.Sprintf(`infer_engine_activity{state="%s"} %d`, a, map[bool]int{a == engine.ActivityIdle: 1}[true]))
	}
	for _, c := range engine.Causes() {
		want = append(want, fmt.Sprintf(`infer_engine_exits_total{cause="%s"} 0`, c))
	}
	for _, p := range []string{"starting", "pulling", "loading", "compiling", "warming"} {
		want = append(want, fmt.Sprintf(`infer_start_phase_seconds_count{phase="%s"} 0`, p), fmt.Sprintf(`infer_start_phase_seconds_sum{phase="%s"} 0`, p))
	}
	for _, reason := range []string{"queue_full", "queue_bytes", "queue_tokens", "displaced", "wait_too_long", "not_ready", "engine_failed", "draining",
		"deadline", "time_limit", "connections", "key", "forbidden", "rate_limit"} {
		want = append(want, fmt.Sprintf(`infer_rejected_total{reason="%s"} 0`, reason))
	}
	for _, by := range []string{"client", "engine", "deadline", "drain"} {
		want = append(want, fmt.Sprintf(`infer_streams_cut_total{by="%s"} 0`, by))
	}
	for _, m := range models {
		for _, kind := range []string{"cached", "completion", "prompt"} {
			want = append(want, fmt.Sprintf(`infer_tokens_total{kind="%s",model="%s"} 0`, kind, m.ID))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if problems, err := testutil.GatherAndLint(f.reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// Scrapers that ask for protobuf get native buckets, the others classic ones.
func TestHistogramsAreNativeAndClassic(t *testing.T) {
	families, err := newFixture(t, config(), ready(1), say).reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if h := f.GetMetric()[0].GetHistogram(); h != nil {
			n++
			if h.Schema == nil || len(h.GetBucket()) < 10 {
				t.Errorf("%s: schema %v, %d classic buckets", f.GetName(), h.Schema, len(h.GetBucket()))
			}
		}
	}
	if n != 5 {
		t.Errorf("%d histograms, want 5", n)
	}
}

func TestOpenMetrics(t *testing.T) {
	f := newFixture(t, config(), ready(3), say)
	w := f.do("GET", "/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0")
	if ct := w.Header().Get("Content-Type"); !strings.HasPrefix(ct, "application/openmetrics-text") || !strings.HasSuffix(w.Body.String(), "# EOF\n") {
		t.Errorf("%s: %s", ct, w.Body)
	}
}

func TestTokenMetrics(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		m := engine.MeterFrom(r.Context())
		m.Prompt(100, 64)
		m.Tokens(0) // nothing was sampled
		for _, gap := range []time.Duration{2 * time.Second, 100 * time.Millisecond, 300 * time.Millisecond} {
			<-time.After(gap)
			m.Tokens(2)
		}
		say(w, r)
	}
	inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/completions", `{}`) // the canonical model
		<-r.ended
		r.wantHeader(t, "Server-Timing", "queue;dur=0.0, ttft;dur=2000.0, total;dur=2400.0")
		l.wantMetrics(t,
			`infer_tokens_total{kind="prompt",model="Qwen/Qwen3-0.6B"} 100`,
			`infer_tokens_total{kind="cached",model="Qwen/Qwen3-0.6B"} 64`,
			`infer_tokens_total{kind="completion",model="Qwen/Qwen3-0.6B"} 6`,
			`infer_ttft_seconds_sum 2`, `infer_ttft_seconds_count 1`,
			`infer_itl_seconds_sum 0.4`, `infer_itl_seconds_count 2`, `infer_itl_seconds_bucket{le="0.128"} 1`,
			`infer_request_seconds_sum 2.4`, `infer_request_seconds_count 1`, `infer_queue_seconds_count{class="interactive"} 1`,
			`infer_requests_total{code="200",model="Qwen/Qwen3-0.6B",route="/v1/completions"} 1`)
		<-l.post(t, "/tokenize", oneShot).ended // has no latency worth a series
		l.wantMetrics(t, `infer_request_seconds_count 1`, `infer_queue_seconds_count{class="interactive"} 1`)
	})
}

// An unknown name is not a label, however many come.
func TestModelLabelIsBounded(t *testing.T) {
	f := newFixture(t, config(), ready(1), say)
	for i := range 50 {
		f.do("POST", "/v1/completions", fmt.Sprintf(`{"model":"m%d"}`, i))
	}
	f.wantMetrics(t, `infer_requests_total{code="404",model="unknown",route="/v1/completions"} 50`)
	if n := testutil.CollectAndCount(f.metrics.requests); n != 1 {
		t.Errorf("%d series, want this one", n)
	}
}

// An engine's own 429 and 503 get their Retry-After, too.
func TestEngineRefusals(t *testing.T) {
	for _, status := range []int{429, 503} {
		own := false
		f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, _ *http.Request) {
			if own {
				w.Header().Set("Retry-After", "77")
			}
			openai.WriteError(w, &openai.Error{Status: status, Type: openai.TypeServer, Code: openai.CodeInternal, Message: "x"})
		})
		if got := f.do("POST", "/v1/completions", oneShot).Header().Get("Retry-After"); got != "3" {
			t.Errorf("%d: Retry-After = %q, want 3", status, got)
		}
		own = true
		if got := f.do("POST", "/v1/completions", oneShot).Header().Get("Retry-After"); got != "77" {
			t.Errorf("%d: Retry-After = %q, want the engine's 77", status, got)
		}
	}
}
