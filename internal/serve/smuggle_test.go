package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is for answers that must come; nothing waits so long when all is well.
const patience = 30 * time.Second

// listening runs a fixture on a real socket and returns its address.
func listening(t testing.TB, f *fixture) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	return ln.Addr().String()
}

// ledger is an engine that writes down what reaches it.
type ledger struct {
	mu   sync.Mutex
	seen []string
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	l.mu.Lock()
	l.seen = append(l.seen, fmt.Sprintf("%s %s %s %v", r.Method, r.URL.Path, b, err))
	l.mu.Unlock()
	_, _ = io.WriteString(w, "{}")
}

func (l *ledger) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

// send writes raw bytes and returns the statuses of all answers, until the
// server ends the connection.
func send(t *testing.T, addr, raw string) []int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = io.WriteString(conn, raw) }() // the server may stop reading
	var got []int
	for in := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("the connection stays open after %v", got)
			}
			return got
		}
		got = append(got, resp.StatusCode)
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

const (
	post  = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
	small = `{"model":"small"}` // 17 bytes
	// last ends a connection that is still in order.
	last = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	// hidden is what an attacker would have the engine see as a second request.
	hidden = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n" + `{"model": "small"}`
	chunks = "11\r\n" + small + "\r\n0\r\n\r\n"
)

func line(method, target string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n" + small + last
}

