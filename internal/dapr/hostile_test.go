package dapr

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A panic ends its event, and not the process.
func TestPanicOfTheHandler(t *testing.T) {
	f := newFake(t)
	r := run(t, f.config(), program(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(read(r.Body), "panic") {
			panic("a bug")
		}
		_, _ = w.Write([]byte("{}"))
	}))
	f.deliver <- event("1", `{"panic":1}`)
	if p := next(t, "the reply", f.published); p.GetMetadata()["cloudevent.type"] != typeError || !strings.Contains(string(p.GetData()), "engine_broke_off") {
		t.Errorf("published %s", p.GetData())
	}
	if a := next(t, "the answer", f.answers); a != (answered{"1", done}) {
		t.Errorf("told %v", a)
	}
	f.deliver <- event("2", body)
	if a := next(t, "the answer", f.answers); a != (answered{"2", done}) {
		t.Errorf("told %v", a)
	}
	if !strings.Contains(r.log.String(), `panic="a bug"`) || !strings.Contains(r.log.String(), "hostile_test.go") {
		t.Errorf("the log does not say where:\n%s", r.log)
	}
}

// The time for the drain counts from the stop also where the stream broke
// before it, as it does when the sidecar is told to stop with the program.
func TestDrainAfterABreak(t *testing.T) {
	f := newFake(t)
	cfg := f.config()
	cfg.Drain = 0
	started, cut := make(chan struct{}), make(chan struct{})
	r := run(t, cfg, program(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(cut)
	}))
	f.deliver <- event("1", body)
	next(t, "it runs", started)
	f.cut()
	until(t, "the sidecar's stream is gone", func() bool { _, open := f.count(); return open == 0 })
	r.stop()
	next(t, "the work is cut", cut)
}

// Events of two sources may have one id, and the sidecar takes one answer: it
// comes when both are done, and not at all when one must come again.
func TestOneIDOfTwoSources(t *testing.T) {
	f := newFake(t)
	free := map[string]chan struct{}{"first": make(chan struct{}), "second": make(chan struct{})}
	started := make(chan string, 2)
	r := run(t, f.config(), program(func(w http.ResponseWriter, r *http.Request) {
		who := "second"
		if strings.Contains(read(r.Body), "first") {
			who = "first"
		}
		started <- who
		<-free[who]
		_, _ = w.Write([]byte("{}"))
	}))
	for who := range free {
		e := event("1", `{"from":"`+who+`"}`)
		e.Source = who
		f.deliver <- e
	}
	next(t, "one runs", started)
	next(t, "the other runs", started)
	close(free["first"])
	next(t, "the reply", f.published)
	if len(f.answers) > 0 {
		t.Error("answered while one still runs")
	}
	close(free["second"])
	next(t, "the reply", f.published)
	if a := next(t, "the answer", f.answers); a != (answered{"1", done}) {
		t.Errorf("told %v", a)
	}
	r.stop()
	if len(f.answers) > 0 {
		t.Error("answered twice")
	}
}

// A part of a stream that the broker does not take is no fault of the engine:
// the event waits until the broker is back, however often that takes.
func TestBrokerIsAwayDuringAStream(t *testing.T) {
	f := newFake(t)
	f.refusing(errors.New("the broker is away"))
	var calls atomic.Int32
	run(t, f.config(), program(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == maxBreaks+1 {
			f.refusing(nil)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: {}\n\n"))
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	f.deliver <- event("1", body)
	if p := next(t, "a part", f.published); p.GetMetadata()["cloudevent.type"] != typeDelta {
		t.Errorf("published %s", p.GetData())
	}
	if p := next(t, "the reply", f.published); p.GetMetadata()["cloudevent.type"] != typeResult {
		t.Errorf("published %s", p.GetData())
	}
}

// Replies that come as requests, because topics lead in a circle, are not
// answered: the answer would come back, too.
func TestNoCircle(t *testing.T) {
	f := newFake(t)
	r := run(t, f.config(), program(echo))
	for _, kind := range []string{typeResult, typeError, typeDelta} {
		e := event("of-"+kind, body)
		e.Type = kind
		f.deliver <- e
		if a := next(t, "the answer", f.answers); a != (answered{"of-" + kind, done}) {
			t.Errorf("told %v", a)
		}
	}
	if len(f.published) > 0 {
		t.Errorf("%d replies to replies", len(f.published))
	}
	if n := testutil.ToFloat64(r.metrics.events.WithLabelValues("refused")); n != 3 {
		t.Errorf("%g refused", n)
	}
	cfg := f.config()
	cfg.ReplyTopics = append(cfg.ReplyTopics, cfg.Topic)
	if err := cfg.Faults(); err == nil || !strings.Contains(fmt.Sprint(err), "would come back") {
		t.Errorf("topics in a circle: %v", err)
	}
}
