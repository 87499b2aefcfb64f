package serve

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/caller"
	"infer/internal/engine"
	"infer/internal/openai"
)

// refusal is the body of a refusal.
func refusal(message, kind, code string) string {
	return fmt.Sprintf(`{"error":{"message":"%s","type":"%s","param":null,"code":"%s"}}`, message, kind, code)
}

// asked counts what reaches the engine.
func asked(n *atomic.Int32, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { n.Add(1); serve(w, r) }
}

// A wait that is predicted to outlast the deadline is refused at once, whoever
// set the deadline; what passes in the queue is refused then; the engine sees
// neither.
func TestDeadlineOfTheWait(t *testing.T) {
	slow := func(wait, allowed string) string {
		return refusal("the wait for a slot, about "+wait+", would outlast the request's deadline in "+allowed+
			"; retry after the time in Retry-After, allow more time or add replicas", "rate_limit_error", "wait_too_long")
	}
	passed := refusal("the request's deadline passed in the queue; it was never started; allow more time in X-Request-Timeout or in the client's timeout, or retry when the server is less busy", "timeout_error", "deadline_exceeded")
	for _, tt := range []struct {
		name, header, value, body string
		status                    int
		want                      string
		after                     time.Duration
		retry                     string
	}{
		{"our header", "X-Request-Timeout", "19.5", chat, 429, slow("20s", "19.5s"), 0, "1"},
		{"Go and JavaScript", "X-Stainless-Timeout", "19", oneShot, 429, slow("20s", "19s"), 0, "1"},
		{"Python", "X-Stainless-Read-Timeout", "12.5", oneShot, 429, slow("20s", "12.5s"), 0, "8"},
		{"a stream that would not begin", "X-Stainless-Timeout", "14", chat, 429, slow("20s", "14s"), 0, "6"},
		{"a stream that comments keep", "X-Stainless-Timeout", "16", chat, 200, ": ping\n\n" + events(10) + done, 30 * time.Second, ""},
		{"time enough", "X-Stainless-Timeout", "21", oneShot, 200, `{"ok":1}`, 30 * time.Second, ""},
		{"nonsense", "X-Stainless-Timeout", "soon", oneShot, 200, `{"ok":1}`, 30 * time.Second, ""},
		{"no time", "X-Stainless-Timeout", "0", oneShot, 200, `{"ok":1}`, 30 * time.Second, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var n atomic.Int32
			ten := asked(&n, func(w http.ResponseWriter, r *http.Request) {
				if isOneShot(r) {
					<-time.After(10 * time.Second)
					say(w, r)
					return
				}
				tick(10)(w, r)
			})
			inBubble(t, config(), ready(1), ten, func(t *testing.T, l *live) {
				<-l.post(t, chatPath, chat).ended // 10 s are measured
				first, second := l.post(t, chatPath, chat), l.post(t, chatPath, chat)
				third := l.post(t, chatPath, tt.body, tt.header, tt.value)
				third.want(t, tt.status, tt.want, tt.after)
				third.wantHeader(t, "Retry-After", tt.retry)
				<-first.ended
				<-second.ended
				if tt.status != 200 {
					l.wantMetrics(t, `infer_rejected_total{reason="wait_too_long"} 1`)
					if n.Load() != 3 {
						t.Errorf("the engine was asked %d times, want 3", n.Load())
					}
				}
			})
		})
	}
	t.Run("in the queue", func(t *testing.T) {
		var n atomic.Int32
		inBubble(t, config(), ready(1), asked(&n, tick(5)), func(t *testing.T, l *live) {
			first := l.post(t, chatPath, chat)
			l.post(t, chatPath, oneShot, "X-Stainless-Timeout", "2").want(t, 504, passed, 2*time.Second)
			<-first.ended
			l.wantMetrics(t, `infer_rejected_total{reason="deadline"} 1`, `infer_rejected_total{reason="wait_too_long"} 0`)
			if n.Load() != 1 {
				t.Errorf("the engine was asked %d times, want once", n.Load())
			}
		})
	})
}

// isOneShot says that a request asks for no stream.
func isOneShot(r *http.Request) bool {
	b := make([]byte, 64)
	n, _ := r.Body.Read(b)
	return string(b[:n]) == oneShot
}

