package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/engine"
)

var loading = engine.Status{Phase: engine.Loading, Progress: 0.4}

func events(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "data: %d\n\n", i)
	}
	return b.String()
}

func TestHeldUntilReady(t *testing.T) {
	inBubble(t, config(), loading, tick(2), func(t *testing.T, l *live) {
		r, tok := l.post(t, "/v1/chat/completions", chat), l.post(t, "/tokenize", oneShot)
		synctest.Sleep(10 * time.Second)
		if r.over() || tok.over() {
			t.Fatal("answered before the engine was ready")
		}
		l.wantMetrics(t, "infer_requests_held 2", "infer_requests_running 0", "infer_capacity_slots 0", "infer_saturation 1")
		l.fake.Set(ready(4))
		r.want(t, 200, events(2)+done, 12*time.Second)
		r.wantHeader(t, "Server-Timing", "queue;dur=10000.0, ttft;dur=10000.0")
		tok.want(t, 200, events(2)+done, 12*time.Second)
	})
}

func TestHoldTimeout(t *testing.T) {
	inBubble(t, config(), loading, say, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/chat/completions", oneShot)
		r.want(t, 503, `{"error":{"message":"the engine is not ready; retry after the time in Retry-After; GET /readyz tells the progress, --hold how long requests wait (loading, 40 %)",`+
			`"type":"service_unavailable_error","param":null,"code":"engine_not_ready","phase":"loading"}}`, 200*time.Second)
		r.wantHeader(t, "Retry-After", "5")
		r.wantHeader(t, "Content-Type", "application/json")
		l.wantMetrics(t, `infer_rejected_total{reason="not_ready"} 1`, `infer_requests_total{code="503",model="unknown",route="/v1/chat/completions"} 1`)
	})
}

func TestEngineFailsWhileHeld(t *testing.T) {
	inBubble(t, config(), loading, say, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/chat/completions", chat)
		l.fake.Set(engine.Status{Phase: engine.Failed, Failure: &engine.Failure{Cause: engine.CauseOutOfMemoryAtStart, Message: "out of memory", Remedy: "take a smaller model"}})
		r.want(t, 503, `{"error":{"message":"the engine failed; GET /readyz tells the cause; out of memory; take a smaller model",`+
			`"type":"service_unavailable_error","param":null,"code":"engine_not_ready","phase":"failed","cause":"out_of_memory_load"}}`, 0)
		r.wantHeader(t, "Retry-After", "30")
		r.wantHeader(t, "X-Should-Retry", "false")
	})
}

func TestQueueFull(t *testing.T) {
	cfg := config()
	cfg.MaxQueue = 1
	inBubble(t, cfg, ready(1), tick(3), func(t *testing.T, l *live) {
		first, second := l.post(t, "/v1/chat/completions", chat), l.post(t, "/v1/chat/completions", chat)
		third := l.post(t, "/v1/chat/completions", chat)
		third.want(t, 429, `{"error":{"message":"the queue is full; retry after the time in Retry-After, add replicas or raise --max-queue",`+
			`"type":"rate_limit_error","param":null,"code":"queue_full"}}`, 0)
		third.wantHeader(t, "Retry-After", "1")
		third.wantHeader(t, "Retry-After-Ms", "1000")
		third.wantHeader(t, "X-Should-Retry", "")
		l.wantMetrics(t, "infer_requests_running 1", "infer_requests_waiting 1", "infer_saturation 2")
		first.want(t, 200, events(3)+done, 3*time.Second)
		second.want(t, 200, events(3)+done, 6*time.Second)
		second.wantHeader(t, "Server-Timing", "queue;dur=3000.0, ttft;dur=3000.0")
		l.wantMetrics(t, `infer_rejected_total{reason="queue_full"} 1`)
	})
}

func TestClientLeavesTheQueue(t *testing.T) {
	cfg := config()
	cfg.MaxQueue = 1
	inBubble(t, cfg, ready(1), tick(3), func(t *testing.T, l *live) {
		first, second := l.post(t, "/v1/chat/completions", chat), l.post(t, "/v1/chat/completions", chat)
		second.cancel()
		synctest.Wait()
		third := l.post(t, "/v1/chat/completions", chat) // takes the place that was freed
		first.want(t, 200, events(3)+done, 3*time.Second)
		third.want(t, 200, events(3)+done, 6*time.Second)
		l.wantMetrics(t, `infer_requests_total{code="499",model="small",route="/v1/chat/completions"} 1`, `infer_streams_cut_total{by="client"} 0`)
	})
}

func TestClientLeavesWhileRunning(t *testing.T) {
	left := make(chan time.Time, 1)
	serve := func(w http.ResponseWriter, r *http.Request) {
		tick(100)(w, r)
		left <- time.Now()
	}
	inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/chat/completions", chat)
		synctest.Sleep(2500 * time.Millisecond)
		began := time.Now()
		r.cancel()
		if took := (<-left).Sub(began); took != 0 {
			t.Errorf("the engine noticed after %v, want at once", took)
		}
		synctest.Wait()
		l.wantMetrics(t, "infer_requests_running 0")
		l.wantMetrics(t, `infer_streams_cut_total{by="client"} 1`, `infer_requests_total{code="499",model="small",route="/v1/chat/completions"} 1`,
			`infer_tokens_total{kind="completion",model="small"} 3`)
		if got := l.logs.String(); !strings.Contains(got, `"status":499`) || !strings.Contains(got, `"cut":"client"`) {
			t.Errorf("log: %s", got)
		}
	})
}

