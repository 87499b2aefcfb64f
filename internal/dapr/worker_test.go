package dapr

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/types/known/structpb"
)

func event(id, data string, extensions ...string) *pb.TopicEventRequest {
	e := &pb.TopicEventRequest{Id: id, Source: "peer", Type: "infer.request.v1", Topic: "infer.requests", PubsubName: "events", Data: []byte(data)}
	fields := map[string]any{}
	for i := 0; i+1 < len(extensions); i += 2 {
		fields[extensions[i]] = extensions[i+1]
	}
	e.Extensions, _ = structpb.NewStruct(fields)
	return e
}

const (
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	body   = `{"messages":[{"role":"user","content":"hi"}]}`
)

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"asked":` + read(r.Body) + `}`))
}

// moody answers as the request asks for.
func moody(seen chan<- *http.Request) http.HandlerFunc {
	var tries atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		text := read(r.Body)
		answer := func(status int, body string) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
		switch {
		case strings.Contains(text, "refuse"):
			answer(400, `{"error":{"message":"no","type":"invalid_request_error","param":"x","code":"invalid_value"}}`)
		case strings.Contains(text, "busy") && tries.Add(1) < 3:
			w.Header().Set("Retry-After", "0")
			answer(429, `{"error":{"message":"full"}}`)
		case strings.Contains(text, "broken"):
			answer(502, `{"error":{"message":"broke"}}`)
		case strings.Contains(text, "abort"):
			answer(200, `{"half":`)
			panic(http.ErrAbortHandler)
		case strings.Contains(text, "stream"):
			w.Header().Set("Content-Type", "text/event-stream")
			for range 3 {
				_, _ = w.Write([]byte("data: {}\n\n"))
				w.(http.Flusher).Flush()
			}
			_, _ = w.Write([]byte("data: [DONE]\n\n"))
		default:
			w.Header().Set("Content-Type", "application/json")
			answer(200, `{"asked":`+text+`}`)
		}
	}
}

// Every kind of event has its reply, and is told to be done.
func TestEvents(t *testing.T) {
	f := newFake(t)
	seen := make(chan *http.Request, 100)
	run(t, f.config(), program(moody(seen)))
	for _, tt := range []struct {
		name, data, topic, kind, says string
		extensions                    []string
		asked                         int
	}{
		{"bare body", body, "infer.results", typeResult, `"status":200,"response":{"asked":` + body + `}`, []string{"traceparent", parent}, 1},
		{"whole", `{"url":"/v1/embeddings","reply_to":"other","deadline":"2999-01-01T00:00:00Z","request":{"input":"x"}}`, "other", typeResult, `"response":{"asked":{"input":"x"}}`, nil, 1},
		{"stream", `{"stream":true}`, "infer.results", typeResult, `"status":200,"deltas":`, nil, 1},
		{"not JSON", `{"a":`, "infer.results", typeError, `"status":400,"error":{"message":"the event's data is not one JSON object`, nil, 0},
		{"no object", `[1]`, "infer.results", typeError, `invalid_json`, nil, 0},
		{"strange member", `{"request":{},"extra":1}`, "infer.results", typeError, `"param":"data"`, nil, 0},
		{"strange topic", `{"request":{},"reply_to":"secrets"}`, "infer.results", typeError, `"param":"reply_to"`, nil, 0},
		{"strange url", `{"request":{},"url":"/v1/../metrics"}`, "infer.results", typeError, `"param":"url"`, nil, 0},
		{"other url", `{"request":{},"url":"http://host/v1/x"}`, "infer.results", typeError, `"param":"url"`, nil, 0},
		{"request is text", `{"request":"x"}`, "infer.results", typeError, `"param":"request"`, nil, 0},
		{"bad deadline", `{"request":{},"deadline":"soon"}`, "infer.results", typeError, `"param":"deadline"`, nil, 0},
		{"late", `{"request":{},"deadline":"2001-01-01T00:00:00Z"}`, "infer.results", typeError, `"code":"deadline_exceeded"`, nil, 0},
		{"expired", body, "infer.results", typeError, `"code":"deadline_exceeded"`, []string{"expiration", "2001-01-01T00:00:00Z"}, 0},
		{"refused", `{"refuse":1}`, "infer.results", typeError, `"status":400,"error":{"message":"no"`, nil, 1},
		{"busy", `{"busy":1}`, "infer.results", typeResult, `{"asked":{"busy":1}}`, nil, 3},
		{"broken", `{"broken":1}`, "infer.results", typeError, `"status":502,"error":{"message":"broke"`, nil, 3},
		{"abort", `{"abort":1}`, "infer.results", typeError, `"code":"engine_broke_off"`, nil, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.deliver <- event("id-"+tt.name, tt.data, tt.extensions...)
			for range tt.asked {
				r := next(t, "the request", seen)
				if key := r.Header.Get("Idempotency-Key"); key != idempotencyKey("peer/id-"+tt.name) {
					t.Errorf("Idempotency-Key %q", key)
				}
				if r.Header.Get("Trusted") != "topic" || (len(tt.extensions) > 0 && r.Header.Get("Traceparent") != parent) {
					t.Errorf("header %v", r.Header)
				}
			}
			p := next(t, "the reply", f.published)
			sse := ""
			for p.GetMetadata()["cloudevent.type"] == typeDelta {
				var d reply
				if err := json.Unmarshal(p.GetData(), &d); err != nil {
					t.Fatal(err)
				}
				sse += d.SSE
				p = next(t, "the reply", f.published)
			}
			if tt.name == "stream" && sse != strings.Repeat("data: {}\n\n", 3)+"data: [DONE]\n\n" {
				t.Errorf("parts %q", sse)
			}
			m := p.GetMetadata()
			if p.GetTopic() != tt.topic || m["cloudevent.type"] != tt.kind || !strings.Contains(string(p.GetData()), tt.says) ||
				m["cloudevent.id"] != "id-"+tt.name+".result" || m["cloudevent.subject"] != "id-"+tt.name || p.GetDataContentType() != "application/json" {
				t.Errorf("published %v\n%s\nwant %s on %s with %s", p, p.GetData(), tt.kind, tt.topic, tt.says)
			}
			if a := next(t, "the answer", f.answers); a.id != "id-"+tt.name || a.status != done {
				t.Errorf("told %v, want SUCCESS", a)
			}
			select {
			case r := <-seen:
				t.Errorf("asked once more: %v", r.URL)
			default:
			}
		})
	}
}