// The server's own bound ends what waits and what runs.
func TestMaxRequestTime(t *testing.T) {
	cfg := config()
	cfg.MaxRequestTime = 2500 * time.Millisecond
	event := refusal("the request took longer than this server allows; ask for less or raise --max-request-time", "timeout_error", "deadline_exceeded")
	var n atomic.Int32
	inBubble(t, cfg, ready(1), asked(&n, tick(100)), func(t *testing.T, l *live) {
		first, second := l.post(t, chatPath, chat), l.post(t, chatPath, chat, "X-Request-Timeout", "60")
		short := l.post(t, chatPath, chat, "X-Request-Timeout", "1.5")
		short.want(t, 504, refusal("the request's deadline passed; allow more time in X-Request-Timeout or retry when the server is less busy", "timeout_error", "deadline_exceeded"), 1500*time.Millisecond)
		second.want(t, 504, event, 2500*time.Millisecond)
		<-first.ended
		if got, want := first.text(), events(3)+"data: "+event+"\n\n"+done; got != want {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
		l.wantMetrics(t, `infer_rejected_total{reason="time_limit"} 1`, `infer_rejected_total{reason="deadline"} 1`, `infer_streams_cut_total{by="deadline"} 1`)
		if n.Load() != 1 {
			t.Errorf("the engine was asked %d times, want once", n.Load())
		}
	})
}

func TestQueueTokens(t *testing.T) {
	cfg := config()
	cfg.MaxQueueTokens = 1000
	prompt := func(bytes int) string { return `{"model":"small","prompt":"` + strings.Repeat("x", bytes-2) + `"}` }
	inBubble(t, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) { <-time.After(time.Second); say(w, r) }, func(t *testing.T, l *live) {
		first, second := l.post(t, completions, prompt(40)), l.post(t, completions, prompt(4*900))
		third := l.post(t, completions, prompt(4*101))
		third.want(t, 429, refusal("the prompts in the queue are over their bound; retry after the time in Retry-After, send shorter prompts, add replicas or raise --max-queue-tokens",
			"rate_limit_error", "queue_full"), 0)
		fourth := l.post(t, completions, prompt(4*100))
		first.want(t, 200, `{"ok":1}`, time.Second)
		second.want(t, 200, `{"ok":1}`, 2*time.Second)
		fourth.want(t, 200, `{"ok":1}`, 3*time.Second)
		l.wantMetrics(t, `infer_rejected_total{reason="queue_tokens"} 1`)
	})
}

// Eight times what fits into the slots may wait. A prompt counts no more than
// the model's context, which is all that an engine reads of it.
func TestQueueTokensOfTheEngine(t *testing.T) {
	st := ready(1)
	st.Models = []engine.Model{{ID: "small", ContextTokens: 100}}
	inBubble(t, config(), st, func(w http.ResponseWriter, r *http.Request) { <-time.After(time.Second); say(w, r) }, func(t *testing.T, l *live) {
		long := `{"prompt":"` + strings.Repeat("x", 4000) + `"}`
		var all []*reply
		for range 9 {
			all = append(all, l.post(t, completions, long))
		}
		refused := l.post(t, completions, long)
		if <-refused.ended; refused.status != 429 {
			t.Errorf("the tenth got %d", refused.status)
		}
		for i, r := range all {
			r.want(t, 200, `{"ok":1}`, time.Duration(i+1)*time.Second)
		}
	})
}

