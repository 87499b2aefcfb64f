package clients

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3/option"
)

// open begins a stream of so many tokens and returns after its first event.
// rest reads the others and returns how many there were.
func (s *server) open(ctx context.Context, tokens int64) (rest func() (int, error)) {
	s.t.Helper()
	client := s.client(0)
	stream := client.Completions.NewStreaming(ctx, count(tokens))
	if !stream.Next() {
		s.t.Fatalf("the stream did not begin: %v", stream.Err())
	}
	return func() (int, error) {
		n := 1
		for stream.Next() {
			n++
		}
		return n, stream.Err()
	}
}

// A client that leaves frees its slot, long before the answer would have ended.
func TestCancellationFreesTheSlot(t *testing.T) {
	s := ready(t, "--slots=1")
	ctx, cancel := context.WithCancel(timeout(t))
	rest := s.open(ctx, endless)
	if got := s.metric("infer_requests_running"); got != 1 {
		t.Errorf("%v requests run, want 1", got)
	}
	cancel()
	if _, err := rest(); err == nil {
		t.Error("the cancelled stream ended by itself")
	}
	began := time.Now()
	s.until("the slot to be free", func() bool { return s.metric("infer_requests_running") == 0 })
	if took := time.Since(began); took > 20*time.Second { // the answer would take minutes
		t.Errorf("the slot was free after %v", took)
	}
	if _, err := s.open(timeout(t), 4)(); err != nil {
		t.Errorf("the next stream: %v", err)
	}
	if got := s.metric(`infer_streams_cut_total{by="client"}`); got != 1 {
		t.Errorf("%v streams were cut by clients, want 1", got)
	}
}

// A full server says when to come back, and the official client does.
func TestRetryAfterIsHonoured(t *testing.T) {
	s := ready(t, "--max-concurrency=1", "--max-queue=0")
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	rest := s.open(ctx, endless)

	once := s.client(0)
	_, err := once.Completions.New(timeout(t), count(1))
	e := apiError(t, err)
	after, parseErr := strconv.Atoi(e.Response.Header.Get("Retry-After"))
	if e.StatusCode != http.StatusTooManyRequests || e.Code != "queue_full" || parseErr != nil || after < 1 || after > 60 {
		t.Fatalf("got %d %s, Retry-After %q", e.StatusCode, e.RawJSON(), e.Response.Header.Get("Retry-After"))
	}

	const refused = `infer_rejected_total{reason="queue_full"}`
	before := s.metric(refused)
	asked := time.Now()
	answered := make(chan error, 1)
	go func() {
		patient := s.client(5)
		_, err := patient.Completions.New(timeout(t), count(1), option.WithHeader("X-Request-Id", "patient"))
		answered <- err
	}()
	s.until("the first refusal", func() bool { return s.metric(refused) > before })
	cancel()
	_, _ = rest() // cancelled
	if err := <-answered; err != nil {
		t.Errorf("the client gave up: %v", err)
	}
	if took := time.Since(asked); took < time.Second {
		t.Errorf("it came back after %v, before Retry-After", took)
	}
}

// A request that is there before the model is held and then answered.
func TestRequestWaitsForTheModel(t *testing.T) {
	s := start(t, "--cache", t.TempDir()) // the model must be imported anew
	if status, body := s.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d %s at once", status, body)
	}
	answered := make(chan error, 1)
	go func() {
		client := s.client(0)
		_, err := client.Chat.Completions.New(timeout(t), ask("Hi", 4))
		answered <- err
	}()
	s.until("the request to be held", func() bool { return s.metric("infer_requests_held") == 1 })
	if got := s.metric("infer_saturation"); got < 1 {
		t.Errorf("a held request is no demand: saturation %v", got)
	}
	if err := <-answered; err != nil {
		t.Errorf("the held request: %v", err)
	}
	if status, body := s.get("/readyz"); status != http.StatusOK || !strings.Contains(body, `"phase":"ready"`) {
		t.Errorf("/readyz answers %d %s", status, body)
	}
}

// Without a hold the client is told at once, and when to try again.
func TestRequestIsRefusedWithoutHold(t *testing.T) {
	s := start(t, "--cache", t.TempDir(), "--hold=0s")
	once := s.client(0)
	_, err := once.Chat.Completions.New(timeout(t), ask("Hi", 4))
	e := apiError(t, err)
	if e.StatusCode != http.StatusServiceUnavailable || e.Code != "engine_not_ready" || e.Response.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", e.StatusCode, e.RawJSON())
	}
	patient := s.client(10)
	if _, err := patient.Chat.Completions.New(timeout(t), ask("Hi", 4)); err != nil {
		t.Errorf("the client that retries: %v", err)
	}
}

// SIGTERM: readiness goes off, new work is refused, the open stream runs to
// its own end, and the program ends well.
func TestDrain(t *testing.T) {
	s := ready(t, "--grace=100s")
	rest := s.open(timeout(t), 400) // some seconds, for all that is asked meanwhile
	s.signal(syscall.SIGTERM)
	s.until("readiness to go off", func() bool { status, _ := s.get("/readyz"); return status == http.StatusServiceUnavailable })
	if status, _ := s.get("/livez"); status != http.StatusOK {
		t.Errorf("/livez answers %d during the drain", status)
	}
	once := s.client(0)
	_, err := once.Completions.New(timeout(t), count(1))
	if e := apiError(t, err); e.StatusCode != http.StatusServiceUnavailable || e.Code != "draining" {
		t.Errorf("new work: %d %s", e.StatusCode, e.RawJSON())
	}
	if n, err := rest(); err != nil || n < 100 {
		t.Errorf("the open stream had %d events and ended with %v", n, err)
	}
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// At the end of the grace period a stream gets an error event, not silence.
func TestDrainDeadline(t *testing.T) {
	s := ready(t, "--grace=10s") // of which the last two seconds are for the end
	rest := s.open(timeout(t), endless)
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if _, err := rest(); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("the stream that was cut ended with %v", err)
	}
	if code := s.exitCode(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the drain took %v, over the grace period", took)
	}
}

func TestSecondSignal(t *testing.T) {
	s := ready(t)
	rest := s.open(timeout(t), endless)
	s.signal(syscall.SIGTERM)
	s.until("the drain", func() bool { return strings.Contains(s.log.String(), "drain begins") })
	s.signal(syscall.SIGTERM)
	if code := s.exitCode(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
	if _, err := rest(); err == nil {
		t.Error("a stream that was cut looks whole")
	}
}