func TestDrainLetsStreamsFinish(t *testing.T) {
	inBubble(t, config(), ready(1), tick(10), func(t *testing.T, l *live) {
		running, queued := l.post(t, "/v1/chat/completions", chat), l.post(t, "/v1/chat/completions", chat)
		l.signal()
		synctest.Wait()
		refused := l.post(t, "/v1/chat/completions", chat)
		refused.want(t, 503, `{"error":{"message":"the server is draining; retry on a new connection, which reaches another replica",`+
			`"type":"service_unavailable_error","param":null,"code":"draining","phase":"ready"}}`, 0)
		refused.wantHeader(t, "Retry-After", "1")
		for path, want := range map[string]int{"/readyz": 503, "/health": 503, "/livez": 200, "/startupz": 200} {
			resp := l.get(t, path)
			if resp.StatusCode != want || !resp.Close {
				t.Errorf("GET %s = %d, close %v; want %d and to close", path, resp.StatusCode, resp.Close, want)
			}
		}
		running.want(t, 200, events(10)+done, 10*time.Second)
		queued.want(t, 200, events(10)+done, 20*time.Second)
		began := time.Now()
		if err := <-l.ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Run returned %v after the last stream", took)
		}
		l.wantMetrics(t, `infer_streams_cut_total{by="drain"} 0`, `infer_rejected_total{reason="draining"} 1`)
	})
}

const drainEvent = `data: {"error":{"message":"the server stops now; retry on a new connection, which reaches another replica; a longer --grace lets more streams finish",` +
	`"type":"service_unavailable_error","param":null,"code":"draining","phase":"ready"}}` + "\n\n" + done

func TestDrainDeadlineCutsStreams(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{"heeds": tick(100), "deaf": deaf(60)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), ready(2), serve, func(t *testing.T, l *live) {
				r := l.post(t, "/v1/chat/completions", chat)
				synctest.Sleep(500 * time.Millisecond)
				l.signal()
				synctest.Sleep(25*time.Second - 1)
				if got := r.text(); got != events(26) {
					t.Errorf("before the deadline: %q", got)
				}
				synctest.Sleep(1)
				if got, want := r.text(), events(26)+drainEvent; got != want {
					t.Errorf("at the deadline\n got %q\nwant %q", got, want)
				}
				began := time.Now()
				if err := <-l.ended; err != nil {
					t.Errorf("Run() = %v", err)
				}
				if took := time.Since(began); took > 2500*time.Millisecond {
					t.Errorf("Run returned %v after the deadline", took)
				}
				<-r.ended
				synctest.Sleep(time.Minute) // the deaf one comes to its end
				if got, want := r.text(), events(26)+drainEvent; got != want {
					t.Errorf("in the end\n got %q\nwant %q", got, want)
				}
				l.wantMetrics(t, `infer_streams_cut_total{by="drain"} 1`)
			})
		})
	}
}

// A client that does not read blocks the engine's write, and the cut's. The
// fake clock stands still while a mutex is waited for, so this one is real.
func TestDrainDoesNotWaitForAStalledClient(t *testing.T) {
	cfg := config()
	cfg.Grace = 50 * time.Millisecond
	writing := make(chan struct{})
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) {
		close(writing)
		tick(1)(w, r)
	})
	ctx, signal := context.WithCancel(t.Context())
	p, ended := newPipes(), make(chan error, 1)
	go func() { ended <- f.Run(ctx, p) }()
	conn, err := p.dial(ctx, "", "")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(chat), chat)
	<-writing
	signal()
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
		t.Errorf("read %q, %v; want a closed connection", b, err)
	}
	_ = conn.Close()
}

func TestHeldAreRefusedInADrain(t *testing.T) {
	inBubble(t, config(), loading, say, func(t *testing.T, l *live) {
		r := l.post(t, "/v1/chat/completions", chat)
		l.signal()
		<-r.ended
		if r.status != 503 || !strings.Contains(r.text(), `"code":"draining"`) || r.after != 0 {
			t.Errorf("answered %d after %v: %s", r.status, r.after, r.text())
		}
	})
}