// A stream that breaks is opened again, as often as it takes, also by a sidecar
// that was away for a while; what ran meanwhile comes again.
func TestSubscriptionComesBack(t *testing.T) {
	f := newFake(t)
	r := run(t, f.config(), program(echo))
	until(t, "subscribed", func() bool { n, _ := f.count(); return n == 1 })
	f.cut()
	until(t, "subscribed again", func() bool { n, open := f.count(); return n == 2 && open == 1 })
	f.server.Stop()
	until(t, "noticed", func() bool { return strings.Contains(r.Detail(), "not subscribed") })
	<-time.After(1200 * time.Millisecond) // longer than the first wait
	f.start(t, f.address)
	f.deliver <- event("1", body)
	if p := next(t, "the reply", f.published); p.GetMetadata()["cloudevent.subject"] != "1" {
		t.Errorf("published %v", p)
	}
	if !strings.Contains(r.Detail(), "; subscribed to infer.requests") {
		t.Errorf("detail %q", r.Detail())
	}
}

// The sidecar matches answers by id, so that one of two deliveries of an event
// is never answered: the stream is opened anew once nothing runs. The engine
// sees the event once.
func TestDuplicatesFreeTheirPlaces(t *testing.T) {
	f := newFake(t)
	var calls atomic.Int32
	free := make(chan struct{})
	run(t, f.config(), program(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		<-free
		echo(w, r)
	}))
	for range 5 { // more than there are places
		f.deliver <- event("1", body)
	}
	f.deliver <- event("0", body) // the place beside is free
	until(t, "both run", func() bool { return calls.Load() == 2 })
	close(free)
	told := map[answered]int{}
	for range 2 {
		told[next(t, "the answer", f.answers)]++
	}
	if told[answered{"1", done}] != 1 || told[answered{"0", done}] != 1 || calls.Load() != 2 {
		t.Errorf("told %v after %d calls, want 2", told, calls.Load())
	}
	until(t, "opened anew", func() bool { n, open := f.count(); return n == 2 && open == 1 })
	f.deliver <- event("2", body)
	if a := next(t, "the answer", f.answers); a != (answered{"2", done}) {
		t.Errorf("told %v", a)
	}
}

