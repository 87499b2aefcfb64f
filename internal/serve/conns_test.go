package serve

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// visitor is one connection that asks when it is told to.
type visitor struct {
	net.Conn
	in *bufio.Reader
}

func visit(t *testing.T, addr string) visitor {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return visitor{conn, bufio.NewReader(conn)}
}

// ask returns status, body and whether the connection ends; 0 when there is no
// answer.
func (v visitor) ask(t *testing.T, raw string) (status int, body string, ends bool) {
	t.Helper()
	_, _ = io.WriteString(v, raw) // a server that has closed is found by reading
	resp, err := http.ReadResponse(v.in, nil)
	if err != nil {
		return 0, "", true
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b), resp.Close
}

const alive = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

func TestConnectionsAreBounded(t *testing.T) {
	cfg := config()
	cfg.MaxConnections = 2
	l := &ledger{}
	f := newFixture(t, cfg, ready(1), l.ServeHTTP)
	addr := listening(t, f)
	ask := post + "Content-Length: 17\r\n\r\n" + small

	first, second := visit(t, addr), visit(t, addr)
	for _, v := range []visitor{first, second} {
		if status, _, ends := v.ask(t, ask); status != 200 || ends {
			t.Fatalf("within the bound: %d, ends %v", status, ends)
		}
	}
	third := visit(t, addr)
	const full = `{"error":{"message":"all connections are taken; retry after the time in Retry-After, add replicas or raise --max-connections",` +
		`"type":"service_unavailable_error","param":null,"code":"too_many_connections"}}`
	if status, body, ends := third.ask(t, ask); status != 503 || body != full || !ends {
		t.Errorf("over the bound: %d %s, ends %v", status, body, ends)
	}
	if status, _, ends := visit(t, addr).ask(t, alive); status != 200 || !ends {
		t.Errorf("a probe over the bound: %d, ends %v", status, ends)
	}
	if status, body, _ := visit(t, addr).ask(t, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); status != 200 || !strings.Contains(body, `infer_rejected_total{reason="connections"} 1`) {
		t.Errorf("metrics over the bound: %d", status)
	}
	if seen := l.take(); len(seen) != 2 {
		t.Errorf("the engine saw %q", seen)
	}
	// The reserve is bounded, too: what is over it is closed without an answer.
	held := make([]visitor, reserve+8)
	for i := range held {
		held[i] = visit(t, addr)
	}
	if status, _, _ := held[len(held)-1].ask(t, alive); status != 0 {
		t.Errorf("over the reserve: %d", status)
	}
	for _, v := range append(held, first) {
		_ = v.Close()
	}
	waitFor(t, "room again", func() bool {
		status, _, ends := visit(t, addr).ask(t, ask)
		return status == 200 && !ends
	})
}

// waitFor asks until it is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

func h2c() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: &p}}
}

