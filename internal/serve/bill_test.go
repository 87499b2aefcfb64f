package serve

import (
	"encoding/json/v2"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
)

// price is a bill of half a GPU-second and 20 J a token.
type price struct{ tokens, ended atomic.Int64 }

func (p *price) Tokens(n int) { p.tokens.Add(int64(n)) }
func (p *price) End()         { p.ended.Add(1) }
func (p *price) Cost() (seconds, joules float64) {
	n := float64(p.tokens.Load())
	return n / 2, n * 20
}

// billing returns a configuration that bills to the price that is returned.
func billing() (Config, *price) {
	p := &price{}
	cfg := config()
	cfg.UsageCost, cfg.Bill = true, func(string, string) Bill { return p }
	return cfg, p
}

// pieces answers with a body in pieces of n bytes, and counts its tokens after
// the last, as late as an engine may.
func pieces(contentType, body string, n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		for rest := body; rest != ""; {
			piece := rest[:min(n, len(rest))]
			rest = rest[len(piece):]
			_, _ = w.Write([]byte(piece))
		}
		m := engine.MeterFrom(r.Context())
		m.Prompt(7, 2)
		m.Tokens(3)
	}
}

// The price of eight tokens.
const infercost = `"infer_cost":{"gpu_seconds":4.000000,"joules":160.000}`

func TestCostInTheUsageOfAWholeAnswer(t *testing.T) {
	long := strings.Repeat("x", maxHeldBytes)
	for _, tt := range []struct{ path, body, want string }{
		{"/v1/chat/completions", `{"id":"usage","usage":{"total_tokens":10},"choices":[]}`, `{"id":"usage","usage":{` + infercost + `,"total_tokens":10},"choices":[]}`},
		{"/v1/completions", `{"choices":[{"usage":{"a":1},"text":"\"usage\":{\\"}],"usage" : { "n":1}}`, `{"choices":[{"usage":{"a":1},"text":"\"usage\":{\\"}],"usage" : {` + infercost + `, "n":1}}`},
		{"/v1/embeddings", `{"data":[{"embedding":[0.5]}],"usage":{}}`, `{"data":[{"embedding":[0.5]}],"usage":{` + infercost + `}}`},
		{"/v1/chat/completions", `{"model":"usage","usage":null,"x":{"y":1}}`, `{"model":"usage","usage":null,"x":{"y":1}}`},
		{"/v1/chat/completions", `{"ok":1}`, `{"ok":1}`},
		{"/v1/rerank", `{"usage":{"n":1}}`, `{"usage":{"n":1}}`},
		{"/v1/completions", `{"usage":{"n":1},"x":"` + long + `"}`, `{"usage":{` + infercost + `,"n":1},"x":"` + long + `"}`},
	} {
		for _, n := range []int{1, 7, 1 << 20} {
			cfg, p := billing()
			f := newFixture(t, cfg, ready(1), pieces("application/json", tt.body, n))
			w, want := f.do("POST", tt.path, oneShot), tt.want
			if len(tt.body) > maxHeldBytes && n < len(tt.body) { // the end is too far away to wait for
				want = tt.body
			}
			if w.Code != http.StatusOK || p.ended.Load() != 1 {
				t.Errorf("%s: status %d, %d bills ended", tt.path, w.Code, p.ended.Load())
			}
			if got := w.Body.String(); got != want {
				t.Errorf("%s in pieces of %d:\n got %.200s (%d bytes)\nwant %.200s (%d bytes)", tt.path, n, got, len(got), want, len(want))
			}
			if l := w.Header().Get("Content-Length"); l != "" && l != fmt.Sprint(w.Body.Len()) {
				t.Errorf("%s: Content-Length %s of %d bytes", tt.path, l, w.Body.Len())
			}
		}
	}
}

func TestCostInTheLastEvent(t *testing.T) {
	const token, last = `data: {"choices":[{"delta":{"content":"\"choices\":[] "}}],"usage":{"n":1}}` + "\n\n", `data: {"choices":[],"usage":{"n":3}}` + "\n\n"
	for _, n := range []int{1, 7, len(token), 1 << 20} {
		cfg, p := billing()
		p.Tokens(8) // an engine tells them before the event
		f := newFixture(t, cfg, ready(1), pieces("text/event-stream", token+": a comment\n\n"+token+last+done, n))
		want := token + ": a comment\n\n" + token + `data: {"choices":[],"usage":{` + infercost + `,"n":3}}` + "\n\n" + done
		if got := f.do("POST", "/v1/chat/completions", chat).Body.String(); got != want {
			t.Errorf("in pieces of %d:\n got %s\nwant %s", n, got, want)
		}
	}
}