// An answer that crosses with another delivery of its event frees one of the
// two, like an answer to both. A repetition long after is only that.
func TestAnswersThatCross(t *testing.T) {
	for after, anew := range map[time.Duration]bool{0: true, crossing: true, 2 * crossing: true, 2*crossing + 1: false} {
		synctest.Test(t, func(t *testing.T) {
			sub := &subscription{inFlight: map[string]*flight{}, idle: make(chan struct{})}
			work := func(id string) {
				if e := event(id, body); !sub.begin(e) || !sub.end(id, true) {
					t.Errorf("%s after the answer, %s is not worked on", after, id)
				}
				sub.settle()
			}
			work("1")
			<-time.After(after)
			work("2")
			if sub.closing {
				t.Error("opened anew without a repetition")
			}
			work("1")
			if sub.closing != anew {
				t.Errorf("%s after the answer: opened anew %v", after, sub.closing)
			}
		})
	}
}

// An event that runs elsewhere is asked for again at an even pace: its answer
// may be there any moment, and the waits of an outage say nothing about it.
func TestWaitForAnotherRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		s := &Sidecar{log: slog.New(slog.DiscardHandler), program: program(func(w http.ResponseWriter, r *http.Request) {
			switch calls++; {
			case calls <= 3: // an outage
				w.WriteHeader(http.StatusServiceUnavailable)
			case calls <= 13:
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusConflict)
			default:
				echo(w, r)
			}
		})}
		began := time.Now()
		p, err := s.attempts(t.Context(), t.Context(), &request{id: "1", name: "peer/1", url: "/v1/chat/completions", body: []byte(body)})
		if took := time.Since(began); err != nil || p.Status != 200 || calls != 14 || took != (1+2+4+10)*time.Second {
			t.Errorf("%+v, %v after %d calls in %s", p, err, calls, took)
		}
	})
}

// The stream is not opened anew before the last answer is sent, even when many
// events end at the same moment as the one that was delivered twice.
func TestDuplicatesLoseNoAnswer(t *testing.T) {
	const together = 16
	f := newFake(t)
	cfg := f.config()
	cfg.Concurrency = together
	var calls atomic.Int32
	var free atomic.Pointer[chan struct{}]
	run(t, cfg, program(func(w http.ResponseWriter, r *http.Request) {
		gate := *free.Load()
		calls.Add(1)
		<-gate
		echo(w, r)
	}))
	for round := range 20 {
		gate := make(chan struct{})
		free.Store(&gate)
		calls.Store(0)
		for i := range together {
			f.deliver <- event(fmt.Sprint(round, "-", i), body)
		}
		f.deliver <- event(fmt.Sprint(round, "-0"), body)
		until(t, "all run", func() bool { return calls.Load() == together })
		close(gate)
		for range together {
			next(t, "the answer", f.answers)
		}
		until(t, "opened anew", func() bool { n, open := f.count(); return n == round+2 && open == 1 })
	}
}

// No more events are worked on at once than allowed, and the operator hears of
// a component that hands over more.
func TestConcurrency(t *testing.T) {
	f := newFake(t)
	var now atomic.Int32
	begun, free := make(chan int32, 3), make(chan struct{})
	r := run(t, f.config(), program(func(w http.ResponseWriter, r *http.Request) {
		begun <- now.Add(1)
		defer now.Add(-1)
		<-free
		echo(w, r)
	}))
	for _, id := range []string{"1", "2", "3"} {
		f.deliver <- event(id, body)
	}
	until(t, "a warning", func() bool { return strings.Contains(r.log.String(), "hands over more events") })
	most := max(next(t, "one runs", begun), next(t, "the other runs", begun))
	if len(begun) > 0 {
		t.Error("the third does not wait for a place")
	}
	close(free)
	for range 3 {
		next(t, "the answer", f.answers)
	}
	if most = max(most, next(t, "the third runs", begun)); most != 2 {
		t.Errorf("%d events at once, want 2", most)
	}
}