// Connections of HTTP/2 are counted, and told to go when there are too many.
func TestConnectionsOfHTTP2AreCounted(t *testing.T) {
	cfg := config()
	cfg.MaxConnections = 1
	f := newFixture(t, cfg, ready(1), (&ledger{}).ServeHTTP)
	addr := listening(t, f)
	ask := func(c *http.Client) int {
		resp, err := c.Post("http://"+addr+"/v1/completions", "", strings.NewReader(small))
		if err != nil {
			return 0
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.ProtoMajor != 2 {
			t.Errorf("answered in %s", resp.Proto)
		}
		return resp.StatusCode
	}
	a, b := h2c(), h2c()
	defer a.CloseIdleConnections()
	defer b.CloseIdleConnections()
	if got := ask(a); got != 200 {
		t.Fatalf("first: %d", got)
	}
	if got := ask(b); got != 503 {
		t.Errorf("over the bound: %d", got)
	}
	a.CloseIdleConnections()
	waitFor(t, "room again", func() bool { b.CloseIdleConnections(); return ask(b) == 200 })
}

func TestHeadersAreBounded(t *testing.T) {
	l := &ledger{}
	addr := listening(t, newFixture(t, config(), ready(1), l.ServeHTTP))
	head := post + "Content-Length: 17\r\n"
	for _, tt := range []struct {
		name, headers string
		want          []int
	}{
		{"many", strings.Repeat("X-A: b\r\n", maxHeaderValues-10), []int{200, 200}},
		{"too many", strings.Repeat("X-A: b\r\n", maxHeaderValues+1), []int{431}},
		{"too long", "X-A: " + strings.Repeat("b", maxHeaderBytes+8<<10) + "\r\n", []int{431}},
		{"a name too long", strings.Repeat("b", maxHeaderBytes+8<<10) + ": a\r\n", []int{431}},
	} {
		if got := send(t, addr, head+tt.headers+"\r\n"+small+last); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := send(t, addr, "POST /"+strings.Repeat("a", maxHeaderBytes+8<<10)+" HTTP/1.1\r\nHost: x\r\n\r\n"); !slices.Equal(got, []int{431}) {
		t.Errorf("a path too long: %v", got)
	}
	if seen := l.take(); len(seen) != 1 {
		t.Errorf("the engine saw %d requests, want 1", len(seen))
	}
}

// drip writes text a byte a second and returns what comes back until the end.
func drip(t *testing.T, l *live, text string) (answer string, took time.Duration) {
	t.Helper()
	conn, err := l.pipes.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var got []byte
	began := time.Now()
	go func() {
		defer close(ended)
		got, _ = io.ReadAll(conn) // to the end
		took = time.Since(began)
		_ = conn.Close()
	}()
	for i := range text {
		if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
			break
		}
		select {
		case <-time.After(time.Second):
		case <-ended:
		}
	}
	<-ended
	return string(got), took
}

// A client that sends byte by byte is let go, in the headers and in the body.
func TestSlowSenders(t *testing.T) {
	l := &ledger{}
	inBubble(t, config(), ready(1), l.ServeHTTP, func(t *testing.T, live *live) {
		answer, took := drip(t, live, post+strings.Repeat("X-A: b\r\n", 99))
		if strings.HasPrefix(answer, "HTTP/1.1 2") || took < readHeaderTimeout || took > readHeaderTimeout+time.Second {
			t.Errorf("headers: %q after %v, want an end after %v", answer, took, readHeaderTimeout)
		}
		answer, took = drip(t, live, strings.Repeat("\r\n", 99))
		if took > readHeaderTimeout+time.Second {
			t.Errorf("empty lines: %q after %v", answer, took)
		}
		body := strings.Repeat(" ", 200) + small
		head := fmt.Sprintf("%sContent-Length: %d\r\n\r\n", post, len(body))
		conn, err := live.pipes.dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		answers := make(chan string, 1)
		go func() { b, _ := io.ReadAll(conn); answers <- string(b) }()
		_, _ = io.WriteString(conn, head)
		for i := range body {
			if _, err := io.WriteString(conn, body[i:i+1]); err != nil {
				break
			}
			synctest.Sleep(time.Second)
		}
		got := <-answers
		if !strings.HasPrefix(got, "HTTP/1.1 408 ") || !strings.Contains(got, `"code":"body_timeout"`) || time.Since(began) > 2*readBodyTimeout {
			t.Errorf("body: %q after %v", got, time.Since(began))
		}
		_ = conn.Close()
	})
	if seen := l.take(); len(seen) != 0 {
		t.Errorf("the engine saw %q", seen)
	}
}

func TestReadmeListsTheBoundsOfConnections(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		fmt.Sprintf("| headers | %d KiB, %d values (431) |", maxHeaderBytes>>10, maxHeaderValues),
		fmt.Sprintf("to read the answer | %.0f s, %.0f s, `--client-stall` |", readHeaderTimeout.Seconds(), readBodyTimeout.Seconds()),
		fmt.Sprintf("streams of one HTTP/2 connection | `--max-connections` 4096; %d |", maxStreams),
	} {
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/api.md has no row that ends in %s", row)
		}
	}
}