// Without the flag, without a GPU and in an error nothing is added, and the
// writer of the relay is the one that it would be.
func TestNoCostInTheUsage(t *testing.T) {
	const body = `{"usage":{"n":1}}`
	paid, _ := billing()
	off, nobody, free, broken := paid, paid, paid, paid
	off.UsageCost, nobody.Bill, free.Bill = false, nil, func(string, string) Bill { return freeBill }
	for name, cfg := range map[string]Config{"the flag is not set": off, "nobody counts": nobody, "it is free": free} {
		f := newFixture(t, cfg, ready(1), pieces("application/json", body, 1<<20))
		if got := f.do("POST", "/v1/completions", oneShot).Body.String(); got != body {
			t.Errorf("%s: %s", name, got)
		}
	}
	f := newFixture(t, broken, ready(1), func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":{"message":"no"},"usage":{"n":1}}`))
	})
	if w := f.do("POST", "/v1/completions", oneShot); w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "infer_cost") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	x := &exchange{s: newFixture(t, off, ready(1), say).Server, route: "/v1/completions"}
	if w, iv := invoiced(x, x); w != http.ResponseWriter(x) || iv != nil {
		t.Errorf("a writer of its own, %T, where nobody wants a cost", w)
	}
}

var freeBill Bill = free{}

// An answer that its engine breaks off stays half an answer.
func TestCostOfHalfAnAnswer(t *testing.T) {
	cfg, _ := billing()
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"choices":[1],"usage":{"n"`))
		panic(http.ErrAbortHandler)
	})
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("ended by %v, want the connection to break", p)
		}
	}()
	f.do("POST", "/v1/completions", oneShot)
}

// FuzzInvoice holds the splice to what a parser makes of the same body.
func FuzzInvoice(f *testing.F) {
	for _, s := range []string{`{"usage":{}}`, `{"a":[{"usage":{}}],"usage":{"n":[1,{"x":"}"}]},"z":"usage"}`, `{"usage":3,"u\"":{}}`, `["usage",{"usage":{}}]`} {
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, body string, n int) {
		var before, after map[string]any
		if json.Unmarshal([]byte(body), &before) != nil {
			return
		}
		cfg, _ := billing()
		fx := newFixture(t, cfg, ready(1), pieces("application/json", body, max(n, 1)))
		got := fx.do("POST", "/v1/completions", oneShot).Body.Bytes()
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%q became %q: %v", body, got, err)
		}
		if u, ok := after["usage"].(map[string]any); ok {
			delete(u, "infer_cost")
		}
		if fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("%q became %q", body, got)
		}
	})
}

// A fault of the hardware ends readiness, with its cause, although the engine
// knows nothing of it; so it does while what is open drains.
func TestFaultEndsReadiness(t *testing.T) {
	var fault atomic.Pointer[engine.Failure]
	cfg := config()
	cfg.Fault = fault.Load
	inBubble(t, cfg, ready(4), tick(20), func(t *testing.T, l *live) {
		open := l.post(t, "/v1/chat/completions", chat)
		synctest.Sleep(2 * time.Second)
		if w := l.do("GET", "/readyz", ""); w.Code != http.StatusOK {
			t.Fatalf("/readyz is %d without a fault: %s", w.Code, w.Body)
		}
		fault.Store(&engine.Failure{Cause: engine.CauseGPULost, Retryable: true, Message: "XID 79 of GPU 0", Remedy: "move it"})
		for _, path := range []string{"/readyz", "/health"} {
			w := l.do("GET", path, "")
			var p probe
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if w.Code != http.StatusServiceUnavailable || p.Status != "unavailable" || p.Phase != engine.Ready || p.Draining ||
				p.Cause != engine.CauseGPULost || p.Message != "XID 79 of GPU 0" || p.Remedy != "move it" {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		for _, path := range []string{"/livez", "/startupz"} { // a new process on this GPU would not help
			if w := l.do("GET", path, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), string(engine.CauseGPULost)) {
				t.Errorf("%s: %d %s", path, w.Code, w.Body)
			}
		}
		l.signal() // as whoever wires Fault does, see Monitor.Guard
		synctest.Sleep(2 * time.Second)
		w := l.do("GET", "/readyz", "")
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"draining":true`) ||
			!strings.Contains(w.Body.String(), string(engine.CauseGPULost)) {
			t.Errorf("/readyz while draining: %d %s", w.Code, w.Body)
		}
		open.want(t, http.StatusOK, events(20)+done, 20*time.Second) // the drain cuts nothing that has the time
	})
}