// Told to stop, the worker takes nothing new, ends what runs and answers it,
// leaves what waits for its turn, and closes the stream, without which the
// sidecar would not end.
func TestDrain(t *testing.T) {
	f := newFake(t)
	started, free := make(chan string, 2), make(chan struct{})
	r := run(t, f.config(), program(func(w http.ResponseWriter, r *http.Request) {
		text := read(r.Body)
		started <- text
		if strings.Contains(text, "busy") {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(503)
			return
		}
		<-free
		_, _ = w.Write([]byte("{}"))
	}))
	f.deliver <- event("runs", body)
	f.deliver <- event("waits", `{"busy":1}`)
	next(t, "one runs", started)
	next(t, "the other waits", started)
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	until(t, "the waiting event is left", func() bool { return strings.Contains(r.log.String(), "left for another delivery") })
	close(free)
	next(t, "the end", stopped)
	if a := next(t, "the answer", f.answers); a != (answered{"runs", done}) {
		t.Errorf("told %v", a)
	}
	if len(f.answers) > 0 || len(f.published) != 1 {
		t.Errorf("%d more answers, %d replies; the event that waited must come again", len(f.answers), len(f.published))
	}
	until(t, "the stream is closed", func() bool { _, open := f.count(); return open == 0 })
}

// An event that comes at the moment of the stop is left, or worked on and
// answered: one whose result is published must not come again.
func TestStopAmongEvents(t *testing.T) {
	f := newFake(t)
	var n atomic.Int32
	for range 100 {
		r := run(t, f.config(), program(echo))
		stopped := make(chan struct{})
		deliver := func() bool {
			select {
			case f.deliver <- event(fmt.Sprint(n.Add(1)), body):
				return true
			case <-stopped:
				return false
			}
		}
		deliver()
		next(t, "a reply", f.published)
		next(t, "its answer", f.answers)
		go func() { r.stop(); close(stopped) }()
		for range 20 {
			deliver()
		}
		<-stopped
		until(t, "the stream is closed", func() bool { _, open := f.count(); return open == 0 })
		if answers, published := len(f.answers), len(f.published); answers != published {
			t.Fatalf("%d events were answered, and %d results published", answers, published)
		}
		for range len(f.answers) {
			<-f.answers
			<-f.published
		}
	}
}

// Work that is not done when the time is up is cut and comes again.
func TestDrainDeadline(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Drain = 50 * time.Millisecond
	started := make(chan struct{}, 1)
	r := run(t, cfg, program(func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		<-r.Context().Done()
		w.WriteHeader(503)
	}))
	f.deliver <- event("1", body)
	next(t, "it runs", started)
	r.stop()
	if len(f.answers)+len(f.published) > 0 {
		t.Errorf("an event that was cut was answered")
	}
}

// A result waits for a broker that is away, and one that is too large becomes
// an error that says so.
func TestPublishFaults(t *testing.T) {
	f := newFake(t)
	f.refusing(errors.New("the broker is away"))
	var large atomic.Bool
	r := run(t, f.config(), program(func(w http.ResponseWriter, _ *http.Request) {
		text := "{}"
		if large.Load() {
			text = `{"text":"` + strings.Repeat("x", 5<<20) + `"}`
		}
		_, _ = w.Write([]byte(text))
	}))
	f.deliver <- event("1", body)
	until(t, "it failed", func() bool { return strings.Contains(r.log.String(), "the broker is away") })
	if len(f.answers) > 0 {
		t.Errorf("answered before the result was published")
	}
	f.refusing(nil)
	next(t, "the reply", f.published)
	next(t, "the answer", f.answers)

	large.Store(true)
	f.deliver <- event("2", body)
	if p := next(t, "the reply", f.published); p.GetMetadata()["cloudevent.type"] != typeError || !strings.Contains(string(p.GetData()), "--max-body-size") {
		t.Errorf("published %s", p.GetData())
	}
	next(t, "the answer", f.answers)
}