// Each of these is refused, or read in the one way that the RFC has for it: the
// engine sees at most one request, with its one body.
func TestSmuggling(t *testing.T) {
	const length = "Content-Length: 17\r\n"
	const te = "Transfer-Encoding: chunked\r\n"
	l := &ledger{}
	addr := listening(t, newFixture(t, config(), ready(1), l.ServeHTTP))
	one := []string{"POST /v1/completions " + small + " <nil>"}
	for _, tt := range []struct {
		name, raw string
		want      []int
		seen      []string
	}{
		{"plain", post + length + "\r\n" + small + last, []int{200, 200}, one},
		{"chunked", post + te + "\r\n" + chunks + hidden, []int{200}, one},

		// Two lengths.
		{"CL and TE", post + length + te + "\r\n" + chunks + hidden, []int{200}, one},
		{"TE and CL", post + te + "Content-Length: 4\r\n\r\n" + chunks + hidden, []int{200}, one},
		{"CL and TE in HTTP/1.0", "POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\n" + te + length + "\r\n" + small + hidden, []int{200}, one},
		{"CL the same twice", post + length + length + "\r\n" + small + last, []int{200, 200}, one},
		{"CL the same in one line", post + "Content-Length: 17, 17\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL twice", post + length + "Content-Length: 4\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL with a sign", post + "Content-Length: +17\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL negative", post + "Content-Length: -1\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL in hex", post + "Content-Length: 0x11\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL too large for a number", post + "Content-Length: 99999999999999999999\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL empty", post + "Content-Length:\r\n\r\n" + small + hidden, []int{400}, nil},
		{"CL of 0 before another request", post + "Content-Length: 0\r\n\r\n" + line("POST", "/v1/completions"), []int{400, 200, 200}, one},
		{"GET with a body", "GET /livez HTTP/1.1\r\nHost: x\r\n" + length + "\r\n" + small + last, []int{200, 200}, nil},
		{"TE twice", post + te + te + "\r\n" + chunks + hidden, []int{501}, nil},
		{"TE of two kinds", post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks + hidden, []int{501}, nil},
		{"TE identity", post + "Transfer-Encoding: identity\r\n" + length + "\r\n" + small + hidden, []int{501}, nil},
		{"TE xchunked", post + "Transfer-Encoding: xchunked\r\n" + length + "\r\n" + small + hidden, []int{501}, nil},
		{"TE with a tab", post + "Transfer-Encoding:\tchunked\r\n\r\n" + chunks + hidden, []int{200}, one},
		{"TE with a vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"TE in HTTP/1.0", "POST /v1/completions HTTP/1.0\r\nHost: x\r\n" + te + "\r\n" + chunks + hidden, []int{400}, nil},

		// Chunks.
		{"chunk extension", post + te + "\r\n11;a=b\r\n" + small + "\r\n0;c\r\n\r\n" + hidden, []int{200}, one},
		{"chunk size of letters", post + te + "\r\nxx\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, nil},
		{"chunk size negative", post + te + "\r\n-11\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, nil},
		{"chunk size 0x11", post + te + "\r\n0x11\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, nil},
		{"chunk size over 64 bits", post + te + "\r\n10000000000000011\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, nil},
		{"chunk size too small", post + te + "\r\n10\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, nil},
		{"chunk ends in LF", post + te + "\r\n11\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, nil},
		{"trailers", post + te + "\r\n11\r\n" + small + "\r\n0\r\nContent-Length: 9\r\nX-Request-Timeout: nan\r\n\r\n" + hidden, []int{200}, one},
		{"announced trailers", post + te + "Trailer: X-A\r\n\r\n11\r\n" + small + "\r\n0\r\nX-A: b\r\n\r\n" + hidden, []int{200}, one},
		{"a trailer that must not be one", post + te + "Trailer: Content-Length\r\n\r\n" + chunks + hidden, []int{400}, nil},

		// Lines and names.
		{"bare LF", strings.ReplaceAll(post+length+"\r\n", "\r\n", "\n") + small + last, []int{200, 200}, one},
		{"bare CR in a value", post + "X-A: b\rContent-Length: 4\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"folded header", post + "X-A: b\r\n c\r\n" + length + "\r\n" + small + last, []int{200, 200}, one},
		{"folded length", post + "Content-Length:\r\n 17\r\n\r\n" + small + last, []int{200, 200}, one},
		{"NUL in a value", post + "X-A: b\x00c\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"NUL in a name", post + "X-\x00A: b\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"space before the colon", post + "Content-Length : 17\r\n\r\n" + small + hidden, []int{400}, nil},
		{"space before the name", "POST /v1/completions HTTP/1.1\r\n Host: x\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"no name", post + ": b\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"no colon", post + "X-A\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"underscore", post + "Content_Length: 4\r\n" + length + "\r\n" + small + last, []int{200, 200}, one},
		{"two hosts", post + "Host: y\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"no host", "POST /v1/completions HTTP/1.1\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},
		{"host of a path", "POST /v1/completions HTTP/1.1\r\nHost: x/v1/other\r\n" + length + "\r\n" + small + hidden, []int{400}, nil},

		// Request lines.
		{"absolute form", line("POST", "http://elsewhere/v1/completions"), []int{200, 200}, one},
		{"authority form", line("POST", "x:80"), []int{405, 200}, nil},
		{"CONNECT", line("CONNECT", "x:80"), []int{405}, nil},
		{"asterisk", line("OPTIONS", "*"), []int{404, 200}, nil},
		{"encoded slash", line("POST", "/v1%2Fcompletions"), []int{404, 200}, nil},
		{"encoded letter", line("POST", "/v1/%63ompletions"), []int{404, 200}, nil},
		{"NUL in the path", line("POST", "/v1/completions%00"), []int{404, 200}, nil},
		{"dot segments", line("POST", "/v1/models/../completions"), []int{405, 200}, nil},
		{"encoded dot segments", line("POST", "/v1/models/%2e%2e/completions"), []int{405, 200}, nil},
		{"a dot segment", line("POST", "/v1/./completions"), []int{404, 200}, nil},
		{"double slash", line("POST", "//v1/completions"), []int{404, 200}, nil},
		{"inner double slash", line("POST", "/v1//completions"), []int{404, 200}, nil},
		{"backslash", line("POST", "/v1\\completions"), []int{404, 200}, nil},
		{"slash at the end", line("POST", "/v1/completions/"), []int{404, 200}, nil},
		{"parameter", line("POST", "/v1/completions;a=b"), []int{404, 200}, nil},
		{"query", line("POST", "/v1/completions?a=%00&b;c"), []int{200, 200}, one},
		{"fragment", line("POST", "/v1/completions#a"), []int{404, 200}, nil},
		{"overlong UTF-8", line("POST", "/v1%c0%afcompletions"), []int{404, 200}, nil},
		{"raw byte in the path", line("POST", "/v1/completions\xff"), []int{404, 200}, nil},
		{"broken escape", line("POST", "/v1/%zzcompletions"), []int{400}, nil},
		{"method in lower case", line("post", "/v1/completions"), []int{405, 200}, nil},
		{"made up method", line("POST\x00", "/v1/completions"), []int{400}, nil},
		{"two spaces", line("POST ", "/v1/completions"), []int{400}, nil},
		{"space in the path", line("POST", "/v1/completions /x"), []int{400}, nil},
		{"HTTP/0.9", "POST /v1/completions\r\n\r\n" + small, []int{400}, nil},
		{"HTTP/1.0", "POST /v1/completions HTTP/1.0\r\n" + length + "\r\n" + small, []int{200}, one},
		{"HTTP/1.0 that stays", "POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\n" + length + "\r\n" + small + hidden, []int{200}, one},
		{"HTTP/1.2", "POST /v1/completions HTTP/1.2\r\nHost: x\r\n" + length + "\r\n" + small + last, []int{200, 200}, one},
		{"HTTP/2.0 without its preface", "POST /v1/completions HTTP/2.0\r\nHost: x\r\n" + length + "\r\n" + small, []int{505}, nil},

		// Waiting, upgrading, going on.
		{"Expect", post + "Expect: 100-continue\r\n" + length + "\r\n" + small + last, []int{100, 200, 200}, one},
		{"Expect of something else", post + "Expect: 200-ok\r\n" + length + "\r\n" + small + hidden, []int{417}, nil},
		{"Expect without a body", post + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n" + last, []int{400, 200}, nil},
		{"Upgrade to a web socket", post + "Connection: Upgrade\r\nUpgrade: websocket\r\n" + length + "\r\n" + small + last, []int{200, 200}, one},
		{"Upgrade to h2c", post + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + length + "\r\n" + small + last, []int{200, 200}, one},
		{"length of the connection only", post + "Connection: Content-Length\r\n" + length + "\r\n" + small + last, []int{200, 200}, one},
		{"after a refused body", post + "Content-Length: 1\r\n\r\n{" + last, []int{400, 200}, nil},
		{"after a body that is too large", post + "Content-Length: 9999999\r\n\r\n" + hidden, []int{413}, nil},
		{"after a route that is none", "POST /none HTTP/1.1\r\nHost: x\r\n" + length + "\r\n" + small + last, []int{404, 200}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := send(t, addr, tt.raw)
			if !slices.Equal(got, tt.want) {
				t.Errorf("answers %v, want %v", got, tt.want)
			}
			if seen := l.take(); !slices.Equal(seen, tt.seen) {
				t.Errorf("the engine saw %q, want %q", seen, tt.seen)
			}
		})
	}
}