// callers is a configuration with keys ann, ben (weight 3) and night (batch).
func threeKeys(t *testing.T) Config {
	t.Helper()
	d, err := caller.Open(caller.Config{Keys: "ann:" + annKey + "\nben:" + benKey + "::weight=3\nnight:" + nightKey + ":batch"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config()
	cfg.Callers = &Callers{Keys: d}
	return cfg
}

const nightKey = "night-0123456789abcdef0123456789"

func bearer(key string) []string { return []string{"Authorization", "Bearer " + key} }

// A full queue gives way to who holds less of it, and the displaced is told.
func TestDisplaced(t *testing.T) {
	cfg := threeKeys(t)
	cfg.MaxQueue = 2
	inBubble(t, cfg, ready(1), tick(2), func(t *testing.T, l *live) {
		first, second := l.post(t, chatPath, chat, bearer(annKey)...), l.post(t, chatPath, chat, bearer(annKey)...)
		third := l.post(t, chatPath, chat, bearer(annKey)...)
		ben := l.post(t, chatPath, chat, bearer(benKey)...)
		third.want(t, 429, refusal("the place in the queue went to a caller that holds fewer; retry after the time in Retry-After, send fewer requests at once, add replicas or raise --max-queue",
			"rate_limit_error", "queue_full"), 0)
		first.want(t, 200, events(2)+done, 2*time.Second)
		ben.want(t, 200, events(2)+done, 4*time.Second) // it has had nothing yet
		second.want(t, 200, events(2)+done, 6*time.Second)
		l.wantMetrics(t, `infer_rejected_total{reason="displaced"} 1`, `infer_rejected_total{reason="queue_full"} 0`)
	})
}

// The class of a key decides who goes first.
func TestBatchWaits(t *testing.T) {
	inBubble(t, threeKeys(t), ready(1), tick(2), func(t *testing.T, l *live) {
		first, night := l.post(t, chatPath, chat, bearer(nightKey)...), l.post(t, chatPath, chat, bearer(nightKey)...)
		ann := l.post(t, chatPath, chat, bearer(annKey)...)
		first.want(t, 200, events(2)+done, 2*time.Second)
		ann.want(t, 200, events(2)+done, 4*time.Second)
		night.want(t, 200, events(2)+done, 6*time.Second)
		l.wantMetrics(t, `infer_queue_seconds_count{class="batch"} 2`, `infer_queue_seconds_sum{class="batch"} 4`, `infer_queue_seconds_sum{class="interactive"} 2`)
	})
}

// An engine that parks batch work is told what that is, and gets what somebody
// waits for at once; but for fewer slots than it has it parks nothing.
func TestBatchYields(t *testing.T) {
	for _, tt := range []struct {
		limit int
		waits time.Duration
	}{{0, 0}, {2, 0}, {1, 2 * time.Second}} {
		cfg := threeKeys(t)
		cfg.MaxConcurrency = tt.limit
		st := ready(2)
		st.Yields = true
		inBubble(t, cfg, st, func(w http.ResponseWriter, r *http.Request) {
			if batch := engine.CallerFrom(r.Context()) == "night"; engine.IsBatch(r.Context()) != batch {
				t.Errorf("limit %d: the engine is told batch is %v", tt.limit, !batch)
			}
			tick(2)(w, r)
		}, func(t *testing.T, l *live) {
			night := []*reply{l.post(t, chatPath, chat, bearer(nightKey)...), l.post(t, chatPath, chat, bearer(nightKey)...)}
			ann := l.post(t, chatPath, chat, bearer(annKey)...)
			ann.want(t, 200, events(2)+done, 2*time.Second+tt.waits)
			for _, r := range night {
				<-r.ended
			}
		})
	}
}

// Tokens that were served count, however the request looked: who asked for a
// long answer is behind who asked for short ones.
func TestServedTokensCount(t *testing.T) {
	served := map[string]int{"long": 1000, "short": 1}
	inBubble(t, threeKeys(t), ready(1), func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 128)
		n, _ := r.Body.Read(b)
		for what, tokens := range served {
			if strings.Contains(string(b[:n]), what) {
				engine.MeterFrom(r.Context()).Tokens(tokens)
			}
		}
		<-time.After(time.Second)
		_ = openai.NewStream(w).Done()
	}, func(t *testing.T, l *live) {
		post := func(prompt, key string) *reply {
			return l.post(t, completions, `{"stream":true,"prompt":"`+prompt+`"}`, bearer(key)...)
		}
		long := []*reply{post("long", annKey), post("long", annKey), post("long", annKey)}
		short := []*reply{post("short", benKey), post("short", benKey), post("short", benKey), post("short", benKey)}
		long[0].want(t, 200, done, time.Second)
		for i, r := range short {
			r.want(t, 200, done, time.Duration(i+2)*time.Second)
		}
		long[1].want(t, 200, done, 6*time.Second)
		long[2].want(t, 200, done, 7*time.Second)
	})
}

// An encoder's work is demand of a replica that has nothing else, over a
// capacity of its own; where it has none, it takes slots.
func TestEncoderSaturates(t *testing.T) {
	wait := make(chan struct{})
	serve := func(w http.ResponseWriter, r *http.Request) { <-wait; say(w, r) }
	for beside, want := range map[int]string{8: "0.5", 0: "2"} {
		synctest.Test(t, func(t *testing.T) {
			wait = make(chan struct{})
			st := ready(2)
			st.Beside = beside
			f := newFixture(t, config(), st, serve)
			codes := make(chan int, 4)
			for range 4 {
				go func() { codes <- f.do("POST", "/v1/embeddings", `{"model":"small","input":"hi"}`).Code }()
			}
			synctest.Wait()
			f.wantMetrics(t, "infer_saturation "+want)
			close(wait)
			for range 4 {
				if code := <-codes; code != 200 {
					t.Errorf("beside %d: %d", beside, code)
				}
			}
			f.wantMetrics(t, "infer_saturation 0")
		})
	}
}

// Probes are asked all day; what they are told of the time is no booking.
func TestProbesBookNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.Hold = time.Nanosecond
		f := newFixture(t, cfg, loading, say)
		for range 100 {
			if got := f.do("GET", "/readyz", "").Header().Get("Retry-After"); got != "5" {
				t.Fatalf("Retry-After = %q, want 5", got)
			}
		}
		for _, want := range []string{"5", "7", "8", "9"} { // a second each, and a little
			if w := f.do("POST", completions, oneShot); w.Code != 503 || w.Header().Get("Retry-After") != want {
				t.Errorf("%d, Retry-After = %q, want %s", w.Code, w.Header().Get("Retry-After"), want)
			}
		}
	})
}