func TestDeadline(t *testing.T) {
	const event = `{"error":{"message":"the request's deadline passed; allow more time in X-Request-Timeout or retry when the server is less busy",` +
		`"type":"timeout_error","param":null,"code":"deadline_exceeded"}}`
	t.Run("in the queue", func(t *testing.T) {
		asked := 0
		serve := func(w http.ResponseWriter, r *http.Request) { asked++; tick(5)(w, r) }
		inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
			first := l.post(t, "/v1/chat/completions", chat)
			l.post(t, "/v1/chat/completions", chat, "X-Request-Timeout", "2.5").want(t, 504, event, 2500*time.Millisecond)
			<-first.ended
			if asked != 1 {
				t.Errorf("the engine was asked %d times, want once", asked)
			}
			l.wantMetrics(t, `infer_rejected_total{reason="deadline"} 1`)
		})
	})
	t.Run("while held", func(t *testing.T) {
		inBubble(t, config(), loading, say, func(t *testing.T, l *live) {
			l.post(t, "/tokenize", oneShot, "X-Request-Timeout", "3").want(t, 504, event, 3*time.Second)
		})
	})
	t.Run("before the first byte", func(t *testing.T) {
		inBubble(t, config(), ready(1), silent, func(t *testing.T, l *live) {
			l.post(t, "/v1/chat/completions", chat, "X-Request-Timeout", "3").want(t, 504, event, 3*time.Second)
			l.wantMetrics(t, `infer_streams_cut_total{by="deadline"} 0`, `infer_rejected_total{reason="deadline"} 0`)
		})
	})
	for name, serve := range map[string]http.HandlerFunc{"in a stream": tick(100), "in a deaf stream": deaf(4)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
				r := l.post(t, "/v1/chat/completions", chat, "X-Request-Timeout", "2.5")
				synctest.Sleep(2500 * time.Millisecond)
				if got, want := r.text(), events(3)+"data: "+event+"\n\n"+done; got != want {
					t.Errorf("\n got %q\nwant %q", got, want)
				}
				<-r.ended
				if got, want := r.text(), events(3)+"data: "+event+"\n\n"+done; got != want {
					t.Errorf("in the end\n got %q\nwant %q", got, want)
				}
				l.wantMetrics(t, `infer_streams_cut_total{by="deadline"} 1`)
			})
		})
	}
	t.Run("of an answer in time", func(t *testing.T) {
		inBubble(t, config(), ready(1), tick(2), func(t *testing.T, l *live) {
			l.post(t, "/v1/chat/completions", chat, "X-Request-Timeout", "2.5").want(t, 200, events(2)+done, 2*time.Second)
		})
	})
}

// A handler may linger after its terminator; there is nothing left to cut.
func TestDeadlineAfterTheEnd(t *testing.T) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		write(w, done)
		<-r.Context().Done()
	}
	for _, name := range []string{"deadline", "client"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
				r := l.post(t, "/v1/chat/completions", chat, "X-Request-Timeout", "1")
				if name == "client" {
					r.cancel()
				}
				<-r.ended
				synctest.Wait()
				if got := r.text(); got != done {
					t.Errorf("got %q", got)
				}
				l.wantMetrics(t, `infer_streams_cut_total{by="`+name+`"} 0`, `infer_requests_total{code="200",model="small",route="/v1/chat/completions"} 1`)
			})
		})
	}
}

// The deadline of the body must not end an answer that takes longer.
func TestLongStream(t *testing.T) {
	inBubble(t, config(), ready(1), tick(90), func(t *testing.T, l *live) {
		l.post(t, "/v1/chat/completions", chat).want(t, 200, events(90)+done, 90*time.Second)
	})
}

// Who announces too much is told so before the body is read.
func TestTooLargeAtOnce(t *testing.T) {
	inBubble(t, config(), ready(1), say, func(t *testing.T, l *live) {
		conn, err := l.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n")
		b, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 413 ") {
			t.Errorf("answer: %s %v", b, err)
		}
		_ = conn.Close()
	})
}

func TestSlowBody(t *testing.T) {
	inBubble(t, config(), ready(1), say, func(t *testing.T, l *live) {
		conn, err := l.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, _ = io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n{")
		b, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < time.Minute || took > 61*time.Second {
			t.Errorf("answered after %v, want a minute", took)
		}
		if got := string(b); !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, `"code":"body_timeout"`) || !strings.Contains(got, "\r\nConnection: close\r\n") {
			t.Errorf("answer: %s", got)
		}
		_ = conn.Close()
	})
}

// Clients that come and go leave no slot taken and harm no one else's answer.
func TestChurn(t *testing.T) {
	cfg := config()
	cfg.MaxQueue = 100
	inBubble(t, cfg, ready(4), tick(3), func(t *testing.T, l *live) {
		var stay []*reply
		for i := range 60 {
			r := l.post(t, "/v1/chat/completions", chat)
			if i%3 == 0 { // some wait, some run, some are done
				time.AfterFunc(time.Duration(i*700)*time.Millisecond, r.cancel)
			} else {
				stay = append(stay, r)
			}
			synctest.Sleep(100 * time.Millisecond)
		}
		for i, r := range stay {
			<-r.ended
			if r.status != 200 || strings.ReplaceAll(r.text(), ": ping\n\n", "") != events(3)+done {
				t.Errorf("client %d: %d %q", i, r.status, r.text())
			}
		}
		synctest.Sleep(time.Minute)
		l.wantMetrics(t, "infer_requests_running 0", "infer_requests_waiting 0", "infer_saturation 0")
	})
}
