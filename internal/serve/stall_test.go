package serve

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/openai"
)

// A client that stops reading is cut after --client-stall, and its slot freed.
// One that reads slowly is not, and one that is told nothing is not slow.
func TestClientThatDoesNotRead(t *testing.T) {
	for _, path := range []string{"/v1/chat/completions", "/v1/messages"} {
		t.Run(path, func(t *testing.T) {
			var left chan time.Time // of the bubble
			serve := func(w http.ResponseWriter, r *http.Request) {
				chatTick(1000)(w, r)
				left <- time.Now()
			}
			inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
				left = make(chan time.Time, 1)
				conn, err := l.pipes.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(helloLive), helloLive)
				buf := make([]byte, 16<<10)
				for range 10 { // slowly: a token waits for half a minute
					synctest.Sleep(30 * time.Second)
					if _, err := conn.Read(buf); err != nil {
						t.Fatalf("a slow reader was cut: %v", err)
					}
				}
				l.wantMetrics(t, "infer_requests_running 1")
				began := time.Now()
				if took := (<-left).Sub(began); took < 59*time.Second || took > 62*time.Second { // a token may be on its way
					t.Errorf("cut after %v, want a minute", took)
				}
				synctest.Wait()
				l.wantMetrics(t, "infer_requests_running 0", `infer_streams_cut_total{by="client"} 1`, `infer_streams_cut_total{by="engine"} 0`)
				if got := l.logs.String(); !strings.Contains(got, `"status":499`) || !strings.Contains(got, `"cut":"client"`) {
					t.Errorf("log: %s", got)
				}
				_ = conn.Close()
			})
		})
	}
}

// A whole answer holds a slot, too.
func TestClientThatDoesNotReadAWholeAnswer(t *testing.T) {
	serve := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }
	inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
		conn, err := l.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(oneShot), oneShot)
		synctest.Sleep(time.Minute - 1)
		l.wantMetrics(t, "infer_requests_running 1")
		synctest.Sleep(2)
		l.wantMetrics(t, "infer_requests_running 0", `infer_streams_cut_total{by="client"} 0`)
		_ = conn.Close()
	})
}

// The time to read begins with what there is to read: an answer that comes
// late, on a connection that was used before, is read in peace.
func TestStallCountsFromTheLastByte(t *testing.T) {
	serve := func(w http.ResponseWriter, _ *http.Request) {
		s := openai.NewStream(w)
		_ = s.Send(1)
		_ = s.Done()
		<-time.After(3 * time.Minute) // the end of the answer leaves after it
	}
	inBubble(t, config(), ready(1), serve, func(t *testing.T, l *live) {
		for range 3 {
			l.post(t, "/v1/chat/completions", chat).want(t, 200, "data: 1\n\n"+done, 3*time.Minute)
			if resp := l.get(t, "/livez"); resp.StatusCode != 200 {
				t.Errorf("GET /livez = %d", resp.StatusCode)
			}
			synctest.Sleep(90 * time.Second)
		}
	})
}

// Real sockets: the kernel's buffers fill first.
func TestClientThatDoesNotReadOverTCP(t *testing.T) {
	cfg := config()
	cfg.ClientStall = 300 * time.Millisecond
	left := make(chan error, 1)
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) {
		s := openai.NewStream(w)
		var err error
		for err == nil {
			err = s.Send(strings.Repeat("x", 64<<10))
		}
		left <- r.Context().Err()
	})
	srv := httptest.NewServer(f.Handler())
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 31\r\n\r\n"+chat)
	select {
	case err := <-left:
		if err == nil {
			t.Error("the engine's context was not ended")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not cut")
	}
}

// The bodies of those who wait have a bound together, beyond which it is the
// next that is refused.
func TestQueueBytes(t *testing.T) {
	cfg := config()
	cfg.MaxQueueBytes, cfg.MaxMediaBodyBytes = cfg.MaxBodyBytes, cfg.MaxBodyBytes
	body := strings.Replace(chat, "{", "{"+strings.Repeat(" ", 700<<10), 1)
	inBubble(t, cfg, ready(1), tick(3), func(t *testing.T, l *live) {
		first, second := l.post(t, "/v1/chat/completions", body), l.post(t, "/v1/chat/completions", body)
		third := l.post(t, "/v1/chat/completions", body)
		third.want(t, 429, `{"error":{"message":"the bodies in the queue are over their bound; retry after the time in Retry-After, send smaller requests, add replicas or raise --max-queue-bytes",`+
			`"type":"rate_limit_error","param":null,"code":"queue_full"}}`, 0)
		third.wantHeader(t, "Retry-After", "3") // a second for each of two places and one more
		small := l.post(t, "/v1/chat/completions", chat)
		first.want(t, 200, events(3)+done, 3*time.Second)
		fourth := l.post(t, "/v1/chat/completions", body) // the second runs now
		second.want(t, 200, events(3)+done, 6*time.Second)
		small.want(t, 200, events(3)+done, 9*time.Second)
		fourth.want(t, 200, events(3)+done, 9*time.Second)
		l.wantMetrics(t, `infer_rejected_total{reason="queue_bytes"} 1`, `infer_rejected_total{reason="queue_full"} 0`)
	})
}

// An idle server that drains stays open for a moment, so that who has not yet
// noticed gets a 503 and no refused connection; not for longer than that.
func TestIdleServerLingers(t *testing.T) {
	for grace, want := range map[time.Duration]time.Duration{30 * time.Second: time.Second, 3 * time.Second: 100 * time.Millisecond, time.Hour: time.Second} {
		cfg := config()
		cfg.Grace = grace
		inBubble(t, cfg, ready(1), say, func(t *testing.T, l *live) {
			began := time.Now()
			l.signal()
			synctest.Sleep(want - 1)
			r := l.post(t, "/v1/chat/completions", chat)
			<-r.ended
			if r.status != 503 || !strings.Contains(r.text(), `"code":"draining"`) {
				t.Errorf("answered %d: %s %v", r.status, r.text(), r.err)
			}
			if err := <-l.ended; err != nil {
				t.Errorf("Run() = %v", err)
			}
			if took := time.Since(began); took < want || took > want+time.Second { // Shutdown polls
				t.Errorf("grace %v: ended after %v, want %v", grace, took, want)
			}
		})
	}
}
