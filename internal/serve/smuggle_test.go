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

const (
	length = "Content-Length: 17\r\n"
	te     = "Transfer-Encoding: chunked\r\n"
)

// smuggled is what a client writes, the statuses of the answers until the
// connection ends, and how often the engine is to see a request.
type smuggled struct {
	name, raw string
	want      []int
	seen      int
}

// framings are lengths, chunks and trailers.
func framings() []smuggled {
	return []smuggled{
		{"plain", post + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"chunked", post + te + "\r\n" + chunks + hidden, []int{200}, 1},

		// Two lengths.
		{"CL and TE", post + length + te + "\r\n" + chunks + hidden, []int{200}, 1},
		{"TE and CL", post + te + "Content-Length: 4\r\n\r\n" + chunks + hidden, []int{200}, 1},
		{"CL and TE in HTTP/1.0", "POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\n" + te + length + "\r\n" + small + hidden, []int{200}, 1},
		{"CL the same twice", post + length + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"CL the same in one line", post + "Content-Length: 17, 17\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL twice", post + length + "Content-Length: 4\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL with a sign", post + "Content-Length: +17\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL negative", post + "Content-Length: -1\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL in hex", post + "Content-Length: 0x11\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL too large for a number", post + "Content-Length: 99999999999999999999\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL empty", post + "Content-Length:\r\n\r\n" + small + hidden, []int{400}, 0},
		{"CL of 0 before another request", post + "Content-Length: 0\r\n\r\n" + line("POST", "/v1/completions"), []int{400, 200, 200}, 1},
		{"GET with a body", "GET /livez HTTP/1.1\r\nHost: x\r\n" + length + "\r\n" + small + last, []int{200, 200}, 0},
		{"TE twice", post + te + te + "\r\n" + chunks + hidden, []int{501}, 0},
		{"TE of two kinds", post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks + hidden, []int{501}, 0},
		{"TE identity", post + "Transfer-Encoding: identity\r\n" + length + "\r\n" + small + hidden, []int{501}, 0},
		{"TE xchunked", post + "Transfer-Encoding: xchunked\r\n" + length + "\r\n" + small + hidden, []int{501}, 0},
		{"TE with a tab", post + "Transfer-Encoding:\tchunked\r\n\r\n" + chunks + hidden, []int{200}, 1},
		{"TE with a vertical tab", post + "Transfer-Encoding: \x0bchunked\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"TE in HTTP/1.0", "POST /v1/completions HTTP/1.0\r\nHost: x\r\n" + te + "\r\n" + chunks + hidden, []int{400}, 0},

		// Chunks.
		{"chunk extension", post + te + "\r\n11;a=b\r\n" + small + "\r\n0;c\r\n\r\n" + hidden, []int{200}, 1},
		{"chunk size of letters", post + te + "\r\nxx\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, 0},
		{"chunk size negative", post + te + "\r\n-11\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, 0},
		{"chunk size 0x11", post + te + "\r\n0x11\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, 0},
		{"chunk size over 64 bits", post + te + "\r\n10000000000000011\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, 0},
		{"chunk size too small", post + te + "\r\n10\r\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, 0},
		{"chunk ends in LF", post + te + "\r\n11\n" + small + "\r\n0\r\n\r\n" + hidden, []int{400}, 0},
		{"chunk extensions for ever", post + te + "\r\n" + strings.Repeat("1;"+long(4000)+"\r\n \r\n", 40) + chunks + hidden, []int{400}, 0},
		{"trailers", post + te + "\r\n11\r\n" + small + "\r\n0\r\nContent-Length: 9\r\nX-Request-Timeout: nan\r\n\r\n" + hidden, []int{200}, 1},
		{"announced trailers", post + te + "Trailer: X-A\r\n\r\n11\r\n" + small + "\r\n0\r\nX-A: b\r\n\r\n" + hidden, []int{200}, 1},
		{"a trailer that must not be one", post + te + "Trailer: Content-Length\r\n\r\n" + chunks + hidden, []int{400}, 0},
	}
}

// lineEnds are lines, names and values.
func lineEnds() []smuggled {
	return []smuggled{
		{"bare LF", strings.ReplaceAll(post+length+"\r\n", "\r\n", "\n") + small + last, []int{200, 200}, 1},
		{"bare CR in a value", post + "X-A: b\rContent-Length: 4\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"folded header", post + "X-A: b\r\n c\r\n" + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"folded length", post + "Content-Length:\r\n 17\r\n\r\n" + small + last, []int{200, 200}, 1},
		{"NUL in a value", post + "X-A: b\x00c\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"NUL in a name", post + "X-\x00A: b\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"space before the colon", post + "Content-Length : 17\r\n\r\n" + small + hidden, []int{400}, 0},
		{"space before the name", "POST /v1/completions HTTP/1.1\r\n Host: x\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"no name", post + ": b\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"no colon", post + "X-A\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"underscore", post + "Content_Length: 4\r\n" + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"two hosts", post + "Host: y\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"no host", "POST /v1/completions HTTP/1.1\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
		{"host of a path", "POST /v1/completions HTTP/1.1\r\nHost: x/v1/other\r\n" + length + "\r\n" + small + hidden, []int{400}, 0},
	}
}

// targets are request lines.
func targets() []smuggled {
	return []smuggled{
		{"absolute form", line("POST", "http://elsewhere/v1/completions"), []int{200, 200}, 1},
		{"authority form", line("POST", "x:80"), []int{405, 200}, 0},
		{"CONNECT", line("CONNECT", "x:80"), []int{405}, 0},
		{"asterisk", line("OPTIONS", "*"), []int{404, 200}, 0},
		{"encoded slash", line("POST", "/v1%2Fcompletions"), []int{404, 200}, 0},
		{"encoded letter", line("POST", "/v1/%63ompletions"), []int{404, 200}, 0},
		{"NUL in the path", line("POST", "/v1/completions%00"), []int{404, 200}, 0},
		{"dot segments", line("POST", "/v1/models/../completions"), []int{405, 200}, 0},
		{"encoded dot segments", line("POST", "/v1/models/%2e%2e/completions"), []int{405, 200}, 0},
		{"a dot segment", line("POST", "/v1/./completions"), []int{404, 200}, 0},
		{"double slash", line("POST", "//v1/completions"), []int{404, 200}, 0},
		{"inner double slash", line("POST", "/v1//completions"), []int{404, 200}, 0},
		{"backslash", line("POST", "/v1\\completions"), []int{404, 200}, 0},
		{"slash at the end", line("POST", "/v1/completions/"), []int{404, 200}, 0},
		{"parameter", line("POST", "/v1/completions;a=b"), []int{404, 200}, 0},
		{"query", line("POST", "/v1/completions?a=%00&b;c"), []int{200, 200}, 1},
		{"fragment", line("POST", "/v1/completions#a"), []int{404, 200}, 0},
		{"overlong UTF-8", line("POST", "/v1%c0%afcompletions"), []int{404, 200}, 0},
		{"raw byte in the path", line("POST", "/v1/completions\xff"), []int{404, 200}, 0},
		{"broken escape", line("POST", "/v1/%zzcompletions"), []int{400}, 0},
		{"method in lower case", line("post", "/v1/completions"), []int{405, 200}, 0},
		{"made up method", line("POST\x00", "/v1/completions"), []int{400}, 0},
		{"two spaces", line("POST ", "/v1/completions"), []int{400}, 0},
		{"space in the path", line("POST", "/v1/completions /x"), []int{400}, 0},
		{"HTTP/0.9", "POST /v1/completions\r\n\r\n" + small, []int{400}, 0},
		{"HTTP/1.0", "POST /v1/completions HTTP/1.0\r\n" + length + "\r\n" + small, []int{200}, 1},
		{"HTTP/1.0 that stays", "POST /v1/completions HTTP/1.0\r\nConnection: keep-alive\r\n" + length + "\r\n" + small + hidden, []int{200}, 1},
		{"HTTP/1.2", "POST /v1/completions HTTP/1.2\r\nHost: x\r\n" + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"HTTP/2.0 without its preface", "POST /v1/completions HTTP/2.0\r\nHost: x\r\n" + length + "\r\n" + small, []int{505}, 0},
	}
}

// turns are waits, upgrades, and what comes behind a refusal.
func turns() []smuggled {
	return []smuggled{
		{"Expect", post + "Expect: 100-continue\r\n" + length + "\r\n" + small + last, []int{100, 200, 200}, 1},
		{"Expect of something else", post + "Expect: 200-ok\r\n" + length + "\r\n" + small + hidden, []int{417}, 0},
		{"Expect without a body", post + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n" + last, []int{400, 200}, 0},
		{"Upgrade to a web socket", post + "Connection: Upgrade\r\nUpgrade: websocket\r\n" + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"Upgrade to h2c", post + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"length of the connection only", post + "Connection: Content-Length\r\n" + length + "\r\n" + small + last, []int{200, 200}, 1},
		{"after a refused body", post + "Content-Length: 1\r\n\r\n{" + last, []int{400, 200}, 0},
		{"after a body that is too large", post + "Content-Length: 9999999\r\n\r\n" + hidden, []int{413}, 0},
		{"after a route that is none", "POST /none HTTP/1.1\r\nHost: x\r\n" + length + "\r\n" + small + last, []int{404, 200}, 0},
	}
}

// Each of these is refused, or read in the one way that the RFC has for it: the
// engine sees at most one request, with its one body.
func TestSmuggling(t *testing.T) {
	l := &ledger{}
	addr := listening(t, newFixture(t, config(), ready(1), l.ServeHTTP))
	for _, tt := range slices.Concat(framings(), lineEnds(), targets(), turns()) {
		t.Run(tt.name, func(t *testing.T) {
			got := send(t, addr, tt.raw)
			if !slices.Equal(got, tt.want) {
				t.Errorf("answers %v, want %v", got, tt.want)
			}
			want := slices.Repeat([]string{"POST /v1/completions " + small + " <nil>"}, tt.seen)
			if seen := l.take(); !slices.Equal(seen, want) {
				t.Errorf("the engine saw %q, want %q", seen, want)
			}
		})
	}
}
