package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"infer/internal/openai"
)

// A client that closes its side of the connection, as some tools and proxies do
// once they have sent all, is taken for one that has left, and must not take
// what it gets for a whole answer.
func TestClientThatClosesItsSide(t *testing.T) {
	working := func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); string(b) == chat {
			_ = openai.NewStream(w).Send(1) // who has left reads nothing
		}
		<-r.Context().Done()
	}
	for name, request := range map[string]string{
		"whole":  partOf(oneShot, len(oneShot)),
		"cut":    partOf(oneShot, 9),
		"stream": partOf(chat, len(chat)),
	} {
		t.Run(name, func(t *testing.T) {
			addr := listening(t, newFixture(t, config(), ready(1), working))
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(conn)
			if name == "stream" {
				if _, err := r.Peek(1); err != nil {
					t.Fatal(err)
				}
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(r, nil)
			if name != "stream" {
				if err == nil {
					t.Errorf("answered %s", resp.Status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if b, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the stream ends well: %q, %v", b, err)
			}
		})
	}
}

// partOf is a request of which so many bytes of the body are there.
func partOf(body string, there int) string {
	return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:there])
}

// Over HTTP/2 a stream is not reset because its engine says nothing for longer
// than a client may leave it unread.
func TestSilentStreamOfHTTP2(t *testing.T) {
	cfg := config()
	cfg.ClientStall = 2 * time.Second
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, _ *http.Request) {
		s := openai.NewStream(w)
		_ = s.Send(1)
		<-time.After(3 * time.Second)
		_ = s.Send(2)
		_ = s.Done()
	})
	resp, err := h2c().Post("http://"+listening(t, f)+chatPath, "", strings.NewReader(chat))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(b), done) {
		t.Errorf("%s: %q, %v", resp.Proto, b, err)
	}
}
