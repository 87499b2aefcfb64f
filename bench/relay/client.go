package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// client is one connection to an arm.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

func connect(ctx context.Context, address string) (*client, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReaderSize(conn, 4<<10)}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// prompt is about 2 KB, as most are.
var prompt = strings.Repeat("Why is the sky blue? ", 95)

func request(extra string) []byte {
	body := `{"model":"m","messages":[{"role":"user","content":"` + prompt + `"}]` + extra + `}`
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func paced(tokens int, gap time.Duration) []byte {
	return request(fmt.Sprintf(`,"stream":true,"user":"pace:%d:%d"`, tokens, gap.Microseconds()))
}

// ask sends a request and returns its answer.
func (c *client) ask(request []byte) (*http.Response, error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body) // the status says enough
		return nil, fmt.Errorf("%s: %.200s", resp.Status, b)
	}
	return resp, nil
}

// stream asks for tokens and counts them: a relay that loses one has no other
// numbers worth reading.
func (c *client) stream(request []byte, tokens int) (ttft time.Duration, err error) {
	began := time.Now()
	resp, err := c.ask(request)
	if err != nil {
		return 0, err
	}
	got, ended := 0, false
	lines := bufio.NewReaderSize(resp.Body, 1<<10)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == io.EOF && got == tokens && ended:
			return ttft, nil
		case err != nil:
			return 0, fmt.Errorf("stream ended after %d of %d tokens, terminator %v: %w", got, tokens, ended, err)
		case bytes.HasPrefix(line, []byte("data: [DONE]")):
			ended = true
		case bytes.Contains(line, []byte(`"choices":[{`)):
			if got++; got == 1 {
				ttft = time.Since(began)
			}
		}
	}
}

// whole asks for one answer without a stream.
func (c *client) whole(request []byte) error {
	resp, err := c.ask(request)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Contains(b, []byte(`"Hello"`)) {
		err = fmt.Errorf("answer %.100q", b)
	}
	return err
}
