//go:build real

package dapr

import (
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/dapr/daprtest"
)

// results collects what is published as results, through a sidecar of its own.
type results struct {
	mu   sync.Mutex
	seen map[string]int // by the event that was asked
	last map[string]*pb.TopicEventRequest
}

func (r *results) count() (answered, twice int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.seen {
		if n > 1 {
			twice++
		}
	}
	return len(r.seen), twice
}

func (r *results) of(id string) *pb.TopicEventRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[id]
}

// collect subscribes to the topic of results until the test ends.
func collect(t *testing.T, d *daprtest.Sidecar) *results {
	t.Helper()
	r := &results{seen: map[string]int{}, last: map[string]*pb.TopicEventRequest{}}
	cfg := configOf(d)
	cfg.PubSub, cfg.Topic = "events", "infer.results"
	s, err := New(cfg, program(echo), prometheus.NewRegistry(), slog.New(slog.DiscardHandler)) // which works on nothing
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); s.conn.Close() })
	sub := &subscription{s: s}
	if err := sub.open(ctx); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			m, err := sub.stream.Recv()
			if err != nil {
				return
			}
			e := m.GetEventMessage()
			asked, ok := strings.CutSuffix(e.GetId(), ".result")
			if ok {
				r.mu.Lock()
				r.seen[asked]++
				r.last[asked] = e
				r.mu.Unlock()
			}
			sub.answer(e.GetId(), done)
		}
	}()
	return r
}

func publish(t *testing.T, d *daprtest.Sidecar, id string) {
	t.Helper()
	event := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"peer","type":"infer.request.v1","datacontenttype":"application/json","data":{"request":%s}}`, id, body)
	until(t, "published", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), "POST", d.HTTP+"/v1.0/publish/events/infer.requests", strings.NewReader(event))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/cloudevents+json")
		r.Header.Set("Traceparent", parent) // from here the sidecar takes it into the event
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusNoContent {
			t.Logf("publish: %d %s", answer.StatusCode, text)
			return false
		}
		return true
	})
}

// The worker over a real sidecar and a real broker: an event is answered with
// its trace; what was in flight when the sidecar is killed, or when the broker
// stands still, is answered all the same.
func TestRealWorker(t *testing.T) {
	port := daprtest.Ports(t, 1)[0]
	broker := daprtest.Redis(t, port)
	events := []daprtest.Component{{Name: "events", Type: "pubsub.redis", Metadata: "redisHost=127.0.0.1:" + port + " consumerID=infer concurrency=4 processingTimeout=3000 redeliverInterval=1000"}}
	d, peer := daprtest.Start(t, daprtest.Options{Components: events}), daprtest.Start(t, daprtest.Options{Components: events})
	got := collect(t, peer)
	var mu sync.Mutex
	keys := map[string]int{} // how often each event was asked of the engine
	headers := map[string]http.Header{}
	cfg := configOf(d)
	cfg.PubSub, cfg.Concurrency = "events", 4
	r := run(t, cfg, program(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		key := r.Header.Get("Idempotency-Key")
		keys[key]++
		headers[key] = r.Header.Clone()
		mu.Unlock()
		<-time.After(100 * time.Millisecond)
		echo(w, r)
	}))
	until(t, "subscribed", func() bool { return strings.Contains(r.Detail(), "; subscribed") })
	publish(t, peer, "first")
	until(t, "answered", func() bool { return got.of("first") != nil })
	e := got.of("first")
	var p reply
	if err := json.Unmarshal(e.GetData(), &p); err != nil || p.Status != 200 || e.GetType() != typeResult || e.GetSource() != "infer" {
		t.Errorf("%v, %v", e, err)
	}
	trace := "0af7651916cd43dd8448eb211c80319c"
	if got := e.GetExtensions().GetFields()["traceparent"].GetStringValue(); !strings.Contains(got, trace) {
		t.Errorf("traceparent of the result: %q", got)
	}
	mu.Lock()
	if got := headers[idempotencyKey("peer/first")].Get("Traceparent"); !strings.Contains(got, trace) {
		t.Errorf("traceparent of the request: %q", got)
	}
	mu.Unlock()

	const n = 60
	for i := range n {
		publish(t, peer, fmt.Sprint(i))
	}
	for round := range 3 {
		<-time.After(200*time.Millisecond + rand.N(300*time.Millisecond))
		d.Kill(syscall.SIGKILL)
		d.Restart(t)
		if round == 1 {
			_ = broker.Cmd.Process.Signal(syscall.SIGSTOP)
			<-time.After(2 * time.Second)
			_ = broker.Cmd.Process.Signal(syscall.SIGCONT)
		}
	}
	until(t, "all are answered", func() bool { a, _ := got.count(); return a == n+1 })
	_, twice := got.count()
	mu.Lock()
	again := 0
	for _, times := range keys {
		again += times - 1
	}
	mu.Unlock()
	t.Logf("accepted %d, answered %d, lost 0, answered more than once %d (same id), asked again %d (same Idempotency-Key)", n+1, n+1, twice, again)

	// Told to stop, we close the stream, and the sidecar can end.
	r.stop()
	_ = d.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.Exited:
	case <-time.After(20 * time.Second):
		t.Error("the sidecar does not end after SIGTERM")
	}
}

// No event is lost while a stream opens or closes. A sidecar delivers before it
// knows the stream, and after it has closed it, and takes such an event for done
// unless a policy has it tried again.
func TestStreamsOpenedAndClosedAmongEvents(t *testing.T) {
	port := daprtest.Ports(t, 1)[0]
	daprtest.Redis(t, port)
	d := daprtest.Start(t, daprtest.Options{Components: []daprtest.Component{{Name: "events", Type: "pubsub.redis",
		Metadata: "redisHost=127.0.0.1:" + port + " consumerID=infer concurrency=5 processingTimeout=3000 redeliverInterval=1000"}}})
	var mu sync.Mutex
	asked := map[string]bool{} // by key
	cfg := configOf(d)
	cfg.PubSub, cfg.Concurrency = "events", 5
	sent := 0
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) == sent
	}
	send := func() {
		for range 6 {
			publish(t, d, fmt.Sprint(sent))
			sent++
		}
	}
	for range 6 {
		send() // before the stream opens
		r := run(t, cfg, program(func(w http.ResponseWriter, r *http.Request) {
			<-time.After(20 * time.Millisecond)
			mu.Lock()
			asked[r.Header.Get("Idempotency-Key")] = true
			mu.Unlock()
			echo(w, r)
		}))
		daprtest.Until(t, "all that was sent is worked on", all)
		send() // before it closes
		r.stop()
	}
	r := run(t, cfg, program(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Header.Get("Idempotency-Key")] = true
		mu.Unlock()
		echo(w, r)
	}))
	daprtest.Until(t, "all that was sent is worked on", all)
	r.stop()
}
